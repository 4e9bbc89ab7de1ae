"""Questions as people read them, of each type that may be asked."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from broker import Notification
from broker.async_ui import CANCEL, OK, AsyncUIRequest, CustomUI, MessageBox, Text
from tests.desk.asking import job_question
from tests.relay.alerts import PRINTER, raw, told
from workers.cups.types import JobQuestion
from workers.desk.question import asked_of


def test_a_question_about_a_job() -> None:
    question = job_question(7, choices=["hold", "continue", "hold"], reasons=["media-empty-error"])
    found = asked_of(told(question))
    assert found.text == "Job 7: continue?"
    assert [(choice.key, choice.label) for choice in found.choices] == [
        ("h", "hold"),
        ("c", "continue"),
    ]
    assert found.lines == ("job 7 of alice: Report.pdf", "printer: media-empty-error")
    assert (found.owner, found.until) == ("alice", question.until.timestamp())
    assert found.takes_note
    assert not found.takes_text
    assert found.key == asked_of(told(job_question(7, event="other", again=True))).key
    assert found.key != asked_of(told(job_question(8))).key


def ui(message: AsyncUIRequest) -> Notification[Any]:
    made = told(message, at=1.0)
    made.model = AsyncUIRequest
    return made


def test_a_message_box() -> None:
    box = MessageBox(
        title=Text(text="Tray 2 is empty"), body=(Text(text="Print\non A3?"),), buttons=(OK, CANCEL)
    )
    found = asked_of(ui(box))
    assert (found.text, found.lines) == ("Tray 2 is empty", ("Print on A3?",))
    assert [(choice.label, choice.typed) for choice in found.choices] == [
        ("OK", "1"),
        ("Cancel", "2"),
    ]
    assert not found.takes_note
    assert found.chosen_by("2", by_number=True) == found.choices[1]
    assert found.chosen_by("2", by_number=False) is None
    assert found.chosen_by("", by_number=False) is None


def test_a_custom_message_takes_a_text() -> None:
    found = asked_of(ui(CustomUI(dll="a.dll", entrypoint="x", bidi=True, text="which tray?")))
    assert found.takes_text
    assert found.text == "which tray?"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"which tray?\nand why", "which tray?"),
        (b"\xff\xfe\x00", "(3 bytes that are no text)"),
        (b"", "(nothing that can be shown)"),
        (b"a\x1b[2Jb\r\n", "a [2Jb"),
    ],
)
def test_bytes_of_any_kind(body: bytes, text: str) -> None:
    found = asked_of(raw(body))
    assert found.text == text
    assert found.takes_text


def test_a_payload_that_does_not_fit_its_model() -> None:
    bad = Notification(
        JobQuestion.notification_type, b"{}", "0123456789abcdef", PRINTER, "alice", 1.0, JobQuestion
    )
    found = asked_of(bad)
    assert found.takes_text
    assert (found.text, found.owner) == ("{}", "alice")


def test_a_body_that_is_gone() -> None:
    gone = Notification[Any](UUID(int=7), None, "0123456789abcdef", PRINTER, None, 1.0)
    assert asked_of(gone).text == "(its text is no longer in Redis)"
