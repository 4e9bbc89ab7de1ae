"""The numbers of events: what comes next, what was here, and where cupsd lost count."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.cups.messages import event_message
from workers.cups.cupsd.event import Event
from workers.cups.events.sequence import MOST_FILLED, Position, Verdict, holes


def event(sequence: int, text: str = "", **given: Any) -> Event:
    return Event.decode(event_message(sequence, text=text, **given))


def taken(position: Position, run: str, *numbers: int) -> None:
    for number in numbers:
        position.advance(event(number), run)


def test_events_in_order() -> None:
    position = Position(1, 1000)
    for number in (1, 2, 3):
        assert position.judge(event(number), "a") is Verdict.NEXT
        position.advance(event(number), "a")
    assert position.judge(event(3), "a") is Verdict.KNOWN
    assert position.judge(event(6), "a") is Verdict.AHEAD
    assert position.missing(event(6)) == range(4, 6)
    assert position.name("print01", event(3)) == "print01/1000/1/3"


def test_another_subscription_is_foreign() -> None:
    assert Position(1).judge(event(1, subscription=2), "a") is Verdict.FOREIGN


def test_a_notifier_that_is_started_again_goes_on() -> None:
    position = Position(1, 1000)
    taken(position, "a", 1, 2)
    assert position.judge(event(3), "b") is Verdict.NEXT


def test_numbers_that_go_back_begin_an_epoch() -> None:
    position = Position(1, 1000)
    taken(position, "a", *range(1, 14))
    again = event(8, "something else", seconds=2000)
    assert position.judge(again, "b") is Verdict.RENEWED
    position.advance(again, "b")
    assert (position.last, position.epoch) == (8, 2000)
    assert position.judge(event(9), "b") is Verdict.NEXT


def test_what_the_notifier_before_kept_for_long_begins_none() -> None:
    position = Position(1, 1000)
    taken(position, "a", 1, 2)
    taken(position, "b", 4)
    assert position.judge(event(3), "a") is Verdict.KNOWN
    assert position.judge(event(5), "b") is Verdict.NEXT
    assert position.judge(event(3), "c") is Verdict.RENEWED


def test_epochs_are_told_apart_within_one_second() -> None:
    position = Position(1, 2000)
    taken(position, "a", 1, 2, 3)
    position.advance(event(1, seconds=1999), "b")
    assert position.epoch == 2001


def test_what_was_fetched_is_known_when_it_comes_after_all() -> None:
    position = Position(1, 1000)
    taken(position, "a", 1)
    position.fill(event(2, "two"))
    position.fill(event(3, "three"))
    assert position.judge(event(2, "two"), "a") is Verdict.KNOWN
    assert position.judge(event(3, "three"), "b") is Verdict.KNOWN
    assert position.judge(event(3, "another three"), "b") is Verdict.RENEWED
    assert position.judge(event(4), "b") is Verdict.NEXT


def test_what_is_remembered_of_fetched_events_is_bounded() -> None:
    position = Position(1, 1000)
    for number in range(1, MOST_FILLED + 100):
        position.fill(event(number))
    assert len(position.filled) == MOST_FILLED


def test_a_position_outlives_its_bridge() -> None:
    position = Position(7, 1000)
    taken(position, "a", 1, 2)
    position.fill(event(3))
    loaded = Position.load(position.dump(), position.dump_filled())
    assert loaded == position


def test_what_is_no_position_is_none() -> None:
    assert Position.load(None) is None
    assert Position.load("[1, 2]") is None
    assert Position.load("{") is None
    assert Position.load('["a", 1, 2, ""]') is None


@given(st.integers(1, 50), st.integers(0, 50), st.sets(st.integers(1, 120)))
def test_holes_are_what_was_not_found(start: int, many: int, found: set[int]) -> None:
    numbers = range(start, start + many)
    missing = [number for hole in holes(numbers, sorted(found)) for number in hole]
    assert missing == [number for number in numbers if number not in found]
    stretches = holes(numbers, sorted(found))
    assert all(one.stop < other.start for one, other in pairwise(stretches))
