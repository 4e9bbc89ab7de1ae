"""The pump: events out of the journal, in order, onto the farm's channels, and off the journal.

What is taken out is sent before it is taken off, so a bridge that dies tells some of it again; that
is marked. Missing numbers are fetched from cupsd, and reported where it has them no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from workers.cups.cupsd.client import Client, IppError, NotFound
from workers.cups.cupsd.event import Event
from workers.cups.cupsd.ipp import Fault
from workers.cups.events import gaps
from workers.cups.events.bell import Bell
from workers.cups.events.journal import Fact, Journal, JournalFault, Row
from workers.cups.events.keeping import Keeping
from workers.cups.events.levels import Level, Levels, Told
from workers.cups.events.owners import Owners
from workers.cups.events.sending import Sending
from workers.cups.events.sequence import Position, Verdict, holes
from workers.cups.events.subscription import NoNotifier, Subscription
from workers.cups.types import ServerStatus

log = logging.getLogger("tympan.cups")
T = TypeVar("T")

AT_ONCE = 512
LOOK_EVERY = 1.0
"""Seconds after which the journal is looked at although no bell rang."""
CHECK_EVERY = 30.0
"""Seconds between looks for events that never reached the notifier, and at the subscription."""
RETRY = 2.0
LAST_MOMENT = 2.0
"""Seconds that a bridge which is ended takes for what it began to tell."""
PRINTER = "printer:"
"""What the facts about printers' levels begin with."""


class Taken(NamedTuple):
    """An event that is to be told."""

    event: Event
    name: str
    is_repeated: bool


Step = Taken | ServerStatus


class Pump:
    """Of one print host. ``heard`` is called with each event, once, before it is told."""

    def __init__(
        self,
        keeping: Keeping,
        cups: Client,
        sending: Sending,
        levels: Levels,
        owners: Owners,
        *,
        heard: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._keeping = keeping
        self._cups = cups
        self._sending = sending
        self._levels = levels
        self._owners = owners
        self._heard = heard
        self._subscription = Subscription(cups, keeping)
        self._position = Position(0)
        self._counts: Counter[str] = Counter()
        self._maybe_sent = 0
        """Up to this id an earlier bridge may have sent."""
        self._maybe_filled: Position | None = None
        """Up to this position the same, of what it fetched: see :meth:`_look_for_tail`."""
        self._was_damaged = False
        """Whether the journal was, and the position went with it."""
        self._is_filled = False
        self._wants_snapshot = True
        self._dropped = self._dropped_now = 0
        self.trouble: str | None = None
        """What is wrong with cupsd, or with the subscription; None while nothing."""

    async def run(self, bell: Bell) -> None:
        """Until it is cancelled, or the broker is closed."""
        await self._patiently(self._load)
        loop = asyncio.get_running_loop()
        check_at = 0.0
        while True:
            rows = await self._patiently(self._take)
            if rows:
                await self._finished(self._window(rows))
                await self._renew()
            elif loop.time() >= check_at or (self._is_wanted and self.trouble is None):
                is_well = await self._tend()
                check_at = loop.time() + (CHECK_EVERY if is_well else RETRY)
            else:
                await bell.wait(LOOK_EVERY)
                if bell.took_leave():
                    check_at = 0.0

    @property
    def _is_wanted(self) -> bool:
        """Whether there is something to ask cupsd."""
        return self._wants_snapshot or self._subscription.is_due

    async def _patiently(self, what: Callable[[], Awaitable[T]]) -> T:
        """Do it, and again while the journal fails."""
        while True:
            try:
                return await what()
            except JournalFault as fault:
                log.error("%s; trying again", fault)  # noqa: TRY400 - it says all there is
                await asyncio.sleep(RETRY)

    # State --------------------------------------------------------------------------------------

    async def _load(self) -> None:
        def read(journal: Journal) -> tuple[dict[str, Fact], int, dict[str, int]]:
            return journal.facts(), journal.in_hand, journal.counts()

        facts, self._maybe_sent, counts = await self._keeping.do(read)
        self._dropped = counts.get("dropped", 0)
        self._maybe_filled = Position.load(facts.get("filling"))
        self._position = Position.load(facts.get("position"), facts.get("filled")) or Position(0)
        self._was_damaged = not self._position.subscription and bool(counts.get("damaged"))
        for name, value in facts.items():
            level = Level.load(value) if name.startswith(PRINTER) else None
            if level is not None:
                self._levels.printers[name.removeprefix(PRINTER)] = level

    def _state(self) -> tuple[dict[str, Fact], dict[str, int]]:
        """What changed since the last time: facts and counts."""
        facts: dict[str, Fact] = {"position": self._position.dump()}
        if self._is_filled:
            facts["filled"] = self._position.dump_filled()
        for queue, level in self._levels.changed.items():
            facts[PRINTER + queue] = None if level is None else level.dump()
        counts = self._counts + Counter(self._sending.counts)
        if counts["sent"]:
            facts["sent-at"] = time.time()
        self._levels.changed.clear()
        self._sending.counts.clear()
        self._counts.clear()
        self._is_filled = False
        return facts, dict(counts)

    async def _save(self, last: int) -> None:
        """Events up to this id are told. What cannot be written now is written later."""
        facts, counts = self._state()

        async def save() -> None:
            await self._keeping.do(lambda journal: journal.done(last, facts, counts))

        await self._patiently(save)

    # Events -------------------------------------------------------------------------------------

    async def _take(self) -> list[Row]:
        """Some events that wait. Raises JournalFault, and has done nothing then."""

        def take(journal: Journal) -> tuple[list[Row], int]:
            rows = journal.waiting(AT_ONCE)
            if rows:
                journal.take(rows[-1].id)
            return rows, journal.counts().get("dropped", 0)

        rows, self._dropped_now = await self._keeping.do(take)
        return rows

    async def _finished(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; a bridge that is ended finishes what it began, if it can, and tells it once."""
        task = asyncio.create_task(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=LAST_MOMENT)
            task.cancel()
            raise

    async def _window(self, rows: Sequence[Row]) -> None:
        """Tell them, and take them off. What fails here is tried again in its place."""
        steps: list[Step] = []
        for row in rows:
            steps += await self._judged(row)
        await self._tell(steps)
        await self._save(rows[-1].id)

    async def _judged(self, row: Row) -> list[Step]:
        """What there is to tell because of it."""
        try:
            event = Event.decode(row.data)
        except Fault as fault:
            log.warning("an event of cupsd is not understood, and left out: %s", fault)
            self._counts["bad"] += 1
            return []
        verdict = self._position.judge(event, row.run)
        if verdict in (Verdict.KNOWN, Verdict.FOREIGN):
            self._counts[verdict.value] += 1
            return []
        steps: list[Step] = []
        is_repeated = row.id <= self._maybe_sent
        if verdict is Verdict.AHEAD:
            steps += await self._fill(event, is_repeated=is_repeated)
        elif verdict is Verdict.RENEWED:
            log.warning("cupsd gives numbers again, from %d on: it was killed", event.sequence)
            self._wants_snapshot = True
        self._position.advance(event, row.run)
        steps.append(self._taken(event, is_repeated=is_repeated))
        return steps

    def _taken(self, event: Event, *, is_repeated: bool = False) -> Taken:
        if event.name == "server-started":
            self._wants_snapshot = True
        told = self._maybe_filled
        if told is not None and told.subscription == event.subscription:
            is_known = event.sequence <= told.last and told.epoch == self._position.epoch
            is_repeated = is_repeated or is_known
        return Taken(event, self._position.name(self._levels.host, event), is_repeated)

    async def _fill(self, event: Event, *, is_repeated: bool) -> list[Step]:
        """What is missing before an event: fetched, or reported."""
        numbers = self._position.missing(event)
        found = await gaps.fetch(self._cups, self._position, numbers.start)
        wanted = [one for one in found if one.sequence in numbers]
        steps = self._filled(wanted, is_repeated=is_repeated)
        missing = holes(numbers, [one.sequence for one in found])
        after: list[Step] = []
        if event.name == "server-started" and missing and missing[-1].stop == numbers.stop:
            hole = missing.pop()
            after = [gaps.stopped(self._levels.host, self._position, hole.stop - 1, event.at)]
            if len(hole) > 1:
                missing.append(hole[:-1])
        return [*steps, *self._lost(missing), *after]

    def _filled(self, events: Sequence[Event], *, is_repeated: bool = False) -> list[Step]:
        """Events that were fetched."""
        steps: list[Step] = []
        for event in events:
            self._position.fill(event)
            steps.append(self._taken(event, is_repeated=is_repeated))
        self._is_filled = self._is_filled or bool(events)
        self._counts["filled"] += len(events)
        return steps

    def _lost(self, missing: Sequence[range]) -> list[Step]:
        if not missing:
            return []
        self._wants_snapshot = True
        why = "cupsd did not tell them, and has them no more"
        if self._dropped_now > self._dropped:
            why = "more events waited than the journal holds (max_events)"
        self._dropped = self._dropped_now
        many = sum(map(len, missing))
        self._counts["lost"] += many
        log.warning("%d events are lost, from number %d on: %s", many, missing[0].start, why)
        return [*gaps.lost(self._levels.host, self._position, missing, why)]

    async def _tell(self, steps: Sequence[Step]) -> None:
        jobs = set()
        for step in steps:
            if isinstance(step, Taken):
                self._heard(step.event)
                if step.event.name == "job-created":
                    self._owners.forget(step.event.job)
                if step.event.name.startswith("job-") and step.event.job:
                    jobs.add(step.event.job)
        if jobs:
            await self._owners.find(jobs)
        told: list[Told] = []
        for step in steps:
            if isinstance(step, Taken):
                event, name, repeated = step
                told += self._levels.tell(event, name, self._owners.of, repeated=repeated)
            else:
                told.append(Told("", None, step))
        await self._sending.send(told)

    async def _renew(self) -> None:
        """Under a flood, too. What goes wrong is seen to when it is over."""
        if self._position.subscription and self._subscription.is_due:
            with contextlib.suppress(IppError):
                await self._subscription.renew(self._position.subscription)

    # Cupsd --------------------------------------------------------------------------------------

    async def _tend(self) -> bool:
        """See that the subscription stands, that nothing of it is missing, and how printers are."""
        try:
            await self._check()
            if self._wants_snapshot:
                await self._snapshot()
        except (IppError, NoNotifier, JournalFault) as error:
            if self.trouble is None:
                log.warning("cupsd tells nothing now: %s", error)
            self.trouble = str(error)
            return False
        if self.trouble is not None:
            log.warning("cupsd can be heard again")
        self.trouble = None
        return True

    async def _check(self) -> None:
        if self._position.subscription and not self._subscription.is_due:
            try:
                await self._look_for_tail()
            except NotFound:
                self._subscription.renewed_at = float("-inf")
            else:
                return
        await self._subscribe()

    async def _subscribe(self) -> None:
        former = self._position.subscription
        number, is_new = await self._subscription.ensure(former)
        if not is_new:
            await self._look_for_tail()
            return
        self._position = Position(number, max(int(time.time()), self._position.epoch + 1))
        self._is_filled = True
        self._wants_snapshot = True
        if former or self._was_damaged:
            why = "the subscription was gone, and was made again"
            if self._was_damaged:
                why = "the journal was damaged, and was begun anew"
            self._was_damaged = False
            log.warning("%s", why)
            lost = gaps.gone(self._levels.host, self._position, why)
            await self._sending.send([Told("", None, lost)])
        await self._save(0)

    async def _look_for_tail(self) -> None:
        """Events that a notifier took along when it died. What is not next may be on its way."""
        last = self._position.last
        groups = await self._cups.notifications(self._position.subscription, last + 1)
        found = gaps.read(groups, self._position, last + 1)
        next_ones = [event for i, event in enumerate(found, last + 1) if event.sequence == i]
        if next_ones:
            # They wait in no journal: should this bridge die, the next one is to know of them.
            until = replace(self._position, last=next_ones[-1].sequence).dump()
            await self._keeping.do(lambda journal: journal.keep(filling=until))
            await self._tell(self._filled(next_ones))
            await self._save(0)

    async def _snapshot(self) -> None:
        printers = await self._cups.printers()
        self._wants_snapshot = False
        await self._sending.send(self._levels.snapshot(printers, datetime.now(UTC)))
        await self._save(0)
