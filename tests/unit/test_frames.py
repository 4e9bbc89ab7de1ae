"""Frames: a user is shown where in his own code something failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.errors import InvalidArgument
from workers import Worker
from workers.frames import own_part, own_place, own_sentence


def line_of(text: str) -> int:
    """Where in this file a line ends with this."""
    return [line.endswith(text) for line in Path(__file__).read_text().splitlines()].index(True) + 1


def test_the_last_place_of_the_users_own_code_is_named() -> None:
    with pytest.raises(json.JSONDecodeError) as raised:
        json.loads("{")  # below the library
    assert own_place(raised.value) == f"{__file__}, line {line_of('# below the library')}"


def test_tympans_own_frames_are_not_the_users() -> None:
    with pytest.raises(InvalidArgument) as raised:
        Worker("desk", max_deliveries=0)  # wrong
    assert own_place(raised.value) == f"{__file__}, line {line_of('  # wrong')}"


def test_an_error_without_a_place_of_the_users_is_told_without_one() -> None:
    error = ModuleNotFoundError("No module named 'desk'")
    assert (own_part(None), own_place(error)) == (None, "")
    assert own_sentence(error) == "ModuleNotFoundError: No module named 'desk'"
    assert own_sentence(ValueError("one\n  two")) == "ValueError: one two"


def test_the_users_part_of_a_traceback_begins_with_his_first_frame() -> None:
    with pytest.raises(json.JSONDecodeError) as raised:
        json.loads("{")
    whole = raised.value.__traceback__
    assert whole is not None
    assert own_part(whole) is whole
    assert own_part(whole.tb_next) is None


def test_a_fault_of_syntax_names_the_line_that_has_it() -> None:
    with pytest.raises(SyntaxError) as raised:
        compile("1\n2 +* 3", "/srv/desk.py", "exec")
    assert own_sentence(raised.value) == "SyntaxError: invalid syntax (/srv/desk.py, line 2)"
