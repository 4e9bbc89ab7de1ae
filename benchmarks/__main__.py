"""``python -m benchmarks``: runs the rows, and prints one table."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import page, table
from benchmarks.contest import Line, Row, Terms
from benchmarks.rows import ROWS
from benchmarks.scaling import charts
from benchmarks.stage import Stage
from benchmarks.versions import machine, peers

log = logging.getLogger("benchmarks")


async def run(rows: Sequence[Row], terms: Terms) -> tuple[list[Line], bool]:
    """Run these rows, one after another, each on a stage of its own; and whether all could be."""
    whole = asyncio.current_task()
    assert whole is not None
    # So that the servers and processes of the row are ended, as they are by Ctrl-C.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, whole.cancel)
    lines: list[Line] = []
    could = True
    for row in rows:
        began = time.monotonic()
        try:
            async with Stage() as stage:
                await stage.prepare(row.needs)
                lines += await row.run(stage, terms)
        except Exception as error:
            log.exception("the row %s failed", row.name)
            lines.append(Line.failed(row.name, error))
            could = False
        print(f"{row.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return lines, could


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Status 0 when all rows were run, whatever they came to; else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("row", nargs="*", help=f"one of {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--quick", action="store_true", help="the first rows only, in two minutes")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each contest (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines there too")
    parser.add_argument(
        "--page", action="store_true", help="write table and pictures into docs/performance.md too"
    )
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.row) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    rows = [row for row in ROWS if (row.name in chosen.row if chosen.row else True)]
    if chosen.quick and not chosen.row:
        rows = [row for row in rows if row.quick]
    try:
        lines, could = asyncio.run(run(rows, Terms(chosen.rounds, chosen.quick)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise SystemExit("stopped: no table, as not all rows were run") from None
    about = machine()
    print(" · ".join(f"{what} {value}" for what, value in about.items()))
    print(table.text(lines))
    asked = [line for line in lines if line.verdict]
    print(f"{sum(line.is_met for line in asked)} of {len(asked)} goals met")
    if chosen.json:
        records = [table.record(line) for line in lines]
        chosen.json.write_text(
            json.dumps({"machine": about, "peers": peers(), "lines": records}, indent=1) + "\n"
        )
    if chosen.page:
        pictures = asyncio.run(charts(Terms(min(chosen.rounds, 3))))
        page.write(page.PAGE, lines, about, peers(), pictures)
    if not could:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
