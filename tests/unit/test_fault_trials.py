"""The harness of the fault cases, tried on cases that are wrong on purpose."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from pathlib import Path

import pytest

from tests.faults import __main__ as command
from tests.faults import page, table, trial
from tests.faults.case import CASES, LATE, MACHINE, Case, Extent, Report, chance, sow
from tests.faults.trial import Trial

SEED = 1


def tried(report: Report) -> Trial:
    return Trial(Case("a case", "it holds", never, is_short=True), report, 1.0)


async def never(extent: Extent) -> Report:
    """Hangs."""
    await asyncio.Event().wait()
    return Report(runs=extent.value)


async def fails(_: Extent) -> Report:
    raise LookupError("no such printer")


async def leaves_an_error(_: Extent) -> Report:
    async def fail() -> None:
        raise LookupError("no such printer")

    left = asyncio.create_task(fail())
    await asyncio.wait({left})
    del left
    return Report(runs=1)


async def test_a_case_that_hangs_is_told_by_what_it_awaits() -> None:
    case = Case("hangs", "it ends", never, is_short=True)
    report = await trial.bounded(case, Extent.SHORT, 0.05)
    hung, *where = report.violations
    assert hung == "hung: not over after 0.05 s"
    (told,) = [one for one in where if one.endswith(" never")]  # other tests' tasks may live
    assert told.startswith("1 x tests/unit/test_fault_trials.py:")


async def test_a_case_that_hangs_in_a_thread_is_told_by_where_that_is() -> None:
    over = threading.Event()

    def hangs() -> None:
        over.wait()

    async def waits(_: Extent) -> Report:
        await asyncio.to_thread(hangs)
        return Report()

    case = Case("hangs", "it ends", waits, is_short=True)
    try:
        _, *where = (await trial.bounded(case, Extent.SHORT, 0.05)).violations
    finally:
        over.set()
    assert [one for one in where if one.endswith(".waits")]
    (thread,) = [one for one in where if one.endswith(" hangs")]
    assert thread.startswith("a thread at tests/unit/test_fault_trials.py:")


async def test_a_case_that_fails_is_a_violation() -> None:
    report = await trial.bounded(Case("f", "p", fails, is_short=True), Extent.SHORT, 5.0)
    (told,) = report.violations
    assert "LookupError: no such printer" in told


async def test_an_error_that_nobody_takes_up_is_a_violation() -> None:
    case = Case("f", "p", leaves_an_error, is_short=True)
    (told,) = (await trial.bounded(case, Extent.SHORT, 5.0)).violations
    assert "LookupError: no such printer" in told


async def test_a_case_whose_process_dies_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    case = Case("dies", "it lives", never, is_short=True)
    (told,) = (await trial.play(case, Extent.SHORT, SEED)).violations
    assert told == "its process ended with status 1"


async def test_a_case_that_does_not_answer_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")
    deaf.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deaf))
    monkeypatch.setattr(trial, "GRACE", 0.1)
    case = Case("deaf", "it lives", never, is_short=True)
    (told,) = (await trial.play(case, Extent.SHORT, SEED, bound=0.1)).violations
    assert told == "hung: its process did not answer for 0.4 s"


@pytest.mark.parametrize(
    ("report", "violations"),
    [
        (Report(), ["nothing was broken"]),
        (Report(runs=1), ["nothing was checked"]),
    ],
)
def test_a_case_that_shows_nothing_is_a_violation(report: Report, violations: list[str]) -> None:
    assert tried(report).violations == violations


def test_a_late_recovery_is_a_violation() -> None:
    report = Report(runs=2)
    report.checked["dialogs"] = 3
    report.recovers(4.9, "in time")
    assert tried(report).violations == []
    report.recovers(5.1, "too late")
    assert tried(report).violations == ["too late: consumed again after 5.1 s, not 5.0"]
    report.recovers(7.9, "a crowd", within=8.0)
    assert len(tried(report).violations) == 1


def test_a_recovery_that_the_machine_had_no_time_for_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = Report(runs=2)
    report.checked["dialogs"] = 3
    monkeypatch.setattr(MACHINE, "lost", lambda seconds: seconds / 2)
    report.recovers(4.9, "in time")
    report.recovers(10.0, "late")
    assert (tried(report).violations, report.lost) == ([], {LATE: 1})
    report.recovers(10.1, "too late")
    report.recovers(math.inf, "never")
    assert len(tried(report).violations) == 2


def test_draws_follow_from_the_seed() -> None:
    drawn = []
    for seed in (1, 1, 2):
        sow(seed)
        drawn.append(chance("races").random())
    sow(0)
    assert drawn[0] == drawn[1] != drawn[2]


# The command ------------------------------------------------------------------------------------


def some() -> list[Trial]:
    report = Report(runs=1200, recovered=[0.5, 1.5, 4.0])
    report.checked.update(dialogs=3000)
    report.lost.update(sends=2)
    return [tried(report), tried(Report(runs=1, violations=["two owners"]))]


def test_the_table_shows_what_was_seen() -> None:
    _, one, other = table.text(some()).splitlines()
    assert " ".join(one.split()) == "a case 1,200 3,000 dialogs 0 1.50 4.00 2 sends"
    assert " ".join(other.split()) == "a case 1 1 - - -"
    assert list(table.faults(some())) == ["a case, 1 of 1: two owners"]


def blank(tmp_path: Path) -> Path:
    """A page with a place for the results, and for what was played again."""
    made = tmp_path / "reliability.md"
    lines = ("before", page.BEGIN, "of yesterday", page.END)
    again = ("between", page.BEGIN_AGAIN, "again yesterday", page.END_AGAIN, "after")
    made.write_text("\n".join((*lines, *again, "")), encoding="utf-8")
    return made


def test_the_page_gets_the_table_between_its_marks(tmp_path: Path) -> None:
    written = blank(tmp_path)
    page.write(written, some(), Extent.USUAL, 7)
    text = written.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{page.BEGIN}\n\n`make faults` with seed 7, ")
    assert text.endswith(f"{page.END}\nbetween\n{page.BEGIN_AGAIN}\n\n{page.END_AGAIN}\nafter\n")
    assert "yesterday" not in text
    assert "| **together** | 1,201 |  | 1 | 1.50 | 4.00 |  |" in text
    assert "* **a case**: it holds" in text


def test_what_is_played_again_stands_below_the_whole_run(tmp_path: Path) -> None:
    written = blank(tmp_path)
    page.write_again(written, some()[:1], Extent.LONG, 7)
    text = written.read_text(encoding="utf-8")
    before, again = text.split("between")
    assert "of yesterday" in before
    assert "again yesterday" not in again
    assert "by `make faults-long` with `--only`, with seed 7, " in again
    assert "| a case | 1,200 | 3,000 dialogs | 0 | 1.50 | 4.00 | 2 sends |" in again


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    written = tmp_path / "reliability.md"
    written.write_text("nothing", encoding="utf-8")
    for write in (page.write, page.write_again):
        with pytest.raises(ValueError, match="has no place for results"):
            write(written, some(), Extent.USUAL, 7)


def test_the_page_of_this_house_has_a_place_for_results() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text.index(page.BEGIN) < text.index(page.END)
    assert text.index(page.END) < text.index(page.BEGIN_AGAIN) < text.index(page.END_AGAIN)


def test_cases_are_chosen_by_a_part_of_their_names() -> None:
    known = list(CASES.values())
    assert command.chosen([], Extent.USUAL) == known
    assert command.chosen([], Extent.SHORT) == [each for each in known if each.is_short]
    (found,) = command.chosen(["BY SENTINEL"], Extent.USUAL)
    assert found.name == "a replica promoted by Sentinel"


@pytest.mark.parametrize(
    "arguments", [["--only", "no such case"], ["--page", "--short"], ["--long", "--short"]]
)
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main(arguments)
    assert refused.value.code == 2


def test_a_violation_ends_the_command_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def played(*_: object) -> list[Trial]:
        return trials

    monkeypatch.setattr(command, "play", played)
    trials = some()
    assert command.main([]) == 1
    assert "a case, 1 of 1: two owners" in capsys.readouterr().out
    trials = some()[:1]
    assert command.main([]) == 0


async def test_who_needs_all_processors_is_played_first_and_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = [Case(name, "it holds", never, is_short=True, is_alone=name in "bd") for name in "abcd"]
    playing: set[str] = set()
    beside: dict[str, set[str]] = {}

    async def play(case: Case, _: Extent, __: int) -> Trial:
        beside[case.name] = set(playing)
        playing.add(case.name)
        await asyncio.sleep(0)
        playing.remove(case.name)
        return Trial(case, Report(runs=1), 0.0)

    monkeypatch.setattr(trial, "play", play)
    trials = await command.play(cases, Extent.SHORT, SEED, jobs=2)
    assert [each.case.name for each in trials] == list("abcd")
    assert beside == {"b": set(), "d": set(), "a": set(), "c": {"a"}}
    assert list(beside)[:2] == ["b", "d"]
