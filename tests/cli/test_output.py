"""Payloads and times as the command line shows them."""

from __future__ import annotations

import pytest

from broker.notification_type import ASYNC_UI
from workers.cli.output import age, body_record, body_shown, printable


@pytest.mark.parametrize(
    ("data", "record"),
    [
        (b"", {"text": ""}),
        ("J\N{LATIN SMALL LETTER O WITH DIAERESIS}".encode(), {"text": "J\xf6"}),
        (b"\xff", {"base64": "/w=="}),
        ("<a/>".encode("utf-16-le"), {"base64": "PABhAC8APgA="}),
        (None, {"text": None}),
    ],
    ids=["empty", "text", "bytes", "UTF-16 is no UTF-8 text, though it decodes", "no data"],
)
def test_payload_in_a_record(data: bytes | None, record: dict[str, str | None]) -> None:
    assert body_record(data) == record


def test_payload_for_people() -> None:
    document = "<?xml version='1.0'?>\r\n<a/>\r\n"
    assert body_shown(document.encode("utf-16-le"), ASYNC_UI) == "<?xml version='1.0'?>\n<a/>"
    assert body_shown(document.encode("utf-16"), None) == "<?xml version='1.0'?>\n<a/>"
    assert body_shown(b"\xd8\xd8\xd8", ASYNC_UI) == "(3 bytes that are no text: d8 d8 d8)"
    assert body_shown(bytes(100), None).startswith("(100 bytes that are no text: 00 00")
    assert body_shown(None) == "(no data)"


def test_nothing_can_steer_the_terminal() -> None:
    assert printable("a\tb\nc") == "a\tb\nc"
    assert printable("\x1b]0;title\x07\r\x9b1m") == r"\x1b]0;title\x07\r\x9b1m"
    assert printable("\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe") == r"\u202egpj.exe"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "just now"), (0.4, "just now"), (12.9, "12 s ago"), (60, "1 min ago"),
     (7_300, "2 h ago"), (200_000, "2 d ago")],
)  # fmt: skip
def test_age(seconds: float, shown: str) -> None:
    assert age(seconds) == shown
