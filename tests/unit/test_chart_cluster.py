"""The figures of the cluster's test, and how a command's end is told."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.chart_cluster.figures import faults, table
from tests.chart_cluster.kubernetes import CommandFailed, NeverHappened, run, until
from tests.chart_cluster.pods.source import Note, Seen, tally


def notes(*lines: str) -> list[Note]:
    return [Note.parse(line) for line in lines]


def test_what_was_handled_once_and_answered_once() -> None:
    seen = Seen({"a": 1.0, "b": 2.0}, {"q"}, ["q"], 1)
    found = tally(
        seen,
        notes(
            "begun a 1 1.5 one", "ended a 1 1.75 one", "ended b 1 2.5 two", "ended q 0 3 two",
        ),
    )  # fmt: skip
    expected: dict[str, Any] = {
        "sent": 2, "handled": 2, "twice": 0, "unmarked": 0, "lost": 0,
        "redelivered": 0,
        "questions": 1, "answered": 1, "answered twice": 0, "unanswered": 0, "dialogs": 1,
        "slowest": 0.75, "processes": 2, "faults": [],
    }  # fmt: skip
    assert found == expected


def test_what_was_lost_or_came_twice() -> None:
    seen = Seen({"a": 1.0, "b": 1.0, "c": 1.0}, {"p", "q"}, ["q", "q"])
    found = tally(
        seen,
        notes(
            "begun c 1 2 one",
            *("ended a 1 2 one", "ended a 2 3 two"),
            *("ended b 1 2 one", "ended b 1 3 two"),
            *("ended q 0 2 one", "ended q 0 3 one"),
        ),
    )
    assert (found["twice"], found["unmarked"], found["lost"]) == (2, 1, 1)
    assert found["redelivered"] == 1
    assert (found["answered"], found["answered twice"], found["unanswered"]) == (1, 2, 1)


def report(**more: Any) -> dict[str, Any]:
    seen = Seen({"a": 1.0}, {"q"}, ["q"], 1)
    return tally(seen, notes("ended a 1 1.5 one", "ended q 0 3 two")) | more


def test_what_must_not_be() -> None:
    assert faults(report(), once=True) == []
    assert faults(report(lost=2, twice=1), once=True) == [
        "2 notifications were lost",
        "1 notifications were handled twice",
    ]
    assert faults(report(twice=1, **{"answered twice": 1}), once=False) == [], "it was marked"
    assert len(faults(report(unmarked=1, unanswered=1), once=False)) == 2
    assert len(faults(report(sent=0, faults=["no_listeners"]), once=True)) == 2


def test_the_table_adds_up() -> None:
    shown = table({"upgrade": report(), "rollback": report(sent=1200, slowest=2.0)})
    heading, *rows = (line.split() for line in shown.splitlines())
    assert heading[:2] == ["sent", "handled"]
    assert [row[:2] for row in rows] == [["upgrade", "1"], ["rollback", "1,200"], ["in", "all"]]
    assert (rows[2][2], rows[2][-1]) == ("1,201", "2.0")


def test_a_command_that_fails_says_what_it_said() -> None:
    with pytest.raises(CommandFailed, match="status 3: no such pod"):
        run(sys.executable, "-c", "import sys; print('no such pod'); sys.exit(3)").ok()
    assert run(sys.executable, "-c", "print(input())", given="x").ok() == "x\n"


def test_waiting_ends() -> None:
    assert until(lambda: 7, "seven", 1) == 7
    with pytest.raises(NeverHappened, match="not within 0 s: the pod is away"):
        until(lambda: 0, "the pod is away", 0)
