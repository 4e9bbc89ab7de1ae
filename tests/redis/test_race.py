"""Of many listeners that answer at once exactly one owns the dialog (R76, R77, R82, R85, R89).

The race of ``python -m tests.race``, shorter: several processes, a real Redis, 64 responders in
each dialog; once on good connections, once with a tenth of the replies lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests import race
from tests.race import Race, Seen
from tests.racers import Dialog
from tests.servers import RedisServer

RESPONDERS = 3


@pytest.mark.parametrize("drop", [0.0, 0.1], ids=["good connections", "lost replies"])
def test_of_64_responders_one_wins_and_all_are_told(drop: float) -> None:
    with RedisServer() as server:
        outcome = asyncio.run(race.run(Race(100, 64, 4, drop, seed=1), server.url))
    assert outcome.violations == []
    assert (outcome.lost > 0) == (drop > 0), "replies are lost in the one form, not in the other"


def good() -> Seen:
    """A dialog as it must be."""
    return Seen(
        Dialog(winners=["u1"], told=["u1", "u1"], closed=["answered 7"], responses=["u1"]),
        owner="u1",
        state="closed",
        drops=RESPONDERS + 1,
        handles_dropped=RESPONDERS + 1,
        responses_logged=1,
    )


def test_the_judge_finds_no_fault_with_a_dialog_as_it_must_be() -> None:
    assert list(race.faults(good(), RESPONDERS)) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda seen: seen.processes.winners.append("u2"),
        lambda seen: seen.processes.winners.clear(),
        lambda seen: seen.processes.told.pop(),
        lambda seen: seen.processes.told.append("u2"),
        lambda seen: seen.processes.closed.clear(),
        lambda seen: seen.processes.closed.append("answered 7"),
        lambda seen: seen.processes.responses.append("u1"),
        lambda seen: seen.processes.responses.clear(),
        lambda seen: seen.processes.faults.append("u2: never told"),
        lambda seen: setattr(seen, "owner", "u2"),
        lambda seen: setattr(seen, "state", "answered"),
        lambda seen: setattr(seen, "drops", RESPONDERS),
        lambda seen: setattr(seen, "drops", RESPONDERS + 2),
        lambda seen: setattr(seen, "handles_dropped", RESPONDERS),
        lambda seen: setattr(seen, "responses_logged", 2),
    ],
)
def test_the_judge_finds_fault_with_anything_else(spoil: Callable[[Seen], None]) -> None:
    """The control: a race that nobody could lose would prove nothing."""
    seen = good()
    spoil(seen)
    assert list(race.faults(seen, RESPONDERS))


def test_a_dialog_that_is_missing_is_a_violation() -> None:
    outcome = race.Outcome(Race(2, RESPONDERS, 1, 0.0, seed=1), {"c": good()}, 1.0, 0)
    assert outcome.violations == ["1 dialogs instead of 2"]
