"""Allowances: in no hour do more messages go out than were allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.relay.allowance import HOUR, Allowance


def test_a_burst_then_one_by_one() -> None:
    allowance = Allowance(most=5, burst=2)
    for _ in range(2):
        assert allowance.next_at(100.0) == 100.0
        allowance.spend(100.0)
    assert allowance.count(100.0) == 0
    every = HOUR / 4
    assert allowance.next_at(100.0) == pytest.approx(100.0 + every)
    assert allowance.count(100.0 + every - 1) == 0
    assert allowance.count(100.0 + every) == 1


def test_it_never_holds_more_than_a_burst() -> None:
    allowance = Allowance(most=60, burst=3)
    allowance.spend(0.0)
    assert allowance.count(10 * HOUR) == 3


def test_one_an_hour() -> None:
    allowance = Allowance(most=1)
    allowance.spend(0.0)
    assert allowance.next_at(0.0) == pytest.approx(HOUR)
    assert allowance.count(HOUR - 1) == 0
    assert allowance.count(HOUR) == 1


def test_no_limit() -> None:
    allowance = Allowance(most=0)
    allowance.spend(0.0)
    assert allowance.count(0.0) is None
    assert allowance.next_at(7.0) == 7.0


def test_a_clock_that_stands_gives_nothing() -> None:
    allowance = Allowance(most=2, burst=1)
    allowance.spend(50.0)
    assert allowance.count(40.0) == 0, "an earlier time takes nothing back and gives nothing"


@pytest.mark.parametrize(("most", "burst"), [(5, 6), (5, 0), (-1, 1)])
def test_nonsense_is_refused(most: int, burst: int) -> None:
    with pytest.raises(ValueError, match="at once"):
        Allowance(most, burst)


@given(
    most=st.integers(1, 40),
    share=st.floats(0.01, 1),
    waits=st.lists(st.floats(0, 2000), min_size=1, max_size=200),
)
def test_in_no_hour_are_more_than_allowed(most: int, share: float, waits: list[float]) -> None:
    """Whoever sends as soon as it may, after pauses of any length, never sends too many."""
    allowance = Allowance(most, max(1, int(most * share)))
    now, sent = 0.0, []
    for wait in waits:
        now = max(now + wait, allowance.next_at(now + wait))
        assert allowance.count(now), "when it said that one may go out, one may"
        allowance.spend(now)
        sent.append(now)
    for i, first in enumerate(sent):
        within = [at for at in sent[i:] if at < first + HOUR - 1]  # a second for the rounding
        assert len(within) <= most
