"""Questions as a person reads them: what is asked, and what may be answered. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broker import BIDIRECTIONAL, Name, Notification, async_ui
from broker.async_ui import AsyncUIRequest, CustomData, CustomUI, MessageBox
from broker.errors import BodyGone, PayloadInvalid
from broker.notification_type import ASYNC_UI
from workers.alert import kind_of, one_line
from workers.cups.types import JobQuestion

KEYS = {"continue": "c", "cancel": "x", "hold": "h"}
CAPTIONS = {"IDOK": "OK", "IDCANCEL": "Cancel"}
MOST_TEXT = 4000
"""Characters of a text that are shown."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that may be answered."""

    key: str
    """What is pressed for it, beside its number; empty for the number only."""
    label: str
    typed: str
    """How the answer is written."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked. Times are seconds since 1970."""

    name: Name
    kind: str
    """The alias of its type, otherwise the GUID."""
    text: str
    """On one line."""
    lines: tuple[str, ...]
    """More of it."""
    choices: tuple[Choice, ...]
    """None where any text may be answered."""
    at: float
    owner: str | None
    """Whom it is for; None for all users."""
    takes_note: bool = False
    until: float | None = None
    """When it is answered by itself; None for never."""
    otherwise: str = ""
    """What happens then."""
    again: bool = False
    key: str = ""
    """The same for a question that is asked anew; empty for one that never is."""

    @property
    def takes_text(self) -> bool:
        """Whether any text may be answered."""
        return not self.choices

    def chosen_by(self, key: str, *, by_number: bool) -> Choice | None:
        """The choice that a key stands for."""
        for number, choice in enumerate(self.choices, 1):
            if (choice.key and key == choice.key) or (by_number and key == str(number)):
                return choice
        return None


def asked_of(question: Notification[Any]) -> Asked:
    """What a question asks; one that cannot be read takes any text."""
    payload = _payload(question)
    if isinstance(payload, JobQuestion):
        return _of_job(question, payload)
    choices: tuple[Choice, ...] = ()
    match payload:
        case MessageBox():
            lines = [part.text or "" for part in (payload.title, *payload.body)]
            choices = tuple(
                Choice(
                    "",
                    CAPTIONS[button.id] if isinstance(button.id, str) else f"button {button.id}",
                    str(button.number),
                )
                for button in payload.buttons
            )
        case CustomUI():
            lines = [payload.text]
        case CustomData():
            lines = [f"{len(payload.data):,} bytes for {payload.dll}"]
        case _:
            lines = _text_of(question).splitlines()
    shown = [line for line in map(one_line, lines) if line] or ["(nothing that can be shown)"]
    return Asked(
        question.name,
        kind_of(question.type),
        shown[0],
        tuple(shown[1:]),
        choices,
        question.at,
        question.user,
    )


def _of_job(question: Notification[Any], asked: JobQuestion) -> Asked:
    lines = (
        f"job {asked.job} of {asked.owner}: {asked.title}",
        asked.reasons and f"printer: {', '.join(asked.reasons)}",
    )
    return Asked(
        question.name,
        "cups-question",
        one_line(asked.text),
        tuple(one_line(line) for line in lines if line),
        tuple(Choice(KEYS[one], one, one) for one in dict.fromkeys(asked.choices)),
        question.at,
        asked.owner,
        takes_note=True,
        until=asked.until.timestamp(),
        otherwise=asked.otherwise,
        again=asked.again,
        key=f"{asked.host}/{asked.job}/{asked.question}",
    )


def _payload(question: Notification[Any]) -> object:
    if question.model is None:
        return None
    try:
        if question.type == ASYNC_UI and issubclass(question.model, AsyncUIRequest):
            return async_ui.request_of(question, BIDIRECTIONAL)
        found: object = question.payload
    except (PayloadInvalid, BodyGone):
        return None
    return found


def _text_of(question: Notification[Any]) -> str:
    try:
        return question.text[:MOST_TEXT]
    except BodyGone:
        return "(its text is no longer in Redis)"
    except PayloadInvalid:
        return f"({len(question.body)} bytes that are no text)"
