"""Questions and answers on disk: kept over restarts, told apart, ended, forgotten."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from workers.cups.dialogs.answers import KEEP, KEEP_AT_MOST, Answers, Asked, Decision, JobKey, Key
from workers.cups.dialogs.ledger import Ledger

JOB = JobKey(17, "urn:uuid:1")
KEY = Key(JOB, "paper")
ASKED = Asked(
    KEY,
    "laser-3",
    "alice",
    "r\u00e9sum\u00e9 “1”",
    "Continue?",
    ("media-empty-error",),
    ("continue", "cancel"),
    "hold",
    1000.0,
    4600.5,
)
ANSWERED = Decision("answered", "cancel", "bob", "no toner either", 1010.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers"


def again(answers: Answers, path: Path) -> Answers:
    """The same file, as the next bridge finds it."""
    answers.close()
    return Answers(path, "print01")


def test_what_was_asked_is_there_for_the_next_bridge(path: Path) -> None:
    answers = Answers(path, "print01")
    answers.open(ASKED)
    assert again(answers, path).all() == [ASKED]


def test_nobody_else_may_read_it(path: Path) -> None:
    Answers(path, "print01").close()
    assert path.stat().st_mode & 0o027 == 0


def test_what_was_decided_is_too(path: Path) -> None:
    answers = Answers(path, "print01")
    answers.open(ASKED)
    answers.decide(KEY, ANSWERED)
    decided = replace(ASKED, decision=ANSWERED)
    answers = again(answers, path)
    assert answers.all() == [decided]
    answers.obey(KEY)
    answers.hold(KEY)
    assert again(answers, path).all() == [replace(decided, is_obeyed=True, was_held=True)]


def test_deciding_anew_is_to_be_obeyed_anew(path: Path) -> None:
    answers = Answers(path, "print01")
    answers.open(ASKED)
    answers.decide(KEY, ANSWERED)
    answers.obey(KEY)
    answers.hold(KEY)
    answers.decide(KEY, replace(ANSWERED, choice="continue"))
    (found,) = answers.all()
    assert (found.is_obeyed, found.was_held) == (False, False)


def test_hosts_jobs_marks_and_questions_are_told_apart(path: Path) -> None:
    answers = Answers(path, "print01")
    others = [
        replace(ASKED, key=Key(JobKey(17, "urn:uuid:1"), "cost")),
        replace(ASKED, key=Key(JobKey(17, "urn:uuid:2"), "paper")),
        replace(ASKED, key=Key(JobKey(18, "urn:uuid:1"), "paper")),
    ]
    for asked in (ASKED, *others):
        answers.open(asked)
    answers.close()
    elsewhere = Answers(path, "print02")
    elsewhere.open(ASKED)
    elsewhere.decide(KEY, ANSWERED)
    elsewhere.close()
    answers = Answers(path, "print01")
    answers.drop(KEY)
    assert sorted(answers.all(), key=lambda asked: asked.key) == sorted(
        others, key=lambda asked: asked.key
    )
    assert [asked.decision for asked in again(answers, path).all()] == [None] * 3


def test_the_answers_of_a_job_that_is_over_count_no_more(path: Path) -> None:
    answers = Answers(path, "print01")
    other = replace(ASKED, key=Key(JobKey(17, "urn:uuid:2"), "paper"))
    for asked in (ASKED, other):
        answers.open(asked)
        answers.decide(asked.key, ANSWERED)
    answers.end(JOB, 2000.0)
    assert [asked.key for asked in answers.all()] == [other.key]
    answers.open(ASKED)
    assert ASKED in answers.all(), "a reprint is asked about like any job"


def count(path: Path) -> int:
    with sqlite3.connect(path) as file:
        (found,) = file.execute("SELECT count(*) FROM questions").fetchone()
    file.close()
    return int(found)


def test_they_are_kept_for_a_while_and_then_forgotten(path: Path) -> None:
    answers = Answers(path, "print01")
    answers.open(ASKED)
    answers.decide(KEY, ANSWERED)
    answers.end(JOB, 2000.0)
    answers.forget(2000.0 + KEEP - 1)
    assert count(path) == 1
    answers.forget(2000.0 + KEEP + 1)
    assert count(path) == 0
    answers.open(ASKED)
    answers.forget(ASKED.asked_at + KEEP_AT_MOST - 1)
    assert answers.all() == [ASKED]
    answers.forget(ASKED.asked_at + KEEP_AT_MOST + 1)
    assert answers.all() == []


def test_a_file_that_cannot_be_read_is_put_aside(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with caplog.at_level(logging.WARNING):
        answers = Answers(path, "print01")
    answers.open(ASKED)
    assert again(answers, path).all() == [ASKED]
    (aside,) = path.parent.glob("answers.damaged-*")
    assert aside.read_bytes().startswith(b"no database")
    assert str(aside) in caplog.text


def test_what_root_makes_belongs_to_the_folders_owner(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    if os.geteuid() == 0:
        os.chown(path.parent, 7, 7)
    Answers(path, "print01").close()
    assert (path.owner(), path.group()) == (path.parent.owner(), path.parent.group())


def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    Answers(path, "print01").close()
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(sqlite3.OperationalError, match="later version of Tympan"):
        Answers(path, "print01")
    assert list(path.parent.glob("*unreadable*")) == []


def test_they_come_back_in_the_order_in_which_they_were_asked(path: Path) -> None:
    answers = Answers(path, "print01")
    now = time.time()
    for number in (3, 1, 2):
        key = Key(JobKey(number, ""), "paper")
        answers.open(replace(ASKED, key=key, asked_at=now + number))
    assert [asked.key.job.number for asked in answers.all()] == [1, 2, 3]


async def test_what_the_ledger_was_told_is_written_before_it_is_closed(path: Path) -> None:
    """Though whoever told it was cancelled while the disk was busy."""
    loop, gate = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = loop.run_in_executor(None, gate.wait)
    ledger = Ledger(Answers(path, "print01"))
    telling = asyncio.create_task(ledger.open(ASKED))
    await asyncio.sleep(0)
    assert ledger.get(KEY) == ASKED
    telling.cancel()
    closing = asyncio.create_task(ledger.close())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(busy, closing)
    answers = Answers(path, "print01")
    assert answers.all() == [ASKED]
    answers.close()
