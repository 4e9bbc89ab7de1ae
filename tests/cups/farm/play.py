"""Playing cases, each on a stage of its own."""

from __future__ import annotations

import time
from collections.abc import Callable

from broker.errors import TympanError
from tests.cups.farm.case import Case, Outcome
from tests.cups.farm.deaths import deaths
from tests.cups.farm.dialogs import dialogs
from tests.cups.farm.events import events
from tests.cups.farm.flood import flood
from tests.cups.farm.pace import paces
from tests.cups.farm.stage import staged

CASES = sorted(
    [*events.all, *dialogs.all, *deaths.all, *flood.all, *paces.all],
    key=lambda case: (not case.letter.isalpha(), case.letter),
)
NAMES = ("print01", "print02", "print03")


async def play(case: Case, tell: Callable[[str], None], *, is_short: bool = False) -> Outcome:
    """Play one; a fault of it is in the outcome. ``is_short``: with fewer hosts, and with less."""
    began = time.monotonic()
    try:
        names = NAMES[: case.needs if is_short else case.hosts]
        async with staged(*names, tell=tell, poll=case.poll, saves_after=case.saves_after) as stage:
            stage.tell.head(f"({case.letter}) {case.promise}")
            saw = await case.play(stage)
    except (AssertionError, OSError, TympanError) as fault:
        return Outcome(case, time.monotonic() - began, fault=str(fault) or repr(fault))
    return Outcome(case, time.monotonic() - began, saw)
