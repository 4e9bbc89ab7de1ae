"""Rights are the masks of the print system protocol, and belong to a printer or to a server."""

from __future__ import annotations

from typing import Any

import pytest

from broker import Right
from broker.errors import InvalidArgument
from broker.names import Name
from broker.rights import parse_right, short_name, to_administer, to_listen

PRINTER = Name("print01", "laser-3")
SERVER = Name("print01")


def test_masks_are_those_of_the_protocol() -> None:
    assert {right.name: int(right) for right in Right.__members__.values()} == {
        "SERVER_ACCESS_ADMINISTER": 0x1,
        "SERVER_ACCESS_ENUMERATE": 0x2,
        "PRINTER_ACCESS_ADMINISTER": 0x4,
        "PRINTER_ACCESS_USE": 0x8,
        "DELETE": 0x10000,
        "READ_CONTROL": 0x20000,
        "WRITE_DAC": 0x40000,
        "WRITE_OWNER": 0x80000,
        "SERVER_ALL_ACCESS": 0xF0003,
        "PRINTER_ALL_ACCESS": 0xF000C,
    }


@pytest.mark.parametrize(
    ("text", "name", "mask"),
    [
        ("administer", PRINTER, 0x4),
        ("administer", SERVER, 0x1),
        ("use", PRINTER, 0x8),
        ("enumerate", SERVER, 0x2),
        ("all", PRINTER, 0xF000C),
        ("ALL", SERVER, 0xF0003),
        ("printer_access_use", PRINTER, 0x8),
        ("Delete", SERVER, 0x10000),
        (Right.PRINTER_ACCESS_USE | Right.READ_CONTROL, PRINTER, 0x20008),
    ],
)
def test_a_right_by_its_short_or_full_name(text: str | Right, name: Name, mask: int) -> None:
    assert parse_right(text, name) == mask


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", PRINTER),
        ("own", PRINTER),
        ("use", SERVER),
        ("enumerate", PRINTER),
        ("SERVER_ACCESS_ADMINISTER", PRINTER),
        ("PRINTER_ALL_ACCESS", SERVER),
        (Right(0), PRINTER),
        (Right.PRINTER_ACCESS_USE | Right.SERVER_ACCESS_ENUMERATE, PRINTER),
        (Right(0x100), PRINTER),
    ],
)
def test_a_right_of_the_other_kind_is_refused(text: str | Right, name: Name) -> None:
    with pytest.raises(InvalidArgument, match=r"no right of a (printer|server)"):
        parse_right(text, name)


@pytest.mark.parametrize("value", [None, 4, b"administer"])
def test_what_is_neither_a_word_nor_a_right_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument):
        parse_right(value, PRINTER)


@pytest.mark.parametrize(
    ("right", "name", "word"),
    [
        (Right.PRINTER_ACCESS_ADMINISTER, PRINTER, "administer"),
        (Right.SERVER_ACCESS_ADMINISTER, SERVER, "administer"),
        (Right.PRINTER_ACCESS_USE, PRINTER, "use"),
        (Right.SERVER_ACCESS_ENUMERATE, SERVER, "enumerate"),
        (Right.PRINTER_ALL_ACCESS, PRINTER, "all"),
        (Right.READ_CONTROL, PRINTER, "READ_CONTROL"),
    ],
)
def test_the_word_for_a_right_reads_as_that_right(right: Right, name: Name, word: str) -> None:
    assert short_name(right, name) == word
    assert parse_right(word, name) == right


@pytest.mark.parametrize(
    ("name", "strict", "mask"),
    [
        (PRINTER, False, Right.PRINTER_ACCESS_ADMINISTER),
        (PRINTER, True, Right.PRINTER_ALL_ACCESS),
        (SERVER, False, Right.SERVER_ACCESS_ADMINISTER),
        (SERVER, True, Right.SERVER_ALL_ACCESS),
    ],
)
def test_what_all_users_asks_for(name: Name, strict: bool, mask: Right) -> None:
    assert to_administer(name, strict=strict) == mask


@pytest.mark.parametrize(
    ("name", "mask"),
    [(PRINTER, Right.PRINTER_ACCESS_USE), (SERVER, Right.SERVER_ACCESS_ENUMERATE)],
)
def test_what_listening_for_oneself_may_ask_for(name: Name, mask: Right) -> None:
    assert to_listen(name) == mask
