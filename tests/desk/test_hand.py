"""The hand: no key answers a question that it was not meant for."""

from __future__ import annotations

import pytest

from tests.desk.asking import NOW, asked
from workers.desk.desk import LINGERS, Desk
from workers.desk.hand import MOST_TYPED, Answer, Hand, Mode, Quit
from workers.desk.question import Choice

BUTTONS = (Choice("", "OK", "1"), Choice("", "Cancel", "2"))


@pytest.fixture
def desk() -> Desk:
    """Three questions of CUPS hosts; the first one is chosen."""
    made = Desk()
    for id_ in "abc":
        made.ask(id_, asked(id_))
    return made


@pytest.fixture
def hand(desk: Desk) -> Hand:
    return Hand(desk)


def press(hand: Hand, *keys: str) -> Answer | Quit | None:
    """The last key's answer."""
    found = None
    for key in keys:
        found = hand.press(key)
    return found


@pytest.mark.parametrize(("key", "label"), [("c", "continue"), ("x", "cancel"), ("h", "hold")])
def test_a_key_answers_what_is_chosen(hand: Hand, key: str, label: str) -> None:
    assert press(hand, "down", key) == Answer("b", label, label, "")


def test_in_the_list_a_number_chooses_and_in_one_question_it_answers(hand: Hand) -> None:
    assert press(hand, "3") is None
    assert press(hand, "enter") is None
    assert hand.mode is Mode.ONE
    assert press(hand, "2") == Answer("c", "cancel", "cancel", "")
    assert press(hand, "escape", "2", "c") == Answer("b", "continue", "continue", "")


def test_a_number_that_nothing_has(hand: Hand) -> None:
    assert press(hand, "9") is None
    assert hand.remark == "there is no question 9, and none is chosen now"
    assert press(hand, "1", "enter", "9") is None
    assert hand.remark == "'9' is no choice here"


def test_after_a_number_that_nothing_has_no_key_answers(desk: Desk, hand: Hand) -> None:
    assert press(hand, "9", "x") is None
    assert hand.remark == "no question is chosen"
    desk.tidy(NOW)
    desk.ask("d", asked("d"))
    assert press(hand, "x") is None, "nor the next one that comes"
    assert press(hand, "down", "x") == Answer("a", "cancel", "cancel", "")
    assert press(hand, "9", "up", "x") == Answer("d", "cancel", "cancel", "")


def test_where_all_went_the_next_question_is_chosen_again(desk: Desk, hand: Hand) -> None:
    press(hand, "9")
    for id_ in "abc":
        desk.over(id_, "bob was first: cancel", NOW)
    desk.tidy(NOW + LINGERS)
    desk.ask("d", asked("d"))
    assert press(hand, "c") == Answer("d", "continue", "continue", "")


def test_what_is_over_is_not_answered_and_neither_is_another(desk: Desk, hand: Hand) -> None:
    desk.over("a", "bob was first: cancel", NOW)
    assert press(hand, "c") is None
    assert hand.remark == "bob was first: cancel"


def test_an_answer_is_given_once(desk: Desk, hand: Hand) -> None:
    assert press(hand, "c") is not None
    desk.answering("a", "continue")
    assert press(hand, "c") is None
    assert hand.remark == "answering continue …"


def test_a_note_goes_with_the_answer(hand: Hand) -> None:
    assert press(hand, "n", *"wayt", "backspace", "backspace", *"it q", "enter") is None
    assert hand.note == "wait q"
    assert press(hand, "down", "c") == Answer("b", "continue", "continue", ""), "it is for one"
    assert press(hand, "up", "h") == Answer("a", "hold", "hold", "wait q")


def test_a_note_that_is_left(hand: Hand) -> None:
    press(hand, "n", *"no", "escape")
    assert (hand.mode, hand.note) == (Mode.LIST, "")
    press(hand, "n", *"yes", "enter", "n", "clear", "enter")
    assert hand.note == ""


def test_what_is_typed_is_bounded(hand: Hand) -> None:
    press(hand, "n", *["x"] * (MOST_TYPED + 5))
    assert len(hand.typed) == MOST_TYPED
    press(hand, "up", "page-down", "enter")
    assert hand.note == "x" * MOST_TYPED


def test_buttons_of_a_message_box() -> None:
    desk = Desk()
    desk.ask("a", asked(choices=BUTTONS, takes_note=False))
    hand = Hand(desk)
    assert press(hand, "c") is None, "keys of CUPS questions are none here"
    assert press(hand, "n") is None
    assert hand.remark == "'n' is no choice here"
    assert press(hand, "enter", "2") == Answer("a", "Cancel", "2", "")


def test_a_text() -> None:
    desk = Desk()
    desk.ask("a", asked(choices=(), takes_note=False))
    hand = Hand(desk)
    assert press(hand, "a", *"A3, please ", "enter") == Answer("a", "A3, please", "A3, please", "")
    assert press(hand, "a", " ", "enter") is None
    assert hand.remark == "nothing was typed, and nothing answered"


def test_a_text_for_a_question_that_is_over_meanwhile() -> None:
    desk = Desk()
    desk.ask("a", asked(choices=()))
    hand = Hand(desk)
    press(hand, "a", *"A3")
    desk.over("a", "bob was first: A4", NOW)
    assert press(hand, "enter") is None
    assert hand.remark == "bob was first: A4"


@pytest.mark.parametrize("key", ["q", "Q", ""])
def test_the_end(hand: Hand, key: str) -> None:
    assert press(hand, key) == Quit()


def test_a_q_that_is_typed_is_no_end(hand: Hand) -> None:
    assert press(hand, "n", "q") is None
    assert press(hand, "") == Quit(), "a terminal that is gone is"


def test_an_empty_desk() -> None:
    hand = Hand(Desk())
    for key in ("c", "enter", "n", "up", "d", "1", "escape"):
        assert press(hand, key) is None
