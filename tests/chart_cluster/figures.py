"""The figures of sources: what each sent and asked, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.columns import aligned

COUNTED = (
    "sent", "handled", "twice", "lost", "redelivered",
    "questions", "answered", "answered twice", "unanswered", "dialogs",
)  # fmt: skip
SLOWEST = "slowest s"
Report = Mapping[str, Any]


def faults(report: Report, *, once: bool) -> list[str]:
    """What is not as it must be; ``once``: nothing may be handled twice, marked or not."""
    found = list(report["faults"])
    if not report["sent"] or not report["answered"]:
        found.append("nothing was sent, or nothing answered")
    twice = "twice" if once else "unmarked"
    never = {
        "lost": "notifications were lost",
        "unanswered": "questions were not answered",
        twice: "notifications were handled twice" + ("" if once else ", and not marked"),
        **({"answered twice": "questions were answered twice"} if once else {}),
    }
    return found + [f"{report[name]} {words}" for name, words in never.items() if report[name]]


def line(report: Report) -> str:
    """The figures that matter most."""
    return (
        f"{report['sent']:,} sent, {report['handled']:,} handled, {report['twice']:,} twice, "
        f"{report['lost']:,} lost; {report['questions']:,} asked, {report['answered']:,} answered"
    )


def table(reports: Mapping[str, Report]) -> str:
    """A row for each source, and their sum."""
    rows = [["", *COUNTED, SLOWEST]]
    for name, report in reports.items():
        slowest = f"{report['slowest']:.1f}"
        rows.append([name, *(f"{report[each]:,}" for each in COUNTED), slowest])
    sums = [f"{sum(report[each] for report in reports.values()):,}" for each in COUNTED]
    rows.append(["in all", *sums, f"{max(r['slowest'] for r in reports.values()):.1f}"])
    return aligned(rows, range(1, len(rows[0])))
