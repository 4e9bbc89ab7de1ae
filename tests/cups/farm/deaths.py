"""Cases about deaths: what is told and asked when notifier, cupsd, bridge and Redis are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from broker.offer import Offer
from tests.cups.account import interpreter
from tests.cups.farm.case import Cases
from tests.cups.farm.dialogs import obeyed, put_job
from tests.cups.farm.stage import PATIENCE, Listener, Stage, until
from tests.cups.host import CupsHost
from workers.cups.installation.health import Health, examine
from workers.cups.installation.host import Host
from workers.cups.installation.install import Installation
from workers.cups.types import JobAnswer, JobQuestion, JobStatus, ServerStatus

deaths = Cases()
HERE = r"\\print01"
JOBS = 60
SHORT = 24
EVERY = 0.05
"""Seconds between two jobs."""


@dataclass
class Load:
    """Jobs that are put into a queue while things die."""

    host: CupsHost
    queue: str
    jobs: list[int] = field(default_factory=list)
    denied: int = 0
    """Times that cupsd was away."""

    async def put(self, many: int) -> None:
        """So many, one after the other."""
        while len(self.jobs) < many:
            try:
                self.jobs.append(await asyncio.to_thread(self.host.lp, self.queue, user="alice"))
            except AssertionError:
                self.denied += 1
            await asyncio.sleep(EVERY)


@deaths.add(
    "e", "kill -9 of notifier, cupsd, bridge and Redis: nothing goes missing, none asked twice"
)
async def killed(stage: Stage) -> str:
    tell, (host, *_) = stage.tell, stage.hosts
    sim = await asyncio.to_thread(host.add_sim, "laser-3", wrapped=True)
    await asyncio.to_thread(host.add_queue, "fast", "file:///dev/null")
    alice = await (await stage.listener("alice")).listen(HERE, JobStatus)
    desk = await stage.listener("helpdesk", administers=[HERE])
    await desk.listen(HERE, ServerStatus, everybody=True)
    await desk.listen(HERE, JobQuestion, everybody=True, asks=True)
    asked = await put_job(host, sim, "annual report")
    first = await desk.asked(job=asked)
    tell("helpdesk", f"is asked about job {asked}, and lets it stand")
    load = Load(host, "fast")
    many = SHORT if stage.is_short else JOBS
    putting = asyncio.create_task(load.put(many))
    done = 0
    for death in (_notifier, _cupsd, _redis, _bridge):
        done += many // 6
        await until(lambda due=done: len(load.jobs) >= due, "jobs")  # type: ignore[misc]
        await death(stage, host)
        if death is _cupsd:
            await asyncio.to_thread(host.await_job, asked, "processing")
    await putting
    tell("load", f"{len(load.jobs)} jobs; cupsd was away for {load.denied} more")
    missing = await _unheard(alice, desk, load)
    # The bridge that was killed had asked; the next one asks again, and says so.
    current = (await _open_offers(desk, asked))[-1]
    again = [offer.payload.again for offer in desk.offers if offer.payload.job == asked]
    assert again.count(False) == 1, f"asked anew {again.count(False)} times"
    assert len(again) <= 2, f"asked {len(again)} times: {again}"
    await current.respond(JobAnswer(choice="continue"))
    state = await obeyed(host, sim, asked, "continue")
    assert sim.printed.count(asked) == 1, f"printed {sim.printed.count(asked)} times"
    tell("helpdesk", f"answers: job {asked} is {state}, printed once")
    repeats = _repeats(alice)
    await _flows(stage, host)
    assert first is not current
    return (
        f"{len(load.jobs)} jobs: {len(load.jobs) - len(missing)} ends heard, {len(missing)} under "
        f"reports of lost events; {repeats} repeats, all marked; one question, asked again "
        f"{again.count(True)} x"
    )


@deaths.add(
    "i",
    "a cupsd that is killed gives numbers again: new events are not taken for old",
    saves_after=30,
)
async def numbers(stage: Stage) -> str:
    tell, (host, *_) = stage.tell, stage.hosts
    await asyncio.to_thread(host.add_queue, "fast", "file:///dev/null")
    await asyncio.to_thread(host.restart)  # it writes down all that it knows
    alice = await (await stage.listener("alice")).listen(HERE, JobStatus)
    heard = 0
    for life in ("first", "second"):
        jobs = [await asyncio.to_thread(host.lp, "fast", user="alice") for _ in range(5)]
        heard += len(jobs)
        await until(lambda due=heard: len(_ends(alice)) >= due, "all ends", stage.said)  # type: ignore[misc]
        tell(host.name, f"in its {life} life: jobs {jobs[0]} to {jobs[-1]} are completed")
        if life == "first":
            await _cupsd(stage, host)
    ends = _ends(alice)
    numbers = [int(one.event.rpartition("/")[2]) for one in ends]
    assert len(ends) == heard, f"{len(ends)} ends of {heard} jobs"
    assert len({one.event for one in ends}) == heard, [one.event for one in ends]
    again = len(numbers) - len(set(numbers))
    return f"{heard} ends heard, each under a name of its own; {again} numbers were given twice"


def _ends(listener: Listener) -> list[JobStatus]:
    return listener.of(JobStatus, is_over=True)


async def _open_offers(desk: Listener, job: int) -> list[Offer[Any]]:
    def found() -> list[Offer[Any]]:
        return [one for one in desk.offers if one.payload.job == job and one.closing is None]

    await until(lambda: bool(found()), "an open question")
    return found()


async def _unheard(alice: Listener, desk: Listener, load: Load) -> list[int]:
    """Jobs that are over and whose end alice did not hear; each must have been reported lost."""

    def missing() -> list[int]:
        heard = {one.job for one in alice.of(JobStatus, is_over=True)}
        return [job for job in load.jobs if job not in heard]

    with contextlib.suppress(AssertionError):
        await until(lambda: not missing(), "all ends")
    left = missing()
    lost = desk.of(ServerStatus, what="events-lost")
    assert not left or lost, f"ends of jobs {left} were neither told nor reported"
    for report in lost:
        desk_saw = f"events {report.first} to {report.last} are lost: {report.why}"
        assert report.why, desk_saw
    return left


def _repeats(listener: Listener) -> int:
    """Notifications that were told more than once; only a marked one may be."""
    seen: set[str] = set()
    repeats = 0
    for one in listener.of(JobStatus):
        if one.event in seen:
            assert one.repeated, f"told twice, and not marked: {one}"
            repeats += 1
        seen.add(one.event)
    return repeats


async def _flows(stage: Stage, host: CupsHost) -> None:
    """What an operator is told in the end: that events flow, and that the farm has them all."""
    where = Host.read(
        server_root=host.root / "etc",
        cups=host.address,
        settings=host.settings,
        spool=host.spool,
    )
    made = Installation(where, None, interpreter())
    health = await examine(made)
    async with asyncio.timeout(PATIENCE):
        while not (health.flows and _is_told(health)):
            await asyncio.sleep(0.2)
            health = await examine(made)
    counts = health.events
    stage.tell(
        "status",
        f"events flow; {counts['read']} read, {counts['sent']} sent, {counts['torn']} torn, "
        f"{counts['lost']} lost",
    )


def _is_told(health: Health) -> bool:
    facts = health.subscription
    return facts is not None and facts["told"] == facts["last"]


Death = Callable[[Stage, CupsHost], Awaitable[None]]


async def _notifier(stage: Stage, host: CupsHost) -> None:
    victims = host.children("notifier/tympan")
    assert victims, "no notifier runs"
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    stage.tell(host.name, "kill -9 of the notifier")


async def _cupsd(stage: Stage, host: CupsHost) -> None:
    await asyncio.to_thread(host.kill)
    stage.tell(host.name, "kill -9 of cupsd")
    await asyncio.to_thread(host.start)
    stage.tell(host.name, "cupsd runs again")


async def _redis(stage: Stage, host: CupsHost) -> None:
    await asyncio.to_thread(stage.redis.kill)
    stage.tell("redis", "kill -9 of Redis")
    with contextlib.suppress(AssertionError):
        await asyncio.to_thread(host.lp, "fast", user="alice", title="while Redis is away")
    await asyncio.to_thread(stage.redis.restart)
    stage.tell("redis", "Redis runs again")


async def _bridge(stage: Stage, host: CupsHost) -> None:
    bridge = stage.bridges[host.name]
    await bridge.kill()
    stage.tell(host.name, "kill -9 of the bridge")
    await bridge.start()
    stage.tell(host.name, "the bridge runs again")
