"""The journal of a print host: what cupsd told and the farm was not told yet, on disk.

A file of SQLite, which the notifier writes and the bridge empties; either may be killed at any
time. It is bounded: beyond ``most`` events the oldest are dropped, and counted. Nothing but the
standard library. A module that keeps more in the same file brings tables of its own:
``journal.create(statements)``, and then :meth:`Journal.change`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from workers.cups.damaged import put_aside
from workers.cups.file import MAX_EVENTS

VERSION = 1
"""Of what is in it; what a newer Tympan wrote is not touched."""
BUSY_TIMEOUT = 10.0
"""Seconds to wait for whoever else writes."""
ATTEMPTS = 20
PAUSE = 0.05
"""Seconds between attempts to open it."""
_TABLES = """
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, at REAL NOT NULL, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS count (name TEXT PRIMARY KEY, many INTEGER NOT NULL) WITHOUT ROWID;
"""
_PRIVATE = 0o660
"""Mode of the file, within that of its folder."""

Fact = str | int | float | None


class JournalFault(Exception):
    """The journal cannot be read or written; says what is wrong, and what to do."""


class JournalFull(JournalFault):
    """The disk is full: nothing was written."""


class Row(NamedTuple):
    """One event that waits."""

    id: int
    run: str
    """Of the notifier that read it."""
    at: float
    """When it was read, in seconds since 1970."""
    data: bytes


class Journal:
    """Open it, and close it. Not for several threads at once. Errors are JournalFaults."""

    def __init__(self, path: Path, *, most: int = MAX_EVENTS) -> None:
        self.path = path
        self._most = most
        self._file = _opened(path)
        self._inode = _inode(path)

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_current(self) -> bool:
        """Whether its path still leads to it; somebody may have put it aside."""
        return _inode(self.path) == self._inode

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction, for whoever keeps tables of his own here."""
        with _reported(self.path):
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield self._file
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back
                    self._file.execute("ROLLBACK")
                raise
            self._file.execute("COMMIT")

    def create(self, statements: Iterable[str]) -> None:
        """Make tables that are not there yet."""
        with self.change() as file:
            for statement in statements:
                file.execute(statement)

    # Events -------------------------------------------------------------------------------------

    def add(
        self, run: str, events: Sequence[bytes], counts: Mapping[str, int] | None = None
    ) -> None:
        """Keep events, in order; drop the oldest beyond what it may hold."""
        now = time.time()
        with self.change() as file:
            file.executemany(
                "INSERT INTO event (run, at, data) VALUES (?, ?, ?)",
                [(run, now, data) for data in events],
            )
            dropped = self._dropped(file)
            _count(file, {"read": len(events), "dropped": dropped, **(counts or {})})
            if events:
                _set(file, {"read-at": now})
            if dropped:
                _set(file, {"dropped-at": now})

    def _dropped(self, file: sqlite3.Connection) -> int:
        """Those that were taken in hand are being sent, and stay."""
        first, last = file.execute("SELECT min(id), max(id) FROM event").fetchone()
        if first is None or last - first < self._most:
            return 0
        (many,) = file.execute("SELECT count(*) FROM event").fetchone()
        if many <= self._most:
            return 0
        done = file.execute(
            "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE id > "
            "coalesce((SELECT value FROM fact WHERE name = 'in-hand'), 0) ORDER BY id LIMIT ?)",
            (many - self._most,),
        )
        return done.rowcount

    def waiting(self, many: int) -> list[Row]:
        """The oldest events."""
        with _reported(self.path):
            found = self._file.execute(
                "SELECT id, run, at, data FROM event ORDER BY id LIMIT ?", (many,)
            )
            return [Row(*row) for row in found]

    @property
    def length(self) -> int:
        """How many wait."""
        with _reported(self.path):
            return int(self._file.execute("SELECT count(*) FROM event").fetchone()[0])

    @property
    def in_hand(self) -> int:
        """Up to this id events may have been sent."""
        return int(self.fact("in-hand") or 0)

    def take(self, last: int) -> None:
        """Before events up to this id are sent."""
        self.keep(in_hand=last)

    def done(
        self,
        last: int,
        facts: Mapping[str, Fact] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Events up to this id are sent: take them off, and keep these facts, in one step."""
        with self.change() as file:
            file.execute("DELETE FROM event WHERE id <= ?", (last,))
            _set(file, facts or {})
            _count(file, counts or {})

    # Facts and counts ---------------------------------------------------------------------------

    def fact(self, name: str) -> Fact:
        """What was kept by this name; None where nothing was."""
        with _reported(self.path):
            found = self._file.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
            return found[0] if found else None

    def facts(self, beginning: str = "") -> dict[str, Fact]:
        """All whose names begin so."""
        with _reported(self.path):
            found = self._file.execute("SELECT name, value FROM fact ORDER BY name")
            return {name: value for name, value in found if name.startswith(beginning)}

    def keep(self, **facts: Fact) -> None:
        """Keep facts; underscores in their names are dashes. None forgets one."""
        with self.change() as file:
            _set(file, {name.replace("_", "-"): value for name, value in facts.items()})

    def counts(self) -> dict[str, int]:
        """What was counted, ``read`` and ``dropped`` for example."""
        with _reported(self.path):
            return dict(self._file.execute("SELECT name, many FROM count ORDER BY name"))

    def count(self, **counts: int) -> None:
        """Count on."""
        with self.change() as file:
            _count(file, counts)


def _set(file: sqlite3.Connection, facts: Mapping[str, Fact]) -> None:
    file.executemany(
        "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [(name, value) for name, value in facts.items() if value is not None],
    )
    file.executemany(
        "DELETE FROM fact WHERE name = ?",
        [(name,) for name, value in facts.items() if value is None],
    )


def _count(file: sqlite3.Connection, counts: Mapping[str, int]) -> None:
    file.executemany(
        "INSERT INTO count VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET many = many + excluded.many",
        [(name, many) for name, many in counts.items() if many],
    )


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        kind = JournalFull if "full" in str(error) else JournalFault
        raise kind(f"the journal {path}: {error}") from error
    except sqlite3.Error as error:
        raise JournalFault(f"the journal {path}: {error}") from error


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _opened(path: Path) -> sqlite3.Connection:
    """A file that is none of SQLite's, or damaged, is put aside, and a new one is begun."""
    _make(path)
    try:
        return _connected(path, ATTEMPTS)
    except sqlite3.OperationalError as error:
        raise JournalFault(f"the journal {path} cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        put_aside(path)
        _make(path)
        try:
            file = _connected(path, ATTEMPTS)
            _count(file, {"damaged": 1})
            return file
        except sqlite3.Error:
            raise JournalFault(f"the journal {path} is damaged: {error}") from error


def _connected(path: Path, attempts: int) -> sqlite3.Connection:
    """Two that begin at once lock each other out, whatever the time-out: one of them waits."""
    try:
        return _begun(path)
    except sqlite3.OperationalError as error:
        if attempts < 2 or "locked" not in str(error):
            raise
    time.sleep(PAUSE)
    return _connected(path, attempts - 1)


def _begun(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        (version,) = file.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise JournalFault(
                f"the journal {path} was written by a newer Tympan; upgrade this one"
            )
        if version < VERSION:
            file.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";"):
                file.execute(statement)
            # What has a number in one journal has it in no later one.
            file.execute(
                "INSERT INTO sqlite_sequence SELECT 'event', ? "
                "WHERE NOT EXISTS (SELECT * FROM sqlite_sequence)",
                (time.time_ns() // 1000,),
            )
            file.execute(f"PRAGMA user_version = {VERSION}")
            file.execute("COMMIT")
        (said,) = file.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise sqlite3.DatabaseError(said)
    except BaseException:
        file.close()
        raise
    return file


def _make(path: Path) -> None:
    """An empty file that belongs to its folder's owner, whoever of the two comes first."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        folder = path.parent.stat()
        made = os.open(path, flags, _PRIVATE)
    except FileExistsError:
        if path.is_symlink():
            raise JournalFault(f"the journal {path} is a link; remove it") from None
        return
    except OSError as error:
        raise JournalFault(
            f"the journal {path} cannot be made: {error.strerror}; make its folder, and let "
            "cupsd's user write there (tympan cups install does)"
        ) from error
    try:
        os.fchmod(made, _PRIVATE & folder.st_mode)
        if os.geteuid() == 0:
            os.fchown(made, folder.st_uid, folder.st_gid)
    finally:
        os.close(made)
