"""Events of a real cupsd: through its notifier, the journal and the bridge to who listens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from broker import ALL_USERS, Broker, Name, Subscription
from tests.cups.farm.stage import Listener
from tests.cups.host import CupsHost
from tests.proxy import Proxy
from tests.servers import RedisServer
from workers.bridge import Bridge
from workers.cups.bridge import CupsBridge
from workers.cups.claim import Claimed
from workers.cups.cupsd.ipp import Attributes, Tag
from workers.cups.events import pump
from workers.cups.events.journal import Journal
from workers.cups.print_host import PrintHost, SpoolFault
from workers.cups.settings import HostSettings
from workers.cups.types import JobStatus, PrinterChanged, PrinterStatus, ServerStatus

HERE = r"\\print01"
QUICK: dict[str, Any] = {"lease": 1.5, "reply_timeout": 2.0, "operation_timeout": 3.0}
PATIENCE = 20.0


class Switch(IntEnum):
    """Operations that make one event each."""

    ACCEPT = 0x4008
    REJECT = 0x4009


class Scene:
    """A print host, a Redis that can be cut off, and who listens."""

    def __init__(self, cups: CupsHost, proxy: Proxy, url: str) -> None:
        self.cups = cups
        self.proxy = proxy
        self.url = url
        self.host: PrintHost | None = None
        self._listeners: list[Listener] = []

    def journal(self) -> Journal:
        return Journal(self.cups.spool / "journal")

    def counts(self) -> dict[str, int]:
        with self.journal() as journal:
            return journal.counts()

    async def listener(self, who: str, *models: Any, administers: str = "") -> Listener:
        """On the whole server; whoever administers hears what concerns everybody."""
        broker = Broker.connect(self.url, user=who)
        await broker.start()
        if administers:
            await broker.grant(administers, who, "administer")
        made = Listener(who, broker)
        self._listeners.append(made)
        return await made.listen(administers or HERE, *models, everybody=bool(administers))

    @asynccontextmanager
    async def bridge(self) -> AsyncIterator[PrintHost]:
        """A bridge's life, up to the subscription and the first snapshot."""
        async with Broker.connect(self.proxy.url, user="spooler", **QUICK) as broker:
            settings = HostSettings.read(self.cups.settings)
            host = self.host = PrintHost(broker, Name.parse(HERE), settings)
            task = asyncio.create_task(host.serve())
            try:
                await self.until(lambda: task.done() or self._is_ready(), "the bridge")
                if not task.done():
                    yield host
            finally:
                task.cancel()
                await asyncio.wait([task])
            if not task.cancelled():
                await task

    def _is_ready(self) -> bool:
        with self.journal() as journal:
            return journal.fact("position") is not None

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not await asyncio.to_thread(holds):
                    await asyncio.to_thread(time.sleep, 0.02)
                return
        raise AssertionError(f"awaited {what}\n{self.cups.log_tail()}")

    async def do(self, what: Callable[..., Any], *given: Any, **options: Any) -> Any:
        """Something of the print host, which would block."""
        return await asyncio.to_thread(what, *given, **options)

    async def close(self) -> None:
        for one in self._listeners:
            await one.leave()


@pytest.fixture
async def scene(cups_host: CupsHost, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(pump, "CHECK_EVERY", 0.3)
    monkeypatch.setattr(pump, "RETRY", 0.1)
    with RedisServer() as redis:
        async with Proxy("127.0.0.1", redis.port) as proxy:
            made = Scene(cups_host, proxy, redis.url)
            yield made
            await made.close()


def _forget_subscriptions(cups: CupsHost) -> None:
    """As if cupsd had been killed before it wrote them down."""
    for path in (cups.root / "etc").glob("subscriptions.conf*"):
        path.unlink()


def sequences(payloads: list[Any]) -> list[int]:
    """Numbers of the events of one epoch, of those that cupsd told."""
    return [int(one.event.rpartition("/")[2]) for one in payloads if "/snapshot/" not in one.event]


async def test_a_job_is_told_to_its_owner_and_to_administrators(scene: Scene) -> None:
    await scene.do(scene.cups.add_queue, "büro-3", "file:///dev/null")
    alice = await scene.listener("alice", JobStatus)
    bob = await scene.listener("bob", JobStatus)
    admin = await scene.listener("admin", JobStatus, administers=HERE)
    title = "Ünï “q” 'x' , \\"
    async with scene.bridge():
        job = await scene.do(scene.cups.lp, "büro-3", user="Alice", title=title)
        over = await alice.hears(JobStatus, job=job, is_over=True)
        await admin.hears(JobStatus, job=job, is_over=True)
        after = await scene.do(scene.cups.lp, "büro-3", user="bob")
        await bob.hears(JobStatus, job=after, is_over=True)
    assert (over.state, over.owner, over.title, over.printer) == (
        "completed",
        "alice",
        title,
        "büro-3",
    )
    assert [one.state for one in alice.of(JobStatus)] == ["pending", "processing", "completed"]
    assert {one.job for one in bob.of(JobStatus)} == {after}
    assert {one.job for one in admin.of(JobStatus)} == {job, after}


async def test_a_state_reaches_who_listens_to_the_printer_and_to_the_server_once(
    scene: Scene,
) -> None:
    sim = await scene.do(scene.cups.add_sim, "laser-3")
    sim.empty()
    server = await scene.listener("admin", PrinterStatus, administers=HERE)
    printer = await scene.listener("desk", PrinterStatus, administers=rf"{HERE}\laser-3")
    async with scene.bridge():
        job = await scene.do(scene.cups.lp, "laser-3")
        for one in (server, printer):
            await one.hears(PrinterStatus, severity="error")
        sim.refill()
        await scene.do(scene.cups.await_job, job, "completed")
        for one in (server, printer):
            await one.hears(PrinterStatus, state="idle", cleared=[])
            await one.hears(PrinterStatus, reasons=[], added=[], severity="report", state="idle")
    empty = ["media-empty-error", "media-needed-error"]
    for one in (server, printer):
        alerts = [each for each in one.of(PrinterStatus) if each.added]
        assert [sorted(each.added) for each in alerts] == [empty]
        cleared = [each for each in one.of(PrinterStatus) if each.cleared]
        assert [sorted(each.cleared) for each in cleared] == [empty]


async def test_queues_are_told_as_they_come_change_and_go(scene: Scene) -> None:
    admin = await scene.listener("admin", PrinterChanged, PrinterStatus, administers=HERE)
    async with scene.bridge():
        await scene.do(scene.cups.add_queue, "new", "file:///dev/null")
        await admin.hears(PrinterChanged, what="added", printer="new")
        await scene.do(scene.cups.run, "cupsreject", "new")
        await admin.hears(PrinterChanged, what="rejecting")
        await admin.hears(PrinterStatus, accepting=False)
        await scene.do(scene.cups.run, "cupsdisable", "-r", "service", "new")
        await admin.hears(PrinterStatus, state="stopped")
        await scene.do(scene.cups.run, "cupsenable", "new")
        await admin.hears(PrinterStatus, state="idle", accepting=False, reasons=[])
        await scene.do(scene.cups.run, "lpadmin", "-x", "new")
        await admin.hears(PrinterChanged, what="deleted")
    assert admin.of(PrinterStatus)[-1].printer == "new"


async def test_a_notifier_that_is_killed_loses_nothing(scene: Scene) -> None:
    await scene.do(scene.cups.add_queue, "q", "file:///dev/null")
    admin = await scene.listener("admin", JobStatus, PrinterStatus, administers=HERE)
    async with scene.bridge():
        first = await scene.do(scene.cups.lp, "q")
        await admin.hears(JobStatus, job=first, is_over=True)
        (notifier,) = scene.cups.children("notifier/tympan")
        os.kill(notifier, signal.SIGSTOP)
        lost = await scene.do(scene.cups.lp, "q")
        await scene.do(scene.cups.await_job, lost, "completed")
        os.kill(notifier, signal.SIGKILL)  # with all that in its pipe
        jobs = [lost, *[await scene.do(scene.cups.lp, "q") for _ in range(3)]]
        for job in jobs:
            await admin.hears(JobStatus, job=job, is_over=True)
        await scene.until(lambda: scene.counts().get("filled", 0) > 0, "what was missing")
    told = sorted(sequences([one.payload for one in admin.heard]))
    assert told == list(range(told[0], told[-1] + 1))
    assert "lost" not in scene.counts()
    assert [one.state for one in admin.of(JobStatus, job=jobs[0])] == [
        "pending",
        "processing",
        "completed",
    ]


async def test_a_cupsd_that_is_restarted_is_told_and_goes_on(scene: Scene) -> None:
    await scene.do(scene.cups.add_queue, "q", "file:///dev/null")
    admin = await scene.listener("admin", ServerStatus, PrinterStatus, administers=HERE)
    jobs = await scene.listener("alice", JobStatus)
    async with scene.bridge():
        await jobs.hears(JobStatus, job=await scene.do(scene.cups.lp, "q"), is_over=True)
        await scene.do(scene.cups.restart)
        await admin.hears(ServerStatus, what="started")
        await admin.hears(ServerStatus, what="stopped")
        await jobs.hears(JobStatus, job=await scene.do(scene.cups.lp, "q"), is_over=True)
        await scene.do(scene.cups.reload)
        await admin.hears(ServerStatus, what="restarted")
    assert admin.of(ServerStatus, what="events-lost") == []


async def test_numbers_that_a_killed_cupsd_gives_again_are_other_events(scene: Scene) -> None:
    cups = scene.cups
    await scene.do(cups.add_queue, "q", "file:///dev/null")
    admin = await scene.listener("admin", ServerStatus, PrinterStatus, administers=HERE)
    alice = await scene.listener("alice", JobStatus)
    async with scene.bridge():
        await alice.hears(JobStatus, job=await scene.do(cups.lp, "q"), is_over=True)
        saved = (cups.root / "etc/subscriptions.conf").read_bytes()
        await alice.hears(JobStatus, job=await scene.do(cups.lp, "q"), is_over=True)
        before = max(sequences(alice.of(JobStatus)))
        await scene.do(cups.kill)
        # What a cupsd that writes every 30 s has on its disk.
        (cups.root / "etc/subscriptions.conf").write_bytes(saved)
        await scene.do(cups.start)
        started = await admin.hears(ServerStatus, what="started")
        job = await scene.do(cups.lp, "q", title="after")
        await alice.hears(JobStatus, title="after", is_over=True)
    assert sequences([started])[0] <= before
    events = [one.payload.event for one in (*admin.heard, *alice.heard)]
    assert len(events) == len(set(events))
    assert len({event.split("/")[1] for event in events if "/snapshot/" not in event}) >= 2
    assert [one.state for one in alice.of(JobStatus, job=job, title="after")] == [
        "pending",
        "processing",
        "completed",
    ]


async def test_a_cupsd_that_forgot_its_subscription_is_given_another_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "CHECK_EVERY", 3600.0)
    cups = scene.cups
    await scene.do(cups.add_queue, "q", "file:///dev/null")
    admin = await scene.listener("admin", ServerStatus, PrinterStatus, administers=HERE)
    alice = await scene.listener("alice", JobStatus)
    async with scene.bridge():
        await alice.hears(JobStatus, job=await scene.do(cups.lp, "q"), is_over=True)
        await scene.do(cups.kill)
        await scene.do(_forget_subscriptions, cups)
        await scene.do(cups.start)
        lost = await admin.hears(ServerStatus, what="events-lost")
        job = await scene.do(cups.lp, "q", title="after")
        await alice.hears(JobStatus, title="after", is_over=True)
    assert "made again" in lost.why
    assert len(alice.of(JobStatus, job=job, title="after")) == 3


async def test_a_subscription_that_somebody_cancelled_is_made_again(scene: Scene) -> None:
    await scene.do(scene.cups.add_queue, "q", "file:///dev/null")
    admin = await scene.listener("admin", ServerStatus, PrinterStatus, administers=HERE)
    alice = await scene.listener("alice", JobStatus)
    async with scene.bridge() as host:
        (subscription,) = await host.cups.subscriptions()
        await host.cups.unsubscribe(subscription.id)
        lost = await admin.hears(ServerStatus, what="events-lost")
        await scene.until(lambda: len(scene.cups.subscriptions()) == 1, "a new one")
        await alice.hears(JobStatus, job=await scene.do(scene.cups.lp, "q"), is_over=True)
    assert "made again" in lost.why


async def test_while_redis_is_away_events_are_kept_and_then_sent_in_order(scene: Scene) -> None:
    await scene.do(scene.cups.add_queue, "q", "file:///dev/null")
    alice = await scene.listener("alice", JobStatus)
    async with scene.bridge() as host:
        await alice.hears(JobStatus, job=await scene.do(scene.cups.lp, "q"), is_over=True)
        scene.proxy.refuse(True)
        scene.proxy.cut()
        jobs = [await scene.do(scene.cups.lp, "q", title=str(number)) for number in range(8)]
        await scene.do(scene.cups.await_job, jobs[-1], "completed")
        await scene.until(lambda: host.sending.trouble is not None, "the bridge to notice")
        assert alice.of(JobStatus, job=jobs[0]) == []
        scene.proxy.refuse(False)
        await alice.hears(JobStatus, job=jobs[-1], is_over=True)
        await scene.until(lambda: host.sending.trouble is None, "the bridge to recover")
    told = sequences(alice.of(JobStatus, repeated=False))
    assert told == sorted(set(told))
    for job in jobs:
        states = [one.state for one in alice.of(JobStatus, job=job, repeated=False)]
        assert states == ["pending", "processing", "completed"]
    assert "lost" not in scene.counts()


async def test_what_happens_while_no_bridge_runs_is_told_by_the_next(scene: Scene) -> None:
    await scene.do(scene.cups.add_queue, "q", "file:///dev/null")
    alice = await scene.listener("alice", JobStatus)
    async with scene.bridge():
        await alice.hears(JobStatus, job=await scene.do(scene.cups.lp, "q"), is_over=True)
    jobs = [await scene.do(scene.cups.lp, "q") for _ in range(3)]
    await scene.do(scene.cups.await_job, jobs[-1], "completed")
    async with scene.bridge():
        for job in jobs:
            await alice.hears(JobStatus, job=job, is_over=True)
    assert [one.repeated for one in alice.of(JobStatus)] == [False] * 12
    told = sequences(alice.of(JobStatus))
    assert told == sorted(set(told))


@pytest.mark.parametrize(("user", "owner"), [("root", "alice"), ("nobody", "anonymous")])
async def test_a_stock_cupsd_tells_owners_to_its_administrators_only(
    scene: Scene, user: str, owner: str
) -> None:
    """As Debian's is set up; `user` in the settings says who the bridge is to it."""
    conf = scene.cups.root / "etc/cupsd.conf"
    text = conf.read_text()
    text = text.replace("JobPrivateAccess all", "JobPrivateAccess default")
    text = text.replace("JobPrivateValues none", "JobPrivateValues default")
    conf.write_text(text)
    await scene.do(scene.cups.restart)
    await scene.do(scene.cups.add_queue, "q", "file:///dev/null")
    scene.cups.configure(user=user)
    alice = await scene.listener("alice", JobStatus)
    admin = await scene.listener("admin", JobStatus, administers=HERE)
    async with scene.bridge() as host:
        job = await scene.do(scene.cups.lp, "q", user="alice")
        over = await admin.hears(JobStatus, job=job, is_over=True)
        assert over.owner == owner
        assert host.owners.are_hidden is (owner == "anonymous")
        if owner == "alice":
            await alice.hears(JobStatus, job=job, is_over=True)
        else:
            assert alice.heard == []


async def test_a_flood_reaches_a_pool_without_loss(scene: Scene) -> None:
    """A pool holds what it has not done; each event here changes the printer and its queue."""
    many = 600
    with CupsHost("print01", saves_after=30) as cups:
        cups.place()
        cups.add_queue("q", "file:///dev/null")
        flooded = Scene(cups, scene.proxy, scene.url)
        async with Broker.connect(scene.url, user="help") as desk, flooded.bridge() as host:
            await desk.grant(HERE, "help", "administer")
            wish = Subscription(HERE, PrinterStatus, user_filter=ALL_USERS, printers=True)
            await desk.pools.create("flood", wish)
            q: Attributes = {"printer-uri": (Tag.URI, "ipp://localhost/printers/q")}
            for number in range(many):
                await host.cups.ask(Switch.ACCEPT if number % 2 else Switch.REJECT, q)
            async with asyncio.timeout(60):
                while flooded.counts().get("sent", 0) < 2 * many:
                    await scene.do(time.sleep, 0.05)
            (facts,) = await desk.pools.on_server(HERE)
        assert facts.waiting >= many, "a snapshot meanwhile may have told more"
        assert facts.denied == 0
        assert "lost" not in flooded.counts()
        with flooded.journal() as journal:
            assert journal.length == 0


async def test_two_cupsds_of_one_name_are_told_apart(scene: Scene) -> None:
    async with scene.bridge():
        with CupsHost("print01") as twin:
            twin.place()
            other = Scene(twin, scene.proxy, scene.url)
            with pytest.raises(Claimed, match=r"has a bridge already") as caught:
                async with other.bridge():
                    pytest.fail("both speak for one server")
            assert str(twin.spool) in str(caught.value)
            assert str(scene.cups.spool) in str(caught.value)


async def test_two_bridges_on_one_spool_are_one_too_many(scene: Scene) -> None:
    async with scene.bridge():
        with pytest.raises(SpoolFault, match="another bridge runs on the spool"):
            async with Scene(scene.cups, scene.proxy, scene.url).bridge():
                pytest.fail("both run")


async def test_a_cupsd_without_the_notifier_says_what_to_do(scene: Scene) -> None:
    (scene.cups.server_bin / "notifier/tympan").unlink()
    async with Broker.connect(scene.url, user="spooler", **QUICK) as broker:
        host = PrintHost(broker, Name.parse(HERE), HostSettings.read(scene.cups.settings))
        task = asyncio.create_task(host.serve())
        await scene.until(lambda: host.pump.trouble is not None, "the bridge to say so")
        assert "tympan cups install" in str(host.pump.trouble)
        await scene.do(scene.cups.place, "notifier")
        await scene.until(lambda: host.pump.trouble is None, "the bridge to go on")
        task.cancel()
        await asyncio.wait([task])


async def test_the_bridge_is_one_that_can_be_plugged_in() -> None:
    made: Bridge = CupsBridge()
    assert made.description
    assert [option.name for option in made.options] == ["settings"]


def test_the_settings_say_where_redis_is(tmp_path: Path) -> None:
    path = tmp_path / "cups.toml"
    path.write_text("[redis]\nurl = 'redis://print01@redis.example/3'\nsettings.lease = 5\n")
    path.chmod(0o640)
    own = CupsBridge().connect(None, "lp", Name.parse(HERE), settings=path)
    assert own.settings.lease == 5
    assert own.user == "lp"
    assert CupsBridge().server(settings=path) is None
    path.write_text(r"server = '\\print07'")
    assert CupsBridge().server(settings=path) == Name("print07")
