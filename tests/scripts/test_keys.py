"""No script makes up a key, and a full Redis does each script's writes all or not at all.

Static: no Redis. A key that a script builds itself may live in another slot of a cluster, where
the script runs today and fails tomorrow; a write that is refused halfway leaves half a transition.
And the page for people who look into Redis lists the keys that there are.
"""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import pytest

from broker import _keys
from broker.conversation import BIDIRECTIONAL
from tests import lua_source
from tests.scripts.analysis import (
    ENTRIES,
    FILES,
    NOTHING,
    first_writes,
    functions_of,
    is_bell,
    key_arguments,
    made_up_keys,
    types_of_keys,
)

CHECKOUT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "HGET": "hash", "HMGET": "hash", "HEXISTS": "hash", "HLEN": "hash",
    "HSET": "hash", "HSETNX": "hash", "HINCRBY": "hash", "HDEL": "hash",
    "SADD": "set", "SREM": "set", "SCARD": "set", "SISMEMBER": "set", "SRANDMEMBER": "set",
    "ZADD": "zset", "ZREM": "zset", "ZINCRBY": "zset", "ZPOPMIN": "zset", "ZSCORE": "zset",
    "ZCARD": "zset", "ZCOUNT": "zset", "ZRANGE": "zset", "ZRANGEBYSCORE": "zset",
    "XADD": "stream", "XDEL": "stream", "XTRIM": "stream", "XLEN": "stream", "XRANGE": "stream",
    "XGROUP": "stream", "XREADGROUP": "stream", "XPENDING": "stream", "XCLAIM": "stream",
    "XACK": "stream", "XINFO": "stream",
    "INCR": "string", "GET": "string", "SET": "string",
    "DEL": "", "UNLINK": "", "EXISTS": "", "PEXPIRE": "", "PERSIST": "", "TYPE": "",
}  # fmt: skip
"""What the scripts may do in Redis, and to which type of key; empty for any type."""
ADDING = frozenset({"HSET", "HSETNX", "INCR", "SADD", "SET", "XADD", "ZADD"})
"""Refused by a full Redis before anything happened: as first writes, they undo all or nothing."""
FREEING = frozenset({"DEL", "HDEL", "SREM", "UNLINK", "XACK", "XDEL", "XTRIM", "ZREM"})
"""Done even by a full Redis; once one was done, whatever follows in the script is done too."""
FIRST_WRITES = {
    "hello": ADDING,
    "open": ADDING,
    "register": ADDING,
    "offer": ADDING,
    "offer_again": ADDING,
    "uni_send": ADDING,
    "follow_up": ADDING,
    "respond": ADDING,
    "create_pool": ADDING,
    "join": ADDING,
    "dead_letter": ADDING,
    "replay": ADDING,
    "drop": FREEING,
    "grant": ADDING | FREEING,
    "renew": FREEING,
    "sweep": FREEING,
    "bury": FREEING,
    "unregister": FREEING,
    "take": FREEING,
    "source_close": FREEING,
    "listener_close": FREEING,
    "server_close": FREEING,
    "delete_printer": FREEING,
    "delete_pool": FREEING,
    "fetch": FREEING,
    "finish": FREEING,
    "hand_back": FREEING,
    "disown": FREEING,
    "orphan": FREEING,
    "adopt": FREEING,
    "confirm": frozenset[str](),
}
"""How each script's writes begin. A full Redis must go on renewing, taking, closing, sweeping and
burying, or it could never be emptied; and its pools must go on being served, and change hands."""

PLACES = {
    "channel": "{s}:channel:<id>",
    "log": "{s}:channel:<id>:log",
    "held": "{s}:held:<session>",
    "sources": "{s}:held:<session>",
    "dialogs": "{s}:held:<session>",
    "inbox": "{s}:to:<session>",
    "source_inbox": "{s}:to:<session>",
    "owner_inbox": "{s}:to:<session>",
    "body": "{s}:body:<id>",
    "receipt": "{s}:letter:<id>",
    "asked": "{s}:body:<id>",
    "stream": "{s}:stream:",
    "stream*": "{s}:stream:",
    "board*": "{s}:stream:",
    "room": "{s}:room:",
    "room*": "{s}:room:",
    "idle": "{s}:idle:<pool>",
    "idle*": "{s}:idle:<pool>",
    "waiting": "{s}:held:<pool>",
    "returned": "{s}:returned:",
    "returned*": "{s}:returned:",
}
"""Names of KEYS that are not called as their key is, and how its pattern begins."""

every_file = pytest.mark.parametrize("name", FILES)
every_script = pytest.mark.parametrize("name", ENTRIES)


# Keys --------------------------------------------------------------------------------------------


HEAD = (
    "local channel, streams, inbox, idle = unpack(KEYS, 1, 4)\n"
    "local bell, id = unpack(ARGV, 1, 2)\n"
)


@every_file
def test_no_script_makes_up_a_key(name: str) -> None:
    """Every key argument is a name bound from KEYS, KEYS[i], or a parameter that is given one."""
    assert made_up_keys(lua_source.text_of(name), functions_of(name)) == []


@pytest.mark.parametrize(
    "line",
    [
        "redis.call('HGET', 'farm:meta', 'run')",
        "redis.call('DEL', channel .. ':log')",
        "redis.call('DEL', channel, body)",
        "redis.call('XGROUP', 'DESTROY', ARGV[1], 'group')",
        "local log = channel .. ':log'\nredis.call('XLEN', log)",
        "channel = ARGV[1]\nredis.call('HLEN', channel)",
        "append(bell, prefix, streams, field, epoch, floor, {})",
        "tell(bell, inbox, streams .. '', field, epoch, {})",
        "local rows = { { KEYS[1], 'a' }, { 'b', 'a' } }\nredis.call('HLEN', rows[1])",
        "for _, row in ipairs(rows) do redis.call('HLEN', row[1]) end",
        "redis.pcall(bell, 'bell:' .. id, '')",
        "redis.pcall('XPENDING', id, 'group')",
        "redis.call('XREADGROUP', 'GROUP', 'g', 'c', 'STREAMS', id, '>')",
        "local woken = redis.call('ZPOPMIN', streams)[1]\nredis.pcall(bell, woken, '')",
        "local woken = redis.call('ZPOPMIN', idle)[2]\nredis.pcall(bell, woken, '')",
        "local woken = redis.call('ZPOPMIN', idle)[1]\nredis.pcall(bell, woken .. 'x', '')",
        "local woken = redis.call('ZPOPMIN', idle)[1]\nwoken = id\nredis.pcall(bell, woken, '')",
        "local woken = redis.call('ZPOPMIN', idle)[1]\nredis.call('DEL', woken)",
        "local woken = redis.call('ZPOPMIN', idle)[1]\nredis.pcall('XPENDING', woken, 'group')",
        "local woken = redis.call('ZPOPMIN', idle)[1]\nring(bell, woken, id, {})",
        "idle = id\nlocal woken = redis.call('ZPOPMIN', idle)[1]\nredis.pcall(bell, woken, '')",
    ],
)
def test_a_key_that_is_made_up_is_noticed(line: str) -> None:
    """The control of the test above."""
    assert made_up_keys(HEAD + line, functions_of("respond"))


@pytest.mark.parametrize(
    "line",
    [
        "redis.pcall(bell, streams, '')",
        "redis.pcall('XPENDING', streams, 'group')",
        "redis.call('XREADGROUP', 'GROUP', 'g', 'c', 'STREAMS', streams, '>')",
        "local woken = redis.call('ZPOPMIN', idle)[1]\nredis.pcall(bell, woken, '')",
    ],
)
def test_a_key_that_was_given_is_none_that_is_made_up(line: str) -> None:
    assert made_up_keys(HEAD + line, functions_of("respond")) == []


@every_file
def test_only_known_commands_touch_redis_and_each_its_type_of_key(name: str) -> None:
    types = types_of_keys()
    for call in lua_source.calls(lua_source.tokens(lua_source.text_of(name))):
        if call.function not in ("redis.call", "redis.pcall") or call.command == "TIME":
            continue
        if is_bell(call):
            continue
        assert call.command in COMMANDS, (
            f"line {call.line}: {lua_source.written(call.arguments[0])}"
        )
        for argument in key_arguments(call, {}):
            named = lua_source.written(argument)
            if COMMANDS[call.command] and named in types:
                assert COMMANDS[call.command] == types[named], f"line {call.line}: {named}"


def test_a_name_means_the_same_type_of_key_everywhere() -> None:
    kinds = {fact.pattern: fact.kind for fact in _keys.CATALOGUE}
    for name in ENTRIES:
        for key in lua_source.header_of(name).keys:
            pattern = PLACES.get(key.name, "{s}:" + key.name)
            found = (
                {kinds[pattern]}
                if pattern in kinds
                else {kind for listed, kind in kinds.items() if listed.startswith(pattern)}
            )
            assert found == {key.about.split()[0]}, f"{name}: {key.name}, in the catalogue {found}"


@every_script
def test_a_full_redis_refuses_a_script_whole_or_not_at_all(name: str) -> None:
    """Memory is checked at a script's first write only, so that one decides for all."""
    block = lua_source.parse(lua_source.text_of(name))
    found, _ = first_writes(block, functions_of(name) | {"guard": NOTHING})
    assert found <= FIRST_WRITES[name], (
        f"{name} may begin with {sorted(found - FIRST_WRITES[name])}"
    )
    assert found or name == "confirm"


def test_the_epoch_can_be_raised_in_a_full_redis() -> None:
    functions = lua_source.functions(lua_source.text_of("shared/guard"))
    found, _ = first_writes(functions["guard"].body, functions)
    assert found <= FREEING


# The catalogue -----------------------------------------------------------------------------------


def test_the_page_about_keys_lists_exactly_the_catalogue() -> None:
    page = (CHECKOUT / "docs" / "keys.md").read_text(encoding="utf-8")
    rows: dict[str, tuple[str, str, str]] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if len(cells) == 5 and re.fullmatch(r"`\S.*`", cells[0]):
            pattern = cells[0].strip("`").replace("\\|", "|")
            assert pattern not in rows, f"{pattern} is listed twice"
            rows[pattern] = (cells[1], cells[3], cells[4])
    listed = {fact.pattern: (fact.kind, fact.owner, fact.ends) for fact in _keys.CATALOGUE}
    assert rows == listed


def test_every_key_that_is_made_is_in_the_catalogue() -> None:
    keys = _keys.Keys("farm", "print01")
    audience = _keys.Audience("laser", UUID(int=1), BIDIRECTIONAL, "=alice")
    single = (
        keys.meta, keys.leases, keys.streams, keys.opened, keys.channels, keys.grants, keys.counts,
        keys.registrations, keys.stream(audience), keys.room(audience), keys.channel("c"),
        keys.log("c"), keys.inbox("s"), keys.held("s"), keys.body("b"), keys.pools, keys.dead,
        keys.idle("~p.1"), keys.returned("~p.1", audience), keys.held("~p.1"),
        keys.receipt("1-1"),
    )  # fmt: skip
    prefix = "farm:{print01}"
    patterns = [
        re.escape(fact.pattern.replace("{s}", prefix).replace("<namespace>", "farm"))
        for fact in _keys.CATALOGUE
    ]
    parts = {"<pool>": "~[^:|]+", "<session>": "[^:~][^:]*"}
    expressions = [
        re.compile(re.sub(r"<\w+>", lambda found: parts.get(found[0], "[^:]+"), pattern))
        for pattern in patterns
    ]
    made = {key: [e.pattern for e in expressions if e.fullmatch(key)] for key in single}
    assert all(len(found) == 1 for found in made.values()), made
    assert len(single) + 1 == len(_keys.CATALOGUE), "beside them only the directory of servers"
