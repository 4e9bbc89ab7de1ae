"""The rules that `tympan acl` prints follow from the keys and scripts that there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from broker import Durability
from broker._keys import CATALOGUE, KeyFact
from broker._scripts import SCRIPTS, Script
from tests import lua_source
from workers import acl
from workers.acl import DUTIES, READING, Reach, Role, Wish, reach_of, rules, runnable

BROKER = Path(__file__).parents[2] / "broker"
BESIDE = {
    *("ASKING", "CLUSTER|SLOTS"),  # in a Cluster
    *("WAIT", "WAITAOF", "CONFIG|GET"),  # for a durability
    *("SENTINEL|GET-MASTER-ADDR-BY-NAME", "SENTINEL|MASTER"),  # of Sentinels, which have users too
}
"""Plain commands that are no duty of a role."""
CONNECTION = {"SELECT", "CLIENT|SETNAME"}
"""What redis-py sends for us."""
UNSEEN = (
    "{s}:counts", "{s}:opened", "{s}:idle:<pool>", "{s}:to:<session>", "{s}:letter:<id>",
)  # fmt: skip
"""Keys of which no list tells."""
WORD = re.compile(r"[A-Z]+")

every_role = pytest.mark.parametrize("role", Role)
every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


def patterns(made: list[str], *signs: str) -> list[str]:
    """The patterns of these signs, as Python matches them."""
    found = [rule.removeprefix(sign) for rule in made for sign in signs if rule.startswith(sign)]
    return [pattern.replace("[^", "[!") for pattern in found]


def reach(*roles: Role, **options: object) -> Reach:
    return reach_of(Wish(roles=roles, servers=("print01",), **options))  # type: ignore[arg-type]


# Complete ---------------------------------------------------------------------------------------


def test_every_script_is_somebodys_duty() -> None:
    named = {name for duties in DUTIES.values() for duty in duties for name in duty.scripts}
    assert named == {script.name for script in SCRIPTS}


@pytest.mark.parametrize("fact", CATALOGUE, ids=lambda fact: fact.pattern)
def test_every_key_is_in_somebodys_reach(fact: KeyFact) -> None:
    """A kind of key that is new has to be given to somebody, or nobody could use it."""
    parts = {"<namespace>": "tympan", "{s}": "tympan:{print01}", "<pool>": "~desk.0"}
    key = fact.pattern
    for part, value in parts.items():
        key = key.replace(part, value)
    key = re.sub(r"<\w+>", "x", key)
    held = [role for role in Role if _covers(role, key, "~")]
    assert held, f"no role is given {key}"
    assert Role.OBSERVER not in held
    assert _covers(Role.OBSERVER, key, "%R~") != (fact.pattern in UNSEEN), "what looks see of it"


def _covers(role: Role, key: str, *signs: str) -> bool:
    made = rules(Wish(roles=[role], servers=("print01",)))
    return any(fnmatchcase(key, pattern) for pattern in patterns(made, *signs))


def test_every_plain_command_is_somebodys_duty() -> None:
    """What the broker asks of Redis beside its scripts, and nothing else."""
    asked = {ask.split()[0] for duties in DUTIES.values() for duty in duties for ask in duty.asks}
    found = set[str]()
    for file in BROKER.glob("*.py"):
        found |= set(_commands(ast.parse(file.read_text(encoding="utf-8"))))
    expected = asked - set(acl.EXAMINED) - CONNECTION - {"UNSUBSCRIBE", "SUBSCRIBE", "PUBLISH"}
    assert found - BESIDE - {"PUBLISH"} == expected


def _commands(tree: ast.AST) -> Iterator[str]:
    """The words of calls and tuples that begin as a Redis command does, where Redis is asked."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="command" | "_command" | "_ask"), args=args):
                yield from _command(args)
            case ast.Call(func=ast.Name(id="command"), args=args):
                yield from _command(args)
            case ast.Call(func=ast.Name(id="ask"), args=[_, *args]):
                yield from _command(args)
            case ast.Tuple(elts=args) | ast.List(elts=args):
                known = {"ASKING", "EVALSHA", "SCRIPT", "WAIT", "WAITAOF", "PING"}
                if args and isinstance(args[0], ast.Constant) and args[0].value in known:
                    yield from _command(args)


def _command(args: list[ast.expr]) -> Iterator[str]:
    words = [str(arg.value) if isinstance(arg, ast.Constant) else "" for arg in args[:2]]
    if not words or not WORD.fullmatch(words[0]):
        return
    is_container = words[0] in acl._CONTAINERS | {"SENTINEL"}
    yield f"{words[0]}|{words[1]}" if is_container else words[0]


@every_script
def test_all_commands_of_a_script_are_found(script: Script) -> None:
    """Every call, whatever stands around it: read by tokens, not by a pattern."""
    found = set[str]()
    for call in lua_source.calls(lua_source.tokens(script.source)):
        if call.function in ("redis.call", "redis.pcall"):
            words = [part[0].literal for part in call.arguments[:2] if len(part) == 1]
            name = words[0] if words and words[0] else "PUBLISH"
            found.add(f"{name}|{words[1]}" if name in acl._CONTAINERS else name)
    assert acl.inner(script) == found


# Sound ------------------------------------------------------------------------------------------


@every_role
@pytest.mark.parametrize("options", [{}, {"all_users": True}, {"before_7": True}], ids=str)
def test_what_may_begin_may_go_on(role: Role, options: dict[str, bool]) -> None:
    """No script is refused halfway: who has its keys has its commands."""
    has = reach(role, **options)
    for script in runnable(has.whole) if role is not Role.OBSERVER else ():
        assert acl.inner(script) <= has.commands, script.name


@every_role
def test_a_role_may_run_what_its_duties_say(role: Role) -> None:
    may = {script.name for script in runnable(reach(role).whole)}
    assert {name for duty in DUTIES[role] for name in duty.scripts} <= may


MAY_NOT = {
    Role.SOURCE: {
        *("register", "unregister", "create_pool", "delete_pool", "join", "fetch", "disown"),
        *("dead_letter", "replay", "grant", "delete_printer", "server_close"),
    },
    Role.LISTENER: {
        *("open", "uni_send", "create_pool", "delete_pool", "join", "fetch", "dead_letter"),
        *("replay", "grant", "delete_printer", "server_close"),
    },
    Role.WORKER: {"open", "register", "unregister", "grant", "delete_printer", "server_close"},
    Role.REAPER: {"open", "dead_letter", "replay", "grant", "delete_printer", "server_close"},
    Role.OPERATOR: {"open"},
    Role.OBSERVER: {script.name for script in SCRIPTS},
}


@every_role
def test_a_role_may_not_begin_the_work_of_others(role: Role) -> None:
    assert not MAY_NOT[role] & {script.name for script in runnable(reach(role).whole)}


def test_all_users_need_the_grants_and_so_what_grants_allow() -> None:
    with_grants = reach(Role.LISTENER, all_users=True)
    may = {script.name for script in runnable(with_grants.whole)}
    assert {"grant", "delete_printer"} <= may, "as the help says"
    assert "grants" not in reach(Role.LISTENER).whole


def test_only_an_operator_changes_the_directory() -> None:
    for role in Role:
        made = rules(Wish(roles=[role]))
        assert ("~tympan:servers" in made) == (role is Role.OPERATOR)
        claims = "(%W~tympan:servers +hsetnx)" in made
        assert claims == (role not in (Role.OPERATOR, Role.OBSERVER))
        assert not any("hsetnx)" in rule for rule in rules(Wish(roles=[role], claims=False)))


# What is written --------------------------------------------------------------------------------


def test_roles_add_up() -> None:
    both = reach(Role.SOURCE, Role.LISTENER)
    for one in (reach(Role.SOURCE), reach(Role.LISTENER)):
        assert one.whole <= both.whole
        assert one.commands <= both.commands


def test_several_print_servers() -> None:
    made = rules(Wish(roles=[Role.SOURCE], servers=("print01", "print02")))
    for server in ("print01", "print02"):
        assert f"~tympan:{{{server}}}:meta" in made
        assert f"&tympan:{{{server}}}:to:*" in made
    assert not any("{*}" in rule for rule in made)


def test_a_name_is_no_pattern() -> None:
    """Whatever a server may be called, it stands for itself."""
    made = rules(Wish(roles=[Role.OBSERVER], servers=("a*[b]?",)))
    assert r"%R~tympan:{a\*\[b\]\?}:meta" in made


def test_a_namespace_of_its_own() -> None:
    made = rules(Wish(roles=list(Role), namespace="other"))
    assert not any("tympan" in rule for rule in made)


def test_every_rule_stands_alone() -> None:
    """No pattern is written twice, or beside one that covers it."""
    for role in Role:
        made = rules(Wish(roles=[role]))
        assert len(made) == len(set(made))
        for sign in ("~", "%R~", "%W~"):
            listed = patterns(made, sign)
            for one in listed:
                plain = one.replace("[!~]", "s")
                assert not any(other != one and fnmatchcase(plain, other) for other in listed)


def test_before_redis_7_nothing_is_said_that_it_does_not_know() -> None:
    for role in Role:
        made = rules(Wish(roles=[role], before_7=True))
        assert not any(rule.startswith(("%", "(")) or rule == "clearselectors" for rule in made)
        assert "~tympan:servers" in made


def test_what_looks_only_writes_nothing() -> None:
    has = reach(Role.OBSERVER)
    assert not has.whole
    assert not has.writes
    keyless = {ask for duty in DUTIES[Role.OBSERVER] for ask in duty.asks if " " not in ask}
    assert has.commands <= READING | keyless
    assert not {"EVAL", "EVALSHA", "SUBSCRIBE", "PUBLISH"} & has.commands
    assert not [rule for rule in rules(Wish(roles=[Role.OBSERVER])) if rule.startswith("&")]


@pytest.mark.parametrize(
    ("durability", "more"),
    [
        (Durability.MEMORY, set()),
        (Durability.REPLICA, {"WAIT"}),
        (Durability.FSYNC, {"CONFIG|GET", "WAITAOF"}),
    ],
)
def test_what_a_durability_is_asked_by(durability: Durability, more: set[str]) -> None:
    plain = reach(Role.SOURCE).commands
    assert reach(Role.SOURCE, durability=durability).commands - plain == more


def test_a_cluster_is_asked_for_its_slots_and_rings_in_shards() -> None:
    plain = reach(Role.SOURCE).commands
    more = {"ASKING", "CLUSTER|SLOTS", "SSUBSCRIBE", "SUNSUBSCRIBE", "SPUBLISH"}
    assert reach(Role.SOURCE, cluster=True).commands - plain == more
    plain = reach(Role.OBSERVER).commands
    assert reach(Role.OBSERVER, cluster=True).commands - plain == {"ASKING", "CLUSTER|SLOTS"}
