"""Scripts called one by one, with whatever arguments: two processes, and what each call changed.

Nothing here goes through channels or registrations of the library: a call is made of its values,
runs under the session that is named, and answers with its words.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from redis.asyncio.client import PubSub

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Style, _calls
from broker._calls import NO_BODY, Handle, Route, Stowed
from broker._keys import Keys, channel_audiences, subject
from broker._plan import PoolPlan, RegistrationPlan
from broker._room import Take
from broker._scripts import Call
from broker._server import Server
from broker.conversation import UserFilter
from broker.names import Name
from tests.dump import Dump, dump
from tests.farm import PATIENCE, SERVER, TYPE, Farm

QUIET: dict[str, Any] = {"lease": 60.0, "resync": 60.0}
KEEP = 60_000
KEEP_POOLED = 90_000
LONG_AGO = 1.0
"""A deadline that has passed, in ms of Redis time."""
LATER = 10**13
"""Ms from now, some three hundred years."""
NAME = Name.parse(SERVER)
ALICE, BOB = "alice", "bob"
BOARD, ADMINISTRATORS = "|T|bi|=alice", "|T|bi|+"
MINE, EVERYBODYS = "|T|uni|=alice", "|T|uni|*"
"""Audiences, as the bench names them: T is the type."""
Changes = dict[str, Any]
ACQUIRED = {
    "owner": "r", "owner_session": "<listener>", "owner_user": "alice", "token": "E:r",
}  # fmt: skip
"""What a channel's hash says once the listener acquired it."""


DONE = {"OK", "MANY", "RELEASED", "ACQUIRED", "NO_LISTENERS"}
"""Words of a step that succeeded."""


def off_the_boards(field: str = ADMINISTRATORS) -> dict[str, Any]:
    """A question that one registration heard is over: one board goes, as nobody listens to it."""
    return {f"stream:{BOARD}": {"removed": 1}, f"stream:{field}": None, "meta": {"floor": "2"}}


def body(text: str = "?") -> Stowed:
    """A small payload."""
    return Stowed("body", text.encode(), None)


@dataclass
class Bench:
    """A server of a farm, with a source's session and a listener's."""

    farm: Farm
    source: Server
    listener: Server
    other: Server

    @classmethod
    async def set_up(cls, farm: Farm) -> Self:
        brokers = [await farm.broker(user, **QUIET) for user in ("spooler", ALICE, BOB)]
        return cls(farm, *[await broker.server(SERVER) for broker in brokers])

    @property
    def keys(self) -> Keys:
        return self.source.keys

    async def ask(
        self, who: Server, call: Call, *, session: str | None = None, epoch: str | None = None
    ) -> list[Any]:
        """Run a script as this process, or under another session or epoch: the words.

        What is a list in the answer stays one.
        """
        lead = (epoch or who.epoch, session or who.session)
        reply = await who.link.run(call, lead if call.script.args[1] == "epoch" else ())
        return [_named(self.named, _text(part)) for part in reply]

    def named(self, text: str) -> str:
        """With names in the place of what differs from run to run."""
        for name in ("source", "listener", "other"):
            text = text.replace(getattr(self, name).session, f"<{name}>")
        text = re.sub(r"~(\w+)\.[0-9a-f]{8}", r"~\1", text)
        return text.replace(str(TYPE), "T").replace(self.source.epoch, "E")

    def changes(self, before: Dump, after: Dump) -> Changes:
        """What differs, named."""
        return {
            self.named(key): _named(self.named, change)
            for key, change in changes(before, after).items()
        }

    async def does(self, who: Server, call: Call) -> Changes:
        """Run a script that must succeed: what it changed."""
        before = await self.dump()
        answer = await self.ask(who, call)
        assert answer[0] in ("OK", "RELEASED", "ACQUIRED", "NO_LISTENERS", "LOST", "FAILURE"), (
            answer
        )
        return self.changes(before, await self.dump())

    async def changed_by(self, who: Server, call: Call) -> Changes:
        """Run a script, whatever it answers: what it changed."""
        before = await self.dump()
        await self.ask(who, call)
        return self.changes(before, await self.dump())

    async def refuses(self, who: Server, call: Call, **as_: str) -> list[Any]:
        """Run a script that must change nothing: its words."""
        before = await self.dump()
        answer = await self.ask(who, call, **as_)
        changed = self.changes(before, await self.dump())
        assert changed == {}, f"{answer}, and yet something was written"
        return answer

    async def dump(self) -> Dump:
        """All keys of this server, without their common beginning."""
        prefix = self.keys.meta.removesuffix("meta")
        found = await dump(self.farm.client, prefix.replace("{", "[{]") + "*")
        return {key.removeprefix(prefix): value for key, value in found.items()}

    # Time and other disasters --------------------------------------------------------------------

    async def lapse(self, server: Server) -> None:
        """This session's lease ran out; nobody has swept it yet."""
        await self.farm.client.hset(self.keys.meta, "grace", 0)
        await self.farm.client.zadd(self.keys.leases, {server.session: LONG_AGO})

    async def sweep(self, server: Server) -> None:
        """This session was declared dead."""
        await self.farm.client.zadd(self.keys.leases, {server.session: 0})

    # Channels ------------------------------------------------------------------------------------

    def route(
        self,
        channel: str = "c",
        user: str = ALICE,
        style: Style = BIDIRECTIONAL,
        pools: Sequence[PoolPlan] = (),
        listed: str = "",
    ) -> Route:
        """Where its notifications go; by the list from before the first pool, if none is named."""
        audiences = channel_audiences(NAME, TYPE, style, user)
        listed = listed or f"{self.source.epoch}-0"
        return Route.of(self.keys, channel, "", user, audiences, pools, listed)

    def open(
        self,
        channel: str = "c",
        *,
        style: Style = BIDIRECTIONAL,
        user: str = ALICE,
        right: str = "",
        limit: int = 100,
    ) -> Call:
        return _calls.open_channel(
            self.keys, self.source.session, channel, subject(NAME, TYPE, style, user), style.word,
            "spooler", right, 1, limit,
        )  # fmt: skip

    def offer(
        self, op: int = 1, sent: Stowed | None = None, channel: str = "c", *, trace: str = ""
    ) -> Call:
        return _calls.offer(self.keys, self.route(channel), op, sent or body(), trace)

    def offer_again(self) -> Call:
        return _calls.offer_again(self.keys, self.route())

    def uni_send(
        self,
        op: int = 1,
        sent: Stowed | None = None,
        *,
        lossless: bool = False,
        trace: str = "",
        pools: Sequence[PoolPlan] = (),
        listed: str = "",
    ) -> Call:
        route = self.route(style=UNIDIRECTIONAL, pools=pools, listed=listed)
        return _calls.uni_send(
            self.keys, route, op, sent or body(), trace, KEEP_POOLED, lossless=lossless
        )

    def follow_up(
        self,
        op: int = 2,
        sent: Stowed | None = None,
        *,
        token: str | None = None,
        listening: str | None = None,
        trace: str = "",
    ) -> Call:
        token = f"{self.source.epoch}:r" if token is None else token
        listening = self.listener.session if listening is None else listening
        return _calls.follow_up(self.keys, "c", op, token, listening, sent or body(), trace)

    def source_close(
        self,
        op: int,
        kind: str = "close",
        *,
        reason: Stowed = NO_BODY,
        holder: str = "",
        listening: str = "",
        asked: str | None = None,
        style: Style = BIDIRECTIONAL,
    ) -> Call:
        route = self.route()
        if style is UNIDIRECTIONAL:
            route = Route.of(self.keys, "c", "", ALICE, ())
        return _calls.source_close(
            self.keys, route, op, kind, holder or self.source.session, listening, KEEP, asked,
            reason,
        )  # fmt: skip

    def handle(
        self,
        registration: str = "r",
        session: str = "",
        asked: str | None = None,
        user: str = ALICE,
    ) -> Handle:
        session = session or self.listener.session
        return Handle(registration, user, session, self.source.session, self.route(), asked)

    def respond(
        self,
        op: int = 1,
        sent: Stowed | None = None,
        handle: Handle | None = None,
        *,
        trace: str = "",
        ends_turn: bool = False,
    ) -> Call:
        return _calls.respond(
            self.keys, handle or self.handle(), op, KEEP, sent or body("!"), trace,
            ends_turn=ends_turn,
        )  # fmt: skip

    def listener_close(
        self,
        op: int = 1,
        kind: str = "close",
        *,
        reason: Stowed = NO_BODY,
        handle: Handle | None = None,
    ) -> Call:
        return _calls.listener_close(self.keys, handle or self.handle(), op, kind, KEEP, reason)

    # Printers ------------------------------------------------------------------------------------

    def server_close(
        self,
        channel: str = "c",
        *,
        holder: str = "",
        listening: str = "",
        asked: str | None = None,
        style: Style = BIDIRECTIONAL,
    ) -> Call:
        route = self.route(channel)
        if style is UNIDIRECTIONAL:
            route = Route.of(self.keys, channel, "", ALICE, ())
        holder = holder or self.source.session
        return _calls.server_close(self.keys, route, holder, listening, KEEP, asked)

    def delete_printer(self, deletion: str = "d", part: int = 0) -> Call:
        audiences = self.plan(UNIDIRECTIONAL).audiences
        return _calls.delete_printer(self.keys, deletion, part, "", audiences)

    # Registrations -------------------------------------------------------------------------------

    def plan(
        self,
        style: Style = BIDIRECTIONAL,
        user: str = ALICE,
        *,
        all_users: bool = False,
        source: str = "",
    ) -> RegistrationPlan:
        """What a registration asks for."""
        return RegistrationPlan(
            NAME, TYPE, style, user, UserFilter(int(all_users)), False,
            1 if all_users else 0, source,
        )  # fmt: skip

    def register(
        self,
        registration: str = "r",
        *,
        style: Style = BIDIRECTIONAL,
        user: str = ALICE,
        all_users: bool = False,
        source: str = "",
        buffer: int = 2,
        limit: int = 100,
        session: str = "",
    ) -> Call:
        plan = self.plan(style, user, all_users=all_users, source=source)
        session = session or self.listener.session
        return _calls.register(
            self.keys, session, registration, plan, {"session": session}, limit,
            "" if style is BIDIRECTIONAL else buffer,
        )  # fmt: skip

    def unregister(
        self,
        registration: str = "r",
        kind: str = "unregister",
        *,
        style: Style = BIDIRECTIONAL,
        user: str = ALICE,
        holder: str = "",
    ) -> Call:
        return _calls.unregister(
            self.keys, registration, self.plan(style, user), kind, holder or self.listener.session
        )

    def take(self, room: int, taken: int, received: str = "", registration: str = "r") -> Call:
        plan = self.plan(UNIDIRECTIONAL)
        take = Take(room, taken, received or f"{self.source.epoch}-0")  # type: ignore[arg-type]
        return _calls.take(self.keys, [(plan.audiences[0], plan.group(registration), take)])

    # Sessions ------------------------------------------------------------------------------------

    def bury(self, server: Server) -> Call:
        return _calls.bury(self.keys, server.session)

    async def large_body(self) -> Stowed:
        """A body under a key of its own, with a time to live."""
        key = self.keys.body("b")
        await self.farm.client.set(key, "x" * 100, px=50_000)
        return Stowed("ref", key, key)

    # Scenes --------------------------------------------------------------------------------------

    async def done(self, *steps: tuple[Server, Call]) -> None:
        """Steps that must succeed, one after another."""
        for who, call in steps:
            answer = await self.ask(who, call)
            assert answer[0] in ("OK", "MANY", "RELEASED", "ACQUIRED", "NO_LISTENERS"), (
                call,
                answer,
            )

    async def offered(self) -> None:
        """A question that a registration, ``r``, was offered."""
        await self.done(
            (self.listener, self.register()),
            (self.source, self.open()),
            (self.source, self.offer()),
        )

    def board(self, field: str) -> str:
        """The key of the board that an open question of alice's lies on."""
        audiences = channel_audiences(NAME, TYPE, BIDIRECTIONAL, ALICE)
        (found,) = [one for one in audiences if self.named(one.field) == field]
        return self.keys.stream(found)

    async def lose_a_board(self, field: str = BOARD) -> None:
        """Somebody deletes it."""
        assert await self.farm.client.delete(self.board(field))

    async def answered(self) -> None:
        """A dialog; the source's turn."""
        await self.offered()
        await self.done((self.listener, self.respond()))

    async def asked(self) -> None:
        """A dialog; the owner's turn."""
        await self.answered()
        await self.done((self.source, self.follow_up()))


def _text(part: Any) -> Any:
    if isinstance(part, list):
        return [_text(one) for one in part]
    if part is None:
        return ""
    return part.decode() if isinstance(part, bytes) else str(part)


def _named(name: Callable[[str], str], value: Any) -> Any:
    if isinstance(value, str):
        return name(value)
    if isinstance(value, dict):
        return {name(key): _named(name, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_named(name, each) for each in value]
    return value


# What changed ----------------------------------------------------------------------------------


def changes(before: Dump, after: Dump) -> Changes:
    """Each key that differs, and how: fields, members and entries; None for what is gone.

    Times that are now are called so; a lease is alive, over, or dead.
    """
    found: Changes = {}
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) == after.get(key):
            continue
        if key not in after:
            found[key] = None
            continue
        kind, new, expires = after[key]
        _, old, did_expire = before.get(key, (kind, None, False))
        compare = _BY_TIME.get(key.split(":")[0], _COMPARE[kind])
        found[key] = compare(old, new)
        if not found[key] and expires == did_expire:
            del found[key]
        elif expires != did_expire:
            found[key] |= {"expires": expires}
    return found


def _fields(old: Mapping[bytes, bytes] | None, new: Mapping[bytes, bytes]) -> dict[str, Any]:
    old = old or {}
    changed: dict[str, Any] = {}
    for name in old.keys() | new.keys():
        if old.get(name) != new.get(name):
            value = new.get(name)
            changed[name.decode()] = None if value is None else _value(name.decode(), value)
    return changed


def _value(name: str, value: bytes) -> str:
    if value.startswith(b"{"):
        record = {key: "now" if key == "since" else v for key, v in json.loads(value).items()}
        return json.dumps(record, sort_keys=True)
    return "now" if name == "at" else value.decode()


def _members(old: set[bytes] | None, new: set[bytes]) -> dict[str, Any]:
    old = old or set()
    return {name.decode(): True if name in new else None for name in old ^ new}


def _scores(old: list[Any] | None, new: list[Any]) -> dict[str, Any]:
    return _fields(
        {name: str(score).encode() for name, score in old or []},
        {name: str(score).encode() for name, score in new},
    )


def _leases(old: list[Any] | None, new: list[Any]) -> dict[str, Any]:
    def word(score: float) -> bytes:
        return b"dead" if score == 0 else b"over" if score == LONG_AGO else b"alive"

    return _fields(
        {name: word(score) for name, score in old or []}, {name: word(score) for name, score in new}
    )


def _returned(old: list[Any] | None, new: list[Any]) -> dict[str, Any]:
    def word(score: float) -> bytes:
        return b"later" if score > LATER else b"due"

    return _fields(
        {name: word(score) for name, score in old or []}, {name: word(score) for name, score in new}
    )


def _entries(old: Any, new: Any) -> dict[str, Any]:
    (old_entries, old_groups, before), (entries, groups, after) = old or ([], [], []), new
    known = {id_ for id_, _ in old_entries}
    left = {id_ for id_, _ in entries}
    changed: dict[str, Any] = {}
    added = [
        {name.decode(): _value(name.decode(), value) for name, value in fields.items()}
        for id_, fields in entries
        if id_ not in known
    ]
    if added:
        changed["added"] = added
    if known - left:
        changed["removed"] = len(known - left)
    if old_groups != groups:
        changed["groups"] = {name.decode(): id_.decode() for name, id_ in groups}
    for what, held in (("consumers", _consumers), ("pending", _pending)):
        if held(before) != held(after):
            changed[what] = held(after)
    return changed


def _consumers(in_hand: list[Any]) -> dict[str, bool]:
    return {name.decode(): True for _, consumers, _ in in_hand for name in consumers}


def _pending(in_hand: list[Any]) -> dict[str, str]:
    """Who has an entry in hand, and how often it was delivered; behind the entry the group."""
    return {
        f"{id_.decode()} {group.decode()}": f"{name.decode()} {times}"
        for group, _, pending in in_hand
        for id_, name, times in pending
    }


def _plain(_: Any, new: bytes) -> dict[str, Any]:
    return {"value": new.decode()}


_BY_TIME: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "leases": _leases,
    "returned": _returned,
}
_COMPARE: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "hash": _fields,
    "set": _members,
    "zset": _scores,
    "stream": _entries,
    "string": _plain,
}


@asynccontextmanager
async def subscribed(bench: Bench, *channels: str) -> AsyncIterator[PubSub]:
    """From the moment at which Redis has confirmed it, for which redis-py does not wait."""
    async with bench.farm.client.pubsub() as subscription:
        await subscription.subscribe(*channels)
        for _ in channels:
            confirmed = await subscription.get_message(timeout=PATIENCE)
            assert confirmed is not None
            assert confirmed["type"] == "subscribe"
        yield subscription


@asynccontextmanager
async def bells(bench: Bench, *channels: str) -> AsyncIterator[list[tuple[str, str]]]:
    """Afterwards all that rang there, in order: where, and what."""
    heard: list[tuple[str, str]] = []
    async with subscribed(bench, *channels, bench.keys.meta) as subscription:
        yield heard
        await bench.farm.client.publish(bench.keys.meta, "")
        while True:
            message = await subscription.get_message(timeout=5)
            if message is None:
                continue
            where = message["channel"].decode()
            if where == bench.keys.meta:
                return
            heard.append((where, message["data"].decode()))
