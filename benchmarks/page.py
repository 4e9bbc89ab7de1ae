"""The page: what a run came to, written into ``docs/performance.md`` between two marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import table
from benchmarks.chart import Chart
from benchmarks.contest import Line
from benchmarks.party import CHECKOUT

PAGE = CHECKOUT / "docs" / "performance.md"
BEGIN = "<!-- results: written by python -m benchmarks --page -->"
END = "<!-- end of results -->"
PICTURES = "performance"
"""Folder beside the page."""


def write(
    page: Path,
    lines: Sequence[Line],
    about: Mapping[str, str],
    peers: Sequence[str],
    charts: Sequence[Chart],
) -> None:
    """Replace the results, and the pictures beside the page.

    Raises ValueError where the page has no place for them.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for results: it needs {BEGIN} and {END}")
    pictures = page.parent / PICTURES
    pictures.mkdir(exist_ok=True)
    for chart in charts:
        (pictures / f"{chart.name}.svg").write_text(chart.svg(), encoding="utf-8")
    shown = [f"![{chart.title}]({PICTURES}/{chart.name}.svg)" for chart in charts]
    sections = [
        ", ".join(f"{what} {value}" for what, value in about.items()) + ".",
        "Peers: " + ", ".join(peers) + "." if peers else "No peers were at hand.",
        table.markdown(lines),
        *shown,
    ]
    text = "\n\n".join([before + begin, *sections, end + after])
    page.write_text(text, encoding="utf-8")
