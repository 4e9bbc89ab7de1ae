"""``python -m tests.faults``: plays the cases, and prints one table.

Each case has servers, proxies and processes of its own, and is bounded in time. The exit status is
1 where a promise was broken, or a case failed, hung, or showed nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import Sequence

import tests.faults.cases  # noqa: F401 - makes all cases known
from tests.faults import page, table, trial
from tests.faults.case import CASES, Case, Extent
from tests.faults.trial import Trial

JOBS = 2
"""Most of what a case does is to wait."""


async def play(cases: Sequence[Case], extent: Extent, seed: int, jobs: int) -> list[Trial]:
    """Play them, so many at a time, and say so meanwhile; the trials in the order of the cases.

    Those that are to be alone come first.
    """
    whole = asyncio.current_task()
    assert whole is not None
    # So that what a case started is ended, as it is by Ctrl-C.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, whole.cancel)
    room = asyncio.Semaphore(jobs)

    async def one(number: int, case: Case) -> Trial:
        async with room:
            what = f"{number}/{len(cases)} {case.name}"
            print(f"{what} ...", file=sys.stderr, flush=True)
            tried = await trial.play(case, extent, seed)
            verdict = f"{len(tried.violations)} violations" if tried.violations else "holds"
            lines = [f"{what}: {tried.seconds:.0f} s, {verdict}", *tried.violations]
            print(*lines, sep="\n    ", file=sys.stderr, flush=True)
            return tried

    numbered = list(enumerate(cases, 1))
    trials = {number: await one(number, case) for number, case in numbered if case.is_alone}
    async with asyncio.TaskGroup() as group:
        playing = {
            number: group.create_task(one(number, case))
            for number, case in numbered
            if not case.is_alone
        }
    trials |= {number: task.result() for number, task in playing.items()}
    return [trials[number] for number, _ in numbered]


def chosen(only: Sequence[str], extent: Extent) -> list[Case]:
    """The cases that are asked for by a part of their names; all without any."""
    known = [case for case in CASES.values() if extent is not Extent.SHORT or case.is_short]
    if not only:
        return known
    return [case for case in known if any(part.lower() in case.name.lower() for part in only)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--short", action="store_true", help="what the test run plays, 2 minutes")
    much.add_argument("--long", action="store_true", help="ten to a hundred times the runs")
    parser.add_argument("--list", action="store_true", help="list the cases, and end")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="in a case's name")
    parser.add_argument("--page", action="store_true", help="write it into docs/reliability.md too")
    parser.add_argument(
        "--jobs", type=int, default=JOBS, metavar="N", help=f"cases at a time; default {JOBS}"
    )
    parser.add_argument("--seed", type=int, default=None, metavar="N")
    given = parser.parse_args(arguments)
    if given.page and given.short:
        parser.error("--page shows what the cases came to as often as they count: not --short")
    if given.jobs < 1:
        parser.error("--jobs must be at least 1")
    extent = Extent.SHORT if given.short else Extent.LONG if given.long else Extent.USUAL
    cases = chosen(given.only, extent)
    if not cases:
        parser.error(f"no case has {' or '.join(given.only)} in its name: see --list")
    if given.list:
        for each in cases:
            print(f"{each.name}{' (short, too)' if each.is_short else ''}\n    {each.promise}")
        return 0
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    try:
        trials = asyncio.run(play(cases, extent, seed, given.jobs))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("stopped: no table, as not all cases were played", file=sys.stderr)
        return 1
    print(table.text(trials))
    found = list(table.faults(trials))
    for fault in found:
        print(f"\n{fault}")
    runs = sum(each.report.runs for each in trials)
    print(f"\nseed {seed}: {len(trials)} cases, {runs:,} runs, {len(found)} violations")
    if given.page:
        write = page.write_again if given.only else page.write
        write(page.PAGE, trials, extent, seed)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
