"""Alerts and notifications for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from broker import Name, Notification, Payload
from workers.alert import Alert, Severity
from workers.cups.types import PrinterStatus
from workers.relay.pile import Batch, Waiting

START = datetime(2026, 11, 21, 10, tzinfo=UTC)
PRINTER = Name("print01", "laser-3")

P = TypeVar("P", bound=Payload)


def status(number: int, *reasons: str, **fields: Any) -> PrinterStatus:
    """The ``number``-th status of a printer, so many seconds after the start."""
    severity = "report"
    for word in ("warning", "error"):
        if any(reason.endswith(word) for reason in reasons):
            severity = word
    return PrinterStatus.model_validate(
        {
            "host": "print01",
            "event": f"print01/1/1/{number}",
            "at": START + timedelta(seconds=number),
            "printer": "laser-3",
            "state": "idle",
            "reasons": list(reasons),
            "severity": severity,
            **fields,
        }
    )


def told(payload: P, name: Name = PRINTER, *, at: float | None = None) -> Notification[P]:
    """The notification of a payload."""
    when = getattr(payload, "at", START).timestamp() if at is None else at
    model = type(payload)
    return Notification(
        model.notification_type, payload.encode(), "0123456789abcdef", name, None, when, model
    )


def raw(body: bytes, at: float = 0.0) -> Notification[Any]:
    """One of a type that nobody knows."""
    return Notification(UUID(int=7), body, "0123456789abcdef", PRINTER, None, at)


def alert(number: int, condition: str = "media-empty", **fields: Any) -> Alert:
    """The ``number``-th alert of a printer; an empty condition is all clear."""
    name = fields.pop("name", PRINTER)
    known: dict[str, Any] = {
        "id": f"event-{number}",
        "kind": "cups-printer",
        "name": name,
        "subject": f"cups-printer {name}",
        "condition": condition,
        "severity": Severity.ERROR if condition else Severity.REPORT,
        "headline": condition.replace("-", " ") or "all clear",
        "lines": (),
        "order": float(number),
        "at": START + timedelta(seconds=number),
    }
    return Alert(**known | fields)


def batch_of(*alerts: Alert) -> Batch[Any]:
    """A batch of these."""
    return Batch(tuple(Waiting(one, None, 0.0) for one in alerts))
