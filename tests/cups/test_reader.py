"""The journal and the answers as ``tympan cups status`` reads them: nothing is other afterwards."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from workers.cups.dialogs.answers import Answers, Asked, Decision, JobKey, Key
from workers.cups.events.journal import Journal
from workers.cups.installation.reader import JournalSeen, Unreadable, read_journal, read_questions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a file that is not there; a name that a URI would take for something else."""
    folder = tmp_path / "100% of it? #1"
    folder.mkdir()
    return folder / "journal"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_is_not_there_is_not_made(path: Path) -> None:
    assert read_journal(path) is None
    assert read_questions(path, "print01") == []
    path.touch()
    assert read_journal(path) is None
    assert tree(path.parent) == {"journal": b""}


def test_a_journal_is_read_open_and_closed(path: Path) -> None:
    with Journal(path) as journal:
        journal.add("run", [b"one", b"two"], {"torn": 3})
        journal.keep(heartbeat=17.5)
        log = path.with_name("journal-wal").read_bytes()
        seen = read_journal(path)
        assert path.with_name("journal-wal").read_bytes() == log
        oldest = journal.waiting(1)[0].at
    assert seen is not None
    assert (seen.waiting, seen.oldest) == (2, oldest)
    assert (seen.counts["torn"], seen.facts["heartbeat"]) == (3, 17.5)
    before = tree(path.parent)
    assert list(before) == ["journal"]
    assert read_journal(path) == seen
    assert tree(path.parent) == before


def test_what_is_written_while_it_is_read_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(path) as journal:
        journal.count(sent=1)
    late: list[Journal] = []
    connect = sqlite3.connect

    def connected(*words: object, **options: object) -> object:
        if not late:
            monkeypatch.setattr(sqlite3, "connect", connect)
            late.append(Journal(path))
            late[0].count(sent=1)
        return connect(*words, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(sqlite3, "connect", connected)
    seen = read_journal(path)
    late[0].close()
    assert seen == JournalSeen({}, {"sent": 2}, 0, None)


def test_questions_that_stand_are_read(path: Path) -> None:
    now = time.time()
    answers = Answers(path, "print01")
    for job in (1, 2, 3):
        key = Key(JobKey(job, "mark"), "paper")
        answers.open(
            Asked(key, "laser-3", "alice", "report", "Well?", (), ("hold",), "hold", now, now + 60)
        )
    answers.decide(Key(JobKey(1, "mark"), "paper"), Decision("answered", "hold", "bob"))
    answers.end(JobKey(2, "mark"), now)
    for _ in ("open", "closed"):
        (asked,) = read_questions(path, "print01")
        assert asked == (3, "paper", "laser-3", "alice", "Well?", now, now + 60, "hold")
        assert read_questions(path, "print02") == []
        answers.close()


@pytest.mark.parametrize(
    ("at", "data"),
    [(0, b"\xff" * 4096), (4096, b"\xff" * 4096), (36, b"\0\0\0\x11")],
    ids=["beginning", "page", "count of free pages"],
)
def test_what_is_damaged_is_told_and_left(path: Path, at: int, data: bytes) -> None:
    with Journal(path) as journal:
        journal.add("run", [b"x" * 1000] * 100)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    before = tree(path.parent)
    with pytest.raises(Unreadable, match=r"journal is damaged \(.*\): it is put aside when"):
        read_journal(path)
    assert tree(path.parent) == before


def test_what_a_newer_tympan_wrote_is_told(path: Path) -> None:
    with Journal(path) as journal, journal.change() as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(Unreadable, match="written by a newer Tympan: upgrade this one"):
        read_journal(path)


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_file_is_told(path: Path, kind: str) -> None:
    if kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.mkdir()
    with pytest.raises(Unreadable, match="is no plain file: remove it"):
        read_journal(path)
