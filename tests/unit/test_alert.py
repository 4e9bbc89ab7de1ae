"""Alerts: what of a notification is worth telling, and in which words."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker import BIDIRECTIONAL, Name
from broker.async_ui import Balloon, Text
from broker.errors import PayloadInvalid
from tests.relay.alerts import PRINTER, START, raw, status, told
from workers.alert import Alert, Severity, alert_of, one_line
from workers.cups.types import (
    JobQuestion,
    JobStatus,
    PrinterChanged,
    PrinterStatus,
    ServerStatus,
    Supply,
)

WARNING, REPORT, ERROR = Severity.WARNING, Severity.REPORT, Severity.ERROR
SERVER = Name("print01")


def made(notification: Any, least: Severity = WARNING) -> Alert:
    found = alert_of(notification, "id", least)
    assert found is not None
    return found


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "host": "print01",
        "event": f"print01/1/1/{number}",
        "at": START + timedelta(seconds=number),
        **fields,
    }


def test_a_printer_in_trouble() -> None:
    found = made(
        told(
            status(
                1,
                "toner-low-warning",
                "media-empty-error",
                state="stopped",
                text="Load tray 2",
                supplies=[Supply(name="black", level=5), Supply(name="waste")],
            )
        )
    )
    assert found.headline == "stopped; toner low (warning), media empty"
    assert found.lines == ("Load tray 2", "black: 5 %", "waste: unknown")
    assert (found.severity, found.name, found.id) == (ERROR, PRINTER, "cups-printer:print01/1/1/1")
    assert found.data["reasons"] == ["toner-low-warning", "media-empty-error"]


def test_the_order_of_reasons_makes_no_other_condition() -> None:
    one = made(told(status(1, "a-error", "b-error")))
    other = made(told(status(2, "b-error", "a-error")))
    assert one.condition == other.condition
    assert one.subject == other.subject


def test_a_printer_that_is_well() -> None:
    found = made(told(status(1, cleared=["media-empty-error"])))
    assert found.is_clear
    assert found.was_troubled
    assert found.headline == "all clear"
    assert found.lines == ("over: media empty",)


def test_what_is_less_bad_than_asked_for_counts_as_well() -> None:
    slight = told(status(1, "toner-low-report"))
    assert made(slight).is_clear
    assert not made(slight, REPORT).is_clear
    assert made(told(status(1, "toner-low-warning")), ERROR).is_clear
    over = made(told(status(2, cleared=["toner-low-report"])))
    assert not over.was_troubled, "nobody was told of it"


def test_a_printer_that_was_stopped_by_hand_is_worth_a_warning() -> None:
    found = made(told(status(1, "paused-report", state="stopped", accepting=False)))
    assert found.severity is WARNING
    assert found.headline == "stopped; rejecting jobs; paused (report)"


def test_a_job_that_failed() -> None:
    job = {"printer": "laser-3", "job": 7, "title": "a\nb", "owner": "alice"}
    aborted = JobStatus.model_validate(event(1, **job, state="aborted", is_over=True))
    found = made(told(aborted))
    assert found.headline == "job 7 of alice aborted"
    assert found.lines == ("title: a b",)
    done = JobStatus.model_validate(event(2, **job, state="completed", is_over=True, pages=3))
    assert made(told(done)).is_clear
    assert made(told(done), REPORT).lines == ("title: a b", "pages: 3")


@pytest.mark.parametrize("least", Severity)
def test_a_server_that_stopped_and_came_again(least: Severity) -> None:
    stopped = made(told(ServerStatus.model_validate(event(1, what="stopped")), SERVER), least)
    started = made(told(ServerStatus.model_validate(event(2, what="started")), SERVER), least)
    assert (stopped.severity, stopped.is_clear) == (ERROR, False)
    assert started.is_clear
    assert started.subject == stopped.subject


def test_lost_events_are_each_told() -> None:
    lost = [
        made(told(ServerStatus.model_validate(event(n, what="events-lost", count=n)), SERVER))
        for n in (1, 2)
    ]
    assert lost[0].headline == "events of this print server were lost: 1"
    assert lost[0].subject != lost[1].subject


def test_what_is_only_worth_a_report() -> None:
    changed = PrinterChanged.model_validate(event(1, printer="laser-3", what="queue-order"))
    assert alert_of(told(changed), "id", WARNING) is None
    assert made(told(changed), REPORT).headline == "queue order"


def test_an_open_question() -> None:
    question = JobQuestion.model_validate(
        event(
            1,
            printer="laser-3",
            job=7,
            owner="alice",
            question="paper",
            text="Continue on A3?",
            choices=["continue", "hold"],
            until=START + timedelta(hours=1),
            otherwise="hold",
        )
    )
    found = alert_of(told(question), "id", REPORT, BIDIRECTIONAL)
    assert found is not None
    assert found.headline == "a question about job 7 of alice is open"
    assert found.lines == (
        "Continue on A3?",
        "choices: continue, hold",
        "until 2026-11-21 11:00:00 UTC, then: hold",
    )


def test_text_of_a_type_that_nobody_knows() -> None:
    one, same, other = (
        made(raw(text)) for text in (b"tray 2\nis empty", b"tray 2\nis empty", b"x")
    )
    assert one.headline == "tray 2"
    assert one.lines == ("tray 2", "is empty")
    assert one.subject == same.subject != other.subject
    assert made(raw(b'{"a": 1}')).data == {"a": 1}


@pytest.mark.parametrize("body", [b"\xff\xfe", b"", b"[" * 100_000, b"NaN", b'{"a": NaN}'])
def test_bytes_of_any_kind(body: bytes) -> None:
    found = made(raw(body))
    assert found.data is None
    assert found.headline


def test_a_payload_that_does_not_fit_its_model_is_told_as_text() -> None:
    bad = told(status(1))
    bad.data = b'{"printer": 7}'
    assert made(bad).headline == '{"printer": 7}'


def test_a_balloon() -> None:
    found = made(told(Balloon(title=Text(text="Printed"), body=(Text(text="3 pages"),))))
    assert (found.kind, found.headline, found.lines) == ("asyncui", "Printed", ("3 pages",))


def test_nothing_in_a_name_or_text_can_end_a_line() -> None:
    hostile = "a\r\nBcc: everybody@farm.example\x1b[2J\u2028b\u202e"
    assert one_line(hostile) == "a Bcc: everybody@farm.example [2J b"
    found = made(told(status(1, hostile, text=hostile)))
    assert all("\n" not in line and "\x1b" not in line for line in (found.headline, *found.lines))


@pytest.mark.parametrize(
    "at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00"]
)
def test_a_time_that_nobody_has_is_no_time(at: str) -> None:
    fields = {**event(1), "printer": "laser-3", "state": "idle", "at": at}
    body = json.dumps(fields, default=str).encode()
    with pytest.raises(PayloadInvalid, match="year"):
        PrinterStatus.decode(body)
    found = made(replace(told(status(1)), data=body))
    assert found.condition == "said"


def test_a_time_without_a_zone_is_utc() -> None:
    assert status(1, at="2026-01-01T00:00:00").at == datetime(2026, 1, 1, tzinfo=UTC)
