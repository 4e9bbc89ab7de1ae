"""Damaged: a file that SQLite cannot read is put aside, and kept for whoever wants to mend it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

_MARK = ".damaged-"
PATTERN = f"{_MARK}*"
"""What follows the name of a file that was put aside."""
ENDINGS = ("", "-wal", "-shm")
"""SQLite's own files beside one, and the file itself."""


def put_aside(path: Path) -> Path:
    """Rename it with its companions, so that a new one can be begun; returns its new place."""
    aside = path.with_name(f"{path.name}{_MARK}{time.time_ns()}")
    for ending in ENDINGS:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(aside.with_name(aside.name + ending))
    return aside
