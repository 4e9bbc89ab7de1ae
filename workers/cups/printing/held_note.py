"""Notes of jobs that were held because no bridge answered: the next bridge lets them go.

Nothing but the standard library: cupsd starts what leaves them.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from workers.cups.printing.run_file import name_of

FOLDER = "held"
"""Below the spool."""
_MOST = 65_536


class HeldNote(NamedTuple):
    """One of them."""

    job: int
    mark: str
    path: Path

    def remove(self) -> None:
        """It is done."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def leave(spool: Path, job: int, mark: str) -> None:
    """Leave one. Raises OSError."""
    folder = spool / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / name_of(job, mark)
    whole = folder / f".{os.getpid()}"
    whole.write_text(json.dumps([job, mark]), encoding="utf-8")
    whole.rename(path)


def notes(spool: Path) -> list[HeldNote]:
    """Those that are there; what is none is deleted."""
    found = []
    for path in sorted((spool / FOLDER).glob("[0-9]*")):
        try:
            with path.open("rb") as file:
                job, mark = json.loads(file.read(_MOST))
            found.append(HeldNote(int(job), str(mark), path))
        except (OSError, ValueError, TypeError):
            with contextlib.suppress(OSError):  # what is no file stays, and is passed over again
                path.unlink()
    return found
