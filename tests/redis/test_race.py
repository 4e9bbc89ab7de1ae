"""What a race has to come to; it is run in ``test_faults.py``.

That the judge notices what is wrong is shown in ``tests/unit/test_invariants.py``.
"""

from __future__ import annotations

from tests.race import Outcome, Race
from workers.proof.history import Dialog, History, Known


def outcome_of(history: History) -> Outcome:
    return Outcome(Race(1, 0, 1, 0.0, seed=1), history, 1.0, 0)


def test_a_dialog_that_is_missing_or_was_not_closed_is_a_violation() -> None:
    assert outcome_of(History()).violations == ["0 dialogs instead of 1"]
    for known in (None, Known("answered", drops=1, dropped={"source"})):
        (found,) = outcome_of(History({"c": Dialog(end="closed", known=known)})).violations
        assert found == f"dialog c: Redis says that it is {known}"
