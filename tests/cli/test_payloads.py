"""Payloads of a known type as the command line shows them: by fields, or as they came."""

from __future__ import annotations

from typing import Any, Self

import pytest
from pydantic import BaseModel, Field

from broker import Payload
from broker.async_ui import OK, AsyncUIRequest, MessageBox
from broker.errors import PayloadInvalid
from broker.notification_type import ASYNC_UI
from tests.farm import OTHER_TYPE, TYPE
from workers.cli.payloads import check, payload_record, payload_shown


class Tray(BaseModel):
    name: str
    sheets: int | None = None


class Paper(Payload, type=TYPE):
    """One of every kind of field."""

    size: str
    is_low: bool = False
    trays: list[Tray] = Field(default_factory=list)
    logo: bytes = b""
    other: dict[str, Any] = Field(default_factory=dict)


class Spoken(Payload, type=TYPE):
    words: str

    def __str__(self) -> str:
        return f"it says {self.words}\x1b"


class Clumsy(Payload, type=OTHER_TYPE):
    @classmethod
    def decode(cls, data: bytes) -> Self:
        raise KeyError(data)


def test_fields_that_are_not_nested_are_one_line() -> None:
    data = b'{"size": "A4", "is_low": true}'
    assert payload_shown(data, TYPE, Paper) == "size: A4, is_low: yes"


def test_nested_fields_are_lines_and_empty_ones_are_left_out() -> None:
    paper = Paper(size="A3", trays=[Tray(name="2"), Tray(name="bypass", sheets=7)], logo=b"\xff")
    assert payload_shown(paper.model_dump_json(exclude={"logo"}).encode(), TYPE, Paper) == (
        "size: A3\nis_low: no\ntrays:\n  - name: 2\n  - name: bypass, sheets: 7"
    )


def test_a_model_says_it_in_its_own_words() -> None:
    assert payload_shown(b'{"words": "hi"}', TYPE, Spoken) == r"it says hi\x1b", (
        "and steers nothing"
    )


def test_a_message_of_a_family_says_which_it_is() -> None:
    data = MessageBox(title="Tray 2 is empty", body="Print on A3?", buttons=[OK]).encode()
    assert payload_shown(data, ASYNC_UI, AsyncUIRequest) == (
        "MessageBox:\n  title:\n    text: Tray 2 is empty\n"
        "  body:\n    - text: Print on A3?\n  buttons:\n    - id: IDOK"
    )
    assert payload_record(data, AsyncUIRequest)["model"] == "MessageBox"


def test_records_hold_fields_beside_the_bytes() -> None:
    data = b'{"size": "A4", "trays": [{"name": "2"}], "logo": "x"}'
    assert payload_record(data, Paper) == {
        "text": data.decode(),
        "model": "Paper",
        "payload": {
            "size": "A4",
            "is_low": False,
            "trays": [{"name": "2", "sheets": None}],
            "logo": "eA==",
            "other": {},
        },
    }
    assert payload_record(data, None) == {"text": data.decode()}
    assert payload_record(None, Paper) == {"text": None}


def test_what_does_not_fit_is_shown_as_it_came() -> None:
    shown = payload_shown(b"paper!", TYPE, Paper)
    assert shown.startswith("paper! (no Paper: payload: Invalid JSON")
    record = payload_record(b"paper!", Paper)
    assert (record["text"], record["payload"]) == ("paper!", None)
    assert record["fault"].startswith("no Paper")
    assert payload_shown(b"hi", ASYNC_UI, AsyncUIRequest) == "hi", "people try it with plain text"
    assert payload_record(b"hi", AsyncUIRequest) == {"text": "hi"}
    assert payload_shown(None, TYPE, Paper) == "(no data)"


def test_a_codec_that_raises_anything_is_a_payload_that_does_not_fit() -> None:
    assert "Clumsy cannot read it: KeyError(b'x')" in payload_shown(b"x", OTHER_TYPE, Clumsy)
    with pytest.raises(PayloadInvalid, match="Clumsy"):
        check(b"x", Clumsy)


def test_the_models_of_extensions_are_strict_and_those_of_our_own_are_not() -> None:
    check(b'{"size": "A4"}', Paper)
    with pytest.raises(PayloadInvalid):
        check(b"hi", Paper)
    check(b"hi", AsyncUIRequest)
    check(b"hi", None)
