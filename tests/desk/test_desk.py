"""The desk: one line for each printer in trouble, and questions that stay where they are."""

from __future__ import annotations

import pytest

from broker import Name
from tests.desk.asking import NOW, OTHER, asked
from tests.relay.alerts import PRINTER, START, alert
from workers.alert import Severity
from workers.desk import desk as desks
from workers.desk.desk import LINGERS, NEWS_FOR, Change, Desk, State

AT = START.timestamp()


@pytest.fixture
def desk() -> Desk:
    return Desk()


# Alerts ------------------------------------------------------------------------------------------


def test_one_line_for_each_printer(desk: Desk) -> None:
    assert desk.hear(alert(1, holds=True), AT + 1) is Change.NEW
    assert desk.hear(alert(2, holds=True), AT + 2) is Change.REPEATED
    desk.hear(alert(3, "door-open", subject="other", severity=Severity.WARNING), AT + 3)
    desk.hear(alert(4, name=OTHER), AT + 4)
    one, other = sorted(desk.places, key=lambda place: place.name)
    assert (one.name, other.name) == (PRINTER, OTHER)
    assert (one.what, one.times, one.severity) == ("media empty · door open", 3, Severity.ERROR)
    assert (one.since, one.last) == (AT + 1, 3.0)


def test_what_is_cleared_goes(desk: Desk) -> None:
    desk.hear(alert(1, holds=True), AT)
    assert desk.hear(alert(2, "media-jam", holds=True), AT) is Change.CHANGED
    assert desk.places[0].what == "media jam"
    assert desk.hear(alert(3, "", holds=True), AT) is Change.CLEARED
    assert desk.places == []
    assert desk.hear(alert(4, "", holds=True), AT) is Change.NONE


def test_what_is_told_twice_or_late_changes_nothing(desk: Desk) -> None:
    desk.hear(alert(1), AT)
    assert desk.hear(alert(1, order=9.0), AT) is Change.NONE, "the same event, marked as repeated"
    desk.hear(alert(5, ""), AT)
    assert desk.hear(alert(3), AT) is Change.NONE, "older than what was heard"
    assert desk.places == []


def test_the_worst_and_newest_come_first(desk: Desk) -> None:
    names = [Name("print01", f"p{n}") for n in range(3)]
    desk.hear(alert(1, name=names[0], severity=Severity.WARNING), AT)
    desk.hear(alert(2, name=names[1]), AT)
    desk.hear(alert(3, name=names[2]), AT)
    assert [place.name for place in desk.places] == [names[2], names[1], names[0]]


def test_news_fades_and_what_holds_does_not(desk: Desk) -> None:
    desk.hear(alert(0, holds=True), AT)
    desk.hear(alert(0, name=OTHER, id="news"), AT)
    desk.tidy(AT + NEWS_FOR - 1)
    assert len(desk.places) == 2
    desk.tidy(AT + NEWS_FOR)
    assert [place.name for place in desk.places] == [PRINTER]


def test_news_is_put_away_by_hand(desk: Desk) -> None:
    desk.hear(alert(0, holds=True), AT)
    desk.hear(alert(0, name=OTHER, id="news"), AT)
    assert desk.dismiss_news() == 1
    assert [place.name for place in desk.places] == [PRINTER]


def test_a_printer_that_is_deleted_takes_its_troubles_along(desk: Desk) -> None:
    desk.hear(alert(1, holds=True), AT)
    desk.hear(alert(2, "door-open", subject="other", holds=True), AT)
    assert not desk.forget(OTHER)
    assert desk.forget(PRINTER)
    assert desk.places == []


def test_it_forgets_the_longest_untouched(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "MOST", 3)
    for number in range(5):
        desk.hear(alert(number, name=Name("print01", f"p{number}")), AT)
    assert sorted(place.name.printer for place in desk.places) == ["p2", "p3", "p4"]


# Questions ---------------------------------------------------------------------------------------


def test_what_is_due_first_comes_first(desk: Desk) -> None:
    desk.ask("a", asked("late"))
    desk.ask("b", asked("soon", until=NOW + 60))
    desk.ask("c", asked("never", until=None))
    assert [entry.asked.text for entry in desk.questions] == ["soon", "late", "never"]
    assert desk.open == 3


def test_a_question_keeps_its_number_and_the_lowest_free_one_is_given(desk: Desk) -> None:
    for id_ in "abc":
        desk.ask(id_, asked())
    assert [desk.ask(id_, asked()).number for id_ in "cb"] == [3, 2], "asked again: the same"
    desk.pick(2)
    desk.over("b", "done", NOW)
    desk.pick(1)
    assert desk.ask("d", asked()).number == 2


def test_the_chosen_one_stays_chosen_when_it_is_over(desk: Desk) -> None:
    desk.ask("a", asked("a"))
    desk.ask("b", asked("b"))
    assert desk.chosen == "a", "the first one is chosen"
    desk.over("a", "bob was first: cancel", NOW)
    desk.tidy(NOW + 10 * LINGERS)
    assert desk.entry is not None
    assert (desk.entry.id, desk.entry.state) == ("a", State.OVER)
    desk.move(1)
    assert desk.chosen == "b"
    assert [entry.id for entry in desk.questions] == ["b"], "who leaves it puts it away"


def test_one_that_is_over_lingers_for_a_moment(desk: Desk) -> None:
    desk.ask("a", asked())
    desk.ask("b", asked())
    desk.over("b", "timed out: hold", NOW)
    desk.tidy(NOW + LINGERS - 1)
    assert len(desk.questions) == 2
    assert desk.open == 1
    desk.tidy(NOW + LINGERS)
    assert [entry.id for entry in desk.questions] == ["a"]


def test_moving_stops_at_the_ends(desk: Desk) -> None:
    desk.move(1)
    assert desk.chosen is None
    for id_ in "abc":
        desk.ask(id_, asked())
    for by, there in ((-1, "a"), (1, "b"), (100, "c"), (1, "c"), (-100, "a")):
        desk.move(by)
        assert desk.chosen == there
    assert not desk.pick(7)


def test_our_answer(desk: Desk) -> None:
    entry = desk.ask("a", asked())
    desk.answering("a", "continue")
    assert (entry.state, entry.words) == (State.ANSWERING, "answering continue …")
    desk.answered("a", "continue")
    assert (entry.state, entry.words) == (State.OURS, "you were first: continue")
    desk.ask_on("a", asked("There is no such choice"))
    assert (entry.state, entry.asked.text) == (State.OPEN, "There is no such choice")
    assert entry.is_ours


def test_an_answer_that_was_lost_is_over_whatever_comes_later(desk: Desk) -> None:
    entry = desk.ask("a", asked())
    desk.answering("a", "continue")
    desk.over("a", "bob was first", NOW)
    desk.answered("a", "continue")
    desk.reopen("a")
    assert (entry.state, entry.words) == (State.OVER, "bob was first")


def test_what_came_of_it_is_told_once_and_as_well_as_it_is_known(desk: Desk) -> None:
    desk.ask("a", asked("Continue?"))
    assert desk.over("a", "bob was first", NOW)
    assert not desk.over("a", "bob was first: cancel", NOW + 1)
    assert not desk.over("a", "over", NOW + 2)
    (answered,) = desk.lately
    assert (answered.at, answered.words, answered.text) == (
        NOW,
        "bob was first: cancel",
        "Continue?",
    )
    assert not desk.over("nobody", "over", NOW)


def test_a_question_that_is_asked_anew_takes_the_place_of_the_former(desk: Desk) -> None:
    """Its bridge was started anew: the channel is another, the question is not."""
    desk.ask("x", asked(key="other"))
    first = desk.ask("a", asked(key="job-1"))
    desk.pick(first.number)
    again = desk.ask("b", asked(key="job-1", again=True))
    assert again.number == first.number
    assert desk.chosen == "b"
    assert not desk.over("a", "over: whoever asked is gone", NOW), "nobody is told of the former"
    assert [entry.id for entry in desk.questions] == ["b", "x"]


def test_two_questions_about_one_job_are_two(desk: Desk) -> None:
    desk.ask("a", asked(key="job-1"))
    desk.ask("b", asked(key="job-1"))
    assert len(desk.questions) == 2
