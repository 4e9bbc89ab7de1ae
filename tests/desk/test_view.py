"""The screen of a desk: it fits, and the chosen question is always on it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from broker import Name
from tests.desk.asking import NOW, asked
from tests.relay.alerts import alert
from workers.alert import Severity
from workers.cli.desk_view import Surroundings, desk_lines
from workers.cli.view import Tone
from workers.desk.desk import Desk
from workers.desk.hand import Hand
from workers.desk.question import Choice

AROUND = Surroundings("alice: own questions   on \\\\print01")


def shown(desk: Desk, hand: Hand, around: Surroundings = AROUND, width: int = 100) -> str:
    lines = desk_lines(desk, hand, around, NOW + 60, width, 30)
    return "\n".join(line.text for line in lines)


def full() -> tuple[Desk, Hand]:
    desk = Desk()
    for number in range(30):
        desk.ask(f"q{number:02}", asked(f"question {number:02}", until=NOW + number))
    for number in range(30):
        desk.hear(alert(number, name=Name("print01", f"p{number}")), NOW)
    for number in range(5):
        desk.over(f"q{number:02}", "bob was first: cancel", NOW)
    return desk, Hand(desk)


def test_an_empty_desk() -> None:
    text = shown(Desk(), Hand(Desk()))
    assert "0 open questions · 0 with alerts" in text
    assert "q ends" in text
    assert "QUESTION ON" not in text


def test_what_stands_on_it() -> None:
    desk = Desk()
    desk.ask("a", asked("Continue on A3?"))
    desk.ask("b", asked("120 copies?", owner=None, until=NOW + 61))
    desk.hear(alert(1), NOW)
    hand = Hand(desk)
    text = shown(
        desk, hand, Surroundings("alice", ("\\\\print02 is not heard: no right",), "careful")
    )
    for part in (
        "2 open questions · 1 with alerts",
        "\\\\print02 is not heard: no right",
        ">1  \\\\print01\\laser-3  alice      Continue on A3?  59 min  1 min",
        " 2  \\\\print01\\laser-3  all users  120 copies?         1 s  1 min",
        "media empty",
        "careful",
        "c continue · x cancel · h hold · n note",
    ):
        assert part in text
    desk.over("b", "bob was first: cancel", NOW)
    text = shown(desk, hand)
    assert "bob was first: cancel “120 copies?”" in text
    assert "LATELY" in text


def test_where_the_chosen_one_is_over_the_keys_say_how_to_go_on() -> None:
    desk = Desk()
    desk.ask("a", asked("A3?"))
    hand = Hand(desk)
    desk.over("a", "bob was first: cancel", NOW)
    assert "this one is over" not in shown(desk, hand), "there is no other"
    desk.ask("b", asked("120 copies?"))
    assert "this one is over: ↑↓ or its number chooses another" in shown(desk, hand)
    hand.press("9")
    assert "↑↓ 1-9 choose a question" in shown(desk, hand)


def test_one_question_whole() -> None:
    desk = Desk()
    buttons = (Choice("", "OK", "1"), Choice("", "Cancel", "2"))
    desk.ask(
        "a", asked("Tray 2 is empty", lines=("Print on A3?",), choices=buttons, takes_note=False)
    )
    hand = Hand(desk)
    assert "1 OK" not in shown(desk, hand), "numbers choose questions there"
    hand.press("enter")
    text = shown(desk, hand)
    for part in ("question 1 on", "Print on A3?", "1 OK · 2 Cancel · Esc back · q ends"):
        assert part in text


def test_what_is_typed_is_seen_to_its_end() -> None:
    desk = Desk()
    desk.ask("a", asked())
    hand = Hand(desk)
    for key in ("n", *"x" * 50, *"end"):
        hand.press(key)
    assert "xend_\n" in shown(desk, hand, width=20)


def test_tones() -> None:
    desk = Desk()
    desk.ask("a", asked("first"))
    desk.ask("b", asked("urgent", until=NOW + 90))
    desk.ask("c", asked("later"))
    desk.hear(alert(1), NOW)
    desk.hear(alert(2, name=Name("x"), severity=Severity.WARNING), NOW)
    lines = desk_lines(desk, Hand(desk), AROUND, NOW, 100, 30)

    def tone(text: str) -> Tone:
        return next(line.tone for line in lines if text in line.text)

    assert tone("first") is Tone.CHOSEN
    assert tone("urgent") is Tone.ALARM
    assert tone("later") is Tone.WARNING
    assert tone(r"\\x") is Tone.WARNING
    assert tone(r"\\print01\laser-3  media") is Tone.ALARM


@given(
    st.integers(20, 200),
    st.integers(8, 60),
    st.lists(st.sampled_from(["down", "up", "end", "enter", "escape", "n", "x", "9"]), max_size=20),
)
def test_it_fits_and_shows_the_chosen(width: int, height: int, keys: list[str]) -> None:
    desk, hand = full()
    for key in keys:
        hand.press(key)
    lines = desk_lines(desk, hand, AROUND, NOW, width, height)
    assert len(lines) <= height
    assert all(cell_len(line.text) <= width for line in lines)
    entry = desk.entry
    assert entry is not None
    if height >= 24:
        whole = "\n".join(line.text for line in lines)
        assert f">{entry.number} " in whole
