"""Credentials: what the ACL of a Redis lets a client do on one print server's keys. No I/O.

Redis itself is asked, command by command and key by key, without doing anything:
``redis.acl_check_cmd`` answers a script for the user who runs it, so nobody needs rights to look
(Redis 7 or later). Before that, a script that does nothing shows which keys scripts may be given.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from broker import BIDIRECTIONAL
from broker._address import Form
from broker._keys import Audience, Keys, directory
from broker._scripts import SCRIPTS, Script
from workers.acl import GRANTS, RUNS, Task, inner, keys_by_kind, kinds_of

Command = tuple[str, ...]

DRY_RUN = """
local answers = {}
if not redis.acl_check_cmd then return answers end
for i, line in ipairs(ARGV) do
  local known, allowed = pcall(redis.acl_check_cmd, unpack(cjson.decode(line)))
  answers[i] = (allowed or not known) and 1 or 0
end
return answers
"""
"""ARGV: commands as JSON. For each: whether the caller may; a command that this Redis lacks is
nothing that an ACL forbids. Before Redis 7 there is no answer at all."""
IDLE = "return 1"
"""A script that may be given any keys."""
ANY = "*"
"""In the place of a print server: each of them."""
_SCRIPT = "EVALSHA"
_NO_SHA = "0" * 40
_ID = "doctor"
_POOL = "~doctor.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialFacts:
    """What the ACL lets this client do on one print server's keys."""

    server: str
    lacks: Mapping[Task, str]
    """For each task that is out of reach the first thing that Redis would refuse."""

    def may(self, task: Task) -> bool:
        """Whether the ACL lets it."""
        return task not in self.lacks


def probes(namespace: str, server: str, form: Form) -> dict[Task, list[Command]]:
    """What each task sends to Redis, each command once and with its full arity.

    Redis before 8.8 may read beyond the arguments of a command that names too few keys.
    """
    keys = Keys(namespace, server)
    audience = Audience("", UUID(int=1), BIDIRECTIONAL, f"={_ID}")
    stream, inbox, body = keys.stream(audience), keys.inbox(_ID), keys.body(_ID)
    where, shard = directory(namespace), "S" if form is Form.CLUSTER else ""
    session: list[Command] = [
        ("INFO", "server"),
        ("SCRIPT", "LOAD", IDLE),
        ("HSETNX", where, server, server),
        ("HMGET", where, server),
        *((("CLUSTER", "SLOTS"),) if form is Form.CLUSTER else ()),
        (f"{shard}SUBSCRIBE", inbox),
        ("XRANGE", inbox, "-", "+", "COUNT", "1"),
        ("HMGET", keys.channel(_ID), "state"),
        ("HGETALL", keys.pools),
        ("SSCAN", keys.held(_ID), "0"),
        ("SET", body, "", "PX", "1"),
        ("GETRANGE", body, "0", "0"),
        ("STRLEN", body),
        ("UNLINK", body),
    ]
    found: dict[Task, list[Command]] = {}
    for task, names in RUNS.items():
        scripts = [script for script in SCRIPTS if script.name in names]
        given = _keys_of(scripts, keys, audience, grants=task is Task.ADMINISTRATOR)
        found[task] = [*map(_given, given), *_inner(scripts, keys.meta)]
    found[Task.SOURCE] += session
    found[Task.LISTENER] += [
        *session,
        (f"{shard}SUBSCRIBE", stream),
        ("HGET", keys.registrations, _ID),
        ("XRANGE", stream, "-", "+", "COUNT", "1"),
        ("XINFO", "STREAM", stream),
        ("XINFO", "GROUPS", stream),
        ("XTRIM", stream, "MINID", "0-1"),
        ("PEXPIRE", body, "1"),
    ]
    found[Task.POOL] += [
        *session,
        (f"{shard}SUBSCRIBE", stream),
        ("XRANGE", stream, "-", "+", "COUNT", "1"),
        ("XPENDING", stream, _ID, "-", "+", "1"),
    ]
    found[Task.ALL_USERS] = [*found[Task.LISTENER], _given(keys.grants)]
    found[Task.RING] = [
        (f"{shard}PUBLISH", inbox, ""),
        (f"{shard}PUBLISH", stream, ""),
        ("PUBLISH", where, ""),
    ]
    return found


def gate(namespace: str, server: str) -> Command:
    """What every task needs first on a print server: who lacks that is not meant for it."""
    return _given(Keys(namespace, server).meta)


def in_json(commands: Iterable[Command]) -> list[str]:
    """The arguments of :data:`DRY_RUN`."""
    return [json.dumps(command) for command in commands]


def keys_given(commands: Iterable[Command]) -> list[tuple[Command, str]]:
    """Those that give a key to a script, and the key."""
    return [(command, command[3]) for command in commands if command[0] == _SCRIPT]


def read_credential(
    server: str, asked: Mapping[Task, Sequence[Command]], allowed: Mapping[Command, bool]
) -> CredentialFacts:
    """What follows from the answers; a command without one is taken to be allowed."""
    lacks: dict[Task, str] = {}
    for task, commands in asked.items():
        refused = next((one for one in commands if not allowed.get(one, True)), None)
        if refused is not None:
            lacks[task] = f"scripts on {refused[3]}" if refused[0] == _SCRIPT else " ".join(refused)
    return CredentialFacts(server=server, lacks=lacks)


def _given(key: str) -> Command:
    return (_SCRIPT, _NO_SHA, "1", key)


def _keys_of(
    scripts: Iterable[Script], keys: Keys, audience: Audience, *, grants: bool
) -> dict[str, None]:
    """The keys that scripts are given, once each."""
    made = keys_by_kind(keys, _ID, _POOL, audience)
    kinds = (kind for script in scripts for kind in kinds_of(script))
    return {made[kind]: None for kind in kinds if grants or kind != GRANTS}


def _inner(scripts: Iterable[Script], key: str) -> dict[Command, None]:
    """The commands that scripts run, on nothing but a key that they may be given anyway."""
    found: dict[Command, None] = {}
    for script in scripts:
        for command in sorted(inner(script) - {"PUBLISH"}):  # a bell is rung at a channel
            words = tuple(command.split("|"))
            found[words if words == ("TIME",) else (*words, key, key, key, key)] = None
    return found
