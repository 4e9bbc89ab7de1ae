"""The conformance suite is complete, and its report says what its tests showed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

from tests.conformance.__main__ import Tally
from tests.conformance.conftest import ALL_BACKENDS
from tests.conformance.rules import LATER, RULES, rule

SUITE = Path(__file__).parent.parent / "conformance"
ROOT = SUITE.parent.parent


def conformance_tests() -> Iterator[tuple[str, list[pytest.Mark]]]:
    """Each test of the suite and the marks that it or its rows carry."""
    for path in sorted(SUITE.glob("test_*.py")):
        module = importlib.import_module(f"tests.conformance.{path.stem}")
        for name, test in vars(module).items():
            if name.startswith("test_") and isinstance(test, FunctionType):
                yield f"{path.name}::{name}", list(marks_of(test))


def marks_of(test: FunctionType) -> Iterator[pytest.Mark]:
    for mark in getattr(test, "pytestmark", []):
        yield mark
        if mark.name == "parametrize":
            for row in mark.args[1]:
                yield from getattr(row, "marks", ())


def numbers_of(marks: list[pytest.Mark]) -> set[int]:
    return {number for mark in marks if mark.name == "rule" for number in mark.args}


def test_the_table_has_every_rule_once() -> None:
    assert list(RULES) == list(range(1, 138))
    assert len(set(RULES.values())) == len(RULES)
    assert all(says.endswith(".") for says in RULES.values())
    assert set(LATER) <= set(RULES)


def test_every_rule_of_this_release_has_a_test() -> None:
    shown = set().union(*(numbers_of(marks) for _, marks in conformance_tests()))
    assert shown == set(RULES) - set(LATER)


def test_no_conformance_test_is_without_a_rule() -> None:
    assert [name for name, marks in conformance_tests() if not numbers_of(marks)] == []


@pytest.mark.parametrize("numbers", [(), (0,), (138,), (1, 138), tuple(LATER)])
def test_a_test_cannot_name_a_rule_that_there_is_not(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rule"):
        rule(*numbers)


def cells(tally: Tally, number: int) -> dict[str, str]:
    """What the table says of a rule on each backend."""
    (line,) = [line for line in tally.lines(100) if line.startswith(f"R{number} ")]
    return dict(zip(ALL_BACKENDS, line.split()[-len(ALL_BACKENDS) :], strict=True))


def test_a_rule_passes_on_a_backend_when_all_its_tests_pass_there() -> None:
    tally = Tally()
    tally.count((1, 2), ALL_BACKENDS, good=True)
    tally.count((2, 3), ("redis",), good=False)
    tally.count((2,), ("redis",), good=True)
    assert cells(tally, 1) == dict.fromkeys(ALL_BACKENDS, "pass")
    assert cells(tally, 2) == dict.fromkeys(ALL_BACKENDS, "pass") | {"redis": "FAIL"}
    assert cells(tally, 3) == dict.fromkeys(ALL_BACKENDS, "-") | {"redis": "FAIL"}
    assert cells(tally, 4) == dict.fromkeys(ALL_BACKENDS, "-")
    assert list(tally.lines(100))[-1] == f"{2 * len(ALL_BACKENDS) - 1} passed, 2 failed"


@pytest.mark.parametrize("width", [72, 80, 200])
def test_the_report_fits_its_width_and_names_every_rule(width: int) -> None:
    lines = list(Tally().lines(width))
    assert max(map(len, lines)) <= width
    assert {line.split()[0] for line in lines if line} >= {f"R{number}" for number in RULES}
    assert ("Not in this release" in lines) is bool(LATER), "no heading stands over nothing"


PROBES = """
import pytest

from tests.conformance.rules import rule


@pytest.fixture
def leaking():
    yield
    raise AssertionError("something was left behind")


@rule(5, on="redis")
def test_failing_probe():
    raise AssertionError("the rule does not hold")


@rule(6)
def test_failing_probe_that_leaks(leaking):
    pass


@rule(2, on="redis")
def test_failing_probe_that_shows_nothing():
    pytest.skip("not today")
"""


def run_suite(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.conformance", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_command_runs_what_pytest_is_told_and_counts_it() -> None:
    run = run_suite("-k", "numbers_of_the_styles or limit_of_channels_is")
    assert run.returncode == 0, run.stdout
    passed = 2 * len(ALL_BACKENDS)
    assert run.stdout.splitlines()[-1] == f"{passed} passed, 0 failed"


def test_the_command_fails_with_the_rules_that_failed(tmp_path: Path) -> None:
    failing = tmp_path / "test_failing_probe.py"
    failing.write_text(PROBES)
    run = run_suite("-c", str(ROOT / "pyproject.toml"), str(failing), "-k", "failing_probe")
    assert run.returncode == 1, run.stdout
    assert run.stdout.splitlines()[-1] == f"0 passed, {2 + len(ALL_BACKENDS)} failed"


def test_the_command_fails_where_nothing_was_run() -> None:
    run = run_suite("-k", "no_test_of_this_name")
    assert run.returncode == 1
    assert run.stdout.splitlines()[-1] == "0 passed, 0 failed"
