"""Folding: repeats are counted and not told, and what is told last is what holds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.relay.alerts import START, alert
from workers.relay import folding
from workers.relay.folding import Folding, Judgement

WINDOW = 600.0


@pytest.fixture
def memory() -> Folding:
    """Nothing was told yet."""
    return Folding(WINDOW)


def test_what_is_new_is_told(memory: Folding) -> None:
    assert memory.judge(alert(1), 0.0) is Judgement.TELL


def test_the_same_reasons_again_are_a_repeat(memory: Folding) -> None:
    memory.told(alert(1), 0.0)
    for number, now in ((2, 1.0), (3, WINDOW - 1)):
        again = alert(number)
        assert memory.judge(again, now) is Judgement.REPEAT
        memory.repeated(again)
    before = memory.before(alert(4))
    assert before is not None
    assert before.repeats == 2


def test_after_the_window_it_is_told_again_with_its_beginning(memory: Folding) -> None:
    memory.told(alert(1), 0.0)
    later = alert(2)
    assert memory.judge(later, WINDOW) is Judgement.TELL
    memory.told(later, WINDOW)
    before = memory.before(later)
    assert before is not None
    assert before.since == START + timedelta(seconds=1), "the trouble began when it was first told"
    assert before.repeats == 0


def test_other_reasons_are_told_at_once(memory: Folding) -> None:
    memory.told(alert(1), 0.0)
    assert memory.judge(alert(2, "media-jam"), 1.0) is Judgement.TELL


def test_one_all_clear_for_each_trouble(memory: Folding) -> None:
    memory.told(alert(1), 0.0)
    clear = alert(2, "")
    assert memory.judge(clear, 1.0) is Judgement.TELL
    memory.told(clear, 1.0)
    assert memory.judge(alert(3, ""), 2.0) is Judgement.NOTHING
    assert memory.judge(alert(4), 3.0) is Judgement.TELL, "the same trouble after it is a new one"


def test_well_and_never_otherwise_is_nothing(memory: Folding) -> None:
    assert memory.judge(alert(1, ""), 0.0) is Judgement.NOTHING


def test_an_all_clear_of_what_another_process_told(memory: Folding) -> None:
    """A relay that was started anew remembers nothing, and still says that it is over."""
    assert memory.judge(alert(1, "", was_troubled=True), 0.0) is Judgement.TELL


def test_an_event_that_comes_again_is_nothing(memory: Folding) -> None:
    memory.told(alert(1), 0.0)
    assert memory.judge(alert(1), WINDOW + 1) is Judgement.NOTHING


def test_what_is_older_than_what_was_told_is_nothing(memory: Folding) -> None:
    """It failed before and comes back late: by now all is clear."""
    memory.told(alert(5, ""), 0.0)
    assert memory.judge(alert(2), 1.0) is Judgement.NOTHING


def test_printers_are_told_apart(memory: Folding) -> None:
    memory.told(alert(1), 0.0)
    assert memory.judge(alert(2, subject="cups-printer other"), 1.0) is Judgement.TELL


def test_it_forgets_the_longest_untouched(memory: Folding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "MOST", 3)
    for number in range(1, 6):
        memory.told(alert(number, subject=str(number)), 0.0)
    assert memory.before(alert(1, subject="2")) is None
    assert memory.before(alert(1, subject="3")) is not None
