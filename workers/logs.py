"""Logs: one record a line, for people or for machines, with what each is about.

What a record is about, channel, registration, pool and server, is known where a handler runs:
:func:`about` says it once, and every record that is made inside carries it, whoever makes it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from broker import _trace

FIELDS = ("pool", "handler", "server", "registration", "channel")
"""In this order, where known."""
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", *FIELDS}

_Said = tuple[Any, tuple[str, ...]] | None
"""What holds around it, and what is said of :data:`FIELDS`: put together when a record is made."""
_about: ContextVar[_Said] = ContextVar("about", default=None)


class LogFormat(StrEnum):
    """How records are written."""

    TEXT = "text"
    JSON = "json"


class about:  # noqa: N801 - read as a verb's object: with about(pool="desk")
    """Records made inside, in threads that are given this context too, say so; it nests."""

    __slots__ = ("_said", "_token")

    def __init__(
        self,
        *,
        pool: str = "",
        handler: str = "",
        server: str = "",
        registration: str = "",
        channel: str = "",
    ) -> None:
        self._said = (pool, handler, server, registration, channel)

    def __enter__(self) -> None:
        self._token = _about.set((_about.get(), self._said))

    def __exit__(self, *_: object) -> None:
        _about.reset(self._token)


@contextlib.contextmanager
def logging_as(
    format: LogFormat, *, level: int = logging.INFO, stream: TextIO | None = None
) -> Iterator[None]:
    """Write the records of all loggers from ``level`` on; default to standard error."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_Json() if format is LogFormat.JSON else _Text())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


class _Json(logging.Formatter):
    """An object a line: the time, what is said, what it is about, and the caller's ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        found: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        traced = _trace.ids()
        if traced is not None:
            found["trace_id"], found["span_id"] = traced
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            found["error"] = {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": self.formatException(record.exc_info),
            }
        if record.stack_info:
            found["stack"] = record.stack_info
        extra = {name: value for name, value in vars(record).items() if name not in _OWN}
        return json.dumps({**extra, **found}, default=str)


class _Text(logging.Formatter):
    """A line; what continues it is indented, so that nothing that was sent looks like a record."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [_time(record), record.levelname, f"{record.name}:", record.getMessage()]
        facts = " ".join(f"{field}={value}" for field, value in _facts(record).items())
        if facts:
            parts.append(f"[{facts}]")
        lines = [" ".join(parts)]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        if record.stack_info:
            lines.append(record.stack_info)
        return "\n    ".join(_visible(line) for line in "\n".join(lines).split("\n"))


def _facts(record: logging.LogRecord) -> dict[str, str]:
    """What it is about: what it says itself, and otherwise what holds where it was made."""
    known = _known(_about.get())
    found = {field: getattr(record, field, None) or known.get(field) for field in FIELDS}
    return {field: str(value) for field, value in found.items() if value}


def _known(said: _Said) -> Mapping[str, str]:
    """What is said inmost counts."""
    if said is None:
        return {}
    around, values = said
    inmost = {field: value for field, value in zip(FIELDS, values, strict=True) if value}
    return {**_known(around), **inmost}


def _time(record: logging.LogRecord) -> str:
    made = datetime.fromtimestamp(record.created, UTC)
    return made.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _visible(line: str) -> str:
    """The line with what could steer a terminal made visible."""
    if line.isprintable():
        return line
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode()
        for each in line
    )
