"""Whatever is broken, the promises hold: the short cases of ``python -m tests.faults``."""

from __future__ import annotations

import pytest

import tests.faults.cases  # noqa: F401 - makes all cases known
from tests.faults import trial
from tests.faults.case import CASES, Case, Extent

SHORT = [case for case in CASES.values() if case.is_short]


@pytest.mark.slow
@pytest.mark.parametrize("case", SHORT, ids=[case.name for case in SHORT])
async def test_the_promises_hold(case: Case) -> None:
    tried = await trial.play(case, Extent.SHORT, seed=1)
    assert tried.violations == []
    assert tried.report.runs > 0, "something was broken"
    assert +tried.report.checked, "something was checked"
