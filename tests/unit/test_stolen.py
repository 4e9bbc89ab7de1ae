"""A test that failed while the machine had no time for it is played again; no other is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import stolen

CHECKOUT = Path(__file__).parents[2]
TWO = "cpu  90 0 9 900 0 0 0 {}\ncpu0 40 0 4 450 0 0 0 {} 0 0\ncpu1 50 0 5 450 0 0 0 {} 0 0\nintr 1"

CONFTEST = """
from pathlib import Path
from tests import conftest, stolen
from tests.conftest import (
    pytest_collection_modifyitems, pytest_runtest_setup, pytest_sessionstart,
    pytest_timeout_set_timer,
)
stolen.TICK, stolen.WINDOW, stolen.CALM = 0.01, 0.05, 0.1
stolen.SHARE = 1.5  # no lateness amounts to that
conftest.MACHINE = stolen.Machine(Path(__file__).with_name("stat"))
"""
TEST = """
import itertools
import time
from pathlib import Path
from tests import conftest

def test_it():
    plays = Path(__file__).with_name("plays")
    with plays.open("a") as file:
        file.write("x")
    if {taken}:
        for ticks in itertools.count(0, 100):
            new = Path(__file__).with_name("new")
            new.write_text("cpu0 1 0 1 1 0 0 0 %d 0 0" % ticks)
            new.rename(new.with_name("stat"))
            if conftest.MACHINE.lacked_time():
                break
    played = plays.stat().st_size
    if played == {hangs}:
        time.sleep(600)
    assert played == {plays}, "not yet"
"""


def looks(*taken: tuple[float, float], start: float = 100.0) -> list[tuple[float, list[float]]]:
    """One every quarter of a second: what was taken from each of two processors since the last."""
    found, sums = [(start, [7.0, 3.0])], [7.0, 3.0]
    for number, each in enumerate(taken, 1):
        sums = [a + b for a, b in zip(sums, each, strict=True)]
        found.append((start + number * 0.25, sums))
    return found


def test_the_file_is_read_by_processor() -> None:
    assert stolen.stolen(TWO.format(1250, 1000, 250)) == [10.0, 2.5]


@pytest.mark.parametrize(
    ("taken", "share"),
    [
        ([], 0.0),
        ([(0.2, 0.2)], 0.0),  # not a window yet
        ([(0.0, 0.0)] * 8, 0.0),
        ([(0.0, 0.125)] * 8, 0.5),
        ([(0.0, 0.0)] * 4 + [(0.25, 0.0)] * 2 + [(0.0, 0.0)] * 4, 0.5),
        ([(0.25, 0.0), (0.0, 0.25)] * 4, 0.5),  # half of each, not all of one
    ],
)
def test_the_worst_second_counts(taken: list[tuple[float, float]], share: float) -> None:
    assert stolen.worst(looks(*taken)) == pytest.approx(share)


def test_a_look_that_comes_late_counts_with_the_time_it_took() -> None:
    late = [(100.0, [0.0]), (100.25, [0.0]), (104.25, [3.0]), (104.5, [3.0])]
    assert stolen.worst(late) == pytest.approx(3.0 / 4.0)


@pytest.mark.parametrize(
    ("late", "is_own", "lacked"), [(0.05, False, False), (0.2, False, True), (0.2, True, False)]
)
def test_a_thread_that_runs_late_counts_unless_its_own_process_is_at_work(
    tmp_path: Path, late: float, is_own: bool, lacked: bool
) -> None:
    """Of each quarter of a second so much, while nothing is said to be stolen."""
    (tmp_path / "stat").write_text(TWO.format(0, 0, 0))
    now = 100.0
    machine = stolen.Machine(
        tmp_path / "stat", clock=lambda: now, processor_time=lambda: now if is_own else 0.0
    )
    machine.look(now)
    for _ in range(8):
        due, now = now + stolen.TICK, now + stolen.TICK + late
        machine.look(due)
    assert machine.lacked_time() == lacked
    now += 10.0
    machine.begin()
    assert not machine.lacked_time(), "that was before this test"


def test_what_was_lost_is_that_of_the_worst_processor_and_of_the_time_asked_for(
    tmp_path: Path,
) -> None:
    now = 100.0
    machine = stolen.Machine(tmp_path / "stat", clock=lambda: now)
    assert machine.lost(5.0) == 0.0
    for ticks in (0, 25, 50, 75, 100):
        (tmp_path / "stat").write_text(TWO.format(0, 10, ticks))
        machine.look(now)
        now += 10.0
    assert machine.lost(100.0) == 1.0
    assert machine.lost(30.0) == 0.5


def test_a_replay_waits_for_calm_but_not_for_ever(tmp_path: Path) -> None:
    now, ticks = 100.0, 0

    def sleep(seconds: float) -> None:
        nonlocal now, ticks
        due, now = now + seconds, now + seconds
        ticks += 20 if now < until else 0  # 0.2 s of each quarter of a second
        (tmp_path / "stat").write_text(TWO.format(0, 0, ticks))
        machine.look(due)

    machine = stolen.Machine(tmp_path / "stat", clock=lambda: now, sleep=sleep)
    until = 110.0
    machine.wait(60.0)
    assert 110.0 + stolen.CALM <= now <= 110.0 + stolen.CALM + stolen.WINDOW + stolen.TICK
    until = 1000.0
    begun = now
    machine.wait(60.0)
    assert now == begun + 60.0


@pytest.mark.parametrize(
    ("taken", "holds_at", "hangs_at", "plays", "status", "told"),
    [
        (True, 3, 0, 3, 0, "1 passed, 2 rerun"),
        (True, 9, 0, 4, 1, "1 failed, 3 rerun"),
        (False, 3, 0, 1, 1, "1 failed in"),
        (True, 3, 2, 3, 0, "Timeout (>3.0s)"),
    ],
    ids=["held at last", "never held", "nothing was taken", "a replay hung"],
)
def test_what_failed_meanwhile_is_played_again(
    tmp_path: Path, taken: bool, holds_at: int, hangs_at: int, plays: int, status: int, told: str
) -> None:
    (tmp_path / "stat").write_text("cpu0 1 0 1 1 0 0 0 0 0 0")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TEST.format(taken=taken, plays=holds_at, hangs=hangs_at))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=3",
         "--rerun-show-tracebacks", "--rootdir", tmp_path, tmp_path],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert (done.returncode, (tmp_path / "plays").stat().st_size) == (status, plays), done.stdout
    assert told in done.stdout, done.stdout
