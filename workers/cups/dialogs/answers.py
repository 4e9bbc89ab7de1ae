"""Answers: the questions that stand on this host and what was decided, on disk.

One row for each (host, job, question). A job is told from another one of its number by its mark:
a cupsd whose files were lost counts from 1 again. What nobody decided is deleted when it is over;
what was decided stays until a while after the job's end, so that no retry asks it again.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from workers.cups.damaged import put_aside
from workers.cups.types import Choice, Why

log = logging.getLogger("tympan.cups")

VERSION = 1
KEEP = 86_400.0
"""Seconds for which the answers of a job that is over are kept."""
KEEP_AT_MOST = 90 * 86_400.0
"""The same of one whose end nobody saw."""
_BUSY_S = 5.0
_MODE = 0o640
"""Titles of jobs are nobody's business."""

_SCHEMA = """
CREATE TABLE questions (
    host TEXT NOT NULL, job INTEGER NOT NULL, mark TEXT NOT NULL, question TEXT NOT NULL,
    printer TEXT NOT NULL, owner TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL,
    reasons TEXT NOT NULL, choices TEXT NOT NULL, otherwise TEXT NOT NULL,
    asked_at REAL NOT NULL, until REAL NOT NULL,
    why TEXT, choice TEXT, by TEXT, note TEXT, decided_at REAL,
    is_obeyed INTEGER NOT NULL DEFAULT 0, was_held INTEGER NOT NULL DEFAULT 0, over_at REAL,
    PRIMARY KEY (host, job, mark, question)
) WITHOUT ROWID
"""
_FIELDS = (
    *("job", "mark", "question", "printer", "owner", "title", "text", "reasons", "choices"),
    *("otherwise", "asked_at", "until", "why", "choice", "by", "note", "decided_at"),
    *("is_obeyed", "was_held"),
)
_KEY = "host = ? AND job = ? AND mark = ? AND question = ?"


class JobKey(NamedTuple):
    """One job of this host."""

    number: int
    mark: str


class Key(NamedTuple):
    """One question about one job of this host."""

    job: JobKey
    question: str


@dataclass(frozen=True, slots=True)
class Decision:
    """How a question ended, and what becomes of the job by that."""

    why: Why
    choice: Choice
    by: str = ""
    """The user who answered."""
    note: str = ""
    at: float = 0.0

    @property
    def words(self) -> str:
        """As people read it in the job's messages."""
        match self.why:
            case "answered":
                said = f"{self.by} answered: {self.choice}"
                return f"{said} ({self.note})" if self.note else said
            case "timed-out":
                return f"Nobody answered in time: {self.choice}"
            case "resolved":
                return "Nobody needs to answer any more"
        return "The job is over"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it was asked; times are seconds since 1970."""

    key: Key
    printer: str
    owner: str
    title: str
    text: str
    reasons: tuple[str, ...]
    choices: tuple[Choice, ...]
    otherwise: Choice
    asked_at: float
    until: float
    decision: Decision | None = None
    is_obeyed: bool = False
    """Whether the job does what was decided."""
    was_held: bool = False
    """Whether the job was seen held, as was decided: who runs it again has released it."""


class Answers:
    """The file of them. Its methods may be called from any thread; what fails raises sqlite3.Error.

    Args:
        path: of the file; one that SQLite cannot read is put aside, and a new one is begun.
        host: whose questions these are.
    """

    def __init__(self, path: Path, host: str) -> None:
        self._host = host
        self._lock = threading.Lock()
        try:
            self._file = _opened(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            aside = put_aside(path)
            log.warning(
                "%s cannot be read (%s): it is %s now, and what it remembered may be asked again",
                *(path, error, aside),
            )
            self._file = _opened(path)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def open(self, asked: Asked) -> None:
        """A question stands from now on."""
        values: dict[str, Any] = {
            **{name: getattr(asked, name) for name in ("printer", "owner", "title", "text")},
            "reasons": json.dumps(asked.reasons),
            "choices": json.dumps(asked.choices),
            **{name: getattr(asked, name) for name in ("otherwise", "asked_at", "until")},
        }
        names = ("host", "job", "mark", "question", *values)
        places = ", ".join("?" * len(names))
        self._do(
            f"INSERT OR REPLACE INTO questions ({', '.join(names)}) VALUES ({places})",
            (*self._of(asked.key), *values.values()),
        )

    def decide(self, key: Key, decision: Decision) -> None:
        """It was decided."""
        self._do(
            "UPDATE questions SET why = ?, choice = ?, by = ?, note = ?, decided_at = ?, "
            f"is_obeyed = 0, was_held = 0 WHERE {_KEY}",
            (
                *(decision.why, decision.choice, decision.by, decision.note, decision.at),
                *self._of(key),
            ),
        )

    def obey(self, key: Key) -> None:
        """The job does what was decided."""
        self._do(f"UPDATE questions SET is_obeyed = 1 WHERE {_KEY}", self._of(key))

    def hold(self, key: Key) -> None:
        """The job was seen held, as was decided."""
        self._do(f"UPDATE questions SET was_held = 1 WHERE {_KEY}", self._of(key))

    def drop(self, key: Key) -> None:
        """It is over undecided."""
        self._do(f"DELETE FROM questions WHERE {_KEY}", self._of(key))

    def end(self, job: JobKey, at: float) -> None:
        """The job is over: its answers count no more, should it be printed once more."""
        self._do(
            "UPDATE questions SET over_at = ? WHERE host = ? AND job = ? AND mark = ?",
            (at, self._host, *job),
        )

    def forget(self, now: float) -> None:
        """Delete what is kept for nobody."""
        self._do(
            "DELETE FROM questions WHERE host = ? AND (over_at < ? OR asked_at < ?)",
            (self._host, now - KEEP, now - KEEP_AT_MOST),
        )

    def all(self) -> list[Asked]:
        """Those of jobs that are not over, in the order in which they were asked."""
        with self._lock:
            rows = self._file.execute(
                f"SELECT {', '.join(_FIELDS)} FROM questions WHERE host = ? AND over_at IS NULL "
                "ORDER BY asked_at, job, question",
                (self._host,),
            ).fetchall()
        return [_asked(dict(zip(_FIELDS, row, strict=True))) for row in rows]

    def _of(self, key: Key) -> tuple[str, int, str, str]:
        return (self._host, *key.job, key.question)

    def _do(self, statement: str, values: Sequence[object]) -> None:
        with self._lock, self._file:
            self._file.execute(statement, values)


def _opened(path: Path) -> sqlite3.Connection:
    _make(path)
    file = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        # An answer that a power cut takes back would be asked again.
        file.execute("PRAGMA synchronous = FULL")
        (version,) = file.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise sqlite3.OperationalError(
                f"{path} was written by a later version of Tympan (layout {version}); take that "
                "version, or move the file away"
            )
        if version < VERSION:
            with file:
                file.execute("DROP TABLE IF EXISTS questions")
                file.execute(_SCHEMA)
                file.execute(f"PRAGMA user_version = {VERSION}")
        file.execute("SELECT count(*) FROM questions").fetchone()
    except BaseException:
        file.close()
        raise
    return file


def _make(path: Path) -> None:
    """An empty file, where there is none, that belongs to its folder's owner: bridges are his."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        made = os.open(path, flags | os.O_CREAT | os.O_EXCL, _MODE)
    except FileExistsError:
        os.close(os.open(path, flags))
        return
    try:
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(made, folder.st_uid, folder.st_gid)
    finally:
        os.close(made)


def _asked(row: dict[str, Any]) -> Asked:
    asked = Asked(
        Key(JobKey(row["job"], row["mark"]), row["question"]),
        *(row["printer"], row["owner"], row["title"], row["text"]),
        tuple(json.loads(row["reasons"])),
        tuple(json.loads(row["choices"])),
        *(row["otherwise"], row["asked_at"], row["until"]),
    )
    if row["why"] is None:
        return asked
    decision = Decision(*(row[name] for name in ("why", "choice", "by", "note", "decided_at")))
    return replace(
        asked,
        decision=decision,
        is_obeyed=bool(row["is_obeyed"]),
        was_held=bool(row["was_held"]),
    )
