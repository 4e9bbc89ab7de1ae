"""``python -m tests.conformance``: run the suite and print what holds on which backend.

Arguments go on to pytest. The exit status is 1 where a rule or the run itself failed.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import ALL_BACKENDS
from tests.conformance.rules import LATER, RULES, SECTIONS

ALONE = {"real_farm": "redis", "redis_server": "redis", "redis_cluster": "cluster"}
"""Fixtures of tests that run on one backend only."""
WIDTH = 100
"""Columns of the table where there is no terminal."""


class Tally:
    """What the tests of each rule showed, for each backend."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, str], bool] = {}

    def count(self, numbers: tuple[int, ...], backends: tuple[str, ...], *, good: bool) -> None:
        """One result: a rule holds on a backend as long as all of them are good."""
        for cell in ((number, backend) for number in numbers for backend in backends):
            self.cells[cell] = self.cells.get(cell, True) and good

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "call" or not report.passed:
            for mark in item.iter_markers("rule"):
                self.count(mark.args, held_for(item, mark), good=report.passed)
        return report

    @property
    def passed(self) -> int:
        """How many rules hold, each counted on each backend."""
        return sum(self.cells.values())

    @property
    def failed(self) -> int:
        """How many do not."""
        return len(self.cells) - self.passed

    def lines(self, width: int) -> Iterator[str]:
        """The report: a table, what is not in this release, and the count."""
        columns = "".join(f"  {backend:>6}" for backend in ALL_BACKENDS)
        yield "Rules of print notification, counted for each backend"
        for title, rules in SECTIONS.items():
            due = [number for number in rules if number not in LATER]
            if due:
                yield ""
                yield f"{title:<{width - len(columns)}}{columns}"
            for number in due:
                cells = "".join(f"  {self._cell(number, backend)}" for backend in ALL_BACKENDS)
                yield f"{_rule(number, width - len(columns))}{cells}"
        if LATER:
            yield ""
            yield "Not in this release"
        for number, why in LATER.items():
            yield f"{_rule(number, width - len(why) - 3).rstrip()} ({why})"
        yield ""
        yield f"{self.passed} passed, {self.failed} failed"

    def _cell(self, number: int, backend: str) -> str:
        good = self.cells.get((number, backend))
        word = "-" if good is None else "pass" if good else "FAIL"
        return f"{word:>{max(6, len(backend))}}"


def held_for(item: pytest.Item, mark: pytest.Mark) -> tuple[str, ...]:
    """The backends that a test's result speaks for."""
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "backend" in callspec.params:
        return (callspec.params["backend"],)
    if mark.kwargs["on"] is not None:
        return (mark.kwargs["on"],)
    fixtures = getattr(item, "fixturenames", ())
    alone = {backend for fixture, backend in ALONE.items() if fixture in fixtures}
    return tuple(alone) or ALL_BACKENDS


def _rule(number: int, width: int) -> str:
    room = max(10, width - 6)
    says = textwrap.shorten(RULES[number], room, placeholder=" ...")
    return f"{'R' + str(number):<6}{says:<{room}}"


def main(arguments: list[str]) -> int:
    """Run the suite and print the table; the exit status."""
    tally = Tally()
    own = ["-q", "-p", "no:rerunfailures", str(Path(__file__).parent)]
    status = pytest.main([*own, *arguments], plugins=[tally])
    print()
    for line in tally.lines(shutil.get_terminal_size((WIDTH, 24)).columns):
        print(line)
    return 1 if tally.failed or status != pytest.ExitCode.OK else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
