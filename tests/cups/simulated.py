"""A simulated printer, as a backend of cupsd: what ``sim:///FOLDER`` runs.

The folder says how it is: while the file ``empty`` is there it is out of paper, while ``hold`` is
there it says nothing and waits, ``lines`` has what it writes to standard error first, ``status``
its exit status. What became of a job is appended to ``jobs``, an object of JSON a line. It needs
nothing but the standard library: cupsd's user may run it by another Python than the tests have.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

OUT_OF_PAPER = "media-empty-error,media-needed-error"
_LOOK_EVERY_S = 0.01


class _Canceled(Exception):
    """cupsd wants this job to end."""


def _cancel(*_: object) -> None:
    raise _Canceled


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _wait_while(path: Path, parent: int) -> None:
    while path.exists():
        if os.getppid() != parent:
            sys.exit(1)  # cupsd was killed, and nobody else would end this
        time.sleep(_LOOK_EVERY_S)


def _print(folder: Path, pages: int, parent: int) -> None:
    if (folder / "lines").exists():
        for line in (folder / "lines").read_text("utf-8").splitlines():
            _say(line)
    _wait_while(folder / "hold", parent)
    for page in range(1, pages + 1):
        if (folder / "empty").exists():
            _say(f"STATE: +{OUT_OF_PAPER}")
            _wait_while(folder / "empty", parent)
            _say(f"STATE: -{OUT_OF_PAPER}")
        _say(f"PAGE: {page} 1")


def main() -> int:
    """Print one job; the exit status is a backend's."""
    if len(sys.argv) == 1:
        print('direct sim "Unknown" "Simulated printer"')
        return 0
    parent = os.getppid()
    job, user, title, copies, options = sys.argv[1:6]
    folder = Path(unquote(urlsplit(os.environ["DEVICE_URI"]).path))
    signal.signal(signal.SIGTERM, _cancel)
    with (folder / "begun").open("a", encoding="ascii") as begun:
        begun.write(f"{job}\n")
    done = {
        "job": int(job),
        "user": user,
        "title": title,
        "copies": int(copies),
        "options": options,
        "argv": len(sys.argv),
        "printer": os.environ["PRINTER"],
    }
    try:
        with Path(sys.argv[6] if len(sys.argv) > 6 else "/dev/stdin").open("rb") as source:
            document = source.read()
        done["bytes"] = len(document)
        done["pages"] = (document.count(b"\f") + 1) * (int(copies) if len(sys.argv) > 6 else 1)
        _print(folder, int(str(done["pages"])), parent)
        done["outcome"] = "printed"
    except _Canceled:
        done["outcome"] = "canceled"
    with (folder / "jobs").open("a", encoding="utf-8") as jobs:
        jobs.write(json.dumps(done) + "\n")
    status = folder / "status"
    return int(status.read_text("ascii")) if status.exists() else 0
