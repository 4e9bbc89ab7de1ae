"""Logs: a record a line, for people or machines, that says what it is about wherever it is made."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from workers.logs import FIELDS, LogFormat, about, logging_as

log = logging.getLogger("handlers.paper")

FACTS = {
    "pool": "desk",
    "handler": "paper",
    "server": "print01",
    "registration": "~1a2b",
    "channel": "9f00",
}


Records = Callable[[], list[dict[str, Any]]]
Lines = Callable[[], list[str]]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def as_json(stream: io.StringIO) -> Iterator[Records]:
    """Log in JSON; the records so far."""
    with logging_as(LogFormat.JSON, stream=stream):
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def as_text(stream: io.StringIO) -> Iterator[Lines]:
    """Log as text; the lines so far."""
    with logging_as(LogFormat.TEXT, stream=stream):
        yield lambda: stream.getvalue().splitlines()


def made(**facts: object) -> logging.LogRecord:
    """A record with these attributes."""
    return logging.makeLogRecord({"name": "x", "msg": "then", "levelno": logging.ERROR, **facts})


# What a record is about -------------------------------------------------------------------------


def test_a_record_says_what_it_is_about(as_json: Records) -> None:
    with about(**FACTS):
        log.warning("tray %d is empty", 2)
    log.warning("outside")
    inside, outside = as_json()
    assert inside["message"] == "tray 2 is empty"
    assert {field: inside[field] for field in FIELDS} == FACTS
    assert not set(FIELDS) & set(outside)


def test_it_nests_and_what_is_not_known_is_not_said(as_json: Records) -> None:
    with about(pool="desk", channel=""):
        with about(channel="9f00"):
            log.info("in")
        log.info("out")
    inner, outer = as_json()
    assert (inner["pool"], inner["channel"]) == ("desk", "9f00")
    assert outer["pool"] == "desk"
    assert "channel" not in outer


def test_a_record_that_says_so_itself_is_believed(as_json: Records) -> None:
    with about(**FACTS):
        log.info("elsewhere", extra={"server": "print07"})
    (record,) = as_json()
    assert record["server"] == "print07"
    assert record["pool"] == "desk"


async def test_handlers_side_by_side_are_told_apart_in_threads_too(as_json: Records) -> None:
    go_on = asyncio.Event()

    async def handle(channel: str) -> None:
        with about(channel=channel):
            await go_on.wait()
            log.info(channel)
            await asyncio.to_thread(log.info, channel)

    handling = [asyncio.create_task(handle(f"c{number}")) for number in range(5)]
    go_on.set()
    await asyncio.gather(*handling)
    records = as_json()
    assert len(records) == 10
    assert all(record["message"] == record["channel"] for record in records)


# JSON -------------------------------------------------------------------------------------------


def test_each_record_is_one_object_on_one_line(as_json: Records, stream: io.StringIO) -> None:
    log.error("two\nlines\x1b[31m and\u2028more")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().isascii()
    (record,) = as_json()
    assert record["message"] == "two\nlines\x1b[31m and\u2028more"
    assert (record["level"], record["logger"]) == ("error", "handlers.paper")
    assert datetime.fromisoformat(record["time"]).utcoffset() is not None


def test_the_time_is_that_of_the_record(stream: io.StringIO) -> None:
    with logging_as(LogFormat.JSON, stream=stream):
        logging.getLogger().handle(made(created=0.25))
    assert json.loads(stream.getvalue())["time"] == "1970-01-01T00:00:00.250Z"


def test_an_error_comes_with_its_traceback(as_json: Records) -> None:
    try:
        raise ZeroDivisionError("no paper")
    except ZeroDivisionError:
        log.exception("it failed")
    (record,) = as_json()
    assert record["error"]["type"] == "ZeroDivisionError"
    assert record["error"]["message"] == "no paper"
    assert "test_logs.py" in record["error"]["traceback"]
    assert record["message"] == "it failed"


def test_an_error_that_is_none_is_none(as_json: Records) -> None:
    logging.getLogger().handle(made(exc_info=(None, None, None)))
    assert "error" not in as_json()[0]


def test_what_the_caller_adds_is_there_whatever_it_is(as_json: Records) -> None:
    log.info("x", extra={"tray": 2, "made": {"a"}, "level": "not mine to say"})
    (record,) = as_json()
    assert record["tray"] == 2
    assert record["made"] == "{'a'}"
    assert record["level"] == "info", "its own fields stand"


def test_inside_a_trace_it_says_which(as_json: Records) -> None:
    context = SpanContext(0xAB, 0xCD, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        log.info("inside")
    log.info("outside")
    inside, outside = as_json()
    assert (inside["trace_id"], inside["span_id"]) == (f"{0xAB:032x}", f"{0xCD:016x}")
    assert "trace_id" not in outside


# Text -------------------------------------------------------------------------------------------


def test_text_is_a_line_with_what_it_is_about(as_text: Lines) -> None:
    with about(**FACTS):
        log.warning("tray %d is empty", 2)
    (line,) = as_text()
    time, rest = line.split(" ", 1)
    assert datetime.fromisoformat(time).utcoffset() is not None
    assert rest == (
        "WARNING handlers.paper: tray 2 is empty "
        "[pool=desk handler=paper server=print01 registration=~1a2b channel=9f00]"
    )


def test_what_was_sent_cannot_pass_for_a_record_or_steer_a_terminal(as_text: Lines) -> None:
    log.warning("x\n1970-01-01T00:00:00.000Z INFO forged: y\r\x1b[2J\u202e\tz")
    first, second = as_text()
    assert first.endswith("WARNING handlers.paper: x")
    assert second == "    1970-01-01T00:00:00.000Z INFO forged: y\\r\\x1b[2J\\u202e\tz"


def test_a_traceback_follows_its_line(as_text: Lines) -> None:
    try:
        raise ZeroDivisionError("no paper")
    except ZeroDivisionError:
        log.exception("it failed")
    first, *rest = as_text()
    assert first.endswith("it failed")
    assert all(line.startswith("    ") for line in rest)
    assert rest[-1] == "    ZeroDivisionError: no paper"


# Whose records ----------------------------------------------------------------------------------


def test_records_of_all_loggers_are_written_from_a_level_on(stream: io.StringIO) -> None:
    with logging_as(LogFormat.JSON, level=logging.WARNING, stream=stream):
        logging.getLogger("tympan").warning("a")
        logging.getLogger("somebody.else").error("b")
        log.info("c")
    log.error("d")
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert messages == ["a", "b"]


def test_logging_is_afterwards_as_it_was() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    with logging_as(LogFormat.TEXT, level=logging.DEBUG, stream=io.StringIO()):
        assert root.level == logging.DEBUG
    assert (root.level, root.handlers) == before


def test_the_formats_are_those_of_the_command_line() -> None:
    assert [LogFormat("text"), LogFormat("json")] == list(LogFormat)
