"""Time in Redis of each script: as it is usually called, and at the limits of the settings.

Redis does nothing else, and its own statistics of EVALSHA are read, one script at a time. At its
limit each script is called a few times on a state made for it, with as much as the client gives it.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.caller import Caller, Took
from benchmarks.drafts import KEEP_MS, LARGEST, SETTINGS, SMALL, Drafts, plan_of
from broker import _batches, _calls, _pools, _rundown, replica
from broker._calls import Place, Stowed
from broker._entries import EntryId
from broker._keys import Audience
from broker._plan import PoolPlan
from broker._room import Take
from broker._scripts import SCRIPTS, Arg, Call
from broker.conversation import BIDIRECTIONAL, UNIDIRECTIONAL
from workers.runner import MOST_AT_ONCE

USUAL = 1000
"""Calls of a script as it is usually called."""


@dataclass(frozen=True)
class Case:
    """What Redis took for one script under one condition."""

    script: str
    condition: str
    is_limit: bool
    took: Took


class Trials:
    """All scripts, one after another."""

    def __init__(self, caller: Caller, usual: int = USUAL) -> None:
        self.cases: list[Case] = []
        self._caller = caller
        self._draft = Drafts(caller)
        self._keys = caller.keys
        self._usual = usual

    async def run(self) -> list[Case]:
        """Time every script."""
        parts: tuple[Callable[[], Awaitable[None]], ...] = (
            self._sessions, self._rights, self._sends, self._dialogs, self._endings,
            self._server_endings, self._printers, self._registrations, self._takes, self._pools,
            self._pooled_dialogs, self._dead_letters,
        )  # fmt: skip
        for part in parts:
            await self._caller.client.flushall()
            await self._caller.hello()
            await part()
        unseen = {script.name for script in SCRIPTS} - {case.script for case in self.cases}
        if unseen:
            raise RuntimeError(f"scripts that nobody timed: {', '.join(sorted(unseen))}")
        return self.cases

    async def _usually(self, calls: Sequence[Call], words: str = "OK", **options: Any) -> None:
        await self._note("as usual", calls, words, is_limit=False, **options)

    async def _at_limit(
        self, condition: str, calls: Sequence[Call], words: str = "OK", **options: Any
    ) -> None:
        # One at a time, so that no client is busy with an answer while Redis works on the next.
        await self._note(condition, calls, words, is_limit=True, in_flight=1, **options)

    async def _note(
        self, condition: str, calls: Sequence[Call], words: str, *, is_limit: bool, **options: Any
    ) -> None:
        took = await self._caller.timed(calls, words=words, **options)
        self.cases.append(Case(calls[0].script.name, condition, is_limit, took))

    async def _asked(self, prefix: str, count: int, body: Stowed = SMALL) -> list[str]:
        """Open questions: their channels."""
        channels = [f"{prefix}{i}" for i in range(count)]
        await self._caller.ask([self._draft.open(one, BIDIRECTIONAL, 10**6) for one in channels])
        await self._caller.ask(
            [self._draft.offer(one, body) for one in channels], words="OK NO_LISTENERS"
        )
        return channels

    async def _answered(self, prefix: str, count: int, body: Stowed = SMALL) -> dict[str, str]:
        """Dialogs whose question was answered: their channels and tokens."""
        channels = await self._asked(prefix, count, body)
        answers = await self._caller.ask([self._draft.respond(one) for one in channels])
        return {one: answer[1].decode() for one, answer in zip(channels, answers, strict=True)}

    async def _fresh(self) -> None:
        await self._caller.client.flushall()
        await self._caller.hello()

    # Sessions and rights ------------------------------------------------------------------------

    async def _sessions(self) -> None:
        caller, keys = self._caller, self._keys

        def hellos(prefix: str, count: int) -> list[Call]:
            sessions = [f"{prefix}{i}" for i in range(count)]
            return [_calls.hello(keys, one, KEEP_MS, "PUBLISH") for one in sessions]

        await self._usually(hellos("usual", self._usual), lead=())
        await self._die(f"usual{i}" for i in range(self._usual))
        await self._usually([_calls.bury(keys, f"usual{i}") for i in range(self._usual)])
        await self._usually([_calls.renew(keys, caller.session, KEEP_MS, "0-1")] * self._usual)
        await self._usually([_calls.sweep(keys, _rundown.AT_ONCE)] * self._usual)
        await self._usually([_calls.confirm(keys, "none", "source", 0, "")] * self._usual, "GONE")
        await caller.ask(hellos("many", 10_000), lead=())
        await self._at_limit("10,000 sessions", hellos("more", 9), lead=())
        await self._die(f"more{i}" for i in range(9))
        await self._at_limit("10,000 sessions", [_calls.bury(keys, f"more{i}") for i in range(9)])
        await self._renew_at_limit()
        await caller.client.hset(keys.meta, "grace", "0")
        sessions: dict[Any, float] = {f"many{i}": 1 for i in range(10_000)}
        await caller.client.zadd(keys.leases, sessions)
        dead = f"{_rundown.AT_ONCE} of 10,000 die"
        await self._at_limit(dead, [_calls.sweep(keys, _rundown.AT_ONCE)] * 9)

    async def _die(self, sessions: Iterable[str]) -> None:
        dead: dict[Any, float] = dict.fromkeys(sessions, 0.0)
        await self._caller.client.zadd(self._keys.leases, dead)

    async def _renew_at_limit(self) -> None:
        """An inbox of a response on each channel is forgotten at once."""
        caller, inbox = self._caller, self._keys.inbox("caller")
        took = []
        for _ in range(5):
            pipe = caller.client.pipeline(transaction=False)
            for i in range(SETTINGS.max_channels):
                pipe.xadd(inbox, {"body": b"x" * 256}, id=f"1-{i + 1}")
            await pipe.execute()
            call = _calls.renew(self._keys, caller.session, KEEP_MS, "2-0")
            took.append(await caller.timed([call]))
            await caller.client.delete(inbox)
        self._note_each("renew", "10,000 entries are trimmed", took)

    def _note_each(self, script: str, condition: str, took: Sequence[Took]) -> None:
        """A limit whose state has to be made for each call."""
        longest = [one.longest for one in took]
        together = Took(
            len(took), sum(longest) / len(took), median(longest), max(longest), max(longest)
        )
        self.cases.append(Case(script, condition, is_limit=True, took=together))

    async def _rights(self) -> None:
        grants = [
            _calls.grant(self._keys, f"laser-3|user{i}", 4, give=True) for i in range(self._usual)
        ]
        await self._usually(grants)

    # One way ------------------------------------------------------------------------------------

    async def _sends(self) -> None:
        caller = self._caller
        opens = [self._draft.open(f"usual{i}", UNIDIRECTIONAL) for i in range(self._usual)]
        await self._usually(opens)
        missing = SETTINGS.max_channels - self._usual - 9
        await caller.ask([self._draft.open(f"many{i}", UNIDIRECTIONAL) for i in range(missing)])
        last = [self._draft.open(f"last{i}", UNIDIRECTIONAL) for i in range(9)]
        await self._at_limit("10,000 open channels", last)
        await caller.ask([self._draft.register("one", plan_of(UNIDIRECTIONAL), 10**6)])
        route = self._draft.route("usual0", UNIDIRECTIONAL)
        await self._usually([self._draft.send(route, 1 + i) for i in range(self._usual)])
        plan = plan_of(UNIDIRECTIONAL)
        many = range(1, SETTINGS.max_registrations)
        await caller.ask([self._draft.register(f"many{i}", plan, 10**6) for i in many])
        most = [self._draft.send(route, 1 + self._usual + i, LARGEST) for i in range(99)]
        await self._at_limit("10,000 listeners, 16 KB", most)
        await self._sends_to_pools()

    async def _sends_to_pools(self) -> None:
        """Each pool that a channel concerns has a stream of its own."""
        await self._fresh()
        plan = plan_of(UNIDIRECTIONAL)
        pools = [PoolPlan(f"pool{i}", plan, SETTINGS.pool_buffer) for i in range(64)]
        limit = SETTINGS.max_registrations
        made = [_calls.create_pool(self._keys, pool, limit) for pool in pools]
        await self._caller.ask([self._draft.open("one", UNIDIRECTIONAL), *made])
        listed = await self._caller.field(self._keys.meta, "pools")
        route = self._draft.route("one", UNIDIRECTIONAL, pools, listed)
        await self._at_limit(
            "64 pools, 16 KB", [self._draft.send(route, 1 + i, LARGEST) for i in range(99)]
        )

    # Dialogs ------------------------------------------------------------------------------------

    async def _dialogs(self) -> None:
        caller, count = self._caller, self._usual
        plan = plan_of(BIDIRECTIONAL)
        await caller.ask([self._draft.register("listener", plan)])
        channels = [f"usual{i}" for i in range(count)]
        await caller.ask([self._draft.open(one, BIDIRECTIONAL) for one in channels])
        await self._usually([self._draft.offer(one) for one in channels])
        await self._usually([self._draft.offer_again(one) for one in channels])
        await self._usually([self._draft.respond(one) for one in channels])
        owner = await caller.field(self._keys.channel("usual0"), "token")
        await self._usually([self._draft.follow_up(one, owner) for one in channels])
        many = range(1, SETTINGS.max_registrations)
        await caller.ask([self._draft.register(f"many{i}", plan) for i in many])
        asked = [f"limit{i}" for i in range(99)]
        await caller.ask([self._draft.open(one, BIDIRECTIONAL) for one in asked])
        everybody = "10,000 listeners, 16 KB"
        await self._at_limit(everybody, [self._draft.offer(one, LARGEST) for one in asked])
        boards = [self._keys.stream(audience) for audience in plan.audiences]
        took = await caller.client.delete(*boards)
        assert took == len(boards)
        await self._at_limit(everybody, [self._draft.offer_again(one) for one in asked])
        await self._at_limit(everybody, [self._draft.respond(one, LARGEST) for one in asked])
        await self._at_limit("16 KB", [self._draft.follow_up(one, owner, LARGEST) for one in asked])

    async def _endings(self) -> None:
        count = self._usual
        await self._caller.ask([self._draft.register("listener", plan_of(BIDIRECTIONAL))])
        mine = await self._answered("mine", count)
        closes = [self._draft.source_close(one, 2, is_owned=True, body=SMALL) for one in mine]
        await self._usually(closes)
        theirs = await self._answered("theirs", count)
        await self._usually([self._draft.listener_close(one, 2, SMALL) for one in theirs])
        large = await self._answered("large", 99, LARGEST)
        closes = [self._draft.source_close(one, 2, is_owned=True, body=LARGEST) for one in large]
        await self._at_limit("16 KB", closes)
        asked = await self._asked("final", 99, LARGEST)
        await self._at_limit(
            "16 KB", [self._draft.listener_close(one, 1, LARGEST) for one in asked]
        )

    async def _server_endings(self) -> None:
        session = self._caller.session
        await self._caller.ask([self._draft.register("listener", plan_of(BIDIRECTIONAL))])

        def closes(channels: Sequence[str], listening: str) -> list[Call]:
            return [
                _calls.server_close(
                    self._keys,
                    self._draft.route(one, BIDIRECTIONAL),
                    session,
                    listening,
                    KEEP_MS,
                    None,
                )
                for one in channels
            ]

        await self._usually(closes(list(await self._answered("usual", self._usual)), session))
        asked = await self._asked("asked", 99, LARGEST)
        await self._at_limit("an open question of 16 KB", closes(asked, ""))

    async def _printers(self) -> None:
        caller, keys = self._caller, self._keys
        plans = [plan_of(UNIDIRECTIONAL, user=f"user{i}") for i in range(_rundown.AT_ONCE)]
        audiences = [plan.audiences[0] for plan in plans]
        await caller.ask([self._draft.register(f"r{i}", plan) for i, plan in enumerate(plans)])

        def deletions(prefix: str, count: int, told: Sequence[Audience]) -> list[Call]:
            names = [f"{prefix}{i}" for i in range(count)]
            return [_calls.delete_printer(keys, one, 0, "laser-3", told) for one in names]

        await self._usually(deletions("usual", self._usual, audiences[:2]))
        await self._at_limit(f"{_rundown.AT_ONCE} audiences", deletions("limit", 19, audiences))

    # Registrations ------------------------------------------------------------------------------

    async def _registrations(self) -> None:
        caller, plan = self._caller, plan_of(UNIDIRECTIONAL)
        usual = [f"usual{i}" for i in range(self._usual)]
        await self._usually([self._draft.register(one, plan) for one in usual])
        await self._usually([self._draft.unregister(one, plan) for one in usual])
        many = [f"many{i}" for i in range(SETTINGS.max_registrations - 9)]
        await caller.ask([self._draft.register(one, plan) for one in many])
        last = [f"last{i}" for i in range(9)]
        beside = "10,000 registrations"
        await self._at_limit(beside, [self._draft.register(one, plan) for one in last])
        await self._at_limit(beside, [self._draft.unregister(one, plan) for one in last])
        await self._full_ends()

    async def _full_ends(self) -> None:
        """The last listener goes, with all that it had not read."""
        plan, took = plan_of(UNIDIRECTIONAL), []
        for _ in range(9):
            await self._fresh()
            await self._caller.ask(
                [self._draft.register("last", plan), self._draft.open("one", UNIDIRECTIONAL)]
            )
            route = self._draft.route("one", UNIDIRECTIONAL)
            sends = [self._draft.send(route, 1 + i, LARGEST) for i in range(SETTINGS.buffer)]
            await self._caller.ask(sends)
            took.append(await self._caller.timed([self._draft.unregister("last", plan)]))
        self._note_each("unregister", "the last one, 100 of 16 KB unread", took)

    async def _takes(self) -> None:
        most = _batches.AT_ONCE
        plans = [plan_of(UNIDIRECTIONAL, user=f"user{i}") for i in range(most)]
        answers = await self._caller.ask(
            [self._draft.register(f"r{i}", plan) for i, plan in enumerate(plans)]
        )
        epoch = int(await self._caller.field(self._keys.meta, "epoch"))
        rooms = [int(answer[3]) for answer in answers]

        def call(which: Sequence[int], times: int) -> Call:
            takes = [
                (
                    plans[i].audiences[0],
                    plans[i].group(f"r{i}"),
                    Take(rooms[i] + times, 1, EntryId(epoch, times + 1)),
                )
                for i in which
            ]
            return _calls.take(self._keys, takes)

        await self._usually([call([0], i) for i in range(self._usual)])
        rooms[0] += self._usual
        batches = [call(range(most), i) for i in range(19)]
        await self._at_limit(f"{most} rooms", batches)

    # Pools --------------------------------------------------------------------------------------

    async def _pool(self, pool: PoolPlan) -> None:
        keys, session = self._keys, self._caller.session
        made = _calls.create_pool(keys, pool, SETTINGS.max_registrations)
        await self._caller.ask([made, _calls.join(keys, session, pool.id)])

    async def _fill(self, pool: PoolPlan, count: int, body: Stowed = SMALL) -> None:
        """Give a pool so many notifications."""
        await self._caller.ask([self._draft.open(channel := uuid.uuid4().hex, UNIDIRECTIONAL)])
        listed = await self._caller.field(self._keys.meta, "pools")
        route = self._draft.route(channel, UNIDIRECTIONAL, [pool], listed)
        await self._caller.ask([self._draft.send(route, 1 + i, body) for i in range(count)])

    async def _fetched(self, pool: PoolPlan, count: int) -> list[Place]:
        """Take so many in hand."""
        calls = [
            _calls.fetch(self._keys, self._caller.session, pool, min(MOST_AT_ONCE, count - done), 0)
            for done in range(0, count, MOST_AT_ONCE)
        ]
        return self._places(pool, await self._caller.ask(calls))

    @staticmethod
    def _places(pool: PoolPlan, answers: Sequence[list[Any]]) -> list[Place]:
        """What nobody had before."""
        audience = pool.audiences[0]
        return [
            Place(pool, audience, entry[0].decode(), 1)
            for answer in answers
            for _, new, _ in answer[3:]
            for entry in new
        ]

    async def _pools(self) -> None:
        caller, keys, plan = self._caller, self._keys, plan_of(UNIDIRECTIONAL)
        limit = SETTINGS.max_registrations
        some = [PoolPlan(f"usual{i}", plan, SETTINGS.pool_buffer) for i in range(self._usual)]
        await self._usually([_calls.create_pool(keys, one, limit) for one in some])
        await self._usually([_calls.join(keys, caller.session, one.id) for one in some])
        await self._usually([_calls.delete_pool(keys, one) for one in some])
        pool = PoolPlan("pool", plan, 10**6)
        await self._pool(pool)
        await self._fill(pool, 8 * self._usual)
        fetch = _calls.fetch(keys, caller.session, pool, 8, 0)
        await self._usually([fetch] * self._usual)
        places = await self._places_in_hand(pool, 8 * self._usual)
        eights = [places[i : i + 8] for i in range(0, len(places) // 2, 8)]
        await self._usually([_calls.finish(keys, eight) for eight in eights])
        left = places[len(places) // 2 :]
        await self._usually([_calls.hand_back(keys, [(one, 0)]) for one in left[: self._usual]])
        await self._usually(
            [_calls.disown(keys, pool, "nobody", _pools.AT_ONCE)] * self._usual, "NOT_YOURS OK"
        )
        await self._pool_at_limit()

    async def _places_in_hand(self, pool: PoolPlan, count: int) -> list[Place]:
        stream, audience = self._keys.stream(pool.audiences[0]), pool.audiences[0]
        pending: Any = await self._caller.client.xpending_range(
            stream, pool.group, "-", "+", count, self._caller.session
        )
        ids = [one["message_id"] for one in pending]
        return [Place(pool, audience, one.decode(), 1) for one in ids]

    async def _pool_at_limit(self) -> None:
        keys, plan = self._keys, plan_of(UNIDIRECTIONAL)
        pool = PoolPlan("limit", plan, SETTINGS.pool_buffer)
        await self._pool(pool)
        finished, named = replica.FINISHED_AT_ONCE, replica.AT_ONCE
        await self._fill(pool, 9 * finished, LARGEST)
        session = self._caller.session
        fetch = _calls.fetch(keys, session, pool, MOST_AT_ONCE, 0)
        await self._at_limit(f"{MOST_AT_ONCE} of 16 KB", [fetch] * 9)
        await self._fetched(pool, 9 * finished)
        places = await self._places_in_hand(pool, 9 * finished)
        await self._at_limit(
            f"{named} of 16 KB",
            [
                _calls.hand_back(keys, [(one, 0) for one in part])
                for part in parts_of(places[: 9 * named], named)
            ],
        )
        again = f"{MOST_AT_ONCE} of 16 KB, handed back before"
        await self._at_limit(again, [fetch] * 9)
        disowns = [_calls.disown(keys, pool, session, _pools.AT_ONCE)] * 9
        await self._at_limit(f"{_pools.AT_ONCE} of 16 KB", disowns, "MORE OK")
        await self._caller.ask([_calls.join(keys, session, pool.id)])
        await self._fetched(pool, 9 * finished)
        apart = [place._replace(times=0) for place in (*places[::2], *places[1::2])]
        await self._at_limit(
            f"{finished} of 16 KB, no two in a row",
            [_calls.finish(keys, part) for part in parts_of(apart, finished)],
        )
        await self._full_pool_ends()

    async def _full_pool_ends(self) -> None:
        took = []
        pool = PoolPlan("full", plan_of(UNIDIRECTIONAL), SETTINGS.pool_buffer)
        for _ in range(3):
            await self._fresh()
            await self._pool(pool)
            await self._fill(pool, SETTINGS.pool_buffer)
            await self._fetched(pool, SETTINGS.pool_buffer)
            took.append(await self._caller.timed([_calls.delete_pool(self._keys, pool)]))
        self._note_each("delete_pool", "10,000 unfinished", took)

    async def _pooled_dialogs(self) -> None:
        keys, session = self._keys, self._caller.session
        pool = PoolPlan("pool", plan_of(BIDIRECTIONAL), SETTINGS.pool_buffer)
        await self._pool(pool)
        channels = await self._asked("usual", self._usual)
        await self._caller.ask([self._draft.respond(one, SMALL, pool.id) for one in channels])
        await self._usually([_calls.orphan(keys, one, pool.id, session) for one in channels])
        adopts = [_calls.adopt(keys, session, one, pool.id, session) for one in channels]
        await self._usually(adopts)

    async def _dead_letters(self) -> None:
        keys = self._keys
        pool = PoolPlan("pool", plan_of(UNIDIRECTIONAL), SETTINGS.pool_buffer)
        await self._pool(pool)
        await self._fill(pool, 2 * self._usual)
        places = await self._fetched(pool, 2 * self._usual)
        usual = [self._draft.letter(place, SMALL, "+") for place in places[: self._usual]]
        answers = await self._buried(usual)
        fields: dict[str, Arg] = {"channel": "one", "op": 1, "body": SMALL.arg}
        letters = [answer[1].decode() for answer in answers]
        replays = [
            _calls.replay(keys, letter, place, fields, letter, KEEP_MS)
            for letter, place in zip(letters, places[: self._usual], strict=True)
        ]
        await self._usually(replays)
        others = [self._draft.letter(place, LARGEST, "+") for place in places[self._usual :]]
        answers = await self._caller.ask(others[:900])
        last = places[self._usual + 900 : self._usual + 909]
        behind = "900 letters of 16 KB since the caller looked"
        await self._at_limit(behind, [self._draft.letter(place, LARGEST, "-") for place in last])
        letters = [answer[1].decode() for answer in answers]
        drops = [_calls.drop(keys, letter, letter, KEEP_MS) for letter in letters]
        await self._usually(drops, lead=())

    async def _buried(self, calls: Sequence[Call]) -> list[list[Any]]:
        """Time the burials, and find their letters."""
        await self._usually(calls)
        found: Any = await self._caller.client.execute_command("XRANGE", self._keys.dead, "-", "+")
        return [[b"OK", entry[0]] for entry in found]


def parts_of(places: Sequence[Place], size: int) -> list[Sequence[Place]]:
    """So many together."""
    return [places[i : i + size] for i in range(0, len(places), size)]


async def flatness(caller: Caller, listeners: Sequence[int], calls: int) -> dict[int, Took]:
    """Time of a send to so many registrations that have room, by their number.

    One connection hears the bell, as where all of them live in one process.
    """
    draft, found = Drafts(caller), {}
    plan = plan_of(UNIDIRECTIONAL)
    bell = caller.client.pubsub()
    await bell.subscribe(*(caller.keys.stream(audience) for audience in plan.audiences))
    for count in listeners:
        await caller.client.flushall()
        await caller.hello()
        many = [draft.register(f"r{i}", plan, 10**6) for i in range(count)]
        await caller.ask([draft.open("one", UNIDIRECTIONAL), *many])
        route = draft.route("one", UNIDIRECTIONAL)
        sends = [draft.send(route, 1 + i) for i in range(calls)]
        found[count] = await caller.timed(sends, words="OK NO_LISTENERS")
    await bell.aclose()
    return found
