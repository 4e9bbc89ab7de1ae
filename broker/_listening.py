"""Listening: what a process hears of one server, for all its registrations together.

One reader for each stream, however many registrations listen to it; the reader hands out inside
the process. Positions and takes are written back in batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from broker import _calls
from broker._batches import AT_ONCE, batches
from broker._bodies import read_body
from broker._entries import Entry, EntryId, by_name, read_range
from broker._keys import Audience
from broker._outcomes import PRINTER_DELETED
from broker._plan import RegistrationPlan
from broker._reader import BATCH, BoardMember, BoardReader, Reader, StreamReader
from broker._room import Room
from broker._scripts import Call
from broker._standing import Standing, denied, watch
from broker.conversation import BIDIRECTIONAL
from broker.errors import (
    AccessDenied,
    MaxRegistrationCountExceeded,
    OutcomeUnknown,
    RedisError,
    RedisUnreachable,
    SessionLapsed,
    TympanError,
)

if TYPE_CHECKING:
    from broker._server import Server
    from broker.registration import Registration

log = logging.getLogger("tympan")

WRITE_PAUSE = 0.01
"""Seconds in which takes gather while every room is so large that nobody fills it meanwhile."""
WRITE_PATIENCE = 1.0
"""Seconds that a take waits for its write before the application gets the notification anyway."""
BODY_AFTER_TRIM = 3
"""Leases that a body outlives the trim of its entry: by then every reader has it, or is dead."""

Ask = Callable[[Callable[[], Call]], Awaitable[list[Any]]]
Place = tuple[Room, "Registration[Any]"]


class Listening:
    """The readers of one process on one server, and who listens behind each."""

    def __init__(self, server: Server) -> None:
        self.readers: dict[str, Reader] = {}
        self.registrations: dict[str, Registration[Any]] = {}
        self.doubtful: dict[str, RegistrationPlan] = {}
        """Registrations that were broken off, or lost their right: if they stand, they must not."""
        self.standing = Standing()
        """Whom this client asks for rights."""
        self._server = server
        self._places: dict[str, dict[Registration[Any], Room]] = {}
        self._joining: dict[str, int] = {}
        self._due: dict[Room, Registration[Any]] = {}
        """Rooms in which something was taken that Redis does not know of."""
        self._awaited: dict[Room, asyncio.Future[None]] = {}
        """Those of them whose write somebody waits for."""
        self._hurry = asyncio.Event()
        """Set while one of them may be filled soon."""
        self._writer: asyncio.Task[None] | None = None
        self._trimmed: dict[str, EntryId] = {}
        self._watch: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Have every reader look into Redis."""
        for reader in self.readers.values():
            reader.look()

    async def close(self) -> None:
        """Stop following."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait({self._writer})
        for reader in list(self.readers.values()):
            await reader.close()
            await self._server.hear_no_more(reader.key)

    # Joining and leaving ------------------------------------------------------------------------

    async def join(self, registration: Registration[Any]) -> None:
        """Register, and follow the audiences.

        Raises AccessDenied, RightsUnavailable, MaxRegistrationCountExceeded.

        Bells are heard before the registration stands, and nothing is taken from a stream while
        it is made: between its first entry and its first read nothing falls.
        """
        plan = registration.plan
        await self.standing.require(self._server, plan.user, plan.name, plan.needed)
        is_board = plan.style is BIDIRECTIONAL
        keys = [self._server.keys.stream(audience) for audience in plan.audiences]
        for key in keys:
            self._joining[key] = self._joining.get(key, 0) + 1
        readers: list[Reader] = []
        try:
            for key, audience in zip(keys, plan.audiences, strict=True):
                readers.append(await self._follow(key, audience))
            if is_board:
                await self._enter(registration, readers)
            else:
                await self._enter_paused(registration, readers)
        finally:
            for key in keys:
                self._joined(key)
            await self._drop_unused(readers)
        if plan.needed:
            self.keep_watch()
        if is_board:
            for reader in readers:
                await reader.looked()

    def _joined(self, key: str) -> None:
        self._joining[key] -= 1
        if not self._joining[key]:
            del self._joining[key]

    def keep_watch(self) -> None:
        """Something stands here on a right: ask again for it, each lease."""
        if self._watch is None or self._watch.done():
            self._watch = self._server.spawn(watch(self._server))

    async def _follow(self, key: str, audience: Audience) -> Reader:
        server = self._server
        reader = self.readers.get(key)
        if reader is None:
            common = (key, audience.field, server.keys.streams, server.command)
            if audience.style is BIDIRECTIONAL:
                reader = BoardReader(*common, self._fate, server.missed)
                reader.position = EntryId(int(server.epoch), 0)
            else:
                reader = StreamReader(
                    *common, lambda entry: self._fan_out(key, entry), server.missed
                )
            self.readers[key] = reader
        await server.hear(key)
        return reader

    async def _enter_paused(self, registration: Registration[Any], readers: list[Reader]) -> None:
        for reader in readers:
            await reader.pause()
        try:
            await self._enter(registration, readers)
        finally:
            for reader in readers:
                reader.resume()

    async def _enter(self, registration: Registration[Any], readers: list[Reader]) -> None:
        """The registration's call, and its place behind each reader."""
        _, _, *numbers = await self._registered(
            registration, partial(self._server.ask_anew, afresh=registration.take_another_id)
        )
        self.registrations[registration.id] = registration
        for i, (audience, reader) in enumerate(
            zip(registration.plan.audiences, readers, strict=True)
        ):
            if isinstance(reader, BoardReader):
                reader.members[registration] = None
                continue
            room = int(float(numbers[2 * i + 1]))
            start = EntryId(int(self._server.epoch), room - registration.buffer)
            places = self._places.setdefault(reader.key, {})
            if not places:
                reader.position = start
            place = places[registration] = Room(audience, start, room, registration.buffer)
            registration.rooms.append(place)

    async def _registered(self, registration: Registration[Any], ask: Ask) -> list[Any]:
        plan, server = registration.plan, self._server
        limit = server.settings.max_registrations
        reply = await ask(
            lambda: _calls.register(
                server.keys,
                server.session,
                registration.id,
                plan,
                registration.record(server.session),
                limit,
                "" if plan.style is BIDIRECTIONAL else registration.buffer,
            )
        )
        if reply[0] == "DENIED":
            raise denied(plan.user, plan.name, plan.needed)
        if reply[0] == "LIMIT":
            raise MaxRegistrationCountExceeded(
                f"{plan.name} has {limit} registrations for type {plan.type}; the limit is "
                "max_registrations"
            )
        return reply

    async def end(self, registration: str, plan: RegistrationPlan) -> str:
        """End one of this session's registrations in Redis; the word that it answered."""
        server = self._server
        word, *_ = await server.ask_anew(
            lambda: _calls.unregister(server.keys, registration, plan, "unregister", server.session)
        )
        return str(word)

    async def settle_doubts(self) -> None:
        """End what may stand although its maker was broken off."""
        for registration, plan in list(self.doubtful.items()):
            await self.end(registration, plan)
            self.doubtful.pop(registration, None)

    async def leave(self, registration: Registration[Any]) -> None:
        """Stop following for a registration; a board goes on while an offer's fate hangs on it."""
        self.registrations.pop(registration.id, None)
        if not registration.has_plan:
            return
        readers: list[Reader] = []
        for audience in registration.plan.audiences:
            reader = self.readers.get(self._server.keys.stream(audience))
            if reader is None:
                continue
            readers.append(reader)
            if isinstance(reader, BoardReader):
                if not registration.open_offers():
                    reader.members.pop(registration, None)
            else:
                self._places.get(reader.key, {}).pop(registration, None)
        await self._drop_unused(readers)

    async def _drop_unused(self, readers: Iterable[Reader]) -> None:
        for reader in readers:
            used = (
                reader.members if isinstance(reader, BoardReader) else self._places.get(reader.key)
            )
            if used or reader.key in self._joining:
                continue
            if self.readers.pop(reader.key, None) is not None:
                self._places.pop(reader.key, None)
                self._trimmed.pop(reader.key, None)
                await self._server.hear_no_more(reader.key)
                await reader.close()

    async def attend(self, audiences: Iterable[Audience], member: BoardMember) -> None:
        """Follow boards for a pool's replica: what is open there, and what is not any more."""
        for audience in audiences:
            key = self._server.keys.stream(audience)
            self._joining[key] = self._joining.get(key, 0) + 1
            try:
                reader = await self._follow(key, audience)
            finally:
                self._joined(key)
            assert isinstance(reader, BoardReader)
            reader.members[member] = None
            reader.look()

    def look_again(self, registration: Registration[Any]) -> None:
        """Redis knows nothing of a question that a registration was offered: look again."""
        for audience in registration.plan.audiences:
            reader = self.readers.get(self._server.keys.stream(audience))
            if reader is not None:
                reader.look()

    def know(self, audience: Audience, question: Entry) -> None:
        """A pool's replica was handed a question of a board that it attends."""
        reader = self.readers.get(self._server.keys.stream(audience))
        if isinstance(reader, BoardReader):
            reader.know(question)

    async def attend_no_more(self, audiences: Iterable[Audience], member: BoardMember) -> None:
        """Stop that."""
        found = [self.readers.get(self._server.keys.stream(audience)) for audience in audiences]
        readers = [reader for reader in found if isinstance(reader, BoardReader)]
        for reader in readers:
            reader.members.pop(member, None)
        await self._drop_unused(readers)

    def ended(self, registration: str, why: str) -> None:
        """Another process ended a registration."""
        found = self.registrations.get(registration)
        if found is None:
            return
        if why == PRINTER_DELETED:
            self._server.spawn(self.part(found, why))
        else:
            found.part(why)
            self._server.spawn(self.leave(found))

    async def find_out(self, registration: str) -> None:
        """Redis knows a registration no more; the inbox says why, before or after its bell.

        Where it does not, Redis lost it: it begins again.
        """
        server = self._server
        inbox = server.keys.inbox(server.session)
        reply = await server.command("XREVRANGE", inbox, "+", "-", "COUNT", BATCH)
        found = (
            entry.text("why")
            for entry in read_range(reply)
            if entry.text("event") == "ended" and entry.text("registration") == registration
        )
        why = next(found, None)
        if why is not None:
            self.ended(registration, why)
            return
        lost = self.registrations.get(registration)
        if lost is not None:
            log.warning("server %s: Redis lost registration %s", server.name, registration)
            lost.lost()
            await self.leave(lost)
            server.register_again(lost)
            await self.end(registration, lost.plan)

    async def part(
        self, registration: Registration[Any], why: str, cause: TympanError | None = None
    ) -> None:
        """A registration is ended by another's will, after what its streams still tell it.

        So a release that is on its way is seen before the end.
        """
        made = registration.id
        for audience in registration.plan.audiences:
            reader = self.readers.get(self._server.keys.stream(audience))
            if isinstance(reader, StreamReader):
                await reader.looked()
        if self.registrations.get(made) is registration:
            registration.part(why, cause)
            await self.leave(registration)

    async def resume(self) -> None:
        """After a new epoch: the rooms that Redis knows hold; what it forgot is made anew."""
        await asyncio.gather(*(self._resume(each) for each in list(self.registrations.values())))

    async def _resume(self, registration: Registration[Any]) -> None:
        made, plan = registration.id, registration.plan
        try:
            _, known, *numbers = await self._registered(registration, self._server.ask)
        except AccessDenied as error:
            registration.ended(f"Redis forgot it, and refuses it now: {error}", error)
            await self.leave(registration)
            return
        except MaxRegistrationCountExceeded:
            registration.session_lapsed()
            await self.leave(registration)
            self._server.register_again(registration)
            return
        if self.registrations.get(made) is not registration:  # it ended meanwhile, perhaps before
            self.doubtful[made] = plan
            await self.settle_doubts()
            return
        for i, place in enumerate(registration.rooms):
            room = int(float(numbers[2 * i + 1]))
            if known:
                for accepted in place.resume(room):
                    registration.arrived(place, accepted)
                continue
            start = EntryId(int(self._server.epoch), room - registration.buffer)
            place.restart(start, room)
            reader = self.readers[self._server.keys.stream(place.audience)]
            reader.position = max(reader.position, start)
        if not known:
            log.warning(
                "server %s: Redis forgot registration %s for %s; it begins again here",
                self._server.name,
                registration.id,
                registration.plan.name,
            )

    async def lapsed(self) -> list[Registration[Any]]:
        """The session is over, and with it what was registered; who must register again."""
        registrations, self.registrations = list(self.registrations.values()), {}
        for registration in registrations:
            registration.session_lapsed()
            await self.leave(registration)
        return registrations

    # What comes ---------------------------------------------------------------------------------

    def _fan_out(self, key: str, entry: Entry) -> None:
        for registration, place in list(self._places.get(key, {}).items()):
            if place.arrive(entry):
                registration.arrived(place, entry)
                if entry.is_release:
                    self.taken(place, registration)

    async def _fate(self, channel: str) -> Entry | None:
        """Why a question is no longer open, for a process that missed the bell; None: it is."""
        server = self._server
        fields = ("state", "owner", "owner_user", "reason_body", "reason_ref", "closer")
        values = await server.command("HMGET", server.keys.channel(channel), *fields)
        known = {
            field: value for field, value in zip(fields, values, strict=True) if value is not None
        }
        told: dict[str, bytes] = {"event": b"closed", "by": known.get("closer", b"")}
        if known.get("state") == b"offered":
            return None  # whoever has it can answer it, though the board lost it
        if known.get("state", b"open") == b"open":
            told = {"event": b"forgotten"}  # its source may ask again
        elif "owner" in known:
            told = {"event": b"acquired", "user": known.get("owner_user", b"")}
            told["registration"] = known["owner"]
        elif "reason_body" in known:
            told["body"] = known["reason_body"]
        elif "reason_ref" in known:
            told["ref"] = known["reason_ref"]
            body = await read_body(server.command, known["reason_ref"].decode())
            if body is not None:
                told["body"] = body
        return Entry(EntryId(0, 0), {**told, "channel": channel.encode()})

    # Takes, positions, trimming -----------------------------------------------------------------

    def taken(self, place: Room, registration: Registration[Any]) -> None:
        """The application took one: it is written soon, with others that are taken meanwhile."""
        self._due[place] = registration
        if not place.is_large:
            self._hurry.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_due(), name="tympan-takes")

    async def written(self, place: Room) -> None:
        """What was taken is written now; returns when Redis knows, or a second later.

        For a room that is short: so a slow listener's bound is exact, a fast one's writes are few.
        """
        if place not in self._due:
            return
        written = self._awaited.get(place)
        if written is None:
            written = self._awaited[place] = asyncio.get_running_loop().create_future()
        await asyncio.wait({written}, timeout=WRITE_PATIENCE)

    async def _write_due(self) -> None:
        while self._due:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WRITE_PAUSE):
                    await self._hurry.wait()
            batch = list(self._due.items())[:AT_ONCE]
            awaited = [self._awaited.pop(place, None) for place, _ in batch]
            for place, _ in batch:
                del self._due[place]
            if not self._due:
                self._hurry.clear()
            try:
                await self._take(batch)
            except (RedisError, OutcomeUnknown, SessionLapsed) as error:
                log.warning("server %s: takes are not written yet: %s", self._server.name, error)
            finally:
                for future in awaited:
                    if future is not None and not future.done():
                        future.set_result(None)

    async def keep_house(self) -> None:
        """Write the positions that moved, and drop what everybody has received."""
        dirty = [
            (place, registration)
            for registration in self.registrations.values()
            for place in registration.rooms
            if place.is_dirty and place not in self._due
        ]
        for some in batches(dirty):
            await self._take(some)
        for reader in list(self.readers.values()):
            if isinstance(reader, StreamReader) and reader.key in self.readers:
                await self._trim(reader)

    async def _take(self, places: list[Place]) -> None:
        """One take call. On failure the same takes are sent again later, and count once."""
        batch = [(place, each, place.begin()) for place, each in places if not place.is_writing]
        if not batch:
            return
        call = _calls.take(
            self._server.keys,
            [(place.audience, each.plan.group(each.id), take) for place, each, take in batch],
        )
        try:
            _, *rooms = await self._server.ask(lambda: call)
        except BaseException:
            for place, _, _ in batch:
                place.fail()
            raise
        for (place, registration, _), room in zip(batch, rooms, strict=True):
            number = int(float(room))
            if number < 0:
                place.fail()
                self._server.spawn(self.find_out(registration.id))
                continue
            for accepted in place.finish(number):
                registration.arrived(place, accepted)

    async def _trim(self, reader: StreamReader) -> None:
        """Drop what every group of the stream has received; bodies go a while later.

        The facts of all groups are long where many listen, and each process would ask for them.
        One process drops for all, so each asks as often as its share of the groups is large: in
        one round about one of them does.
        """
        command, position = self._server.command, reader.position
        if self._trimmed.get(reader.key) == position:
            return
        try:
            first, count = _first_entry(await command("XINFO", "STREAM", reader.key))
            groups = []
            if first is not None and first <= position:
                mine = len(self._places.get(reader.key, ()))
                if random.random() * count < mine:
                    groups = await command("XINFO", "GROUPS", reader.key)
        except RedisUnreachable:
            raise
        except RedisError as error:  # the stream is gone: somebody else's doing, nothing to trim
            log.warning("server %s: %s is not trimmed: %s", self._server.name, reader.key, error)
            return
        received = min((_last_delivered(group) for group in groups), default=EntryId(0, 0))
        if received.number > 0:
            first = received.next
            await command("XTRIM", reader.key, "MINID", str(first))
        await self._let_bodies_go(
            reader, position if first is None else min(position, first.previous)
        )

    async def _let_bodies_go(self, reader: StreamReader, dropped: EntryId) -> None:
        """Entries up to this one are gone, whoever dropped them; their bodies go in a while."""
        life = round(BODY_AFTER_TRIM * self._server.settings.lease * 1000)
        for reference in reader.references_upto(dropped):
            await self._server.command("PEXPIRE", reference, life)
        if reader.key in self.readers:
            self._trimmed[reader.key] = dropped


def _first_entry(stream: list[Any]) -> tuple[EntryId | None, int]:
    """Of an XINFO STREAM: its first entry, and how many groups there are."""
    facts = by_name(stream)
    first = facts[b"first-entry"]
    return EntryId.parse(first[0]) if first else None, int(facts[b"groups"])


def _last_delivered(group: list[Any]) -> EntryId:
    return EntryId.parse(by_name(group)[b"last-delivered-id"])
