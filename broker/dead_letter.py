"""Dead letters: what pools could not handle, put aside with what went wrong, one stream a server.

A letter stays until it is replayed or dropped, or until its server has ``dead_letters`` newer ones.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from broker import _calls, _pools
from broker._bodies import read_body
from broker._calls import Place
from broker._entries import Entry, read_range
from broker._keys import EVERYONE, channel_audiences
from broker._plan import PoolPlan
from broker._scripts import Arg
from broker._server import Server, new_id
from broker._stored import stored
from broker.conversation import BIDIRECTIONAL, Style
from broker.errors import InvalidArgument, NoSuchLetter, NotReplayed
from broker.names import Name, parse_pool

At = Callable[[str | Name | None], Awaitable[tuple[Server, Name]]]
AT_ONCE = 256
_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a pool put aside. Times are seconds of Redis's clock."""

    id: str
    """Its id on its print server."""
    pool: str
    registration: str
    """The pool's registration that heard it."""
    name: Name
    """The printer or server that it was sent for."""
    type: UUID
    style: Style
    user: str | None
    """Whom it was for; None for all users, and where that is not known any more."""
    channel: str
    at: float
    """When it was sent."""
    buried_at: float
    """When it was put aside."""
    times: int
    """How often it was delivered."""
    reason: str
    data: bytes | None
    """The body; None where it is gone, and in a list where it is kept apart."""
    reference: str | None
    """Key of the body, where it is kept apart."""
    stream: str
    """Whence it was taken, as in ``streams``; empty for a dialog that was under way."""
    entry: str
    """Its entry there."""
    fields: tuple[tuple[str, bytes], ...]
    """The notification's own fields, as Redis keeps them."""

    @property
    def is_dialog(self) -> bool:
        """Whether the pool owned it: then it was closed, and nothing can be handed out again."""
        return not self.entry


def _letters(server: Server, reply: Sequence[Any]) -> list[DeadLetter]:
    """The letters of a reply. Raises ForeignLayout."""
    with stored(f"a dead letter of {Name(server.name)}"):
        return [_letter(server.name, found) for found in read_range(reply)]


def _letter(server: str, found: Entry) -> DeadLetter:
    user = found.text("user")
    return DeadLetter(
        str(found.id),
        found.text("pool"),
        found.text("registration"),
        Name(server, found.text("printer")),
        UUID(found.text("type")),
        Style.from_word(found.text("style")),
        None if user in ("", EVERYONE) else user,
        found.text("channel"),
        float(found.text("at") or 0) / 1000,
        found.id.epoch / 1000,
        int(found.text("times")),
        found.text("reason"),
        found.fields.get("body"),
        found.reference,
        found.text("stream"),
        found.text("entry"),
        tuple((field, found.fields[field]) for field in _pools.CARRIED if field in found.fields),
    )


class DeadLetters:
    """The dead letters of a farm, as one client sees them: ``broker.dead_letters``.

    Each print server numbers its own: an id says nothing without the server's name. Every method
    raises InvalidArgument for what is no id, InvalidName and RedisError.
    """

    def __init__(self, at: At, glance: At) -> None:
        self._at = at
        self._glance = glance

    async def on_server(
        self, name: str | Name | None, *, pool: str | None = None, limit: int | None = 100
    ) -> list[DeadLetter]:
        """The newest letters of a print server, or for one of its printers, newest first.

        ``limit`` None is all of them. No session is begun.
        """
        if limit is not None and limit < 1:
            raise InvalidArgument(f"limit={limit!r}: at least one letter, or None for all")
        folded = None if pool is None else parse_pool(pool)
        server, asked = await self._glance(name)
        found: list[DeadLetter] = []
        before: str | None = "+"
        while before is not None and (limit is None or len(found) < limit):
            letters = await _newest_first(server, before, AT_ONCE)
            before = f"({letters[-1].id}" if len(letters) == AT_ONCE else None
            found += [
                letter
                for letter in letters
                if folded in (None, letter.pool) and asked.covers(letter.name)
            ]
        return found[:limit]

    async def get(self, name: str | Name | None, id: str) -> DeadLetter:
        """One letter, with its body. Raises NoSuchLetter."""
        server, _ = await self._glance(name)
        letter = await _read(server, id)
        if letter.reference is None:
            return letter
        return replace(letter, data=await read_body(server.command, letter.reference))

    async def replay(self, name: str | Name | None, id: str) -> DeadLetter:
        """Hand it to its pool again, and to no other listener; returns the letter that it was.

        A notification comes in again behind the others, and its deliveries are counted anew; a
        question that is still open is handed out from its board. Raises NoSuchLetter, NotReplayed
        where it stays: nothing to hand out, no room, or no pool.
        """
        glanced, asked = await self._glance(name)
        letter = await _read(glanced, id)
        server, _ = await self._at(asked)
        pool = await _pools.find(server, letter.registration)
        place = await self._place(server, letter, pool)
        fields: dict[str, Arg] = dict(letter.fields)
        call = new_id()
        word, *_ = await server.ask_anew(
            lambda: _calls.replay(server.keys, id, place, fields, call, server.keep)
        )
        match word:
            case "OK":
                return letter
            case "GONE":
                raise _no_such_letter(server, id)
            case "FULL":
                why = f"pool {letter.pool} has no room: {place.pool.buffer} are not finished"
            case "OVER":
                why = "its question is open no more: it was answered, or closed"
            case _:
                why = _no_pool(letter)
        raise _not_replayed(letter, why)

    @staticmethod
    async def _place(server: Server, letter: DeadLetter, pool: PoolPlan | None) -> Place:
        """Where it goes back to; a body that is kept apart is kept for the pool again."""
        if letter.is_dialog:
            raise _not_replayed(letter, "it is a dialog, which was closed when it was put aside")
        audiences = {audience.field: audience for audience in pool.audiences} if pool else {}
        if pool is None or letter.stream not in audiences:
            raise _not_replayed(letter, _no_pool(letter))
        if letter.reference is not None and letter.style is not BIDIRECTIONAL:
            keep = round(server.settings.keep_pooled * 1000)
            if not await server.command("PEXPIRE", letter.reference, keep):
                raise _not_replayed(letter, "its body, which was kept apart, is gone")
        return Place(pool, audiences[letter.stream], letter.entry)

    async def drop(self, name: str | Name | None, id: str) -> bool:
        """Forget it, with its body where nobody else was sent that one; whether it was there."""
        server, _ = await self._glance(name)
        try:
            letter = await _read(server, id)
        except NoSuchLetter:
            return False
        word, *_ = await server.ask_aside(_calls.drop(server.keys, id, new_id(), server.keep))
        if word != "OK":
            return False
        if letter.reference is not None and not await _is_shared(server, letter):
            await server.command("UNLINK", letter.reference)
        return True


async def read_last(server: Server) -> tuple[int, DeadLetter | None]:
    """How many letters a server has, and the last one; it needs no session there."""
    count = int(await server.command("XLEN", server.keys.dead))
    letters = await _newest_first(server, "+", 1) if count else []
    return count, letters[0] if letters else None


async def _newest_first(server: Server, before: str, most: int) -> list[DeadLetter]:
    reply = await server.command("XREVRANGE", server.keys.dead, before, "-", "COUNT", most)
    return _letters(server, reply)


async def _read(server: Server, id: str) -> DeadLetter:
    """The body only where it lies in the letter."""
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise InvalidArgument(
            f"{id!r} is no id of a dead letter, which looks like 1795244161373-0: `tympan dead "
            "list` shows them"
        )
    found = _letters(server, await server.command("XRANGE", server.keys.dead, id, id))
    if not found:
        raise _no_such_letter(server, id)
    return found[0]


async def _is_shared(server: Server, letter: DeadLetter) -> bool:
    """Whether somebody else may need the body, which is stored once for all who hear it.

    A question's is its channel's, and ends with it.
    """
    if letter.style is BIDIRECTIONAL:
        return True
    audiences = channel_audiences(letter.name, letter.type, letter.style, letter.user or EVERYONE)
    pools = await _pools.read(server)
    if any(pool.concerns(audiences) for pool in pools if pool.id != letter.registration):
        return True
    return any([await server.command("ZCARD", server.keys.room(one)) for one in audiences])


def _no_such_letter(server: Server, id: str) -> NoSuchLetter:
    return NoSuchLetter(
        f"there is no dead letter {id} on {Name(server.name)}: it was replayed or dropped, or "
        "never was there",
        id,
    )


def _not_replayed(letter: DeadLetter, why: str) -> NotReplayed:
    return NotReplayed(f"letter {letter.id} stays: {why}", letter.pool, letter.id)


def _no_pool(letter: DeadLetter) -> str:
    return (
        f"pool {letter.pool} is gone, or does not listen to this any more; make it again as it was "
        "(tympan pool create), or drop the letter"
    )
