"""Output: records for programs, lines and tables for people.

With ``--json`` each record is one line of JSON on standard output. Otherwise people read it, in
colour on a terminal, plain elsewhere. Notes are for people and go to standard error.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from broker.notification_type import ASYNC_UI, PRINTER_CONFIGURATION
from broker.results import Result
from workers.cli.line import CommandLine, OutputClosed

Record = Mapping[str, Any]

_UTF16 = (ASYNC_UI, PRINTER_CONFIGURATION)
_UTF16_MARK = b"\xff\xfe"
WIDTH = 100
"""Columns of a paragraph."""
_SHOWN_BYTES = 32
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")


class _Console(Console):
    """Plain text stays as it is, and a reader who goes away ends the command politely."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, stderr=stderr)

    def on_broken_pipe(self) -> None:
        raise OutputClosed


class Output:
    """Where a command writes."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = _Console()
        self.errors = _Console(stderr=True)
        self.is_live = self.console.is_terminal and not as_json
        """Whether somebody watches."""

    @classmethod
    def of(cls, ctx: click.Context) -> Output:
        """The output that the command line asks for."""
        return cls(as_json=ctx.ensure_object(CommandLine).as_json)

    def tell(self, record: Record, *shown: RenderableType) -> None:
        """One record; people see ``shown`` instead."""
        if self.as_json:
            self._line(json.dumps(record))
            return
        for renderable in shown:
            self.console.print(renderable, soft_wrap=isinstance(renderable, str | Text))
        self.console.file.flush()

    def table(
        self, records: Sequence[Record], columns: Sequence[str], rows: Iterable[Sequence[str]]
    ) -> None:
        """Records, or for people a table of them."""
        if self.as_json:
            for record in records:
                self._line(json.dumps(record))
            return
        if not self.is_live:
            self._columns([columns, *rows])
            return
        table = Table(box=box.SIMPLE_HEAD, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self.console.print(table)

    def _columns(self, rows: Sequence[Sequence[str]]) -> None:
        """On a pipe: columns as wide as they must be, nothing cut off or wrapped."""
        cells = [[printable(cell) for cell in row] for row in rows]
        widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            padded = (set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True))
            self._line("  ".join(padded).rstrip())

    @staticmethod
    def _line(text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            raise OutputClosed from None

    def note(self, text: str, style: str = "dim") -> None:
        """A word to people, on standard error."""
        self.errors.print(Text(printable(text), style), soft_wrap=True)


class _OneLine(logging.Formatter):
    """A log record as one line: people at a terminal are not helped by a traceback."""

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return f"{type(ei[1]).__name__}: {ei[1]}"

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(super().format(record).splitlines())


@contextlib.contextmanager
def logging_to_stderr() -> Iterator[None]:
    """The library's warnings, such as a lapse of the session, for people."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("tympan: %(message)s"))
    log = logging.getLogger("tympan")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


# Payloads --------------------------------------------------------------------------------------


def text_of(data: bytes) -> str | None:
    """The payload as text; None where it is none. A NUL marks bytes that only look like UTF-8."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def body_record(data: bytes | None, key: str = "text") -> dict[str, str | None]:
    """A payload in a record: text under ``key``, other bytes as ``base64`` instead."""
    if data is None:
        return {key: None}
    text = text_of(data)
    if text is None:
        return {"base64": base64.b64encode(data).decode()}
    return {key: text}


def body_shown(data: bytes | None, type_: object = None) -> str:
    """A payload for people: text, the UTF-16 of the documented types, or how many bytes."""
    if data is None:
        return "(no data)"
    text = text_of(data)
    if text is None and (type_ in _UTF16 or data.startswith(_UTF16_MARK)):
        try:
            text = data.removeprefix(_UTF16_MARK).decode("utf-16-le")
        except UnicodeDecodeError:
            text = None
    if text is not None:
        return printable(text.strip("\r\n").replace("\r\n", "\n"))
    dots = "..." if len(data) > _SHOWN_BYTES else ""
    return f"({len(data)} bytes that are no text: {data[:_SHOWN_BYTES].hex(' ')}{dots})"


def printable(text: str) -> str:
    """The text with what could steer a terminal made visible."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def on_one_line(text: str) -> str:
    """The text for a cell of a table: no line ends there."""
    return " ".join(printable(text).split())


def result_record(result: Result) -> dict[str, str]:
    """A result in a record."""
    return {"result": result.name, "hresult": f"0x{result.hresult:08X}"}


def counted(count: int, what: str) -> str:
    """So many of something, for people: ``1 pool``, ``2,000 pools``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


# Times -----------------------------------------------------------------------------------------

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def age(seconds: float) -> str:
    """How long ago, for people."""
    return f"{span(seconds)} ago" if seconds >= 1 else "just now"


def span(seconds: float) -> str:
    """How long, for people."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def clock(at: float) -> str:
    """A time of day of this host's zone."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def wrapped(text: str, indent: str, style: str = "") -> Text:
    """A paragraph of at most WIDTH columns; a longer word has a line of its own."""
    lines = textwrap.wrap(
        printable(text),
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return Text("\n".join(lines), style)
