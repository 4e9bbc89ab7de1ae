"""Questions for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from broker import Name
from tests.relay.alerts import PRINTER
from workers.cups.types import JobQuestion
from workers.desk.question import KEYS, Asked, Choice

NOW = 1_800_000_000.0
JOB = tuple(Choice(key, label, label) for label, key in KEYS.items())


def asked(text: str = "Continue?", **fields: Any) -> Asked:
    """What a CUPS host asks, an hour before it is decided."""
    known: dict[str, Any] = {
        "name": PRINTER,
        "kind": "cups-question",
        "text": text,
        "lines": (),
        "choices": JOB,
        "at": NOW,
        "owner": "alice",
        "takes_note": True,
        "until": NOW + 3600,
        "otherwise": "hold",
        "key": "",
    }
    return Asked(**known | fields)


def job_question(number: int = 1, **fields: Any) -> JobQuestion:
    """The payload, asked now."""
    now = datetime.now(UTC)
    return JobQuestion.model_validate(
        {
            "host": "print01",
            "event": f"print01/1/1/{number}",
            "at": now,
            "printer": "laser-3",
            "job": number,
            "title": "Report.pdf",
            "owner": "alice",
            "question": "paper",
            "text": f"Job {number}: continue?",
            "choices": ["continue", "cancel", "hold"],
            "until": now + timedelta(hours=1),
            "otherwise": "hold",
            **fields,
        }
    )


OTHER = Name("print02", "laser-1")
