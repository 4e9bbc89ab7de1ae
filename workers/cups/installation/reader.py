"""What the journal and the answers hold, for who only looks: nothing there is other afterwards."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from workers.cups.dialogs import answers
from workers.cups.events import journal
from workers.cups.events.journal import Fact

T = TypeVar("T")

BUSY_S = 5.0
_ATTEMPTS = 5


class Unreadable(Exception):
    """A file cannot be read; says what is wrong with it, and what to do."""


class JournalSeen(NamedTuple):
    """What a journal holds."""

    facts: dict[str, Fact]
    counts: dict[str, int]
    waiting: int
    oldest: float | None
    """When the event was read that has waited for the longest, in seconds since 1970."""


class QuestionSeen(NamedTuple):
    """A question that stands; times are seconds since 1970."""

    job: int
    question: str
    printer: str
    owner: str
    text: str
    asked_at: float
    until: float
    otherwise: str


def read_journal(path: Path) -> JournalSeen | None:
    """None where there is none, or nothing was ever in it. Raises Unreadable."""

    def read(file: sqlite3.Connection) -> JournalSeen:
        (waiting,) = file.execute("SELECT count(*) FROM event").fetchone()
        first = file.execute("SELECT at FROM event ORDER BY id LIMIT 1").fetchone()
        return JournalSeen(
            dict(file.execute("SELECT name, value FROM fact")),
            dict(file.execute("SELECT name, many FROM count")),
            waiting,
            first[0] if first else None,
        )

    return _read(path, journal.VERSION, read)


def read_questions(path: Path, host: str | None = None) -> list[QuestionSeen]:
    """Those that stand, of one host or of all, in the order in which they were asked.

    Raises Unreadable.
    """

    def read(file: sqlite3.Connection) -> list[QuestionSeen]:
        found = file.execute(
            f"SELECT {', '.join(QuestionSeen._fields)} FROM questions "
            "WHERE coalesce(host = ?, TRUE) AND over_at IS NULL AND why IS NULL "
            "ORDER BY asked_at, job, question",
            (host,),
        )
        return [QuestionSeen(*row) for row in found]

    return _read(path, answers.VERSION, read) or []


def _read(path: Path, version: int, read: Callable[[sqlite3.Connection], T]) -> T | None:
    """Anew where somebody wrote to it meanwhile."""
    for _ in range(_ATTEMPTS):
        before = _facts(path)
        if before is None:
            return None
        has_log = path.with_name(f"{path.name}-wal").exists()
        try:
            # Without its log nobody has it open, and SQLite is not to begin one.
            with contextlib.closing(_opened(path, is_still=not has_log)) as file:
                found = _found(path, file, version, read)
        except sqlite3.Error as error:
            fault = error
        else:
            if has_log or _facts(path) == before:
                return found
            continue
        if has_log or _facts(path) == before:
            raise _unreadable(path, fault) from fault
    raise Unreadable(f"{path} is being written to all the time: try again")


def _facts(path: Path) -> tuple[int, int, int, bool] | None:
    """What is other where somebody wrote to it; None where it is not there."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable(f"{path} is no plain file: remove it")
        has_log = path.with_name(f"{path.name}-wal").exists()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    if not os.access(path, os.R_OK):
        raise Unreadable(f"{path} cannot be read by you")
    return found.st_ino, found.st_size, found.st_mtime_ns, has_log


def _opened(path: Path, *, is_still: bool) -> sqlite3.Connection:
    options = "mode=ro&immutable=1" if is_still else "mode=ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{options}", BUSY_S, uri=True)


def _found(
    path: Path, file: sqlite3.Connection, version: int, read: Callable[[sqlite3.Connection], T]
) -> T | None:
    file.execute("BEGIN")
    (found,) = file.execute("PRAGMA user_version").fetchone()
    if found > version:
        raise Unreadable(f"{path} was written by a newer Tympan: upgrade this one")
    if not found:
        return None
    (said,) = file.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise sqlite3.DatabaseError(said)
    return read(file)


def _unreadable(path: Path, error: sqlite3.Error) -> Unreadable:
    if isinstance(error, sqlite3.OperationalError):
        return Unreadable(f"{path} cannot be read: {error}")
    said = " ".join(str(error).split())
    return Unreadable(f"{path} is damaged ({said}): it is put aside when a bridge starts")
