"""The table: what each case came to, as text and for a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from tests.columns import aligned
from tests.faults.trial import Trial

HEADINGS = (
    "case", "runs", "checked", "violations", "recovered after s: median", "most",
    "lost where nothing is promised",
)  # fmt: skip
NUMBERS = (1, 3, 4, 5)
"""Columns that stand to the right."""


def row(trial: Trial) -> tuple[str, ...]:
    """The cells of one line."""
    report = trial.report
    recovered = report.recovered
    return (
        trial.case.name,
        f"{report.runs:,}",
        counted(report.checked),
        f"{len(trial.violations):,}",
        f"{median(recovered):.2f}" if recovered else "-",
        f"{max(recovered):.2f}" if recovered else "-",
        counted(report.lost) or "-",
    )


def counted(what: Counter[str]) -> str:
    """``1,200 dialogs, 64 keys``; empty where there is nothing."""
    return ", ".join(f"{many:,} {kind}" for kind, many in what.items() if many)


def text(trials: Sequence[Trial]) -> str:
    """For a terminal."""
    return aligned([HEADINGS, *map(row, trials)], NUMBERS)


def markdown(trials: Sequence[Trial]) -> str:
    """For a page; the last line has the sums."""
    runs = sum(trial.report.runs for trial in trials)
    violations = sum(len(trial.violations) for trial in trials)
    recovered = [seconds for trial in trials for seconds in trial.report.recovered]
    times = (f"{median(recovered):.2f}", f"{max(recovered):.2f}") if recovered else ("-", "-")
    together = ("**together**", f"{runs:,}", "", f"{violations:,}", *times, "")
    return "\n".join(map(_line, [HEADINGS, _rule(), *map(row, trials), together]))


def promises(trials: Sequence[Trial]) -> str:
    """What must hold in each case, as a list in Markdown."""
    return "\n".join(f"* **{trial.case.name}**: {trial.case.promise}" for trial in trials)


def faults(trials: Sequence[Trial]) -> Iterator[str]:
    """Each violation in full."""
    for trial in trials:
        for number, violation in enumerate(trial.violations, 1):
            yield f"{trial.case.name}, {number} of {len(trial.violations)}: {violation}"


def _rule() -> tuple[str, ...]:
    return tuple("---:" if i in NUMBERS else "---" for i in range(len(HEADINGS)))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
