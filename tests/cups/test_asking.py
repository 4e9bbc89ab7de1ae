"""Questions that stand: who is asked, who wins, what becomes of the job, and what outlives whom."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Data, Registration
from broker.errors import ChannelAcquired
from tests.cups.room import COST, JOB, PRINTER, UUID, Room, offered, over, result, until
from tests.farm import PATIENCE, Farm
from workers.cups.dialogs import inquiry as inquiry_module
from workers.cups.dialogs import job_watch
from workers.cups.dialogs.answers import Answers, Asked
from workers.cups.dialogs.asking import key_of
from workers.cups.types import Choice, JobAnswer, JobQuestion, JobState, QuestionOver


@pytest.fixture
async def room(farm: Farm, tmp_path: Path) -> AsyncIterator[Room]:
    made = Room(farm, tmp_path)
    await made.open()
    yield made
    await made.close()


async def nothing_more(registration: Registration[JobQuestion], room: Room) -> None:
    """Nobody is asked any more: another printer's question comes first."""
    other = replace(JOB, number=99, title="the next one")
    room.cups.jobs[99] = "processing"
    room.run("cost", other)
    assert (await offered(registration)).payload.job == 99


# Asking -------------------------------------------------------------------------------------------


async def test_the_question_says_what_it_is_about(room: Room) -> None:
    alice = await room.hears()
    room.run("paper")
    said = (await offered(alice)).payload
    assert (said.host, said.printer, said.job) == ("print01", "Laser-3", 17)
    assert (said.title, said.owner, said.question) == ("report", "alice", "paper")
    assert (said.text, said.reasons) == ("No paper. Go on?", ["media-empty-error"])
    assert said.choices == ["continue", "cancel", "hold"]
    assert (said.until - said.at).total_seconds() == 3600
    assert (said.otherwise, said.again) == ("hold", False)
    assert said.event == f"print01/job/17/{UUID}/1795/paper"


async def test_the_first_answer_counts_and_the_others_are_told(room: Room) -> None:
    alice = await room.hears()
    admin_broker = await room.farm.administrator("carol")
    admin = await admin_broker.register(
        PRINTER, JobQuestion, style=BIDIRECTIONAL, user_filter=ALL_USERS
    )
    run = room.run()
    at_owner, at_desk = await offered(alice), await offered(admin)
    await at_desk.respond(JobAnswer(choice="cancel", note="ask Bob first"))
    with pytest.raises(ChannelAcquired):
        await at_owner.respond(JobAnswer(choice="continue"))
    choice, why = await asyncio.wait_for(run, PATIENCE)
    assert choice == "cancel"
    assert why == "carol answered: cancel (ask Bob first)"
    assert await over(at_desk) == QuestionOver(why="answered", choice="cancel", by="carol")


async def test_nobody_else_hears_it(room: Room) -> None:
    bob, alice = await room.hears("bob"), await room.hears()
    run = room.run()
    await (await offered(alice)).respond(JobAnswer(choice="continue"))
    assert await result(run) == "continue"
    other = replace(JOB, number=18, owner="bob")
    room.cups.jobs[18] = "processing"
    room.run("cost", other)
    assert (await offered(bob)).payload.job == 18


async def test_runs_of_one_job_share_a_question(room: Room) -> None:
    alice = await room.hears()
    runs = [room.run() for _ in range(5)]
    offer = await offered(alice)
    await offer.respond(JobAnswer(choice="continue"))
    assert [await result(run) for run in runs] == ["continue"] * 5
    await nothing_more(alice, room)


@pytest.mark.parametrize("choice", ["continue", "cancel"])
async def test_an_answer_is_remembered_by_this_bridge_and_the_next(
    room: Room, choice: Choice
) -> None:
    alice = await room.hears()
    run = room.run()
    await (await offered(alice)).respond(JobAnswer(choice=choice))
    assert await result(run) == choice
    assert await result(room.run()) == choice
    await room.restart()
    assert await result(room.run()) == choice
    await nothing_more(alice, room)


async def test_another_job_of_its_number_is_asked_about(room: Room) -> None:
    alice = await room.hears()
    first = room.run()
    await (await offered(alice)).respond(JobAnswer(choice="continue"))
    await result(first)
    room.run("cost", replace(JOB, mark="urn:uuid:another"))
    assert not (await offered(alice)).payload.again


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        (JobAnswer(choice=" Continue "), "continue"),
        (b"hold", "hold"),
        (b'"CANCEL"\n', "cancel"),
    ],
)
async def test_answers_are_read_as_people_write_them(
    room: Room, answer: JobAnswer | bytes, choice: Choice
) -> None:
    alice = await room.hears()
    run = room.run()
    await (await offered(alice)).respond(answer)
    assert await result(run) == choice


async def test_closing_with_an_answer_is_an_answer(room: Room) -> None:
    alice = await room.hears()
    run = room.run()
    await (await offered(alice)).close(JobAnswer(choice="cancel"))
    assert await result(run) == "cancel"


@pytest.mark.parametrize(
    "answer", [JobAnswer(choice="burn it"), b"\xff\xfe", b"", b'{"choice": 5}', b"x" * 70_000]
)
async def test_what_is_no_choice_is_asked_once_more_of_who_said_it(
    room: Room, answer: JobAnswer | bytes
) -> None:
    alice, other = await room.hears(), await room.hears()
    run = room.run()
    offer, lost = await offered(alice), await offered(other)
    await offer.respond(answer)
    again = (await offer.follow_up(PATIENCE)).payload
    assert "is none of: continue, cancel, hold. Print “report”?" in again.text
    assert len(again.text) < 200
    await lost.wait_closed(PATIENCE)
    assert lost.is_lost, "the question stays with who answered"
    await offer.respond(JobAnswer(choice="hold"))
    assert await result(run) == "hold"


async def test_who_says_nothing_after_that_is_not_waited_for(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inquiry_module, "SECOND_TRY", 0.1)
    alice = await room.hears()
    run = room.run()
    offer = await offered(alice)
    await offer.respond(b"???")
    assert (await over(offer)).why == "withdrawn"
    second = await offered(alice)
    assert second.payload.again
    await second.respond(JobAnswer(choice="continue"))
    assert await result(run) == "continue"


@pytest.mark.parametrize("reason", [None, b"no"])
async def test_who_leaves_without_an_answer_leaves_it_to_all(
    room: Room, reason: bytes | None
) -> None:
    alice = await room.hears()
    run = room.run()
    offer = await offered(alice)
    if reason is None:
        await offer.respond(b"hm")
        await offer.follow_up(PATIENCE)
    await offer.close(reason)
    again = await offered(alice)
    assert again.payload.again
    await again.respond(JobAnswer(choice="continue"))
    assert await result(run) == "continue"


async def test_an_owner_who_can_be_no_user_is_asked_through_administrators(room: Room) -> None:
    admin_broker = await room.farm.administrator("carol")
    admin = await admin_broker.register(
        PRINTER, JobQuestion, style=BIDIRECTIONAL, user_filter=ALL_USERS
    )
    run = room.run("cost", replace(JOB, owner="a|b"))
    offer = await offered(admin)
    assert offer.payload.owner == "a|b"
    await offer.respond(JobAnswer(choice="continue"))
    assert await result(run) == "continue"


async def test_a_job_whose_size_is_not_known_is_looked_up(room: Room) -> None:
    room.tables = [COST | {"size_over": "12 MB"}]
    await room.restart()
    assert [one.name for one in await room.asking.before(JOB)] == ["cost"]
    assert await room.asking.before(replace(JOB, size=11_000_000)) == []
    room.cups.is_away = True
    assert await room.asking.before(JOB) == []


# Long waits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "done"), [("continue", ["release 17"]), ("cancel", ["cancel 17"]), ("hold", [])]
)
async def test_a_late_answer_is_done_to_the_held_job(
    room: Room, choice: Choice, done: list[str]
) -> None:
    await room.restart(block_for=0)
    alice = await room.hears()
    run = room.run()
    assert await asyncio.wait_for(run, PATIENCE) == (
        "hold",
        "Held until somebody answers: Print “report”?",
    )
    room.cups.jobs[17] = "held"
    offer = await offered(alice)
    await offer.respond(JobAnswer(choice=choice))
    assert (await over(offer)).choice == choice
    await until(lambda: all(asked.is_obeyed for asked in on_disk(room)))
    assert room.cups.done == done


def on_disk(room: Room) -> list[Asked]:
    """The questions, as they are there."""
    answers = Answers(room.path, "print01")
    try:
        return answers.all()
    finally:
        answers.close()


async def test_an_answer_that_comes_before_cupsd_holds_the_job_waits_for_that(room: Room) -> None:
    await room.restart(block_for=0)
    alice = await room.hears()
    assert await result(room.run()) == "hold"
    offer = await offered(alice)
    await offer.respond(JobAnswer(choice="continue"))
    await over(offer)
    room.cups.jobs[17] = "held"
    await until(lambda: room.cups.done == ["release 17"])


async def test_once_the_job_runs_again_the_answer_is_done_and_no_later_hold_undone(
    room: Room,
) -> None:
    await room.restart(block_for=0)
    alice = await room.hears()
    assert await result(room.run()) == "hold"
    offer = await offered(alice)
    await offer.respond(JobAnswer(choice="continue"))
    await over(offer)
    assert await result(room.run()) == "continue"
    assert on_disk(room)[0].is_obeyed
    room.cups.jobs[17] = "held"
    await until(lambda: len(room.asking._tasks) == 1)  # which watches
    assert room.cups.done == []


async def test_a_job_that_runs_again_meanwhile_waits_for_the_same_question(room: Room) -> None:
    await room.restart(block_for=0)
    alice = await room.hears()
    assert await result(room.run()) == "hold"
    first = await offered(alice)
    await room.restart(block_for=30)
    await first.wait_closed(PATIENCE)
    second = await offered(alice)
    assert second.payload.again
    run = room.run()
    await second.respond(JobAnswer(choice="continue"))
    assert await result(run) == "continue"
    assert room.cups.done == []


@pytest.mark.parametrize("otherwise", ["continue", "cancel", "hold"])
async def test_what_nobody_answers_in_time_ends_as_the_settings_say(
    room: Room, otherwise: Choice
) -> None:
    await room.restart(time_out=1, block_for=None, otherwise=otherwise)
    alice = await room.hears()
    run = room.run()
    offer = await offered(alice)
    assert await asyncio.wait_for(run, PATIENCE) in (
        (otherwise, f"Nobody answered in time: {otherwise}"),
        ("hold", "Held until somebody answers: Print “report”?"),
    )
    assert await over(offer) == QuestionOver(why="timed-out", choice=otherwise)
    assert await result(room.run()) == otherwise, "and is not asked again"


async def test_and_so_does_what_is_held(room: Room) -> None:
    await room.restart(time_out=1, block_for=0, otherwise="cancel")
    assert await result(room.run()) == "hold"
    room.cups.jobs[17] = "held"
    await until(lambda: room.cups.done == ["cancel 17"])


async def test_time_runs_while_no_bridge_does(room: Room) -> None:
    await room.restart(block_for=0, otherwise="continue")
    assert await result(room.run()) == "hold"
    room.cups.jobs[17] = "held"
    await room.close()
    with sqlite3.connect(room.path) as file:
        file.execute("UPDATE questions SET until = until - 3600")
    file.close()
    await room.open()
    await until(lambda: room.cups.done == ["release 17"])


async def test_who_releases_a_held_job_by_hand_has_answered(room: Room) -> None:
    alice = await room.hears()
    run = room.run()
    await (await offered(alice)).respond(JobAnswer(choice="hold"))
    assert await result(run) == "hold"
    assert await result(room.run()) == "hold", "cupsd had not noted it yet"
    room.cups.jobs[17] = "held"
    room.asking._watch.look(17)
    await until(lambda: on_disk(room)[0].was_held)
    await room.restart()
    assert await result(room.run()) == "continue"
    assert await result(room.run()) == "continue"


# Other ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["canceled", "aborted", "completed", None])
async def test_a_job_that_is_over_takes_its_question_with_it(
    room: Room, state: JobState | None
) -> None:
    alice = await room.hears()
    run = room.run()
    offer = await offered(alice)
    if state is None:
        del room.cups.jobs[17]
    else:
        room.cups.jobs[17] = state
    room.asking._watch.look(17)
    assert await result(run) == "cancel", "whatever runs of it yet"
    assert await over(offer) == QuestionOver(why="job-over")
    await until(lambda: not room.asking._ledger.numbers)
    await room.restart()
    assert not room.asking._ledger.numbers


async def test_so_does_one_whose_number_went_to_another(room: Room) -> None:
    alice = await room.hears()
    room.run()
    offer = await offered(alice)
    room.cups.uuid = "urn:uuid:another"
    room.asking._watch.look(17)
    assert (await over(offer)).why == "job-over"


async def test_a_job_that_ended_while_no_bridge_ran_is_found_over(room: Room) -> None:
    await room.restart(block_for=0)
    alice = await room.hears()
    assert await result(room.run()) == "hold"
    await offered(alice)
    room.cups.jobs[17] = "canceled"
    room.cups.answers.clear()
    await room.restart()
    await nothing_more(alice, room)
    room.cups.answers.set()
    await until(lambda: 17 not in room.asking._ledger.numbers)


async def test_a_run_that_goes_has_its_job_looked_at(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cancels a job ends its backend first; the job is over a moment later."""
    monkeypatch.setattr(job_watch, "LOOK_SOON", 0.05)
    alice = await room.hears()
    run = room.run()
    offer = await offered(alice)
    run.cancel()
    await asyncio.wait([run])
    room.cups.jobs[17] = "canceled"
    assert (await over(offer)).why == "job-over"


async def test_a_run_that_goes_leaves_its_question(room: Room) -> None:
    """Cupsd was killed: it comes again."""
    alice = await room.hears()
    run = room.run()
    offer = await offered(alice)
    run.cancel()
    await asyncio.wait([run])
    again = room.run()
    await offer.respond(JobAnswer(choice="continue"))
    assert await result(again) == "continue"
    await nothing_more(alice, room)


async def test_a_reprint_is_asked_about(room: Room) -> None:
    alice = await room.hears()
    run = room.run()
    await (await offered(alice)).respond(JobAnswer(choice="continue"))
    await result(run)
    room.cups.jobs[17] = "completed"
    room.asking._watch.look(17)
    await until(lambda: not room.asking._ledger.numbers)
    room.cups.jobs[17] = "processing"
    room.run()
    assert not (await offered(alice)).payload.again


async def test_what_brought_it_up_is_over(room: Room) -> None:
    alice = await room.hears()
    run = room.run("paper")
    offer = await offered(alice)
    (paper,) = room.asking.during(JOB)
    await room.asking.resolve(JOB, paper)
    assert await asyncio.wait_for(run, PATIENCE) == ("continue", "Nobody needs to answer any more")
    assert await over(offer) == QuestionOver(why="resolved")
    room.run("paper")
    assert not (await offered(alice)).payload.again, "the next time it is a question of its own"


async def test_a_printer_that_has_paper_again_frees_the_held_job(room: Room) -> None:
    await room.restart(block_for=0)
    alice = await room.hears()
    assert await result(room.run("paper")) == "hold"
    room.cups.jobs[17] = "held"
    offer = await offered(alice)
    now = time.time()
    room.asking.printer_changed("laser-3", [], now - 5)
    room.asking.printer_changed("laser-3", [], now + 1)
    room.asking.printer_changed("laser-4", [], now + 10)
    room.asking.printer_changed("laser-3", ["media-empty-report"], now + 10)
    (inquiry,) = room.asking._inquiries.values()
    assert not inquiry._over.done()
    room.asking.printer_changed("LASER-3", ["toner-low-warning"], now + 10)
    assert (await over(offer)).why == "resolved"
    await until(lambda: room.cups.done == ["release 17"])


async def test_what_the_printer_tells_is_the_runs_business_while_there_is_one(room: Room) -> None:
    alice = await room.hears()
    run = room.run("paper")
    offer = await offered(alice)
    room.asking.printer_changed("laser-3", [], time.time() + 10)
    await offer.respond(JobAnswer(choice="cancel"))
    assert await result(run) == "cancel"


# What breaks --------------------------------------------------------------------------------------


async def test_a_new_bridge_asks_only_what_nobody_answered(room: Room) -> None:
    alice = await room.hears()
    answered, open_ = room.run("cost"), room.run("paper")
    offers = {one.payload.question: one for one in [await offered(alice) for _ in range(2)]}
    await offers["cost"].respond(JobAnswer(choice="continue"))
    assert await result(answered) == "continue"
    await room.restart()
    open_.cancel()
    closing = await offers["paper"].wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.is_release
    again = await offered(alice)
    assert (again.payload.question, again.payload.again) == ("paper", True)
    assert again.payload.event == offers["paper"].payload.event
    assert await result(room.run("cost")) == "continue"
    await nothing_more(alice, room)


async def test_what_was_decided_is_done_by_the_next_bridge(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    await room.restart(block_for=0)
    alice = await room.hears()
    assert await result(room.run()) == "hold"
    room.cups.jobs[17] = "held"
    room.cups.forbids = True
    offer = await offered(alice)
    await offer.respond(JobAnswer(choice="continue"))
    await over(offer)
    await until(lambda: "Release-Job and Cancel-Job" in caplog.text)
    await room.restart()
    assert room.cups.done == []
    room.cups.forbids = False
    await until(lambda: room.cups.done == ["release 17"])


async def test_a_cupsd_that_is_away_ends_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_watch, "LOOK_SOON", 0.05)
    await room.restart(block_for=0)
    alice = await room.hears()
    assert await result(room.run()) == "hold"
    room.cups.is_away = True
    room.asking._watch.look(17)
    offer = await offered(alice)
    await offer.respond(JobAnswer(choice="continue"))
    assert (await over(offer)).why == "answered"
    room.cups.jobs[17] = "held"
    room.cups.is_away = False
    await until(lambda: room.cups.done == ["release 17"])


async def test_a_spool_that_is_full_keeps_nobody_from_asking(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for name in ("open", "decide", "obey"):
        monkeypatch.setattr(Answers, name, full)
    alice = await room.hears()
    run = room.run()
    await (await offered(alice)).respond(JobAnswer(choice="continue"))
    assert await result(run) == "continue"
    assert await result(room.run()) == "continue", "this bridge remembers"
    assert "cannot be kept" in caplog.text


async def test_a_job_that_was_held_for_want_of_a_bridge_is_let_go(room: Room) -> None:
    room.cups.jobs[17] = "held"
    await room.asking.let_go(key_of(JOB))
    assert room.cups.done == ["release 17"]
    room.cups.uuid = "urn:uuid:another"
    room.cups.jobs[17] = "held"
    await room.asking.let_go(key_of(JOB))
    assert room.cups.done == ["release 17"], "that is another job"


async def test_an_answer_of_another_type_is_no_answer(room: Room) -> None:
    """A client of somebody else's may send what it likes."""
    alice = await room.hears()
    run = room.run()
    offer = await offered(alice)
    await offer.respond(Data(JobQuestion.notification_type, b"[]"))
    await offer.follow_up(PATIENCE)
    await offer.respond(JobAnswer(choice="continue"))
    assert await result(run) == "continue"
