"""The short cases of ``make farm``: a print farm of real parts is played on, and judged."""

from __future__ import annotations

import pytest

from tests.cups.farm.case import Case
from tests.cups.farm.play import CASES, play


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c.is_short], ids=lambda case: case.letter)
async def test_it_holds(case: Case) -> None:
    outcome = await play(case, print, is_short=True)
    assert outcome.holds, outcome.fault
