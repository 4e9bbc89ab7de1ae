"""Keys: what terminals send is told apart, also when it comes in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.desk.keyboard import NAMED, Keyboard


def keys(text: str) -> list[str]:
    keyboard = Keyboard()
    found = [keyboard.press(character) for character in text]
    return [key for key in [*found, keyboard.flush()] if key]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aü1", ["a", "ü", "1"]),
        ("\x1b[A\x1bOB", ["up", "down"]),
        ("\x1b[5~\x1b[6~", ["page-up", "page-down"]),
        ("\x1b[1;5Ca", ["a"]),
        ("\x1b[200~x", ["x"]),
        ("\r\x7f\x15", ["enter", "backspace", "clear"]),
        ("\x1b", ["escape"]),
        ("\x1b\x1b", ["escape", "escape"]),
        ("\x1bx", []),
        ("\x00\x07\x9b", []),
    ],
)
def test_keys(text: str, expected: list[str]) -> None:
    assert keys(text) == expected


def test_an_escape_waits_for_what_may_follow() -> None:
    keyboard = Keyboard()
    assert keyboard.press("\x1b") is None
    assert keyboard.is_waiting
    assert keyboard.flush() == "escape"
    assert not keyboard.is_waiting


@given(st.text())
def test_whatever_comes_it_is_a_character_or_a_name(text: str) -> None:
    for key in keys(text):
        assert key in {*NAMED.values(), "escape"} or (len(key) == 1 and key.isprintable())
