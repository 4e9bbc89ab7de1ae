"""The pump: what becomes of events that come in order, twice, too late, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.payload import Payload
from tests.cups.messages import event_attributes, event_message, group_of
from workers.cups.cupsd.client import (
    JobFacts,
    NotFound,
    PrinterFacts,
    SubscriptionFacts,
    Unreachable,
)
from workers.cups.cupsd.event import Event
from workers.cups.cupsd.ipp import Group, Tag
from workers.cups.events import gaps, pump
from workers.cups.events.bell import Bell
from workers.cups.events.journal import Fact, Journal
from workers.cups.events.keeping import Keeping
from workers.cups.events.levels import Levels, Told
from workers.cups.events.owners import Owners
from workers.cups.events.pump import Pump
from workers.cups.events.sequence import Position
from workers.cups.file import Place
from workers.cups.notifier import END, RECIPIENT
from workers.cups.types import JobStatus, PrinterChanged, PrinterStatus, ServerStatus

PATIENCE = 20.0
LATER = 2_000_000_000


class Cups:
    """A cupsd, as far as the pump asks it."""

    def __init__(self) -> None:
        self.user = "root"
        self.ring: dict[int, Group] = {}
        self.owners: dict[int, str] = {}
        self.queues: list[str] = []
        self.existing: list[SubscriptionFacts] = []
        self.away = False
        self.calls: list[str] = []

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.away:
            raise Unreachable("cupsd is away")

    def tell(self, sequence: int, name: str = "printer-state-changed", **given: Any) -> bytes:
        """An event: it is in the ring, and here is what the notifier reads."""
        attributes = event_attributes(sequence, name, **given)
        self.ring[sequence] = group_of(attributes)
        return event_message(sequence, name, **given)

    async def subscriptions(self) -> list[SubscriptionFacts]:
        self._called("subscriptions")
        return list(self.existing)

    async def subscribe(
        self, recipient: str, events: Sequence[str], user_data: bytes, lease: int
    ) -> int:
        self._called("subscribe")
        number = max([facts.id for facts in self.existing], default=0) + 1
        self.existing.append(SubscriptionFacts(number, recipient, user_data, self.user, "", lease))
        assert list(events) == ["all"]
        return number

    async def renew(self, subscription: int, lease: int) -> None:
        self._called(f"renew {subscription} for {lease}")
        self._find(subscription)

    async def unsubscribe(self, subscription: int) -> None:
        self._called(f"unsubscribe {subscription}")
        self.existing = [facts for facts in self.existing if facts.id != subscription]

    def _find(self, subscription: int) -> None:
        if subscription not in [facts.id for facts in self.existing]:
            raise NotFound(f"Subscription #{subscription} does not exist.", 0x0406)

    async def notifications(self, subscription: int, first: int) -> list[Group]:
        self._called("notifications")
        self._find(subscription)
        return [group for number, group in sorted(self.ring.items()) if number >= first]

    async def printers(self) -> list[PrinterFacts]:
        self._called("printers")
        nothing = Group(Tag.PRINTER)
        return [PrinterFacts(name, "", "idle", (), True, "", nothing) for name in self.queues]

    async def job(self, job: int) -> JobFacts:
        self._called(f"job {job}")
        if job not in self.owners:
            raise NotFound(f"Job #{job} does not exist.", 0x0406)
        return self._facts(job)

    async def jobs(self, first: int, many: int) -> list[JobFacts]:
        self._called(f"jobs {first}+{many}")
        return [self._facts(job) for job in self.owners if first <= job < first + many]

    def _facts(self, job: int) -> JobFacts:
        owner = self.owners[job]
        return JobFacts(job, "q", owner, "title", "processing", (), "no-hold", 0, 1, "urn:uuid:x")


class Farm:
    """What was sent; while it is closed nothing is."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.snapshots: list[Told] = []
        """What is told of printers as they are."""
        self.counts: dict[str, int] = {}
        self.many = 0
        self.trouble: str | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.changed = asyncio.Event()

    async def send(self, told: Sequence[Told]) -> None:
        await self.open.wait()
        for one in told:
            seen = "/snapshot/" in getattr(one.payload, "event", "")
            (self.snapshots if seen else self.told).append(one)
        self.many += len(told)
        self.counts["sent"] = self.counts.get("sent", 0) + len(told)
        self.changed.set()

    def payloads(self, kind: type[Payload] = Payload) -> list[Any]:
        return [one.payload for one in self.told if isinstance(one.payload, kind)]


class Stage:
    """A pump, and what is around it."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.cups = Cups()
        self.farm = Farm()
        self.levels = Levels("print01")
        self.heard: list[Event] = []
        self.bell = Bell(self.place.bell)
        self.pump: Pump | None = None

    def write(self, *messages: bytes, run: str = "a") -> None:
        """As a notifier does."""
        with Journal(self.place.journal) as journal:
            journal.add(run, messages)
        self.bell.ring()

    def facts(self) -> dict[str, Fact]:
        with Journal(self.place.journal) as journal:
            return journal.facts()

    def counts(self) -> dict[str, int]:
        with Journal(self.place.journal) as journal:
            return journal.counts()

    @property
    def position(self) -> Position:
        found = Position.load(self.facts().get("position"))
        assert found is not None
        return found

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self.farm.changed.clear()
                await asyncio.wait([asyncio.ensure_future(self.farm.changed.wait())], timeout=0.02)

    async def ready(self) -> None:
        """Subscribed, and the snapshot told."""
        await self.until(lambda: "printers" in self.cups.calls and self._is_saved)

    async def snapshot(self) -> list[Any]:
        """What is told of the printers as they are; it is taken."""
        await self.until(lambda: bool(self.farm.snapshots) and self._is_saved)
        found, self.farm.snapshots = [one.payload for one in self.farm.snapshots], []
        return found

    async def told(self, many: int) -> list[Any]:
        """So many payloads; they are taken."""
        await self.until(lambda: len(self.farm.told) >= many and self._is_saved)
        found, self.farm.told = [one.payload for one in self.farm.told], []
        assert len(found) == many, found
        return found

    @property
    def _is_saved(self) -> bool:
        return self.counts().get("sent", 0) == self.farm.many

    @asynccontextmanager
    async def runs(self) -> AsyncIterator[None]:
        """A bridge's life."""
        self.levels = Levels("print01")
        async with Keeping(self.place) as keeping:
            cups: Any = self.cups
            farm: Any = self.farm
            owners = Owners(cups, patience=0.1)
            self.pump = Pump(keeping, cups, farm, self.levels, owners, heard=self.heard.append)
            task = asyncio.create_task(self.pump.run(self.bell))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])
        assert task.cancelled(), task.exception()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(pump, "CHECK_EVERY", 0.1)
    monkeypatch.setattr(pump, "RETRY", 0.05)
    monkeypatch.setattr(pump, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(gaps, "PATIENCE", 0.1)
    monkeypatch.setattr(gaps, "PAUSE", 0.02)
    return Stage(tmp_path)


def low(level: int) -> dict[str, Any]:
    """A state that differs from the one before."""
    return {"printer_reasons": [f"reason-{level}-report"]}


async def test_events_are_told_in_order_and_once(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.write(*[stage.cups.tell(number, **low(number)) for number in (1, 2, 3)])
        told = await stage.told(3)
        stage.write(*[stage.cups.tell(number, **low(number)) for number in (2, 3, 4)])
        (last,) = await stage.told(1)
        epoch = stage.position.epoch
    assert [status.reasons for status in (*told, last)] == [
        [f"reason-{number}-report"] for number in (1, 2, 3, 4)
    ]
    assert [status.event for status in told] == [f"print01/{epoch}/1/{n}" for n in (1, 2, 3)]
    assert not any(status.repeated for status in told)
    assert [event.sequence for event in stage.heard] == [1, 2, 3, 4]
    assert stage.counts() == {"known": 2, "read": 6, "sent": 4}
    assert stage.position.last == 4


async def test_a_gap_is_filled_from_cupsd(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        messages = [stage.cups.tell(number, **low(number)) for number in range(1, 8)]
        stage.write(messages[0], messages[6])
        told = await stage.told(7)
        stage.write(messages[3], messages[4])  # after all
        stage.write(stage.cups.tell(8, **low(8)), run="b")
        await stage.told(1)
    assert [status.event.rpartition("/")[2] for status in told] == list("1234567")
    assert stage.counts() == {"filled": 5, "known": 2, "read": 5, "sent": 8}


async def test_what_is_missing_for_good_is_reported_and_printers_are_told_as_they_are(
    stage: Stage,
) -> None:
    stage.cups.queues = ["laser-3"]
    async with stage.runs():
        await stage.snapshot()
        first = stage.cups.tell(1, **low(1))
        for number in (4, 5):
            stage.cups.tell(number, **low(number))
        stage.write(first, stage.cups.tell(9, **low(9)))
        told = await stage.told(6)
        (now,) = await stage.snapshot()
    assert (now.printer, now.reasons, now.cleared) == ("laser-3", [], ["reason-9-report"])
    statuses = [one for one in told if isinstance(one, PrinterStatus)]
    assert [one.event.rpartition("/")[2] for one in statuses] == ["1", "4", "5", "9"]
    lost = [one for one in told if isinstance(one, ServerStatus)]
    assert [(one.what, one.first, one.last, one.count) for one in lost] == [
        ("events-lost", 2, 3, 2),
        ("events-lost", 6, 8, 3),
    ]
    assert "cupsd did not tell them" in lost[0].why
    assert stage.counts()["lost"] == 5


async def test_many_holes_are_one_report(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        for number in range(2, 40, 2):
            stage.cups.tell(number, **low(number))
        stage.write(stage.cups.tell(40, **low(40)))
        told = await stage.told(21)
    (lost,) = [one for one in told if isinstance(one, ServerStatus)]
    assert (lost.first, lost.last, lost.count) == (1, 39, 20)


async def test_what_the_journal_dropped_is_said(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        with Journal(stage.place.journal) as journal:
            journal.count(dropped=3)
        stage.write(event_message(4, **low(4)))
        lost, _ = await stage.told(2)
    assert "max_events" in lost.why


async def test_an_enormous_gap_is_one_report(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.write(event_message(2**31 - 1, **low(1)))
        lost, _ = await stage.told(2)
    assert (lost.first, lost.count) == (1, 2**31 - 2)


async def test_numbers_that_go_back_are_other_events(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.write(*[event_message(number, **low(number)) for number in (1, 2, 3)])
        await stage.told(3)
        again = [
            event_message(2, "server-started", seconds=LATER),
            event_message(3, seconds=LATER + 1, **low(30)),
        ]
        stage.write(*again, run="b")
        started, status = await stage.told(2)
        await stage.snapshot()
    assert (started.what, started.event) == (
        "started",
        f"print01/{LATER}/1/2",
    )
    assert status.event == f"print01/{LATER}/1/3"


async def test_an_orderly_end_of_cupsd_is_told_by_its_number(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.write(event_message(1, **low(1)))
        stage.write(event_message(3, "server-started"), run="b")
        _, stopped, started = await stage.told(3)
    assert (stopped.what, started.what) == ("stopped", "started")
    assert stopped.event.endswith("/1/2")
    assert "lost" not in stage.counts()


async def test_an_end_that_took_more_along_is_a_loss_too(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.write(event_message(1, **low(1)))
        stage.write(event_message(5, "server-started"), run="b")
        _, lost, stopped, _ = await stage.told(4)
    assert (lost.what, lost.first, lost.last) == ("events-lost", 2, 3)
    assert stopped.event.endswith("/1/4")


async def test_what_a_bridge_that_died_may_have_told_is_marked(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
    messages = [event_message(number, **low(number)) for number in (1, 2, 3)]
    stage.write(*messages)
    with Journal(stage.place.journal) as journal:
        journal.take(journal.waiting(10)[1].id)
    async with stage.runs():
        told = await stage.told(3)
    assert [status.repeated for status in told] == [True, True, False]


async def test_what_it_may_have_fetched_and_told_before_that_is_marked_too(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
    messages = [stage.cups.tell(number, **low(number)) for number in (1, 2, 3, 4)]
    stage.write(messages[2])
    with Journal(stage.place.journal) as journal:
        journal.take(journal.waiting(10)[-1].id)
    stage.write(messages[3])
    async with stage.runs():
        told = await stage.told(4)
    assert [status.repeated for status in told] == [True, True, True, False]


@pytest.mark.parametrize("comes", ["nothing", "the last one", "the next one"])
async def test_what_a_bridge_that_died_may_have_fetched_and_told_is_marked(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, comes: str
) -> None:
    """Whatever the notifier brings before the next bridge has fetched it again."""
    monkeypatch.setattr(pump, "LAST_MOMENT", 0.1)
    async with stage.runs():
        await stage.ready()
    messages = [stage.cups.tell(number, **low(number)) for number in (1, 2)]
    stage.farm.open.clear()
    async with stage.runs():
        await stage.until(lambda: len(stage.heard) == 2)
    stage.farm.open.set()
    if comes == "the last one":
        stage.write(messages[1])
    elif comes == "the next one":
        stage.write(stage.cups.tell(3, **low(3)))
    async with stage.runs():
        told = await stage.told(3 if comes == "the next one" else 2)
    assert [status.repeated for status in told] == [True, True, False][: len(told)]


async def test_a_bridge_that_is_ended_finishes_what_it_began(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.farm.open.clear()
        stage.write(*[stage.cups.tell(number, **low(number)) for number in (1, 2, 3)])
        await stage.until(lambda: len(stage.heard) == 3)
        asyncio.get_running_loop().call_later(0.1, stage.farm.open.set)
    await stage.told(3)
    with Journal(stage.place.journal) as journal:
        assert journal.length == 0
    async with stage.runs():
        stage.write(stage.cups.tell(4, **low(4)))
        (last,) = await stage.told(1)
    assert not last.repeated


async def test_a_bridge_that_cannot_finish_is_ended_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "LAST_MOMENT", 0.1)
    async with stage.runs():
        await stage.ready()
        stage.farm.open.clear()
        stage.write(stage.cups.tell(1, **low(1)))
        await stage.until(lambda: len(stage.heard) == 1)
    stage.farm.open.set()
    async with stage.runs():
        (status,) = await stage.told(1)
    assert status.repeated


async def test_a_bridge_that_comes_after_goes_on(stage: Stage) -> None:
    stage.cups.queues = ["laser-3"]
    async with stage.runs():
        await stage.snapshot()
        stage.write(stage.cups.tell(1, **low(1)))
        await stage.told(1)
    stage.write(stage.cups.tell(2, **low(2)))
    stage.cups.calls.clear()
    async with stage.runs():
        (status,) = await stage.told(1)
        (snapshot,) = await stage.snapshot()
    assert (status.added, status.cleared) == (["reason-2-report"], ["reason-1-report"])
    assert snapshot.cleared == ["reason-2-report"]
    assert "subscribe" not in stage.cups.calls
    assert f"renew 1 for {24 * 3600}" in stage.cups.calls


async def test_events_that_died_with_the_notifier_are_fetched(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.write(stage.cups.tell(1, **low(1)))
        await stage.told(1)
        messages = [stage.cups.tell(number, **low(number)) for number in (2, 3)]
        assert [status.event[-1] for status in await stage.told(2)] == ["2", "3"]
        stage.write(messages[1], stage.cups.tell(4, **low(4)), run="b")
        assert [status.event[-1] for status in await stage.told(1)] == ["4"]


async def test_what_may_be_on_its_way_is_not_taken_for_lost(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.cups.tell(5, **low(5))  # the ring has no more; 1 to 4 wait in the notifier
        stage.cups.calls.clear()
        await stage.until(lambda: stage.cups.calls.count("notifications") > 2)
        assert stage.farm.told == []
        stage.write(*[event_message(number, **low(number)) for number in range(1, 6)])
        await stage.told(5)


async def test_a_damaged_journal_is_a_loss_and_only_once(stage: Stage) -> None:
    stage.place.journal.write_bytes(b"no database" * 100)
    async with stage.runs():
        (gone,) = await stage.told(1)
    assert (gone.what, gone.count) == ("events-lost", None)
    assert gone.why == "the journal was damaged, and was begun anew"
    async with stage.runs():
        await stage.ready()
        stage.write(event_message(1, **low(1)))
        (status,) = await stage.told(1)
    assert isinstance(status, PrinterStatus)


async def test_a_subscription_that_is_gone_is_made_again(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.write(event_message(1, **low(1)))
        await stage.told(1)
        stage.cups.queues = ["laser-3"]
        stage.cups.existing.clear()
        stage.cups.existing.append(SubscriptionFacts(6, "rss:", b"", "root", "", 0))
        (gone,) = await stage.told(1)
        (snapshot,) = await stage.snapshot()
        stage.write(event_message(1, subscription=7, **low(2)), run="b")
        (status,) = await stage.told(1)
    assert (gone.what, gone.count) == ("events-lost", None)
    assert "made again" in gone.why
    assert snapshot.printer == "laser-3"
    assert status.event.endswith("/7/1")
    assert [facts.id for facts in stage.cups.existing] == [6, 7]


async def test_a_cupsd_that_ended_is_looked_after_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "CHECK_EVERY", 3600.0)
    async with stage.runs():
        await stage.ready()
        stage.cups.existing.clear()
        stage.bell.datagram_received(END, None)
        (gone,) = await stage.told(1)
    assert "made again" in gone.why


async def test_a_new_subscription_may_have_the_number_of_one_that_was_lost(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.write(event_message(1, **low(1)), event_message(2, **low(2)))
        before = await stage.told(2)
        stage.cups.existing.clear()
        (gone,) = await stage.told(1)
        assert [facts.id for facts in stage.cups.existing] == [1]
        stage.write(event_message(1, **low(3)), event_message(2, **low(4)), run="b")
        after = await stage.told(2)
    assert "made again" in gone.why
    assert len({one.event for one in (*before, *after)}) == 4


async def test_subscriptions_of_earlier_bridges_end(stage: Stage) -> None:
    stage.cups.existing = [
        SubscriptionFacts(1, RECIPIENT, b"tympan/old", "root", "", 0),
        SubscriptionFacts(2, RECIPIENT, b"", "somebody", "", 0),
        SubscriptionFacts(3, "rss:", b"", "root", "", 0),
        SubscriptionFacts(4, RECIPIENT, b"", "root", "ipp://localhost/printers/q", 0),
    ]
    async with stage.runs():
        await stage.ready()
    assert [facts.id for facts in stage.cups.existing] == [2, 3, 4, 5]
    token = stage.facts()["token"]
    assert stage.cups.existing[-1].user_data == str(token).encode()
    assert len(str(token)) < 64


async def test_events_of_another_subscription_are_left_out(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.write(event_message(1, subscription=9), event_message(1, **low(1)))
        await stage.told(1)
    assert stage.counts() == {"foreign": 1, "read": 2, "sent": 1}


async def test_bytes_that_are_no_event_are_left_out_and_counted(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.write(b"nonsense", b"", event_message(1, **low(1)))
        await stage.told(1)
    assert stage.counts()["bad"] == 2


async def test_while_the_farm_is_away_events_wait_in_the_journal(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.farm.open.clear()
        for number in range(1, 61):
            stage.write(event_message(number, **low(number)))
        with Journal(stage.place.journal) as journal:
            assert journal.length == 60
        stage.farm.open.set()
        told = await stage.told(60)
        await stage.until(lambda: stage.facts().get("sent-at") is not None)
    assert [status.reasons for status in told] == [[f"reason-{n}-report"] for n in range(1, 61)]
    with Journal(stage.place.journal) as journal:
        assert journal.length == 0


async def test_a_job_is_its_owners_even_where_many_are_asked_for(stage: Stage) -> None:
    stage.cups.owners = {job: f"user{job}" for job in range(1, 21)}
    async with stage.runs():
        await stage.ready()
        stage.write(*[event_message(job, "job-created", job=job) for job in range(1, 22)])
        told = await stage.told(21)
    assert [job.owner for job in told] == [*stage.cups.owners.values(), "anonymous"]
    assert [call for call in stage.cups.calls if call.startswith("job")] == ["jobs 1+21", "job 21"]


async def test_an_owner_is_asked_for_once_and_anew_for_a_new_job(stage: Stage) -> None:
    stage.cups.owners = {1: "alice"}
    async with stage.runs():
        await stage.ready()
        stage.write(event_message(1, "job-created"), event_message(2, "job-progress", pages=1))
        await stage.told(2)
        stage.write(event_message(3, "job-progress", pages=2))
        await stage.told(1)
        assert stage.cups.calls.count("job 1") == 1
        stage.cups.owners = {1: "bob"}
        stage.write(event_message(4, "job-created"))
        (created,) = await stage.told(1)
    assert created.owner == "bob"


async def test_a_cupsd_that_is_away_keeps_nothing_back(stage: Stage) -> None:
    async with stage.runs():
        await stage.ready()
        stage.cups.away = True
        stage.write(event_message(1, "job-created"), event_message(3, **low(3)))
        told = await stage.told(3)
        assert stage.pump is not None
        await stage.until(lambda: stage.pump is not None and stage.pump.trouble is not None)
        stage.cups.away = False
        await stage.until(lambda: stage.pump is not None and stage.pump.trouble is None)
    job, lost, status = told
    assert isinstance(job, JobStatus)
    assert job.owner == "anonymous"
    assert (lost.first, lost.last) == (2, 2)
    assert isinstance(status, PrinterStatus)


async def test_a_printer_that_was_deleted_meanwhile_is_told(stage: Stage) -> None:
    stage.cups.queues = ["a", "b"]
    async with stage.runs():
        await stage.snapshot()
    stage.cups.queues = ["b"]
    async with stage.runs():
        status, deleted = await stage.snapshot()
    assert status.printer == "b"
    assert isinstance(deleted, PrinterChanged)
    assert (deleted.printer, deleted.what) == ("a", "deleted")
    assert "printer:a" not in stage.facts()
