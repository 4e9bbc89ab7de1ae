"""``python -m tests.cups.farm``: a print farm of real parts is played on, and judged.

Three real cupsds as three print hosts, without root's privileges; simulated printers, and one that
speaks IPP; a real Redis; a bridge for each host; listeners. What happens is told as it happens, and
then what each case came to, and how fast events are. Exit status 1 where a case does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.columns import aligned
from tests.cups.account import CupsMissing
from tests.cups.farm.case import Outcome
from tests.cups.farm.pace import HEADINGS, rows
from tests.cups.farm.play import CASES, play
from workers.embedded import EmbeddedRedisError

FAILED = 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.cups.farm", description=__doc__)
    parser.add_argument("--only", metavar="LETTERS", default="", help="play these cases only")
    parser.add_argument("--quiet", action="store_true", help="no transcript")
    parser.add_argument("--list", action="store_true", help="list the cases, and play none")
    return parser.parse_args()


async def _play(only: str, is_quiet: bool) -> list[Outcome]:
    outcomes = []
    for case in CASES:
        if only and case.letter not in only:
            continue
        outcome = await play(case, (lambda _: None) if is_quiet else _tell)
        outcomes.append(outcome)
        if outcome.fault:
            _tell(f"DOES NOT HOLD: {outcome.fault}")
    return outcomes


def _tell(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Play; the exit status."""
    words = _arguments()
    if words.list:
        for case in CASES:
            print(f"({case.letter}) {case.promise}")
        return 0
    try:
        outcomes = asyncio.run(_play(words.only, words.quiet))
    except (CupsMissing, EmbeddedRedisError) as error:
        print(error, file=sys.stderr)
        return FAILED
    print()
    table = [("CASE", "PROMISE", "HOLDS", "SECONDS", "SEEN")]
    for one in outcomes:
        said = one.saw or one.fault.splitlines()[0]
        holds = "yes" if one.holds else "NO"
        table.append((one.case.letter, one.case.promise, holds, f"{one.seconds:.1f}", said))
    print(aligned(table, {3}))
    if rows:
        print()
        print(aligned([tuple(word.upper() for word in HEADINGS), *rows], {1, 2, 3, 4}))
    broken = [one for one in outcomes if not one.holds]
    print()
    print(f"{len(outcomes)} cases, {len(broken) or 'none'} broken.")
    return FAILED if broken or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
