"""Whatever the order in which transitions come, a farm does what the rules' model does.

Hypothesis drives several processes on one real Redis through random transitions: open, send,
respond, decline, close and release from either end, late registrations, small buffers, grants that
come and go, races, processes that die, and a Redis that comes back under another run id. Replies
get lost on purpose: with ``again`` every script of that step is run twice with the same arguments,
and the second answer, which must equal the first, is the one that counts.

After each step every end must have been told exactly what :mod:`tests.model` says, the channels in
Redis must be in the model's states, and each implicit reference must have been dropped once.

``TYMPAN_EXAMPLES`` sets how many sequences are tried; with ``TYMPAN_SHRINK=0`` one that fails is
shown as it was found.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Broker,
    Channel,
    Offer,
    Payload,
    Registration,
)
from broker._keys import EVERYONE, Audience, Keys, channel_audiences
from broker._scripts import Call
from broker.errors import TympanError
from broker.names import Name
from broker.results import Result
from tests import model
from tests.conformance.actors import die, eventually
from tests.farm import PATIENCE, PRINTER, SERVER, TYPE, Farm, RedisBackend
from tests.model import FarmModel, Handle, State, Told
from tests.servers import RedisServer

EXAMPLES = int(os.environ.get("TYMPAN_EXAMPLES", "100"))
SHRINK = os.environ.get("TYMPAN_SHRINK", "1") == "1"
STEPS = 50
MOST_CHANNELS = 6
MOST_QUESTIONS = 3
MOST_REGISTRATIONS = 7
CALM = 15
"""Steps between two disasters, so that something is there to be lost."""
USERS = ("alice", "bob")
ROOT = "root"
"""Who opens channels; administers the printer while somebody made it so."""
SETTINGS = {"lease": 600.0, "resync": 0.05, "body_by_reference": 24}

T = TypeVar("T")
picks = st.integers(0, 2**16)
bodies = st.binary(max_size=48)
users = st.sampled_from(USERS)
again = st.booleans()


class Repeated:
    """Runs scripts twice, as if the first reply had been lost, while it is switched on."""

    FIRST_ANSWER_ONLY = frozenset({"bury", "unregister"})
    """After them there is nothing left that could answer as before."""

    def __init__(self, broker: Broker) -> None:
        self.on = False
        self.wrong: list[str] = []
        """Second answers that were not the first ones."""
        self._run: Callable[..., Awaitable[list[Any]]] = broker._link.run
        broker._link.run = self.run  # type: ignore[method-assign]

    async def run(self, call: Call, lead: Any) -> list[Any]:
        """In the place of the link's own method."""
        first = await self._run(call, lead)
        if not self.on or call.script.name in self.FIRST_ANSWER_ONLY or "run-down" in call.args:
            return first
        second = await self._run(call, lead)
        same = slice(None)
        if call.script.name == "register":
            same = slice(1)  # not: whether it was known before, and what was sent meanwhile
        elif call.script.name == "listener_close" and first[0] in (b"OK", b"RELEASED"):
            same = slice(1)  # not: who owns it, which nobody asks a close that succeeded
        if first[same] != second[same]:
            self.wrong.append(f"{call.script.name} answered {first}, and asked again {second}")
        return second


class Process:
    """One broker, and what its program holds."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.repeated = Repeated(broker)
        self.is_alive = True


class FarmMachine(RuleBasedStateMachine):
    """A farm and its model, step by step."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.server = server
        self.model = FarmModel()
        self.processes: dict[int, Process] = {}
        self.channels: dict[int, Channel] = {}
        self.registrations: dict[int, Registration[Payload]] = {}
        self.offers: dict[tuple[int, int], Offer[Payload]] = {}
        """By channel and registration, once fetched."""
        self.numbers = iter(range(1, 2**16))
        self.calm = 0
        """Steps since the last disaster."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(self._in_time(work))

    @staticmethod
    async def _in_time(work: Coroutine[Any, Any, T]) -> T:
        async with asyncio.timeout(3 * PATIENCE):
            return await work

    # Beginning and end -------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        async def begin() -> None:
            self.farm = Farm(RedisBackend(self.server))
            for _ in range(3):
                await self._new_process()
            broker = next(iter(self.processes.values())).broker
            for user in (ROOT, USERS[0]):
                await broker.grant(PRINTER, user, "administer")
                self.model.administrators.add(user)

        self.run(begin())
        for i, bi in enumerate((True, True, True, False, False)):
            self.register(i, USERS[i % 2], i in (2, 4), bi, 1 + i, False)

    async def _new_process(self) -> None:
        broker = await self.farm.broker(ROOT, **SETTINGS)
        await broker.server(PRINTER)
        self.processes[next(self.numbers)] = Process(broker)

    def teardown(self) -> None:
        try:
            if hasattr(self, "farm"):
                self.run(self._nothing_more())
                self.run(self._everybody_knows_the_epoch())
                self.run(self.farm.close())
        finally:
            self.runner.close()

    async def _nothing_more(self) -> None:
        """Nothing was told twice, and nothing that the model does not know of."""
        await self._settle()
        for key, offer in self.offers.items():
            if self._is_alive(self._handle(*key).process) and offer.closing is None:
                with pytest.raises(TympanError, match="nothing came"):
                    await offer.follow_up(timeout=0)
        for number, channel in self.channels.items():
            known = self.model.channels[number]
            if self._is_alive(known.process) and known.bidirectional and channel.closing is None:
                with pytest.raises(TympanError, match="no response"):
                    await channel.response(timeout=0)

    async def _everybody_knows_the_epoch(self) -> None:
        for process in self.processes.values():
            await process.broker.revoke(SERVER, ROOT, "enumerate")

    # Picking -----------------------------------------------------------------------------------

    def _is_alive(self, process: int) -> bool:
        return process in self.processes

    def pick_process(self, pick: int) -> int:
        return chosen(list(self.processes), pick)

    def sources(self) -> list[int]:
        """Channels whose source lives; of the closed ones the last few."""
        alive = [each for each in self.model.channels.values() if self._is_alive(each.process)]
        closed = [each.id for each in alive if each.state is State.CLOSED]
        return [each.id for each in alive if each.id not in closed[:-2]]

    def standing(self, *, bidirectional: bool) -> list[int]:
        """Registrations at which something waits to be fetched."""
        return [
            each.id
            for each in self.model.registrations.values()
            if each.bidirectional == bidirectional and self.model.unread(each.id)
        ]

    def listeners(self) -> list[tuple[int, int]]:
        """Handles that were fetched in processes that live, of channels that still matter."""
        recent = set(self.sources()) | set(list(self.model.channels)[-MOST_CHANNELS:])
        return [
            key
            for key in self.offers
            if key[0] in recent and self._is_alive(self._handle(*key).process)
        ]

    def owned(self) -> list[tuple[int, int]]:
        """Dialogs both of whose ends live."""
        return [
            (channel, registration)
            for channel, registration in self.listeners()
            if self.model.channels[channel].owner == registration
            and self.model.channels[channel].state is not State.CLOSED
            and self._is_alive(self.model.channels[channel].process)
        ]

    def contested(self) -> list[int]:
        """Unanswered channels that somebody holds."""
        return [
            channel
            for channel in {channel for channel, _ in self.listeners()}
            if self.model.channels[channel].state is State.OFFERED and self.racing(channel)
        ]

    def racing(self, channel: int) -> list[tuple[int, int]]:
        """Who may still answer it."""
        return [
            key for key in self.listeners() if key[0] == channel and not self._handle(*key).is_gone
        ]

    def _handle(self, channel: int, registration: int) -> Handle:
        return self.model.channels[channel].handles[registration]

    def step(self, process: int, work: Awaitable[Result | None], *, twice: bool = False) -> str:
        """Do something in a process and let everybody hear of it: how it ended, as a name."""
        repeated = self.processes[process].repeated

        async def do() -> str:
            repeated.on = twice
            try:
                result = await work
                return "S_OK" if result is None else result.name
            except TympanError as error:
                return type(error).__name__
            finally:
                repeated.on = False

        return self.run(do())

    # Registrations -----------------------------------------------------------------------------

    @precondition(
        lambda self: len(self.model.registrations) < MOST_REGISTRATIONS and self.calm % 3 == 0
    )
    @rule(pick=picks, user=users, all_users=again, bi=again, buffer=st.integers(1, 4), twice=again)
    def register(
        self, pick: int, user: str, all_users: bool, bi: bool, buffer: int, twice: bool
    ) -> None:
        process, number = self.pick_process(pick), next(self.numbers)
        all_users = all_users and (user in self.model.administrators or pick % 8 == 0)
        expected = self.model.register(
            model.Registration(number, process, user, all_users, bi, buffer)
        )

        async def register() -> None:
            self.registrations[number] = await self.processes[process].broker.register(
                PRINTER,
                TYPE,
                user=user,
                user_filter=ALL_USERS if all_users else PER_USER,
                style=BIDIRECTIONAL if bi else UNIDIRECTIONAL,
                buffer=buffer,
            )

        assert self.step(process, register(), twice=twice) == expected

    @precondition(lambda self: len(self.model.registrations) > 2 and self.calm % 4 == 2)
    @rule(pick=picks, twice=again)
    def unregister(self, pick: int, twice: bool) -> None:
        number = chosen(list(self.model.registrations), pick)
        process = self.model.registrations[number].process
        expected = self.model.unregister(number)
        work = self.registrations[number].unregister()
        assert self.step(process, work, twice=twice) == expected

    @precondition(lambda self: len(self.model.administrators) < 3 and self.calm % 4 == 0)
    @rule(user=st.sampled_from((*USERS, ROOT)), pick=picks, twice=again)
    def grant(self, user: str, pick: int, twice: bool) -> None:
        process = self.pick_process(pick)
        self.model.administrators.add(user)

        async def grant() -> None:
            await self.processes[process].broker.grant(PRINTER, user, "administer")

        assert self.step(process, grant(), twice=twice) == model.OK

    @precondition(lambda self: self.calm > CALM)
    @rule(user=st.sampled_from((*USERS, ROOT)), pick=picks, twice=again)
    def revoke(self, user: str, pick: int, twice: bool) -> None:
        self.calm = 0
        process = self.pick_process(pick)
        ended = self.model.revoke(user)

        async def revoke() -> None:
            await self.processes[process].broker.revoke(PRINTER, user, "administer")
            for number in ended:
                await eventually(
                    partial(has_ended, self.registrations[number]),
                    f"the end of registration {number}, whose right was taken away",
                )

        assert self.step(process, revoke(), twice=twice) == model.OK

    @precondition(lambda self: self.standing(bidirectional=False))
    @rule(pick=picks, count=st.integers(1, 4), twice=again)
    def fetch(self, pick: int, count: int, twice: bool) -> None:
        number = chosen(self.standing(bidirectional=False), pick)
        known = self.model.registrations[number]
        repeated = self.processes[known.process].repeated

        async def fetch() -> None:
            repeated.on = twice
            for _ in range(min(count, len(known.unread))):
                notification = await self.registrations[number].fetch(PATIENCE)
                assert notification is not None
                assert not isinstance(notification, Offer)
                channel, data = self._number(notification.channel), notification.data or b""
                assert self.model.fetch(number, channel, data), (
                    f"{data!r} of channel {channel} is out of order, or came twice"
                )
            await self._room_written(known)
            repeated.on = False

        self.run(fetch())

    async def _room_written(self, known: model.Registration) -> None:
        """Senders find the room that the model's buffers have; perhaps not at once."""
        registration = self.registrations[known.id]
        keys, group = registration.server.keys, registration.plan.group(registration.id)
        for audience in registration.plan.audiences:
            own = "*" if audience.whom == EVERYONE else "own"
            free = known.buffer - sum(row[0] == own for row in known.unread)
            what = f"{free} free places of {known.buffer} for {audience.whom} in {known}"
            await eventually(partial(self._has_room, keys, audience, group, free), what)

    async def _has_room(self, keys: Keys, audience: Audience, group: str, free: int) -> bool:
        room = await self.farm.client.zscore(keys.room(audience), group)
        last = int(await self.farm.client.hget(keys.streams, audience.field) or 0)
        assert room is not None, "a registration without a room"
        return bool(max(room, last) - last == free)

    @precondition(lambda self: self.standing(bidirectional=True))
    @rule(pick=picks)
    def fetch_offers(self, pick: int) -> None:
        number = chosen(self.standing(bidirectional=True), pick)
        for offer in self.run(self.registrations[number].fetch_offers(PATIENCE)):
            channel = self._number(offer.id)
            assert offer.notification.data == self.model.channels[channel].question
            self.offers[channel, number] = offer
        expected = self.model.fetch_offers(number)
        handed = {channel for channel, registration in self.offers if registration == number}
        assert expected <= handed

    def _number(self, id_: str) -> int:
        return next(number for number, channel in self.channels.items() if channel.id == id_)

    # The source --------------------------------------------------------------------------------

    def count(self, *states: State) -> int:
        """Channels in one of these states."""
        return sum(channel.state in states for channel in self.model.channels.values())

    @precondition(lambda self: self.count(*set(State) - {State.CLOSED}) < MOST_CHANNELS)
    @rule(pick=picks, user=st.sampled_from((*USERS, None)), bi=st.booleans(), twice=again)
    def open(self, pick: int, user: str | None, bi: bool, twice: bool) -> None:
        process, number = self.pick_process(pick), next(self.numbers)
        expected = self.model.open(model.Channel(number, process, user, bi), ROOT)

        async def open_() -> None:
            self.channels[number] = await self.processes[process].broker.open_channel(
                PRINTER,
                TYPE,
                user=user,
                user_filter=ALL_USERS if user is None else PER_USER,
                style=BIDIRECTIONAL if bi else UNIDIRECTIONAL,
            )

        assert self.step(process, open_(), twice=twice) == expected

    @precondition(lambda self: self.count(State.OFFERED) < MOST_QUESTIONS)
    @rule(pick=picks, user=st.sampled_from((*USERS, None)), data=bodies, twice=again)
    def ask(self, pick: int, user: str | None, data: bytes, twice: bool) -> None:
        """Open a bidirectional channel and send its question."""
        before = set(self.channels)
        self.open(pick, user, True, twice)
        for number in set(self.channels) - before:
            process = self.model.channels[number].process
            word = self.step(process, self.channels[number].send(data), twice=twice)
            assert word == self.model.send(number, data)

    @precondition(lambda self: self.sources())
    @rule(pick=picks, data=bodies, lossless=st.booleans(), twice=again)
    def send(self, pick: int, data: bytes, lossless: bool, twice: bool) -> None:
        number = chosen(self.sources(), pick)
        known = self.model.channels[number]
        lossless = lossless and not known.bidirectional
        work = self.channels[number].send(
            data, lossless=lossless, timeout=0.01 if lossless else None
        )
        word = self.step(known.process, work, twice=twice)
        expected = self.model.send(number, data, lossless=lossless)
        assert word == expected

    @rule(
        pick=picks,
        user=st.sampled_from((*USERS, None)),
        count=st.integers(1, 5),
        lossless=st.booleans(),
        twice=again,
    )
    def notify(self, pick: int, user: str | None, count: int, lossless: bool, twice: bool) -> None:
        """Send a few notifications one after another, on a channel that is there or a new one."""
        open_ones = [
            number
            for number in self.sources()
            if not self.model.channels[number].bidirectional
            and self.model.channels[number].user == user
            and self.model.channels[number].state is not State.CLOSED
        ]
        if not open_ones:
            self.open(pick, user, False, twice)
            return
        number = chosen(open_ones, pick)
        for i in range(count):
            data = b"%d" % i
            work = self.channels[number].send(data, lossless=lossless, timeout=0.01)
            word = self.step(self.model.channels[number].process, work, twice=twice)
            assert word == self.model.send(number, data, lossless=lossless)

    @precondition(lambda self: self.sources() and self.calm % 4 == 0)
    @rule(pick=picks, reason=st.none() | bodies, twice=again)
    def close(self, pick: int, reason: bytes | None, twice: bool) -> None:
        number = chosen(self.sources(), pick)
        process = self.model.channels[number].process
        word = self.step(process, self.channels[number].close(reason), twice=twice)
        assert word == self.model.close(number, reason)

    @precondition(lambda self: self.sources() and self.calm % 4 == 1)
    @rule(pick=picks, twice=again)
    def release(self, pick: int, twice: bool) -> None:
        number = chosen(self.sources(), pick)
        process = self.model.channels[number].process
        word = self.step(process, self.channels[number].release(), twice=twice)
        assert word == self.model.release(number)

    # Listeners ---------------------------------------------------------------------------------

    @precondition(lambda self: self.listeners())
    @rule(pick=picks, data=bodies, twice=again)
    def respond(self, pick: int, data: bytes, twice: bool) -> None:
        key = chosen(self.listeners(), pick)
        process = self._handle(*key).process
        word = self.step(process, self.offers[key].respond(data), twice=twice)
        assert word in self.model.respond(*key, data)

    @precondition(lambda self: self.owned())
    @rule(pick=picks, data=bodies, twice=again)
    def speak_in_turn(self, pick: int, data: bytes, twice: bool) -> None:
        """The next half of a turn, by the end whose turn it is."""
        key = chosen(self.owned(), pick)
        if self.model.channels[key[0]].state is State.ANSWERED:
            process = self.model.channels[key[0]].process
            word = self.step(process, self.channels[key[0]].send(data), twice=twice)
            assert word == self.model.send(key[0], data)
        else:
            process = self._handle(*key).process
            word = self.step(process, self.offers[key].respond(data), twice=twice)
            assert word in self.model.respond(*key, data)

    @precondition(lambda self: self.listeners())
    @rule(pick=picks, reason=st.none() | bodies, twice=again)
    def end(self, pick: int, reason: bytes | None, twice: bool) -> None:
        key = chosen(self.listeners(), pick)
        process = self._handle(*key).process
        word = self.step(process, self.offers[key].close(reason), twice=twice)
        assert word in self.model.end(*key, reason)

    @precondition(lambda self: self.listeners() and self.calm % 4 == 3)
    @rule(pick=picks, twice=again)
    def let_go(self, pick: int, twice: bool) -> None:
        key = chosen(self.listeners(), pick)
        process = self._handle(*key).process
        word = self.step(process, self.offers[key].release(), twice=twice)
        assert word == self.model.let_go(*key)

    # Races -------------------------------------------------------------------------------------

    @precondition(lambda self: self.contested())
    @rule(pick=picks)
    def all_respond_at_once(self, pick: int) -> None:
        """R76: of those who answer at once exactly one is first."""
        racing = self.racing(chosen(self.contested(), pick))

        async def race() -> list[str]:
            answers = (self.offers[key].respond(str(key[1]).encode()) for key in racing)
            return await asyncio.gather(*map(outcome, answers))

        words = self.run(race())
        assert words.count(model.OK) == 1
        first = words.index(model.OK)
        for i in (first, *(i for i in range(len(racing)) if i != first)):
            assert words[i] in self.model.respond(*racing[i], str(racing[i][1]).encode())

    @precondition(lambda self: self.owned())
    @rule(pick=picks, reason=bodies)
    def both_ends_close_at_once(self, pick: int, reason: bytes) -> None:
        """R105: exactly one close succeeds."""
        key = chosen(self.owned(), pick)

        async def race() -> tuple[str, str]:
            source, owner = self.channels[key[0]], self.offers[key]
            return await asyncio.gather(outcome(source.close(reason)), outcome(owner.close(reason)))

        by_source, by_owner = self.run(race())
        if by_source == model.OK:
            assert self.model.close(key[0], reason) == model.OK
            assert by_owner in self.model.end(*key, reason)
        else:
            assert by_owner in self.model.end(*key, reason)
            assert by_source == self.model.close(key[0], reason)

    # Disasters ---------------------------------------------------------------------------------

    @precondition(lambda self: self.calm > CALM)
    @rule(pick=picks, together=st.booleans())
    def a_process_dies(self, pick: int, together: bool) -> None:
        """R121 to R123: its lease runs out, and another process runs it down; perhaps two do."""
        self.calm = 0
        number = self.pick_process(pick)
        process = self.processes.pop(number)
        witnesses = [each.broker for each in self.processes.values()][: 1 + together]

        async def pass_away() -> None:
            server = await process.broker.server(PRINTER)
            session = server.session
            await die(self.farm, process.broker)
            await self.farm.client.hset(server.keys.meta, "grace", 0)
            await self.farm.client.zadd(server.keys.leases, {session: 1}, xx=True)

            async def is_buried() -> bool:
                """Not in the millisecond in which an epoch began: an outage kills nobody."""
                await asyncio.gather(*(each.run_down(SERVER) for each in witnesses))
                return await self.farm.client.zscore(server.keys.leases, session) is None

            await eventually(is_buried, "the burial of a session whose lease ran out")
            await self._new_process()

        self.run(pass_away())
        self.model.die(number)

    @precondition(lambda self: self.calm > CALM)
    @rule()
    def redis_comes_back_as_another_process(self) -> None:
        """D13: nothing was lost, so everything goes on under a new epoch."""
        self.calm = 0

        async def come_back() -> None:
            server = await next(iter(self.processes.values())).broker.server(PRINTER)
            await self.farm.client.hset(server.keys.meta, "run", "another")

        self.run(come_back())

    # What must be so after each step -----------------------------------------------------------

    @invariant()
    def everybody_was_told(self) -> None:
        self.calm += 1
        self.run(self._settle())
        wrong = [line for each in self.processes.values() for line in each.repeated.wrong]
        assert not wrong, wrong

    async def _settle(self) -> None:
        for number, known in self.model.channels.items():
            if number in self.channels and self._is_alive(known.process):
                while known.told:
                    await self._source_hears(self.channels[number], known.told.pop(0))
            for registration, handle in known.handles.items():
                if self._is_alive(handle.process):
                    while handle.told:
                        await hears(self.offers[number, registration], handle.told.pop(0))
        for standing in self.model.registrations:
            unread = self.model.unread(standing)
            await eventually(
                partial(has_unread, self.registrations[standing], unread),
                f"{unread} unread at {self.model.registrations[standing]}",
            )

    async def _source_hears(self, channel: Channel, told: Told) -> None:
        if told.event == "response":
            if channel.closing is None:
                assert (await channel.response(PATIENCE)).data == told.data
        else:
            await hears(channel, told)

    @invariant()
    def redis_holds_what_the_model_holds(self) -> None:
        self.run(self._compare())

    async def _compare(self) -> None:
        if not self.processes:
            return
        server = await next(iter(self.processes.values())).broker.server(PRINTER)
        client, keys = self.farm.client, server.keys
        compared = [each for each in self.model.channels.values() if each.id in self.channels]
        async with client.pipeline(transaction=False) as pipe:
            for known in compared:
                key = keys.channel(self.channels[known.id].id)
                pipe.hmget(key, "state", "drops", "owner")
            for user in (*USERS, EVERYONE):
                for audience in channel_audiences(Name.parse(PRINTER), TYPE, BIDIRECTIONAL, user):
                    pipe.xrange(keys.stream(audience))
            pipe.hkeys(keys.channels)
            *facts, open_channels = await pipe.execute()
        for known, (state, drops, owner) in zip(compared, facts, strict=False):
            assert state.decode() == known.state.value, f"channel {known.id}"
            assert int(drops or 0) == known.drops, f"channel {known.id}: references dropped"
            assert (owner is not None) == (known.owner is not None)
            if known.owner is not None:
                assert owner.decode() == self.registrations[known.owner].id
        boards = facts[len(compared) :]
        on_boards = {
            dict(zip(flat[::2], flat[1::2], strict=True))[b"channel"].decode()
            if isinstance(flat, list)
            else flat[b"channel"].decode()
            for board in boards
            for _, flat in board
        }
        offered = {self.channels[each.id].id for each in compared if each.state is State.OFFERED}
        assert on_boards == offered, "what lies on the boards is exactly what is unanswered"
        assert {name.decode() for name in open_channels} == {
            self.channels[each.id].id for each in compared if each.state is not State.CLOSED
        }


def chosen(candidates: Sequence[T], pick: int) -> T:
    """One of them; the later ones come first, so that simple examples speak of what is new."""
    return candidates[-1 - pick % len(candidates)]


def has_ended(registration: Registration[Payload]) -> bool:
    return not registration.is_registered


def has_unread(registration: Registration[Payload], count: int) -> bool:
    return registration.unread == count


async def hears(end: Channel | Offer[Payload], told: Told) -> None:
    """One end is told this, and nothing else."""
    if told.event == "notification":
        assert isinstance(end, Offer)
        if end.closing is None:
            assert (await end.follow_up(PATIENCE)).data == told.data
        return
    closing = await end.wait_closed(PATIENCE)
    assert closing is not None, "nobody told this end that the channel is over"
    assert (closing.reason.data, closing.acquired) == (told.data, told.acquired)


async def outcome(work: Awaitable[Result]) -> str:
    """How it ended, as a name."""
    try:
        return (await work).name
    except TympanError as error:
        return type(error).__name__


@pytest.mark.slow
@pytest.mark.timeout(60 + EXAMPLES * 5)
def test_a_farm_does_what_its_model_does(redis_server: RedisServer) -> None:
    run_state_machine_as_test(
        partial(FarmMachine, redis_server),  # type: ignore[arg-type] # any maker of machines will do
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink) if SHRINK else (Phase.generate,),
        ),
    )
