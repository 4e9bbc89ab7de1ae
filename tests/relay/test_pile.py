"""Piles: every ticket is told or settled once, and what is told is the newest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import Name
from tests.relay.alerts import alert
from workers.relay.allowance import HOUR, Allowance
from workers.relay.folding import Folding
from workers.relay.pile import Batch, Pile


class Heap:
    """A pile whose tickets are the numbers of the alerts."""

    def __init__(self, most: int = 0, burst: int = 1, patience: float = 0.0) -> None:
        self.settled: list[int] = []
        self.pile: Pile[int] = Pile(
            Allowance(most, burst), Folding(600.0), self.settled.append, patience
        )

    def put(
        self, number: int, condition: str = "media-empty", printer: str = "", **f: object
    ) -> None:
        name = Name("print01", printer or "laser-3")
        self.pile.put(alert(number, condition, name=name, **f), number, float(number))

    def next(self, now: float) -> list[int]:
        """The tickets of what goes out, which is told at once."""
        batch = self.pile.next(now)
        if batch is None:
            return []
        self.pile.told(batch, now)
        return [item.ticket for item in batch.items]


def test_one_by_one_while_it_may() -> None:
    heap = Heap()
    heap.put(1, printer="a")
    heap.put(2, printer="b")
    assert [heap.next(3), heap.next(3), heap.next(3)] == [[1], [2], []]
    assert heap.settled == []


def test_more_than_may_go_out_are_one_digest() -> None:
    heap = Heap(most=10, burst=2)
    for number in range(1, 6):
        heap.put(number, printer=f"p{number}")
    assert heap.next(10) == [1, 2, 3, 4, 5]
    heap.put(11, printer="p9")
    assert heap.next(11) == [11], "one was left"
    heap.put(12, printer="p7")
    heap.put(13, printer="p8")
    assert heap.next(13) == []
    due = heap.pile.next_at(13) or 0.0
    assert due == pytest.approx(10 + HOUR / 9)
    assert heap.next(due) == [12, 13]


def test_the_worst_comes_first() -> None:
    from workers.alert import Severity

    heap = Heap(most=1)
    heap.put(1, printer="a", severity=Severity.WARNING)
    heap.put(2, printer="b", severity=Severity.ERROR)
    assert heap.next(3) == [2, 1]


def test_a_newer_state_takes_the_place_of_one_that_waits() -> None:
    heap = Heap(most=1)
    heap.put(1)
    heap.next(1)
    heap.put(2, "media-jam")
    heap.put(3, "door-open")
    assert heap.settled == [2], "its caller need not wait: the newer one says how it is"
    batch = heap.pile.next(1 + HOUR)
    assert batch is not None
    assert [(item.ticket, item.count) for item in batch.items] == [(3, 2)]


def test_an_older_state_that_comes_late_changes_nothing() -> None:
    heap = Heap(most=1)
    heap.next(0)
    heap.put(5, "door-open")
    heap.pile.put(alert(2, "media-jam"), 2, 6.0)
    assert heap.settled == [2]
    assert heap.next(7) == [5]


def test_a_repeat_is_settled_at_once_and_counted() -> None:
    heap = Heap()
    heap.put(1)
    heap.next(1)
    heap.put(2)
    heap.put(3)
    assert heap.settled == [2, 3]
    heap.put(4, "")
    batch = heap.pile.next(4)
    assert batch is not None
    before = batch.items[0].before
    assert before is not None
    assert before.repeats == 2


def test_what_came_while_the_same_was_on_its_way_is_a_repeat() -> None:
    heap = Heap()
    heap.put(1)
    batch = heap.pile.next(1)
    heap.put(2)
    assert batch is not None
    heap.pile.told(batch, 2)
    assert heap.next(2) == []
    assert heap.settled == [2]
    assert len(heap.pile) == 0


def test_an_all_clear_waits_and_a_trouble_that_comes_back_ends_it() -> None:
    heap = Heap(patience=60.0)
    heap.put(1)
    heap.next(1)
    heap.put(2, "")
    assert heap.next(3) == []
    assert heap.pile.next_at(3) == 62.0
    heap.put(10)
    assert heap.settled == [2, 10], "it is as it was told: neither is told"
    assert heap.next(100) == []
    heap.put(101, "")
    assert heap.next(162) == [101]


def test_what_came_and_went_while_it_waited_is_told() -> None:
    heap = Heap(most=1)
    heap.put(1, printer="other")
    heap.next(1)
    heap.put(2)
    heap.put(3, "")
    batch = heap.pile.next(1 + HOUR)
    assert batch is not None
    (item,) = batch.items
    assert (item.ticket, item.count, item.alert.is_clear) == (3, 2, True)


def test_and_also_where_all_was_well_before() -> None:
    heap = Heap(most=1)
    heap.put(1)
    heap.next(1)
    heap.put(2, "")
    assert heap.next(1 + HOUR) == [2]
    heap.put(4000)
    heap.put(4001, "")
    assert heap.next(1 + 2 * HOUR) == [4001]


def test_a_pause_holds_all_of_it() -> None:
    heap = Heap()
    heap.put(1)
    heap.pile.rest(50.0)
    assert heap.next(49) == []
    assert heap.pile.next_at(2) == 50.0
    assert heap.next(50) == [1]


def test_who_does_not_wait_any_more_is_not_told() -> None:
    heap = Heap()
    heap.put(1, printer="a")
    heap.put(2, printer="b")
    heap.pile.withdraw(1)
    assert heap.next(3) == [2]
    assert heap.pile.next_at(3) is None


def test_a_failure_spends_nothing() -> None:
    heap = Heap(most=1)
    heap.put(1)
    assert isinstance(heap.pile.next(1), Batch)
    heap.put(2)
    assert heap.next(2) == [2], "what was not handed over counts for nothing"


def test_a_trouble_that_comes_again_after_its_end_is_not_told() -> None:
    """It was parked while nobody took messages; its all-clear, of nothing told, is done with."""
    heap = Heap(patience=3.0)
    heap.put(1)
    batch = heap.pile.next(1)
    assert batch is not None
    heap.pile.not_told(batch)
    heap.pile.rest(6.0)
    heap.put(4, "")
    assert heap.settled == [4], "nothing was told"
    heap.pile.put(alert(1), 10, 6.0)
    assert heap.settled == [4, 10]
    assert heap.next(6) == []
    heap.put(7)
    assert heap.next(7) == [7], "what comes later is told"


def test_an_all_clear_that_comes_while_its_trouble_is_on_its_way_follows_it() -> None:
    heap = Heap(patience=3.0)
    heap.put(1)
    batch = heap.pile.next(1)
    heap.put(2, "")
    assert heap.settled == []
    assert batch is not None
    heap.pile.told(batch, 4)
    assert heap.next(5) == [2]


def test_an_all_clear_of_what_was_not_taken_is_not_told() -> None:
    heap = Heap()
    heap.put(1)
    batch = heap.pile.next(1)
    heap.put(2, "")
    assert batch is not None
    heap.pile.not_told(batch)
    heap.pile.put(alert(1), 3, 2.0)
    assert heap.next(4) == []
    assert heap.settled == [3, 2]


def test_an_all_clear_of_what_they_may_have_taken_is_told() -> None:
    heap = Heap()
    heap.put(1)
    batch = heap.pile.next(1)
    assert batch is not None
    heap.pile.not_told(batch, perhaps=True)
    heap.put(2, "")
    heap.pile.put(alert(1), 3, 2.0)
    assert heap.next(3) == [2]
    assert heap.settled == [3]
    heap.put(4, "")
    assert heap.settled == [3, 4], "once"


step = st.tuples(
    st.sampled_from(["a", "b", "c"]), st.sampled_from(["", "x", "y"]), st.floats(0, 400)
)


@given(st.lists(step, max_size=60), st.integers(0, 5))
def test_every_ticket_ends_once_and_the_last_state_is_told(
    steps: list[tuple[str, str, float]], most: int
) -> None:
    """Whatever comes: nothing is left waiting, and people know how each printer is."""
    heap = Heap(most, 1, patience=60.0)
    now, known, told = 0.0, dict.fromkeys("abc", ""), []

    def go(now: float) -> None:
        while (batch := heap.pile.next(now)) is not None:
            heap.pile.told(batch, now)
            for item in batch.items:
                known[item.alert.name.printer] = item.alert.condition
                told.append(item.ticket)

    last = dict.fromkeys("abc", "")
    for number, (printer, condition, wait) in enumerate(steps, 1):
        now += wait
        go(now)
        name = Name("print01", printer)
        heap.pile.put(alert(number, condition, name=name), number, now)
        last[printer] = condition
    while (due := heap.pile.next_at(now)) is not None:
        now = max(now, due)
        go(now)
    assert sorted(told + heap.settled) == list(range(1, len(steps) + 1))
    assert known == last


turn = st.tuples(
    st.sampled_from(["", "x", "y"]),
    st.sampled_from(["taken", "later", "lost"]),
    st.sampled_from(["before", "meanwhile", "after"]),
)


@given(st.lists(turn, min_size=1, max_size=30))
def test_what_is_told_last_is_the_newest_whatever_is_parked(
    turns: list[tuple[str, str, str]],
) -> None:
    """What is not taken comes again, the oldest last; ``lost``: taken, and the answer was not."""
    heap = Heap()
    seen, parked, now = "", [], 0.0

    def hand_over(how: str, meanwhile: tuple[int, str] | None = None) -> None:
        nonlocal seen
        batch = heap.pile.next(now)
        if meanwhile is not None:
            heap.pile.put(alert(*meanwhile), meanwhile[0], now)
        if batch is None:
            return
        (item,) = batch.items
        if how != "later":
            seen = item.alert.condition
        if how == "taken":
            heap.pile.told(batch, now)
        else:
            heap.pile.not_told(batch, perhaps=how == "lost")
            parked.append(item.alert)

    for number, (condition, how, when) in enumerate(turns, 1):
        now += 1.0
        if when == "meanwhile":
            hand_over(how, (number, condition))
            continue
        if when == "before" and parked:
            again = parked.pop(0)
            heap.pile.put(again, 1000 + number, now)
        heap.pile.put(alert(number, condition), number, now)
        hand_over(how)
    while parked or len(heap.pile):
        now += 1.0
        if parked:
            heap.pile.put(parked.pop(), 2000, now)
        hand_over("taken")
    assert seen == turns[-1][0]
