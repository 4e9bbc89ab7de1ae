"""The page: what a run came to, written into ``docs/reliability.md`` between two marks.

A run of some cases leaves the table of the whole run as it is, and stands below it.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.faults import table
from tests.faults.case import Extent
from tests.faults.trial import CHECKOUT, Trial

PAGE = CHECKOUT / "docs" / "reliability.md"
BEGIN = "<!-- results: written by python -m tests.faults --page -->"
END = "<!-- end of results -->"
BEGIN_AGAIN = "<!-- played again: written by python -m tests.faults --page --only -->"
END_AGAIN = "<!-- end of played again -->"
COMMANDS = {Extent.USUAL: "make faults", Extent.LONG: "make faults-long"}


def write(page: Path, trials: Sequence[Trial], extent: Extent, seed: int) -> None:
    """Replace the results of the cases, and what of an earlier run was played again.

    Raises ValueError where the page has no place for them.
    """
    sections = [
        f"`{COMMANDS[extent]}` {_made(trials, seed)}.",
        table.markdown(trials),
        "What must hold in each:",
        table.promises(trials),
    ]
    fill(page, (BEGIN, END), sections)
    fill(page, (BEGIN_AGAIN, END_AGAIN), [])


def write_again(page: Path, trials: Sequence[Trial], extent: Extent, seed: int) -> None:
    """Replace what was played again, and leave the results of the whole run.

    Raises ValueError where the page has no place for it.
    """
    sections = [
        f"Played again since, by `{COMMANDS[extent]}` with `--only`, {_made(trials, seed)}:",
        table.markdown(trials),
    ]
    fill(page, (BEGIN_AGAIN, END_AGAIN), sections)


def _made(trials: Sequence[Trial], seed: int) -> str:
    minutes = sum(trial.seconds for trial in trials) / 60
    return f"with seed {seed}, {minutes:.0f} minutes of cases; {made_with()}"


def fill(page: Path, marks: tuple[str, str], sections: Sequence[str]) -> None:
    """Replace what stands between two marks. Raises ValueError where the page has not both."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"{page} has no place for results: it needs {' and '.join(marks)}")
    page.write_text("\n\n".join([before + begin, *sections, end + after]), encoding="utf-8")


def made_with() -> str:
    """Date, versions and machine."""
    found = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "Python": platform.python_version(),
        "redis-server": _redis(),
        "system": _system(),
        "kernel": platform.release(),
        "cores": str(len(os.sched_getaffinity(0))),
    }
    return ", ".join(f"{what} {value}" for what, value in found.items())


def _redis() -> str:
    said = subprocess.run(
        ["redis-server", "--version"], capture_output=True, text=True, check=True
    ).stdout
    number = re.search(r"\bv=(\S+)", said)
    return number[1] if number else said.strip()


def _system() -> str:
    """The distribution with its point release, where it is Debian: ``Debian 12.5``."""
    try:
        about = platform.freedesktop_os_release()
    except OSError:
        return platform.system()
    point = Path("/etc/debian_version")
    if about.get("ID") == "debian" and point.exists():
        return f"Debian {point.read_text(encoding='utf-8').strip()}"
    return about.get("PRETTY_NAME", platform.system())
