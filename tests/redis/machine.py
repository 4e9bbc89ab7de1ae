"""A farm under random transitions, and its model: what :mod:`test_state_machine` adds rules to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant

from broker import BIDIRECTIONAL, Broker, Channel, Notification, Offer, Payload, Registration
from broker._keys import EVERYONE, Audience, Keys, channel_audiences
from broker._scripts import Call
from broker.errors import RegistrationEnded, TympanError
from broker.names import Name
from broker.results import Result
from tests import model
from tests.conformance.actors import eventually
from tests.farm import PATIENCE, PRINTER, SERVER, TYPE, Farm, RedisBackend
from tests.model import FarmModel, Handle, State, Told
from tests.servers import RedisServer

LATELY = 6
"""How many of the last channels are looked at again when they are closed."""
USERS = ("alice", "bob")
ROOT = "root"
"""Who opens channels; administers the printer while somebody made it so."""
SETTINGS = {"lease": 600.0, "resync": 0.05, "body_by_reference": 24}

T = TypeVar("T")


class Repeated:
    """Runs scripts twice, as if the first reply had been lost, while it is switched on."""

    FIRST_ANSWER_ONLY = frozenset({"bury"})
    """After it there is no session left that could be answered."""

    def __init__(self, broker: Broker) -> None:
        self.on = False
        self.wrong: list[str] = []
        """Second answers that were not the first ones."""
        link = broker._topology.link("")
        self._run: Callable[..., Awaitable[list[Any]]] = link.run
        link.run = self.run  # type: ignore[method-assign]

    async def run(self, call: Call, lead: Any, **options: Any) -> list[Any]:
        """In the place of the link's own method."""
        first = await self._run(call, lead, **options)
        if not self.on or call.script.name in self.FIRST_ANSWER_ONLY or "run-down" in call.args:
            return first
        second = await self._run(call, lead, **options)
        same = slice(None)
        if call.script.name == "register":
            same = slice(1)  # not: whether it was known before, and what was sent meanwhile
        elif call.script.name == "confirm":
            same = slice(1)  # not the state: the other end may have acted meanwhile
        elif call.script.name == "renew":
            same = slice(1)  # not the time
        elif call.script.name == "unregister":
            same = slice(0)  # it may be gone
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


class Machine(RuleBasedStateMachine):
    """A farm and its model, and how the two are compared."""

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

    async def begin_farm(self) -> None:
        """Three processes, and two administrators."""
        self.farm = Farm(RedisBackend(self.server))
        for _ in range(3):
            await self.new_process()
        broker = next(iter(self.processes.values())).broker
        for user in (ROOT, USERS[0]):
            await broker.grant(PRINTER, user, "administer")
            self.model.administrators.add(user)

    async def new_process(self) -> None:
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
            if self._is_alive(self.handle(*key).process) and offer.closing is None:
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
        recent = set(self.sources()) | set(list(self.model.channels)[-LATELY:])
        return [
            key
            for key in self.offers
            if key[0] in recent and self._is_alive(self.handle(*key).process)
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
            key for key in self.listeners() if key[0] == channel and not self.handle(*key).is_gone
        ]

    def handle(self, channel: int, registration: int) -> Handle:
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

    def count(self, *states: State) -> int:
        """Channels in one of these states."""
        return sum(channel.state in states for channel in self.model.channels.values())

    def number(self, id_: str) -> int:
        return next(number for number, channel in self.channels.items() if channel.id == id_)

    async def parts(self, known: model.Registration) -> None:
        """It ends with its printer; a unidirectional one after what it heard, a release last."""
        registration = self.registrations[known.id]
        await eventually(partial(has_ended, registration), f"the end of {known}")
        left = list(known.unread)
        while left:
            told = await registration.fetch(PATIENCE)
            assert isinstance(told, Notification)
            left.pop()
            assert told.is_release or left, "a release is the last that it hears"
        with pytest.raises(RegistrationEnded, match="printer deleted"):
            await registration.fetch(PATIENCE)

    async def room_written(self, known: model.Registration) -> None:
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
