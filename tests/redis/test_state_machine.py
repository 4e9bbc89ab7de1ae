"""Whatever the order in which transitions come, a farm does what the rules' model does.

Hypothesis drives several processes on one real Redis through random transitions: open, send,
respond, decline, close and release from either end, late registrations, small buffers, grants that
come and go, races, processes that die, and a Redis that comes back under another run id. Replies
get lost on purpose: with ``twice`` every script of that step is run twice with the same arguments,
and the second answer, which must equal the first, is the one that counts.

After each step every end must have been told exactly what :mod:`tests.model` says, the channels in
Redis must be in the model's states, and each implicit reference must have been dropped once.

``TYMPAN_EXAMPLES`` sets how many sequences are tried; with ``TYMPAN_SHRINK=0`` one that fails is
shown as it was found.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from broker import ALL_USERS, BIDIRECTIONAL, PER_USER, UNIDIRECTIONAL, Offer
from tests import model
from tests.conformance.actors import eventually, pass_away
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.model import State
from tests.redis.machine import ROOT, USERS, Machine, chosen, has_ended, outcome
from tests.servers import RedisServer

EXAMPLES = int(os.environ.get("TYMPAN_EXAMPLES", "50"))
SHRINK = os.environ.get("TYMPAN_SHRINK", "1") == "1"
STEPS = 50
MOST_CHANNELS = 6
MOST_QUESTIONS = 3
MOST_REGISTRATIONS = 7
CALM = 15
"""Steps between two disasters, so that something is there to be lost."""

picks = st.integers(0, 2**16)
bodies = st.binary(max_size=48)
users = st.sampled_from(USERS)
again = st.booleans()


class FarmMachine(Machine):
    """The transitions, each with what the model says of it."""

    @initialize()
    def begin(self) -> None:
        self.run(self.begin_farm())
        for i, bi in enumerate((True, True, True, False, False)):
            self.register(i, USERS[i % 2], i in (2, 4), bi, 1 + i, False)

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

    @precondition(lambda self: self.calm > CALM)
    @rule(pick=picks, twice=again)
    def delete_printer(self, pick: int, twice: bool) -> None:
        """R65: both ends of its channels and whoever listens one way are told, and nobody twice."""
        self.calm = 0
        process = self.pick_process(pick)
        known = dict(self.model.registrations)
        ended = self.model.delete_printer()

        async def delete() -> None:
            await self.processes[process].broker.delete_printer(PRINTER)
            for number in ended:
                await self.parts(known[number])
            for each in self.model.registrations.values():
                if not each.bidirectional:
                    await self.room_written(each)

        assert self.step(process, delete(), twice=twice) == model.OK

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
                data = notification.data or b""
                channel = 0 if notification.is_release else self.number(notification.channel)
                assert self.model.fetch(number, channel, data), (
                    f"{data!r} of channel {channel} is out of order, or came twice"
                )
            await self.room_written(known)
            repeated.on = False

        self.run(fetch())

    @precondition(lambda self: self.standing(bidirectional=True))
    @rule(pick=picks)
    def fetch_offers(self, pick: int) -> None:
        number = chosen(self.standing(bidirectional=True), pick)
        for offer in self.run(self.registrations[number].fetch_offers(PATIENCE)):
            channel = self.number(offer.id)
            assert offer.notification.data == self.model.channels[channel].question
            self.offers[channel, number] = offer
        expected = self.model.fetch_offers(number)
        handed = {channel for channel, registration in self.offers if registration == number}
        assert expected <= handed

    # The source --------------------------------------------------------------------------------

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
        process = self.handle(*key).process
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
            process = self.handle(*key).process
            word = self.step(process, self.offers[key].respond(data), twice=twice)
            assert word in self.model.respond(*key, data)

    @precondition(lambda self: self.listeners())
    @rule(pick=picks, reason=st.none() | bodies, twice=again)
    def end(self, pick: int, reason: bytes | None, twice: bool) -> None:
        key = chosen(self.listeners(), pick)
        process = self.handle(*key).process
        word = self.step(process, self.offers[key].close(reason), twice=twice)
        assert word in self.model.end(*key, reason)

    @precondition(lambda self: self.listeners() and self.calm % 4 == 3)
    @rule(pick=picks, twice=again)
    def let_go(self, pick: int, twice: bool) -> None:
        key = chosen(self.listeners(), pick)
        process = self.handle(*key).process
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

        async def die() -> None:
            await pass_away(self.farm, process.broker, *witnesses)
            await self.new_process()

        self.run(die())
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
