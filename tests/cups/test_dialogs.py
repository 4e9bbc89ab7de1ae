"""Dialogs on a real print host: cupsd, the backend, a bridge and a Redis, and what kills them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from broker import Broker
from broker.errors import ChannelAcquired, ChannelError, SessionLapsed
from broker.offer import Offer
from tests.cups.farm.stage import LEASE, PATIENCE, Bridge, Listener, until
from tests.cups.host import CupsHost
from tests.cups.sim import Sim
from tests.servers import RedisServer
from workers.cups.types import Choice, JobAnswer, JobQuestion, QuestionOver

HERE = r"\\print01"
PAPER = """
[[question]]
name = "paper"
when = "media-empty"
text = "{printer} is out of paper. Continue “{title}”?"
time_out = 600
"""
COST = """
[[question]]
name = "cost"
when = "before"
copies_over = 5
text = "{copies} copies of “{title}”?"
block_for = 60
time_out = 600
"""
LONG = COST.replace("block_for = 60", "block_for = 0")
MANY = 10
"""Copies that are asked about."""
ENDS: dict[Choice, str] = {"continue": "completed", "cancel": "canceled", "hold": "held"}
PPD = """*PPD-Adobe: "4.3"
*FormatVersion: "4.3"
*FileVersion: "1.0"
*LanguageVersion: English
*LanguageEncoding: ISOLatin1
*PCFileName: "SLOW.PPD"
*Manufacturer: "Tympan"
*Product: "(Slow)"
*ModelName: "Slow"
*ShortNickName: "Slow"
*NickName: "Slow"
*PSVersion: "(3010.000) 0"
*cupsFilter: "text/plain 0 slow"
*DefaultPageSize: A4
*OpenUI *PageSize: PickOne
*PageSize A4/A4: ""
*CloseUI: *PageSize
*OpenUI *PageRegion: PickOne
*DefaultPageRegion: A4
*PageRegion A4/A4: ""
*CloseUI: *PageRegion
*DefaultImageableArea: A4
*ImageableArea A4/A4: "0 0 595 842"
*DefaultPaperDimension: A4
*PaperDimension A4/A4: "595 842"
"""


class Host:
    """A print host, whose one printer is in a test's hands, and who listens."""

    def __init__(self, redis: RedisServer, cups: CupsHost) -> None:
        self.redis = redis
        self.cups = cups
        self.sim: Sim = cups.add_sim("laser-3", wrapped=True)
        self.bridge = Bridge(cups, redis.url)
        self._listeners: list[Listener] = []

    async def configure(self, questions: str, **values: str) -> None:
        """Write its settings; the bridge is started, or started anew."""
        redis = f"\n[redis]\nurl = '{self.redis.url}'\n[redis.settings]\nlease = {LEASE}\n"
        self.cups.configure(redis + questions, server=self.cups.name, **values)
        await self.bridge.stop()
        await self.bridge.start()

    async def listener(self, who: str) -> Listener:
        """Alice is whose the jobs are; others administer the server."""
        is_owner = who == "alice"
        broker = Broker.connect(self.redis.url, user=who, lease=LEASE)
        await broker.start()
        if not is_owner:
            await broker.grant(HERE, who, "administer")
        made = Listener(who, broker)
        self._listeners.append(made)
        return await made.listen(HERE, JobQuestion, everybody=not is_owner, asks=True)

    async def lp(self, **options: Any) -> int:
        """Alice prints."""
        return await asyncio.to_thread(self.cups.lp, "laser-3", **options)

    async def ends(self, job: int, *states: str) -> None:
        """Wait for a job to be so."""
        await asyncio.to_thread(self.cups.await_job, job, *states)

    def saw_it_held(self) -> bool:
        """Whether the bridge has noted that the one job asked about is held."""
        with contextlib.closing(sqlite3.connect(self.cups.spool / "answers")) as file:
            return file.execute("SELECT was_held FROM questions").fetchall() == [(1,)]

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for something."""
        await until(holds, what, lambda: "\n".join([self.cups.log_tail(), *self.bridge.said]))

    async def close(self) -> None:
        """End who listens, and the bridge."""
        await asyncio.gather(*[one.leave() for one in self._listeners])
        await self.bridge.stop()


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """Asks about paper during, and about copies before; nothing listens yet."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(appendonly=True, config={"appendfsync": "always"}))
        cups = stack.enter_context(CupsHost("print01"))
        cups.place()
        made = Host(redis, cups)
        try:
            await made.configure(PAPER + COST)
            yield made
        finally:
            await made.close()


async def over(offer: Offer[Any]) -> QuestionOver:
    """What a listener is told at the end of a question."""
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None, "nobody told it"
    return closing.reason.decode(QuestionOver)


def asked(listener: Listener, job: int) -> list[Offer[Any]]:
    """All questions about a job that a listener heard."""
    return [one for one in listener.offers if one.payload.job == job]


async def answers(offer: Offer[Any]) -> bool:
    """Whether an answer to it counts."""
    try:
        await offer.respond(JobAnswer(choice="continue"))
    except (SessionLapsed, ChannelError):
        return False
    return True


async def test_the_first_answer_decides_what_becomes_of_a_job_that_prints(host: Host) -> None:
    first, second = await host.listener("carol"), await host.listener("dave")
    printed = []
    for choice, end in ENDS.items():
        host.sim.empty()
        job = await host.lp(title="annual report")
        won, lost = await first.asked(job=job), await second.asked(job=job)
        assert won.payload.text == "laser-3 is out of paper. Continue “annual report”?"
        assert won.payload.reasons == ["media-empty-error"]
        await won.respond(JobAnswer(choice=choice))
        with pytest.raises(ChannelAcquired):
            await lost.respond(JobAnswer(choice="cancel"))
        assert await over(won) == QuestionOver(why="answered", choice=choice, by="carol")
        if choice == "continue":
            host.sim.refill()
            printed.append(job)
        await host.ends(job, end)
        assert host.sim.printed == printed
        assert len(asked(first, job)) == len(asked(second, job)) == 1


async def test_and_of_one_that_waits_to_be_printed(host: Host) -> None:
    alice, desk = await host.listener("alice"), await host.listener("helpdesk")
    begun: list[int] = []
    for choice, end in ENDS.items():
        job = await host.lp(title="flyer", copies=MANY)
        at_owner, at_desk = await alice.asked(job=job), await desk.asked(job=job)
        assert at_owner.payload.text == "10 copies of “flyer”?"
        assert host.sim.begun == begun
        await at_owner.respond(JobAnswer(choice=choice, note="for the fair"))
        await host.ends(job, end)
        begun += [job] * (choice == "continue")
        assert host.sim.begun == begun
        await at_desk.wait_closed(PATIENCE)
        assert at_desk.is_lost


async def test_paper_resolves_the_question(host: Host) -> None:
    alice = await host.listener("alice")
    host.sim.empty()
    job = await host.lp()
    offer = await alice.asked(job=job)
    host.sim.refill()
    assert await over(offer) == QuestionOver(why="resolved")
    await host.ends(job, "completed")


async def test_a_job_that_nobody_answers_for_is_held_and_a_late_answer_prints_it(
    host: Host,
) -> None:
    await host.configure(LONG)
    waits = await host.lp(title="poster", copies=MANY)
    await host.ends(waits, "held")
    other = await host.lp(title="letter")
    await host.ends(other, "completed")
    late = await host.listener("alice")
    offer = await late.asked(job=waits)
    await offer.respond(JobAnswer(choice="continue"))
    await host.ends(waits, "completed")
    assert host.sim.printed == [other, waits], "the queue went on meanwhile"
    assert len(asked(late, waits)) == 1


async def test_a_late_cancel_cancels_the_held_job(host: Host) -> None:
    await host.configure(LONG)
    desk = await host.listener("helpdesk")
    job = await host.lp(copies=MANY)
    await host.ends(job, "held")
    await (await desk.asked(job=job)).respond(JobAnswer(choice="cancel"))
    await host.ends(job, "canceled")
    assert host.sim.begun == []


async def test_what_a_person_releases_by_hand_is_printed(host: Host) -> None:
    desk = await host.listener("helpdesk")
    job = await host.lp(copies=MANY)
    await (await desk.asked(job=job)).respond(JobAnswer(choice="hold"))
    await host.ends(job, "held")
    await host.until(host.saw_it_held, "the bridge to see that")
    await asyncio.to_thread(host.cups.run, "lp", "-i", str(job), "-H", "resume")
    await host.ends(job, "completed")
    assert host.sim.printed == [job]
    assert len(asked(desk, job)) == 1


@pytest.mark.parametrize("is_held", [False, True])
async def test_a_job_that_its_owner_cancels_takes_the_question_with_it(
    host: Host, is_held: bool
) -> None:
    if is_held:
        await host.configure(LONG)
    desk = await host.listener("helpdesk")
    job = await host.lp(copies=MANY)
    offer = await desk.asked(job=job)
    if is_held:
        await host.ends(job, "held")
    await asyncio.to_thread(host.cups.cancel, job)
    assert await over(offer) == QuestionOver(why="job-over")
    await host.ends(job, "canceled")
    assert host.sim.begun == []


async def test_a_cupsd_that_is_killed_while_a_question_stands_asks_nobody_twice(
    host: Host,
) -> None:
    alice, desk = await host.listener("alice"), await host.listener("helpdesk")
    job = await host.lp(copies=MANY)
    offer = await desk.asked(job=job)
    (before,) = host.cups.children("backend/tympan")
    await asyncio.to_thread(host.cups.kill)
    await host.until(lambda: not Path(f"/proc/{before}").exists(), "the backend to end")
    await asyncio.to_thread(host.cups.start)
    await host.until(lambda: bool(host.cups.children("backend/tympan")), "the job to run again")
    await offer.respond(JobAnswer(choice="continue"))
    await host.ends(job, "completed")
    assert host.sim.printed == [job]
    assert len(asked(alice, job)) == len(asked(desk, job)) == 1


async def test_nor_does_one_that_is_killed_while_the_job_prints_and_it_is_printed_once(
    host: Host,
) -> None:
    desk = await host.listener("helpdesk")
    host.sim.empty()
    job = await host.lp()
    offer = await desk.asked(job=job)
    (before,) = host.cups.children("backend/tympan")
    await asyncio.to_thread(host.cups.kill)
    await asyncio.to_thread(host.cups.start)
    await host.until(
        lambda: len(set(host.cups.children("backend/tympan")) | {before}) > 1,
        "the job to run again",
    )
    await offer.respond(JobAnswer(choice="continue"))
    assert (await over(offer)).why == "answered"
    host.sim.refill()
    await host.ends(job, "completed")
    assert host.sim.printed == [job]
    assert len(asked(desk, job)) == 1


async def test_a_job_whose_cupsd_was_killed_can_be_canceled(host: Host) -> None:
    desk = await host.listener("helpdesk")
    host.sim.empty()
    job = await host.lp()
    offer = await desk.asked(job=job)
    await asyncio.to_thread(host.cups.kill)
    await asyncio.to_thread(host.cups.start)
    await host.ends(job, "processing")
    await offer.respond(JobAnswer(choice="cancel"))
    await host.ends(job, "canceled")
    assert host.sim.printed == []
    assert len(asked(desk, job)) == 1


async def test_a_cupsd_that_ends_in_order_asks_nobody_twice(host: Host) -> None:
    desk = await host.listener("helpdesk")
    job = await host.lp(copies=MANY)
    offer = await desk.asked(job=job)
    await asyncio.to_thread(host.cups.restart)
    await host.until(lambda: bool(host.cups.children("backend/tympan")), "the job to run again")
    await offer.respond(JobAnswer(choice="continue"))
    await host.ends(job, "completed")
    assert host.sim.printed == [job]
    assert len(asked(desk, job)) == 1


async def test_a_bridge_that_is_killed_asks_again_what_nobody_answered(host: Host) -> None:
    desk = await host.listener("helpdesk")
    host.sim.empty()
    answered = await host.lp(copies=MANY)
    await (await desk.asked(job=answered, question="cost")).respond(JobAnswer(choice="continue"))
    first = await desk.asked(job=answered, question="paper")
    await host.bridge.kill()
    await host.bridge.start()
    closing = await first.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.is_release
    again = await desk.asked(job=answered, again=True)
    assert again.payload.question == "paper"
    await again.respond(JobAnswer(choice="cancel"))
    await host.ends(answered, "canceled")
    assert [one.payload.question for one in asked(desk, answered)] == ["cost", "paper", "paper"]


async def test_what_was_answered_holds_when_bridge_and_cupsd_are_killed(host: Host) -> None:
    desk = await host.listener("helpdesk")
    host.sim.hold()
    job = await host.lp(copies=MANY)
    await (await desk.asked(job=job)).respond(JobAnswer(choice="continue"))
    await host.until(lambda: host.sim.begun == [job], "the job to reach the printer")
    await host.bridge.kill()
    await asyncio.to_thread(host.cups.kill)
    await asyncio.to_thread(host.cups.start)
    await host.bridge.start()
    host.sim.release()
    await host.ends(job, "completed")
    assert host.sim.printed == [job]
    assert len(asked(desk, job)) == 1


async def test_a_redis_that_is_killed_keeps_the_question(host: Host) -> None:
    desk = await host.listener("helpdesk")
    job = await host.lp(copies=MANY)
    offer = await desk.asked(job=job)
    await asyncio.to_thread(host.redis.kill)
    await asyncio.to_thread(host.redis.restart)
    await offer.respond(JobAnswer(choice="continue"))
    await host.ends(job, "completed")
    assert len(asked(desk, job)) == 1


async def test_a_job_that_comes_while_redis_is_away_is_asked_about_when_it_is_back(
    host: Host,
) -> None:
    desk = await host.listener("helpdesk")
    await asyncio.to_thread(host.redis.kill)
    job = await host.lp(copies=MANY)
    await host.ends(job, "processing")
    await asyncio.to_thread(host.redis.restart)
    await (await desk.asked(job=job)).respond(JobAnswer(choice="continue"))
    await host.ends(job, "completed")
    assert host.sim.printed == [job]


async def test_a_redis_that_lost_everything_is_told_of_the_question_again(host: Host) -> None:
    alice = await host.listener("alice")
    job = await host.lp(copies=MANY)
    await alice.asked(job=job)
    await asyncio.to_thread(host.redis.cli, "FLUSHALL")
    # Her client has to come back, too: what it was asked before that is over for it.
    async with asyncio.timeout(PATIENCE):
        while not await answers(await alice.asked(job=job, again=True)):
            alice.offers.clear()
    await host.ends(job, "completed")
    assert host.sim.printed == [job]


async def test_without_a_bridge_jobs_are_held_where_that_is_set_and_asked_about_later(
    host: Host,
) -> None:
    await host.configure(COST, without_bridge="hold")
    hurry(host)
    await host.bridge.stop()
    job = await host.lp(copies=MANY)
    await host.ends(job, "held")
    desk = await host.listener("helpdesk")
    await host.bridge.start()
    await (await desk.asked(job=job)).respond(JobAnswer(choice="continue"))
    await host.ends(job, "completed")
    assert host.sim.printed == [job]


def hurry(host: Host) -> None:
    """The backend waits for a bridge a moment only."""
    program = host.cups.server_bin / "backend/tympan"
    ahead = "import workers.cups.printing.run as p; p.COMES_BACK = p.COMES_BACK_TO_HOLD = 0.3\n"
    text = program.read_text()
    host.cups.place_text("backend", "tympan", text.replace("sys.exit(", ahead + "sys.exit("))


# With a filter ----------------------------------------------------------------------------------


def add_filtered(host: Host) -> Path:
    """A queue ``slow`` on the printer, whose filter gives its second half when a file is there."""
    go = host.cups.root / "go"
    host.cups.place_text(
        "filter",
        "slow",
        f"#!/bin/sh\nprintf 'one\\f'\nwhile [ ! -e {go} ]; do sleep 0.05; done\nprintf 'two'\n",
    )
    ppd = host.cups.root / "slow.ppd"
    ppd.write_text(PPD)
    uri = f"tympan:{host.sim.uri}"
    host.cups.run("lpadmin", "-p", "slow", "-E", "-v", uri, "-P", str(ppd))
    return go


async def test_a_filtered_job_is_asked_about_and_printed_whole(host: Host) -> None:
    desk = await host.listener("helpdesk")
    go = await asyncio.to_thread(add_filtered, host)
    job = await asyncio.to_thread(host.cups.lp, "slow", copies=MANY)
    go.touch()
    await (await desk.asked(job=job)).respond(JobAnswer(choice="continue"))
    await host.ends(job, "completed")
    (printed,) = host.sim.jobs
    assert (printed["argv"], printed["bytes"]) == (6, 7)


async def test_a_filtered_job_whose_cupsd_is_killed_is_printed_whole_and_once(
    host: Host,
) -> None:
    """Half of it is nothing to print: with its cupsd gone, the filter may be as well."""
    go = await asyncio.to_thread(add_filtered, host)
    job = await asyncio.to_thread(host.cups.lp, "slow")
    await host.until(lambda: host.sim.begun == [job], "the job to reach the printer")
    await asyncio.to_thread(host.cups.kill)
    await host.until(lambda: not host.cups.children("backend/tympan"), "the backend to end")
    go.touch()
    await asyncio.to_thread(host.cups.start)
    await host.ends(job, "completed")
    assert host.sim.printed == [job]
    assert host.sim.jobs[-1]["bytes"] == 7
