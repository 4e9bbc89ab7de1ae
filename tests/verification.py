"""The model of a dialog, searched: every order in which sources, listeners, deaths and losses meet.

``python -m tests.verification`` has spin search ``lua/model/dialog.pml`` in each of its forms, and
then each guard's mutant: the same model without that one guard, asked for the one property that
stands behind it. It prints what was searched, and ends with status 1 where the whole model breaks
a property, a mutant breaks none, or a search was not exhaustive.

A form says how much of what can happen is in it; all of everything is more than can be searched.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.columns import aligned

CHECKOUT = Path(__file__).resolve().parents[1]
MODEL = CHECKOUT / "lua" / "model" / "dialog.pml"
COMPILE = ("gcc", "-O1", "-w", "-DSAFETY", "-DNOFAIR", "-DCOLLAPSE", "-DVECTORSZ=4096")
DEPTH = 20_000
"""Steps of the longest behaviour that is followed; one that is longer is an error."""
_PROPERTIES = "Properties"
_GUARDS = "Guards"
_DEFINE = re.compile(r"^#define (\w+) (\d+) /\* (.*) \*/$", re.MULTILINE)
_GUARD = re.compile(r"^(?P<place>[\w, ]+): (?P<about>[^|]+) \| (?P<form>\w+): (?P<property>\w+)$")

FORMS: Mapping[str, Mapping[str, int]] = {
    "race": {"TURNS": 2, "CALLS": 2, "LOSSES": 0},
    "loss": {"TURNS": 2, "CALLS": 1, "LOSSES": 1},
    "late": {"TURNS": 1, "CALLS": 1, "LOSSES": 1, "LATES": 1},
    "death": {"TURNS": 2, "CALLS": 1, "LOSSES": 0, "CRASHES": 1},
    "lapse": {"TURNS": 1, "CALLS": 1, "LOSSES": 0, "LAPSES": 1},
    "failover": {"LISTENERS": 1, "TURNS": 2, "CALLS": 1, "LOSSES": 0, "FAILOVERS": 1, "STRAYS": 1},
    "rivals": {"BEGUN": 1, "TURNS": 1, "CALLS": 1, "LOSSES": 0, "FAILOVERS": 1, "STRAYS": 1},
}
"""What is in each form, as the header of the model explains it."""
SHORT: Mapping[str, int] = {"TURNS": 1, "CALLS": 1, "LOSSES": 1}
"""A form that is searched in seconds."""
WIDE = 6_000
"""Megabytes that a search may take."""
PATIENCE = 300.0
"""Seconds after which a search is broken off."""


@dataclass(frozen=True)
class Guard:
    """One guard of the model, and what stands behind it."""

    name: str
    place: str
    about: str
    form: str
    property: str


@dataclass(frozen=True)
class Search:
    """What came of one search."""

    name: str
    about: str
    states: int
    depth: int
    broken: str
    """The property that does not hold, or what else is wrong; empty where all holds."""
    is_whole: bool
    """Whether every behaviour was looked at."""
    expected: str
    """What must be broken: the property behind the guard that was left out; empty for none."""
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether it shows what it must."""
        return self.broken == self.expected and (self.is_whole or bool(self.expected))

    @property
    def verdict(self) -> str:
        """For the table."""
        if self.is_good:
            return f"refuted: {self.broken}" if self.expected else "holds"
        if self.broken:
            return f"BROKEN: {self.broken}"
        return f"NOT REFUTED: {self.expected}" if self.is_whole else "NOT EXHAUSTIVE"


@cache
def text() -> str:
    """The model."""
    return MODEL.read_text(encoding="utf-8")


def _section(title: str) -> Iterator[tuple[str, int, str]]:
    """Names, numbers and comments that the model defines under a title."""
    start = text().index(f"/* {title}: ")
    for match in _DEFINE.finditer(text()[start:].split("\n\n")[0]):
        yield match[1], int(match[2]), match[3]


@cache
def properties() -> Mapping[int, str]:
    """The model's properties, by their numbers."""
    return {number: name for name, number, _ in _section(_PROPERTIES)}


@cache
def guards() -> Sequence[Guard]:
    """The model's guards. Raises ValueError where one does not say what stands behind it."""
    found = []
    for name, _, about in _section(_GUARDS):
        match = _GUARD.match(about)
        if match is None:
            raise ValueError(f"{MODEL}: {name}: `place: what | form: property`, not {about!r}")
        found.append(Guard(name, **match.groupdict()))
    return found


def words() -> Mapping[str, frozenset[str]]:
    """What each script of the model can answer, by the script's name."""
    found: dict[str, set[str]] = {}
    for script, word in re.findall(r"\bsays\((\w+), ([A-Z_]+)\)", text()):
        if script != "script":
            found.setdefault(script, set()).add(word)
    common = set(re.findall(r"\bsays\(script, ([A-Z_]+)\)", text()))
    for script in re.findall(r"^ +guards(?:_if)?\((?:[^,\n]+ != [^,\n]+, )?(\w+), \w+, \w+\)$",
                             text(), re.MULTILINE):  # fmt: skip
        found.setdefault(script, set()).update(common)
    return {script: frozenset(said) for script, said in found.items()}


def search(
    name: str,
    form: Mapping[str, int],
    about: str = "",
    *,
    without: str = "",
    only: str = "",
) -> Search:
    """Have spin search one form, or one mutant of it.

    Raises FileNotFoundError without spin or gcc, CalledProcessError where they refuse the model.
    """
    options = [f"-D{key}={value}" for key, value in form.items()]
    options += [f"-DWITHOUT={without}"] * bool(without) + [f"-DONLY={only}"] * bool(only)
    for program in ("spin", "gcc"):
        if shutil.which(program) is None:
            raise FileNotFoundError(
                f"{program} is not on PATH: install it (.ci/prepare does, on Debian and Ubuntu)"
            )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tympan-model") as folder:
        build = [*COMPILE, f"-DMEMLIM={WIDE}", "-o", "pan", "pan.c"]
        for command in (["spin", "-a", *options, str(MODEL)], build):
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        pan = [f"{folder}/pan", f"-m{DEPTH}", "-w22", *(["-E"] if without else [])]
        said = _run(pan, folder)
    number = re.search(r"assertion violated .*!=(\d+)\)+ \(at depth", said)
    wrong = re.search(r"^pan:\d+: (?!assertion violated .*!=\d+\)+ \(at)(.*)$", said, re.MULTILINE)
    broken = properties()[int(number[1])] if number else wrong[1] if wrong else ""
    return Search(
        name,
        about,
        _number(r"(\d+) states, stored", said),
        _number(r"depth reached (\d+)", said),
        broken,
        "errors: 0" in said and "Search not completed" not in said and not wrong,
        only,
        time.monotonic() - begun,
    )


def _run(command: Sequence[str], folder: str) -> str:
    """What a search printed, also when it was broken off."""
    try:
        done = subprocess.run(
            command, cwd=folder, check=False, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return "pan:0: it takes too long"
    return done.stdout + done.stderr


def _number(pattern: str, said: str) -> int:
    found = re.search(pattern, said)
    return int(found[1]) if found else 0


def mutant(guard: Guard) -> Search:
    """The model without one guard, asked for the property that stands behind it."""
    form = FORMS[guard.form]
    name, about = f"no {guard.name}", f"{guard.place} ({guard.form})"
    return search(name, form, about, without=guard.name, only=guard.property)


HEADINGS = ("model", "where", "states", "depth", "seconds", "verdict")


def table(searches: Sequence[Search]) -> str:
    """The searches, one a line."""
    rows = [HEADINGS]
    rows += [
        (
            one.name,
            one.about,
            f"{one.states:,}",
            f"{one.depth:,}",
            f"{one.seconds:.1f}",
            one.verdict,
        )
        for one in searches
    ]
    return aligned(rows, range(2, 5))


def main(arguments: Sequence[str] | None = None) -> int:
    """Search the forms and the mutants; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.verification", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="forms and guards; default: all")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="searches at a time")
    given = parser.parse_args(arguments)
    known = {**dict.fromkeys(FORMS), **{guard.name: guard for guard in guards()}}
    unknown = set(given.names) - set(known)
    if unknown:
        parser.error(f"no form and no guard: {', '.join(sorted(unknown))}")

    def one(name: str) -> Search:
        guard = known[name]
        if guard is not None:
            return mutant(guard)
        return search(
            name, FORMS[name], ", ".join(f"{k} {v}" for k, v in FORMS[name].items()).lower()
        )

    with ThreadPoolExecutor(given.jobs) as pool:
        searches = list(pool.map(one, given.names or known))
    print(table(searches))
    wrong = [each.name for each in searches if not each.is_good]
    print(f"{len(searches)} searches, {len(wrong)} not as they must be: {', '.join(wrong) or '-'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
