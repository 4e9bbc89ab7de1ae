"""Alerts: what a notification says, for whoever is told of it elsewhere. Pure.

Alerts of one *subject* replace one another: a printer's state as it is now, in the place of what it
was. ``condition`` is how things stand with the subject; an empty one says that all is well again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from broker import BIDIRECTIONAL, Name, Notification, Style
from broker.async_ui import Balloon, MessageBox
from broker.errors import BodyGone, PayloadInvalid
from broker.notification_type import describe_type
from broker.payload import Payload
from workers.cups.cupsd.state import severity
from workers.cups.types import (
    JobQuestion,
    JobStatus,
    PrinterChanged,
    PrinterStatus,
    ServerStatus,
    Told,
)

MOST_TEXT = 4000
"""Characters of a text that nobody knows; more of it is not told."""
KINDS: dict[type[Payload], str] = {
    PrinterStatus: "cups-printer",
    JobStatus: "cups-job",
    PrinterChanged: "cups-configuration",
    ServerStatus: "cups-server",
    JobQuestion: "cups-question",
}
_SUFFIX = re.compile(r"-(report|warning|error)$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")


class Severity(IntEnum):
    """How bad it is."""

    REPORT = 0
    WARNING = 1
    ERROR = 2

    @classmethod
    def of(cls, word: str) -> Severity:
        """From ``report``, ``warning`` or ``error``."""
        return cls[word.upper()]

    @property
    def word(self) -> str:
        """``report``, ``warning`` or ``error``."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to tell."""

    id: str
    """The same whenever this is delivered again."""
    kind: str
    """The alias of its type, otherwise the GUID."""
    name: Name
    """The printer or server."""
    subject: str
    condition: str
    severity: Severity
    headline: str
    """What is the matter, in a line without the printer's name."""
    lines: tuple[str, ...]
    """More of it."""
    order: float
    """When Redis took it, in seconds of its clock; of one subject the latest holds."""
    at: datetime
    """When it happened, UTC."""
    was_troubled: bool = False
    """Whether it says itself that something is over."""
    holds: bool = False
    """Whether it holds until another one says otherwise; what does not is news."""
    data: Any = None
    """The payload, as JSON has it; None where it is no such thing."""

    @property
    def is_clear(self) -> bool:
        """Whether all is well."""
        return not self.condition

    @property
    def thread(self) -> str:
        """What belongs together for people: all that is told of one printer."""
        return str(self.name)


def kind_of(type_: UUID) -> str:
    """What a notification type is called: its alias, otherwise the GUID."""
    for model, kind in KINDS.items():
        if model.notification_type == type_:
            return kind
    return describe_type(type_)


def alert_of(
    told: Notification[Any], id_: str, least: Severity, style: Style | None = None
) -> Alert | None:
    """The alert that a notification is; None for what nobody has to be told.

    ``id_``: what tells this delivery from others, where the payload does not. What is less bad
    than ``least`` counts as well; types that know no severity are always told.
    """
    if told.is_release:
        return None
    payload = _payload(told)
    kind = kind_of(told.type)
    if not isinstance(payload, Told):
        return _other(told, payload, kind, id_, asks=style is BIDIRECTIONAL)
    made = _Maker(told, payload, kind, least)
    match payload:
        case PrinterStatus():
            return made.printer(payload)
        case JobStatus():
            return made.job(payload)
        case PrinterChanged():
            return made.changed(payload)
        case ServerStatus():
            return made.server(payload)
        case JobQuestion():
            return made.question(payload)
    raise AssertionError(f"{type(payload).__name__} is no payload of a CUPS host")


def _payload(told: Notification[Any]) -> Payload | None:
    if told.model is None:
        return None
    try:
        found: Payload = told.decode(told.model)
    except (PayloadInvalid, BodyGone):
        return None
    return found


def said(reason: str) -> str:
    """A state reason in words: ``media empty``, ``toner low (warning)``."""
    found = _SUFFIX.search(reason)
    words = _SUFFIX.sub("", reason).replace("-", " ")
    return f"{words} ({found[1]})" if found and found[1] != "error" else words


def one_line(text: str) -> str:
    """The text without what could end a line, or steer a terminal or a mail reader."""
    return " ".join(_CONTROL.sub(" ", text).split())


def _all(reasons: Iterable[str]) -> str:
    return ", ".join(one_line(said(reason)) for reason in reasons)


class _Maker:
    """Alerts of CUPS hosts."""

    def __init__(self, told: Notification[Any], payload: Told, kind: str, least: Severity) -> None:
        self._told = told
        self._payload = payload
        self._kind = kind
        self._least = least

    def _alert(
        self,
        about: str,
        condition: str,
        severity: Severity,
        headline: str,
        lines: Iterable[str],
        *,
        was_troubled: bool = False,
        holds: bool = False,
    ) -> Alert:
        payload, told = self._payload, self._told
        return Alert(
            f"{self._kind}:{payload.event}",
            self._kind,
            told.name,
            f"{self._kind} {told.name}{about and f' {about}'}",
            condition,
            severity,
            headline,
            tuple(line for line in map(one_line, lines) if line),
            told.at,
            payload.at.astimezone(UTC),
            was_troubled,
            holds,
            payload.model_dump(mode="json"),
        )

    def _once(self, severity: Severity, headline: str, *lines: str) -> Alert | None:
        """What replaces nothing: it is told, or too little to be."""
        if severity < self._least:
            return None
        return self._alert(self._payload.event, "said", severity, headline, lines)

    def printer(self, status: PrinterStatus) -> Alert:
        worst = Severity.of(status.severity) if status.reasons else Severity.REPORT
        states = []
        if status.state == "stopped":
            states.append("stopped")
        if not status.accepting:
            states.append("rejecting jobs")
        if states:
            worst = max(worst, Severity.WARNING)
        parts = [*states, *([_all(status.reasons)] if status.reasons else [])]
        condition = ",".join([*states, *sorted(set(status.reasons))])
        over = [one for one in status.cleared if Severity.of(severity(one)) >= self._least]
        if worst < self._least or not condition:
            condition, headline = "", "all clear"
            parts = [f"over: {_all(status.cleared)}"] if status.cleared else []
        else:
            headline = "; ".join(parts)
            parts = [f"over: {_all(over)}"] if over else []
        supplies = [
            f"{supply.name}: {'unknown' if supply.level is None else f'{supply.level} %'}"
            for supply in status.supplies
        ]
        return self._alert(
            status.source,
            condition,
            worst,
            headline,
            [*parts, status.text, *supplies],
            was_troubled=bool(over),
            holds=True,
        )

    def job(self, status: JobStatus) -> Alert:
        known = {"aborted": Severity.ERROR, "stopped": Severity.WARNING}
        worst = known.get(status.state, Severity.REPORT)
        what = f"job {status.job} of {one_line(status.owner)} {status.state}"
        condition = ",".join([status.state, *sorted(set(status.reasons))])
        return self._alert(
            f"job {status.job}",
            condition if worst >= self._least else "",
            worst,
            what,
            (
                status.title and f"title: {status.title}",
                f"pages: {status.pages}" if status.pages else "",
                f"reasons: {_all(status.reasons)}" if status.reasons else "",
                status.text,
            ),
        )

    def changed(self, change: PrinterChanged) -> Alert | None:
        return self._once(Severity.REPORT, change.what.replace("-", " "), change.text)

    def server(self, status: ServerStatus) -> Alert | None:
        match status.what:
            case "stopped":
                headline = "the print server stopped"
                return self._alert(
                    "", "stopped", Severity.ERROR, headline, (status.text,), holds=True
                )
            case "started" | "restarted":
                headline = f"the print server {status.what}"
                return self._alert("", "", Severity.REPORT, headline, (status.text,), holds=True)
            case "events-lost":
                many = "nobody knows how many" if status.count is None else f"{status.count:,}"
                headline = f"events of this print server were lost: {many}"
                return self._once(Severity.WARNING, headline, status.why, status.text)
        headline = f"the print server: {status.what.replace('-', ' ')}"
        return self._once(Severity.REPORT, headline, status.text, status.why)

    def question(self, question: JobQuestion) -> Alert | None:
        return self._once(
            Severity.WARNING,
            f"a question about job {question.job} of {one_line(question.owner)} is open",
            question.text,
            question.title and f"title: {question.title}",
            f"choices: {', '.join(question.choices)}",
            f"until {question.until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, "
            f"then: {question.otherwise}",
        )


def _other(
    told: Notification[Any], payload: Payload | None, kind: str, id_: str, *, asks: bool
) -> Alert:
    """Of a type that nobody here knows: its text. The same text again is a repeat."""
    body = told.data or b""
    headline, data = "", None
    match payload:
        case Balloon() | MessageBox():
            headline = one_line(payload.title.text or "")
            lines = [part.text or "" for part in payload.body]
        case _:
            lines = _text_of(told).splitlines()
            data = _json_of(body)
    if not headline:
        headline = one_line(next(filter(str.strip, lines), "(nothing that can be shown)"))[:120]
    subject = id_ if asks else hashlib.sha256(body).hexdigest()
    return Alert(
        id_,
        kind,
        told.name,
        f"{kind} {told.name} {subject}",
        "said",
        Severity.WARNING,
        f"a question is open: {headline}" if asks else headline,
        tuple(filter(None, map(one_line, lines))),
        told.at,
        datetime.fromtimestamp(told.at, UTC),
        data=data,
    )


def _text_of(told: Notification[Any]) -> str:
    try:
        return told.text[:MOST_TEXT]
    except BodyGone:
        return "(its text is no longer in Redis)"
    except PayloadInvalid:
        return f"({len(told.body)} bytes that are no text)"


def _json_of(body: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        found = json.loads(body, parse_constant=refuse)
        to_json([[[[found]]]])  # as deep as in a message; half a character cannot be written
    except (ValueError, RecursionError):
        return None
    return found
