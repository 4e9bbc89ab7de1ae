"""What events come to: statuses that are told once, owners, and what CUPS only seems to say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cups.messages import CAPTURED, SECONDS, event_message
from workers.cups.cupsd.client import PrinterFacts
from workers.cups.cupsd.event import Event
from workers.cups.cupsd.ipp import Group, Tag
from workers.cups.cupsd.names import NOBODY
from workers.cups.cupsd.state import severity, stem, telling, worst
from workers.cups.events.levels import Level, Levels, Owned, Told
from workers.cups.events.torn import Stream
from workers.cups.types import JobStatus, PrinterChanged, PrinterStatus, ServerStatus

AT = datetime(2026, 11, 21, tzinfo=UTC)


def tell(levels: Levels, name: str, owned: Owned | None = None, **given: Any) -> list[Told]:
    event = Event.decode(event_message(5, name, **given))
    owner = owned or Owned("alice", "from cupsd")
    return levels.tell(event, "print01/1/1/5", lambda _: owner, repeated=False)


def status(levels: Levels, **given: Any) -> PrinterStatus | None:
    told = tell(levels, "printer-state-changed", **given)
    found = [one.payload for one in told if isinstance(one.payload, PrinterStatus)]
    return found[0] if found else None


def facts(name: str, state: Any = "idle", *reasons: str) -> PrinterFacts:
    return PrinterFacts(name, "file:///dev/null", state, reasons, True, "", Group(Tag.PRINTER))


def test_a_printer_is_told_when_it_changes_and_only_then() -> None:
    levels = Levels("print01")
    first = status(levels, printer_state=4, printer_reasons=["toner-low-warning", "none"])
    assert first is not None
    assert (first.state, first.reasons, first.severity) == (
        "processing",
        ["toner-low-warning"],
        "warning",
    )
    assert first.added == ["toner-low-warning"]
    again = {"printer_state": 4, "printer_reasons": ["toner-low-warning"]}
    assert status(levels, text="another text", **again) is None
    empty = status(levels, printer_state=5, printer_reasons=["media-empty-error"])
    assert empty is not None
    assert (empty.added, empty.cleared) == (["media-empty-error"], ["toner-low-warning"])
    assert empty.severity == "error"
    refilled = status(levels, printer_state=3, printer_reasons=["none"])
    assert refilled is not None
    assert (refilled.reasons, refilled.cleared) == ([], ["media-empty-error"])
    assert (refilled.host, refilled.event) == ("print01", "print01/1/1/5")
    assert refilled.at == datetime.fromtimestamp(SECONDS, UTC)


def test_a_printer_goes_by_any_spelling_of_its_name() -> None:
    levels = Levels("print01")
    assert status(levels, printer="Laser") is not None
    assert status(levels, printer="laser") is None


def test_noise_is_left_out() -> None:
    levels = Levels("print01")
    noisy = [
        "connecting-to-device",
        "cups-waiting-for-job-completed",
        "cups-ipp-missing-job-history",
    ]
    assert status(levels, printer_reasons=["none"]) is not None
    assert status(levels, printer_reasons=[*noisy, "cups-remote-pending-report"]) is None


def test_a_printer_that_is_not_stopped_is_not_paused() -> None:
    levels = Levels("print01")
    stopped = status(levels, printer_state=5, printer_reasons=["paused"])
    assert stopped is not None
    assert (stopped.reasons, stopped.severity) == (["paused"], "report")
    resumed = status(levels, printer_state=3, printer_reasons=["paused"])
    assert resumed is not None
    assert (resumed.reasons, resumed.cleared) == ([], ["paused"])


def test_accepting_is_status_and_configuration() -> None:
    levels = Levels("print01")
    status(levels)
    told = tell(levels, "printer-state-changed", is_accepting=False, text="No longer accepting.")
    changed, now = (one.payload for one in told)
    assert isinstance(changed, PrinterChanged)
    assert changed.what == "rejecting"
    assert isinstance(now, PrinterStatus)
    assert now.accepting is False
    assert [one.queue for one in told] == ["laser-3", "laser-3"]
    assert [one.user for one in told] == [None, None]


def test_a_deleted_printer_stays_deleted_until_it_is_added() -> None:
    levels = Levels("print01")
    status(levels)
    told = tell(levels, "printer-deleted")
    assert [type(one.payload) for one in told] == [PrinterChanged]
    assert levels.changed == {"laser-3": None}
    assert tell(levels, "printer-stopped", printer_state=5) == []
    assert levels.printers == {}
    added = tell(levels, "printer-added")
    assert [type(one.payload) for one in added] == [PrinterChanged, PrinterStatus]


def test_a_job_is_told_to_its_owner() -> None:
    levels = Levels("print01")
    (told,) = tell(levels, "job-progress", job=7, pages=3, text="Printed 3 page(s).")
    assert told.user == "alice"
    job = told.payload
    assert isinstance(job, JobStatus)
    assert (job.job, job.owner, job.pages, job.title) == (7, "alice", 3, "report")
    assert (job.state, job.reasons, job.is_over) == ("processing", ["job-printing"], False)
    assert tell(levels, "job-progress", job=7, pages=3, text="Printed 3 page(s).") == []
    over = tell(levels, "job-completed", job=7, job_state=9, job_reasons=["none"])
    assert isinstance(over[0].payload, JobStatus)
    assert over[0].payload.is_over


def test_a_job_of_which_nobody_knows_the_owner_is_nobodys() -> None:
    (told,) = tell(Levels("print01"), "job-created", owned=Owned(NOBODY), title="")
    assert told.user == NOBODY
    assert isinstance(told.payload, JobStatus)
    assert told.payload.title == ""


@pytest.mark.parametrize(("is_held", "state"), [(False, "pending"), (True, "held")])
def test_a_new_job_is_only_held_where_it_was_to_be(is_held: bool, state: str) -> None:
    given: dict[str, Any] = {"job_state": 4, "job_reasons": ["job-hold-until-specified"]}
    (told,) = tell(Levels("print01"), "job-created", Owned("alice", "x", is_held), **given)
    assert isinstance(told.payload, JobStatus)
    assert told.payload.state == state


def test_a_number_that_is_given_again_is_a_new_job() -> None:
    levels = Levels("print01")
    assert tell(levels, "job-created", job=1)
    assert tell(levels, "job-created", job=1)


def test_the_server_speaks_to_all() -> None:
    levels = Levels("print01")
    (told,) = tell(levels, "server-restarted", text="Scheduler restarted.")
    assert (told.queue, told.user) == ("", None)
    assert isinstance(told.payload, ServerStatus)
    assert told.payload.what == "restarted"


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("something-new", []),
        ("server-something", []),
        ("printer-something", [PrinterStatus]),
        ("job-something", [JobStatus]),
    ],
)
def test_an_event_of_a_new_kind_is_told_by_what_it_says(name: str, kinds: list[type]) -> None:
    assert [type(one.payload) for one in tell(Levels("print01"), name)] == kinds


def test_states_out_of_range_are_harmless() -> None:
    levels = Levels("print01")
    assert tell(levels, "printer-state-changed", printer_state=99) == []
    (told,) = tell(levels, "job-state-changed", job_state=99)
    assert isinstance(told.payload, JobStatus)
    assert told.payload.state == "pending"


def test_a_snapshot_tells_levels_and_what_is_gone() -> None:
    levels = Levels("print01")
    status(levels, printer="old", printer_reasons=["media-empty-error"])
    levels.changed.clear()
    told = levels.snapshot([facts("new", "stopped", "paused"), facts("q,2")], AT)
    assert [one.queue for one in told] == ["new", "q,2", "old"]
    assert isinstance(told[0].payload, PrinterStatus)
    assert told[0].payload.reasons == ["paused"]
    assert isinstance(told[2].payload, PrinterChanged)
    assert told[2].payload.what == "deleted"
    assert set(levels.changed) == {"new", "q,2", "old"}
    again = levels.snapshot([facts("new", "stopped", "paused"), facts("q,2")], AT)
    assert [one.queue for one in again] == ["new", "q,2"]
    assert isinstance(again[0].payload, PrinterStatus)
    assert again[0].payload.added == []


def test_a_captured_day() -> None:
    levels = Levels("print01")
    told: list[Told] = []
    for message in Stream().feed(CAPTURED.read_bytes()):
        event = Event.decode(message)
        told += levels.tell(event, str(event.sequence), lambda _: Owned("zoë"), repeated=False)
    jobs = [one.payload for one in told if isinstance(one.payload, JobStatus)]
    first = [job.state for job in jobs if job.job == 1]
    assert first == ["pending", "processing", "completed"]
    assert all(one.user == "zoë" for one in told if isinstance(one.payload, JobStatus))
    low = [p for p in (t.payload for t in told) if isinstance(p, PrinterStatus) and p.added]
    assert [p.added for p in low if "paused" not in p.added] == [["toner-low-warning"]]
    assert [p.what for p in (t.payload for t in told) if isinstance(p, ServerStatus)] == [
        "restarted"
    ]
    assert set(levels.printers) == {"büro-3"}


def test_a_level_outlives_its_bridge() -> None:
    level = Level("stopped", ("paused",), False)
    assert Level.load(level.dump()) == level
    assert Level.load("[]") is None
    assert Level.load('["odd", [], true]') is None
    assert Level.load(None) is None


@pytest.mark.parametrize(
    ("reason", "is_stem", "is_severity"),
    [
        ("media-empty-error", "media-empty", "error"),
        ("toner-low-warning", "toner-low", "warning"),
        ("toner-low", "toner-low", "warning"),
        ("offline-report", "offline", "report"),
        ("paused", "paused", "report"),
        ("door-open", "door-open", "error"),
        ("error", "error", "error"),
        ("-error", "-error", "error"),
    ],
)
def test_severities(reason: str, is_stem: str, is_severity: str) -> None:
    assert stem(reason) == is_stem
    assert severity(reason) == is_severity


def test_the_worst_counts() -> None:
    assert worst([]) == "report"
    assert worst(["a-report", "b-error", "c-warning"]) == "error"
    assert telling("stopped", ["a", "a", "none", "paused"]) == ["a", "paused"]
