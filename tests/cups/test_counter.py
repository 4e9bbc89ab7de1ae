"""The counter: who may ask there, what it understands, and what backends are told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker import Offer
from tests.cups.room import EMPTY, JOB, Room, offered, over, until
from tests.farm import PATIENCE, Farm, MemoryBackend
from workers.cups.dialogs import counter as counter_module
from workers.cups.dialogs import job_run as job_run_module
from workers.cups.dialogs.counter import Counter, Uncounted
from workers.cups.file import Place
from workers.cups.printing import held_note, run_file, slip
from workers.cups.types import JobAnswer

HELLO: dict[str, Any] = {
    "version": 1,
    "job": 17,
    "mark": JOB.mark,
    "printer": "Laser-3",
    "owner": "alice",
    "title": "report",
    "copies": 3,
    "options": "sides=one-sided",
    "size": 1000,
}


class Backend:
    """A backend's end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, word: str, **fields: Any) -> None:
        self._writer.write(slip.encode(word, **fields))

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def hear(self, *words: str) -> dict[str, Any]:
        """The next of these words, whatever comes before."""
        async with asyncio.timeout(PATIENCE):
            while line := await self._reader.readline():
                said = slip.decode(line)
                if said["say"] in words:
                    return said
        raise AssertionError(f"the counter went without a word of {words}")

    async def rest(self) -> list[str]:
        """All further words to the end."""
        words = []
        with contextlib.suppress(ConnectionResetError):  # it did not read all that came
            async with asyncio.timeout(PATIENCE):
                while line := await self._reader.readline():
                    words.append(slip.decode(line)["say"])
        return words

    async def leave(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Post:
    """A counter, and backends that come to it."""

    def __init__(self, room: Room, place: Place) -> None:
        self.room = room
        self.place = place
        self.counter: Counter
        self._backends: list[Backend] = []

    async def open(self, **options: Any) -> None:
        self.counter = Counter(self.place, self.room.asking, **{"settles": 0.05} | options)
        await self.counter.__aenter__()

    async def reopen(self, **options: Any) -> None:
        await self.counter.__aexit__()
        await self.open(**options)

    async def backend(self, **hello: Any) -> Backend:
        """One comes, and says of its job what differs from HELLO; nothing where ``hello=False``."""
        opened = await asyncio.open_unix_connection(str(self.place.counter))
        backend = Backend(*opened)
        self._backends.append(backend)
        if hello.pop("hello", True):
            backend.say("job", **HELLO | hello)
        return backend

    async def close(self) -> None:
        for backend in self._backends:
            await backend.leave()
        await self.counter.__aexit__()


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with Farm(MemoryBackend()) as farm:
        made = Room(farm, tmp_path)
        await made.open()
        yield made
        await made.close()


@pytest.fixture
async def post(room: Room, tmp_path: Path) -> AsyncIterator[Post]:
    made = Post(room, Place(tmp_path))
    await made.open()
    yield made
    await made.close()


# Who may ask, and how -----------------------------------------------------------------------------


async def test_others_than_root_and_the_owner_of_the_spool_may_not_ask(post: Post) -> None:
    folder = post.place.spool.stat().st_mode
    assert stat.S_IMODE(post.place.counter.stat().st_mode) == 0o660 & folder
    await post.reopen(users=())
    backend = await post.backend()
    assert "may not ask here" in (await backend.hear("refused"))["text"]
    assert await backend.rest() == []


async def test_it_takes_away_its_socket_and_takes_over_a_dead_ones(post: Post) -> None:
    await post.counter.__aexit__()
    assert not post.place.counter.exists()
    (await asyncio.start_unix_server(lambda *_: None, str(post.place.counter))).close()
    await post.open()
    backend = await post.backend(printing=True)
    await backend.hear("heard")


async def test_a_path_that_is_too_long_is_explained(room: Room, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with pytest.raises(Uncounted, match="below 108 bytes"):
        await Counter(Place(folder), room.asking).__aenter__()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"hello\n", "no JSON"),
        (b"[1]\n", "a line is an object"),
        (b'{"say": 5}\n', "a line is an object"),
        (b'{"say": "over"}\n', "the first word is 'job'"),
        (b'{"say": "job"}\n', "the backend speaks version None, this bridge 1"),
        (b'{"say": "job", "version": 2}\n', "run `tympan cups install` again"),
        (b'{"say": "job", "version": 1}\n', "what it says of its job is no good: job, printer"),
        (slip.encode("job", **HELLO | {"job": 0}), "no good: job"),
        (slip.encode("job", **HELLO | {"owner": "x" * 5000}), "no good: owner"),
        (b"x" * 70_000 + b"\n", "a line has more than 65536 bytes"),
        (b"[" * 60_000 + b"\n", "no JSON"),
    ],
)
async def test_what_it_does_not_understand_it_refuses_in_a_sentence(
    post: Post, line: bytes, why: str
) -> None:
    backend = await post.backend(hello=False)
    backend.write(line)
    assert why in (await backend.hear("refused"))["text"]
    assert await backend.rest() == []
    other = await post.backend(printing=True)
    await other.hear("heard")


async def test_reasons_that_are_none_are_refused(post: Post) -> None:
    backend = await post.backend(printing=True)
    backend.say("reasons", reasons="media-empty")
    assert "reasons are a list of words" in (await backend.hear("refused"))["text"]


async def test_words_that_it_does_not_know_are_passed_over(post: Post) -> None:
    backend = await post.backend(printing=True, later="version")
    backend.say("sing", song="x")
    backend.say("reasons", reasons=["x", 5, None, "y" * 1000])
    backend.say("over", status=0)
    assert await backend.rest() == ["heard"]


# Before the job -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "word"), [("continue", "print"), ("cancel", "cancel"), ("hold", "hold")]
)
async def test_a_backend_waits_and_is_told_the_answer(post: Post, choice: str, word: str) -> None:
    alice = await post.room.hears()
    backend = await post.backend()
    said = await backend.hear("wait", "print")
    assert said == {"say": "wait", "text": "Waiting for an answer: Print “report”?"}
    await (await offered(alice)).respond(JobAnswer(choice=choice))
    said = await backend.hear("print", "cancel", "hold")
    assert said["say"] == word
    assert said["text"] == ("" if word == "print" else f"alice answered: {choice}")


async def test_a_job_that_no_question_concerns_is_printed_at_once(post: Post) -> None:
    await post.room.restart(users=["bob"])
    await post.reopen()
    backend = await post.backend()
    assert await backend.hear("wait", "print") == {"say": "print", "text": ""}


async def test_questions_come_one_after_the_other(post: Post) -> None:
    post.room.tables = [
        {"name": name, "when": "before", "text": f"{name}?"} for name in ("first", "second")
    ]
    await post.room.restart()
    await post.reopen()
    alice = await post.room.hears()
    backend = await post.backend()
    for name in ("first", "second"):
        offer = await offered(alice)
        assert offer.payload.question == name
        await offer.respond(JobAnswer(choice="continue"))
    await backend.hear("print")


async def test_one_that_prints_already_is_not_asked_about_before(post: Post) -> None:
    alice = await post.room.hears()
    backend = await post.backend(printing=True)
    await backend.hear("heard")
    backend.say("reasons", reasons=[*EMPTY])
    assert (await offered(alice)).payload.question == "paper"


async def test_one_that_is_stopped_leaves_its_question_to_its_job(post: Post) -> None:
    alice = await post.room.hears()
    backend = await post.backend()
    offer = await offered(alice)
    post.room.cups.jobs[17] = "canceled"
    backend.say("stopped")
    assert await backend.rest() == ["heard", "wait"]
    assert (await over(offer)).why == "job-over"


async def test_one_that_comes_again_after_a_new_bridge_waits_for_the_same_question(
    post: Post,
) -> None:
    alice = await post.room.hears()
    backend = await post.backend()
    await offered(alice)
    await post.counter.__aexit__()
    assert await backend.rest() == ["heard", "wait"]
    await post.room.restart()
    await post.open()
    again = await post.backend()
    offer = await offered(alice)
    assert offer.payload.again
    await offer.respond(JobAnswer(choice="continue"))
    await again.hear("print")


async def test_it_shows_that_it_lives(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_run_module, "STILL_EVERY", 0.01)
    backend = await post.backend()
    for _ in range(3):
        await backend.hear("still")


# During the job -----------------------------------------------------------------------------------


async def asked(post: Post) -> tuple[Backend, Offer[Any], Any]:
    """A job that prints, and whose printer is out of paper."""
    alice = await post.room.hears()
    backend = await post.backend(printing=True)
    await backend.hear("heard")
    backend.say("reasons", reasons=["toner-low-warning", *EMPTY])
    offer = await offered(alice)
    assert offer.payload.reasons == list(EMPTY)
    return backend, offer, alice


@pytest.mark.parametrize("choice", ["cancel", "hold"])
async def test_the_answer_ends_what_prints(post: Post, choice: str) -> None:
    backend, offer, _ = await asked(post)
    await offer.respond(JobAnswer(choice=choice))
    assert (await backend.hear("cancel", "hold"))["say"] == choice


async def test_continue_leaves_it_alone_and_is_remembered(post: Post) -> None:
    backend, offer, alice = await asked(post)
    await offer.respond(JobAnswer(choice="continue"))
    assert (await over(offer)).why == "answered"
    for reasons in ([], [*EMPTY]):
        backend.say("reasons", reasons=reasons)
    backend.say("over", status=0)
    assert await backend.rest() == []
    post.room.cups.jobs[18] = "processing"
    await post.backend(job=18, mark="other")
    assert (await offered(alice)).payload.job == 18


async def test_paper_resolves_it_and_the_next_time_it_is_asked_anew(post: Post) -> None:
    backend, offer, alice = await asked(post)
    backend.say("reasons", reasons=["toner-low-warning"])
    assert (await over(offer)).why == "resolved"
    backend.say("reasons", reasons=[*EMPTY])
    second = await offered(alice)
    await second.respond(JobAnswer(choice="cancel"))
    await backend.hear("cancel")


async def test_a_run_that_waits_for_another_is_told_what_ends_the_job(post: Post) -> None:
    """Its cupsd was killed: the earlier run prints on, and hears the answer."""
    earlier, offer, _ = await asked(post)
    later = await post.backend()
    await later.hear("wait")
    await offer.respond(JobAnswer(choice="hold"))
    for backend in (earlier, later):
        assert (await backend.hear("hold"))["text"] == "alice answered: hold"


@pytest.mark.parametrize("choice", ["cancel", "hold"])
async def test_what_was_answered_during_a_job_ends_its_next_run_before_it_prints(
    post: Post, choice: str
) -> None:
    """Cupsd was killed, and had not noted yet what became of the job."""
    backend, offer, _ = await asked(post)
    await offer.respond(JobAnswer(choice=choice))
    await backend.hear(choice)
    await backend.leave()
    again = await post.backend()
    assert (await again.hear("wait", "print", "cancel", "hold"))["say"] == choice


async def test_paper_that_came_while_the_bridge_was_away_resolves_it(post: Post) -> None:
    backend, offer, _ = await asked(post)
    await backend.leave()
    again = await post.backend(printing=True)
    again.say("reasons", reasons=[])
    assert (await over(offer)).why == "resolved"


async def test_reasons_that_an_earlier_run_asked_about_may_take_a_moment(post: Post) -> None:
    await post.reopen(settles=0.3)
    backend, offer, _ = await asked(post)
    await backend.leave()
    again = await post.backend(printing=True)
    for reasons in ([], [*EMPTY]):
        again.say("reasons", reasons=reasons)
    await again.hear("heard")
    await asyncio.sleep(0.5)  # longer than they have to settle
    await offer.respond(JobAnswer(choice="cancel"))
    await again.hear("cancel")


async def test_a_reason_that_goes_at_once_is_not_asked_about(post: Post) -> None:
    await post.reopen(settles=PATIENCE)
    alice = await post.room.hears()
    backend = await post.backend(printing=True)
    for reasons in ([*EMPTY], [], [*EMPTY], []):
        backend.say("reasons", reasons=reasons)
    await post.backend(job=18, mark="other")
    assert (await offered(alice)).payload.job == 18


async def test_an_unfit_question_ends_no_other_backends(
    post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> Any:
        raise RuntimeError("a fault")

    monkeypatch.setattr(post.room.asking, "before", fails)
    backend = await post.backend()
    assert set(await backend.rest()) <= {"heard"}
    assert "a backend is left alone" in caplog.text
    other = await post.backend(printing=True)
    await other.hear("heard")


# What backends leave behind -----------------------------------------------------------------------


async def test_jobs_that_were_held_for_want_of_a_bridge_are_let_go(post: Post) -> None:
    post.room.cups.jobs[17] = "held"
    held_note.leave(post.place.spool, 17, JOB.mark)
    (post.place.spool / held_note.FOLDER / "18-broken").write_text("{")
    await post.reopen()
    await until(lambda: post.room.cups.done == ["release 17"])
    await until(lambda: not held_note.notes(post.place.spool))
    assert list((post.place.spool / held_note.FOLDER).iterdir()) == []


async def test_held_jobs_take_no_backends_place(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        held_note.leave(post.place.spool, 100 + number, "")
        post.room.cups.jobs[100 + number] = "processing"  # for ever
    monkeypatch.setattr(counter_module, "MOST", 1)
    await post.room.restart(users=["bob"])
    await post.reopen()
    first = await post.backend()
    await first.hear("print")
    second = await post.backend(job=18)
    assert "1 backends are here already" in (await second.hear("refused"))["text"]
    await first.leave()
    await until(lambda: not post.counter._backends)
    third = await post.backend(job=19)
    await third.hear("print")


async def test_old_run_files_are_swept(tmp_path: Path) -> None:
    folder = tmp_path / run_file.FOLDER
    files = [run_file.RunFile(folder / name) for name in ("1-a", "2-b")]
    for file in files:
        assert file.lock()
        file.leave_printed()
    held = run_file.RunFile(folder / "3-c")
    assert held.lock()
    for file in files:
        os.close(file.descriptor)
    run_file.sweep(folder, 3600)
    assert len(list(folder.iterdir())) == 3
    run_file.sweep(folder, -1)
    assert [path.name for path in folder.iterdir()] == ["3-c"]
    held.remove()


def test_jobs_are_told_apart_by_their_marks() -> None:
    first = replace(JOB, mark="urn:uuid:1")
    assert run_file.name_of(17, first.mark) != run_file.name_of(17, JOB.mark)
    assert run_file.name_of(17, JOB.mark) == run_file.name_of(17, JOB.mark)
