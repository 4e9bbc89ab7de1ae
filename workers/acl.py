"""ACL: what each role of a farm may do in Redis, and the one rule that says so. No I/O.

Nothing here is a list of what Redis should allow. What a role runs is said by the names of scripts
and by the plain commands beside them; keys come from :mod:`broker._keys`, commands from the scripts
themselves. Redis checks all keys of a script before its first line, and then each command in it. So
a role is given every command of every script whose keys it has: what it may not run is refused
whole, and what it may run is never refused halfway.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple
from uuid import UUID

from broker import BIDIRECTIONAL, Durability
from broker._keys import POOL, Audience, Keys, directory
from broker._scripts import SCRIPTS, Script

DIRECTORY = "servers"
"""The one kind of key that is no server's."""
GRANTS = "grants"
MAY_DO_WITHOUT = {GRANTS: frozenset({"open", "register", "create_pool"})}
"""Keys that these scripts are given only where a right is asked for, and otherwise another."""
_INNER = re.compile(r"redis\.p?call\('(?P<command>[A-Z]+)'(?:, '(?P<word>[A-Z]+)')?")
_CONTAINERS = frozenset({"CLIENT", "CLUSTER", "CONFIG", "SCRIPT", "XGROUP", "XINFO"})
"""Commands whose first word says what they do."""
_BELL = re.compile(r"redis\.pcall\(bell\b")
_SPECIAL = re.compile(r"([*?\[\]\\])")

READING = frozenset({
    "EXISTS", "GETRANGE", "HGET", "HGETALL", "HLEN", "HMGET", "HSCAN", "SCARD", "SISMEMBER",
    "SMEMBERS", "SSCAN", "STRLEN", "XINFO|CONSUMERS", "XINFO|GROUPS", "XINFO|STREAM", "XLEN",
    "XPENDING", "XRANGE", "XREVRANGE", "ZCARD", "ZMSCORE", "ZRANGE", "ZRANGEBYSCORE",
})  # fmt: skip
"""Commands that change nothing; all others are taken to write what they are given."""


class Task(StrEnum):
    """What a credential is for."""

    SOURCE = "open channels"
    LISTENER = "listen and answer"
    ALL_USERS = "listen for all users"
    POOL = "serve pools"
    ADMINISTRATOR = "grant rights"
    RING = "ring bells"
    """Without it everything arrives, but late."""


SESSION = ("hello", "renew", "sweep", "bury", "confirm")
RUNS: Mapping[Task, tuple[str, ...]] = {
    Task.SOURCE: (
        *SESSION,
        "open",
        "uni_send",
        "offer",
        "offer_again",
        "follow_up",
        "source_close",
    ),
    Task.LISTENER: (*SESSION, "register", "unregister", "take", "respond", "listener_close"),
    Task.POOL: (
        *SESSION,
        "create_pool",
        "delete_pool",
        "join",
        "fetch",
        "finish",
        "hand_back",
        "disown",
        "orphan",
        "adopt",
        "respond",
        "listener_close",
        "dead_letter",
        "replay",
        "drop",
    ),
    Task.ADMINISTRATOR: ("grant", "server_close", "delete_printer"),
}
"""Which scripts a task runs; only an administrator's are always given the grants."""


class Role(StrEnum):
    """Whose credential it is."""

    SOURCE = "source"
    LISTENER = "listener"
    WORKER = "worker"
    REAPER = "reaper"
    OPERATOR = "operator"
    OBSERVER = "observer"


class Duty(NamedTuple):
    """What a role does: scripts, and plain commands with the kind of key that each is given."""

    what: str
    scripts: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()


RUN_DOWN = ("source_close", "listener_close", "unregister", "disown", "orphan")
"""Scripts that end what the dead held. Sources and workers run those of them that they may."""
CONNECTION = ("INFO", "PING", "SELECT", "CLIENT|SETNAME")
"""What a connection sends before and beside everything else."""
EXAMINED = ("EVAL", "ACL|WHOAMI", "PUBSUB|NUMSUB")
"""What `tympan doctor` asks to say what a credential may; none of it tells of other keys."""
BEGIN = Duty(
    "begin a session",
    ("hello", "renew", "sweep", "bury"),
    (
        *(*CONNECTION, *EXAMINED),
        *("EVALSHA", "SCRIPT|LOAD", "SUBSCRIBE", "UNSUBSCRIBE"),
        *("HMGET servers", "HGETALL servers"),
        *("HGET streams", "XRANGE inbox", "HMGET channel"),
        *("HGET pools", "HGETALL pools", "SSCAN held"),
        *("EXISTS channel", "EXISTS held", "EXISTS inbox", "ZADD leases"),
    ),
)
BODIES = ("SET body", "GETRANGE body", "STRLEN body", "UNLINK body")
POOLS = (
    *("HSCAN pools", "HGET streams", "ZRANGEBYSCORE leases", "SISMEMBER held", "SMEMBERS held"),
    *("SCARD waiting", "ZCARD returned", "XLEN stream", "XRANGE stream", "XPENDING stream"),
    *("XINFO|GROUPS stream", "XINFO|CONSUMERS stream"),
)
"""What a look at pools asks."""
LOOK = Duty(
    "look",
    asks=(
        *(*CONNECTION, *POOLS, "TIME", "HMGET servers", "HGETALL servers"),
        *("ZCARD leases", "HGET meta", "HGETALL pools", "SMEMBERS waiting", "ZCARD room"),
        *(f"HLEN {key}" for key in ("channels", "pools", "registrations")),
        *(f"HSCAN {key}" for key in ("channels", "registrations", "grants")),
        *("HGETALL channel", "XRANGE log", "GETRANGE body", "STRLEN body"),
        *("XLEN dead", "XRANGE dead", "XREVRANGE dead"),
    ),
)
DUTIES: Mapping[Role, tuple[Duty, ...]] = {
    Role.SOURCE: (
        BEGIN,
        Duty("open channels, tell and ask", RUNS[Task.SOURCE], (*BODIES, "ZMSCORE leases")),
    ),
    Role.LISTENER: (
        BEGIN,
        Duty(
            "listen and answer",
            (*RUNS[Task.LISTENER], "source_close"),
            (
                *(*BODIES, "HGET registrations", "XREVRANGE inbox", "PEXPIRE body"),
                *("XRANGE stream", "XINFO|STREAM stream", "XINFO|GROUPS stream", "XTRIM stream"),
                *("ZMSCORE room", "ZMSCORE leases"),
            ),
        ),
    ),
    Role.WORKER: (
        BEGIN,
        Duty(
            "serve pools",
            RUNS[Task.POOL],
            (
                *(*BODIES, "SMEMBERS held", "SREM held", "SMEMBERS waiting"),
                *("XRANGE stream", "XPENDING stream", "XRANGE log", "XREVRANGE dead"),
                *("XLEN stream", "ZMSCORE room", "ZADD room", "ZREM room", "ZMSCORE leases"),
            ),
        ),
    ),
    Role.REAPER: (
        BEGIN,
        Duty(
            "end what the dead held, and have pools of the whole farm listen on new servers",
            (*RUN_DOWN, "create_pool"),
            (*POOLS, "HGET registrations", "SREM held"),
        ),
    ),
    Role.OPERATOR: (
        BEGIN,
        LOOK,
        Duty(
            "give rights, delete printers and pools, name servers, replay and drop dead letters",
            (
                *(*RUNS[Task.ADMINISTRATOR], "unregister", "listener_close", "create_pool"),
                *("delete_pool", "replay", "drop"),
            ),
            (
                *("HMGET grants", "HGET registrations", "HDEL servers", "HSETNX servers"),
                *("ZRANGE leases", "UNLINK body", "PEXPIRE body"),
            ),
        ),
    ),
    Role.OBSERVER: (LOOK,),
}


LASTING: Mapping[Durability, frozenset[str]] = {
    Durability.MEMORY: frozenset(),
    Durability.REPLICA: frozenset({"WAIT"}),
    Durability.FSYNC: frozenset({"CONFIG|GET", "WAITAOF"}),
}
"""What each durability is asked by; WAITAOF is of Redis 7.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Whose line it is, and for what."""

    roles: Collection[Role]
    servers: Collection[str] = ()
    """Folded names; none is every print server."""
    namespace: str = "tympan"
    all_users: bool = False
    """Also speak to, or listen for, all users."""
    claims: bool = True
    """Also put its print servers into the directory, where they are not yet."""
    durability: Durability = Durability.MEMORY
    cluster: bool = False
    before_7: bool = False
    """For a Redis that tells reading from writing in no pattern, and knows no selectors."""


class Reach(NamedTuple):
    """Kinds of keys, and commands."""

    reads: frozenset[str]
    writes: frozenset[str]
    whole: frozenset[str]
    """Read and written; those that scripts are given always are."""
    commands: frozenset[str]
    """As an ACL names them, in upper case."""
    claims: bool
    """Whether it may add names to the directory, though change none."""


def rules(wish: Wish) -> list[str]:
    """The rules of one user, in the order in which Redis is to read them; no password."""
    start = ["on", "resetkeys", "resetchannels", "-@all"]
    if not wish.before_7:
        start.append("clearselectors")
    first, *selectors = additions(wish)
    return [*start, *first, *(f"({' '.join(selector)})" for selector in selectors)]


def additions(wish: Wish) -> list[list[str]]:
    """What these rules allow: together, and then what is allowed apart from it, a selector each."""
    reach = reach_of(wish)
    patterns = [_patterns(wish.namespace, server) for server in wish.servers or ("",)]
    where = directory(wish.namespace)
    signs = {"~": reach.whole, "%R~": reach.reads - reach.whole, "%W~": reach.writes - reach.whole}
    found: list[str] = []
    for sign, kinds in signs.items():
        found += [f"{sign}{one}" for one in _widest(p[kind] for p in patterns for kind in kinds)]
    if "SUBSCRIBE" in reach.commands:
        found += [f"&{p[kind]}" for p in patterns for kind in ("inbox", "stream")]
        found.append(f"&{where}")
    found += [f"+{command.lower()}" for command in sorted(reach.commands)]
    return [found, [f"%W~{where}", "+hsetnx"]] if reach.claims else [found]


def reach_of(wish: Wish) -> Reach:
    """What the roles of a wish need, and what follows from that."""
    duties = [duty for role in wish.roles for duty in DUTIES[role]]
    named = {name for duty in duties for name in duty.scripts}
    asks = [ask.split() for duty in duties for ask in duty.asks]
    reads = {ask[1] for ask in asks if ask[1:] and ask[0] in READING}
    writes = {ask[1] for ask in asks if ask[1:] and ask[0] not in READING}
    whole = reads & writes
    for script in SCRIPTS:
        if script.name in named:
            whole |= needed_by(script)
    if wish.all_users and named:
        whole.add(GRANTS)
    claims = bool(named) and wish.claims and DIRECTORY not in writes
    if wish.before_7:
        whole |= reads | writes | ({DIRECTORY} if claims else set())
    commands = {ask[0] for ask in asks}
    for script in runnable(whole) if named else ():
        commands |= inner(script)
    if named:
        commands |= LASTING[wish.durability]
    if wish.cluster:
        commands |= {"ASKING", "CLUSTER|SLOTS"}
    if wish.cluster and named:
        commands |= {"SSUBSCRIBE", "SUNSUBSCRIBE", "SPUBLISH"}
    return Reach(
        frozenset(reads),
        frozenset(writes),
        frozenset(whole),
        frozenset(commands),
        claims and not wish.before_7,
    )


def runnable(kinds: Collection[str]) -> Iterator[Script]:
    """The scripts that Redis lets begin whoever may read and write these kinds of keys."""
    for script in SCRIPTS:
        if needed_by(script) <= set(kinds):
            yield script


def needed_by(script: Script) -> set[str]:
    """The kinds of keys that a script is always given."""
    return {k for k in kinds_of(script) if script.name not in MAY_DO_WITHOUT.get(k, ())}


def kinds_of(script: Script) -> list[str]:
    """The kinds of keys that a script is given."""
    return [KINDS.get(name.rstrip("*"), name.rstrip("*")) for name in script.keys]


def inner(script: Script) -> set[str]:
    """The commands that a script runs, as an ACL names them."""
    found = {
        f"{call['command']}|{call['word']}" if call["command"] in _CONTAINERS else call["command"]
        for call in _INNER.finditer(script.source)
    }
    return found | ({"PUBLISH"} if _BELL.search(script.source) else set())


KINDS = {
    "board": "stream",
    "sources": "held",
    "dialogs": "held",
    "source_inbox": "inbox",
    "owner_inbox": "inbox",
    "asked": "body",
}
"""Names of KEYS that are not called as their kind is."""


def keys_by_kind(keys: Keys, one: str, pool: str, audience: Audience) -> dict[str, str]:
    """By kind, a key of a print server: ``one`` is the channel, session, body that has it."""
    single = ("meta", "leases", "streams", "opened", "channels", "grants", "counts")
    return {
        **{kind: getattr(keys, kind) for kind in (*single, "registrations", "pools", "dead")},
        "channel": keys.channel(one),
        "log": keys.log(one),
        "inbox": keys.inbox(one),
        "held": keys.held(one),
        "body": keys.body(one),
        "receipt": keys.receipt(one),
        "waiting": keys.held(pool),
        "idle": keys.idle(pool),
        "returned": keys.returned(pool, audience),
        "stream": keys.stream(audience),
        "room": keys.room(audience),
    }


def _patterns(namespace: str, server: str) -> Mapping[str, str]:
    """By kind, what all keys of that kind look like on a print server; without one, on any."""
    keys = Keys(namespace, _SPECIAL.sub(r"\\\1", server) or "*")
    some = Audience("*", UUID(int=0), BIDIRECTIONAL, "*")
    found = keys_by_kind(keys, "*", f"{POOL}*", some)
    of_some = ("stream", "room", "returned")
    wider = {kind: found[kind].replace(some.field, "*") for kind in of_some}
    not_a_pool = keys.held(f"[^{POOL}]*")
    return {**found, **wider, DIRECTORY: directory(namespace), "held": not_a_pool}


def _widest(patterns: Iterable[str]) -> list[str]:
    """The patterns without those that another one covers, sorted."""
    listed = sorted(set(patterns))
    shapes = {one: one.replace("[^", "[!") for one in listed}  # so Python writes "none of these"
    return [
        one
        for one in listed
        if not any(one != other and fnmatchcase(one, shapes[other]) for other in listed)
    ]
