"""What is printed: one line for each goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.contest import Line

HEADINGS = ("row", "Tympan", "against", "figure", "ratio", "rounds", "goal", "")
_LEFT = frozenset({0, 2, 6, 7})


def cells(line: Line) -> tuple[str, ...]:
    """One line's cells, under the headings."""
    spread = "" if line.low is None or line.high is None else f"{line.low:.2f}-{line.high:.2f}"
    return (
        line.what,
        quantity(line.tympan, line.unit),
        line.against,
        quantity(line.other, line.unit),
        "" if line.ratio is None else f"{line.ratio:.2f}",
        spread,
        str(line.goal or ""),
        f"{line.verdict} {line.note}".strip(),
    )


def quantity(value: float | None, unit: str) -> str:
    """A figure with its unit; a dash where there is none."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        number = f"{value:,.0f}"
    elif abs(value) >= 10:
        number = f"{value:.1f}"
    else:
        number = f"{value:.2f}"
    return f"{number} {unit}".rstrip() if unit != "/s" else f"{number}/s"


def text(lines: Sequence[Line]) -> str:
    """The table, aligned."""
    rows = [HEADINGS, *(cells(line) for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in _LEFT else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(lines: Sequence[Line]) -> str:
    """The table, for a page."""
    rows = [HEADINGS, tuple(":--" if i in _LEFT else "--:" for i in range(len(HEADINGS)))]
    rows += [cells(line) for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def record(line: Line) -> dict[str, object]:
    """One line for ``--json``."""
    return asdict(line) | {"goal": str(line.goal or ""), "verdict": line.verdict}
