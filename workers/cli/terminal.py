"""The terminal of a command that draws on all of it: its lines, its keys, and what is logged."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence

from rich.live import Live
from rich.text import Text

from workers.cli.output import Output
from workers.cli.view import Line, Tone

STYLES = {
    Tone.PLAIN: "",
    Tone.QUIET: "dim",
    Tone.HEAD: "bold reverse",
    Tone.CHOSEN: "reverse",
    Tone.WARNING: "yellow",
    Tone.ALARM: "bold red",
}
FULL = (Tone.HEAD, Tone.CHOSEN)
"""What goes over the whole width."""


class Screen:
    """All of a terminal, until it is closed; what was there before comes back."""

    def __init__(self, output: Output) -> None:
        self._console = output.console
        self._live = Live(console=output.console, screen=True, auto_refresh=False)
        self._drawn: tuple[object, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as of now."""
        return self._console.width, self._console.height

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these in the place of what is shown."""
        width, _ = size = self.size
        if (drawn := (size, *lines)) == self._drawn:
            return
        self._drawn = drawn
        text = Text("\n", no_wrap=True, end="").join(
            Text(line.text.ljust(width) if line.tone in FULL else line.text, STYLES[line.tone])
            for line in lines
        )
        self._live.update(text, refresh=True)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


@contextlib.contextmanager
def keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Tell each key as it is pressed; an empty one where the terminal went away.

    Standard input that is no terminal has none. Ctrl-C stays a signal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read() -> None:
        try:
            found = os.read(terminal, 64)
        except OSError:  # as at its end: it was closed
            found = b""
        if not found:
            loop.remove_reader(terminal)
            pressed("")
        for key in decoder.decode(found):
            pressed(key)

    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        with contextlib.suppress(termios.error):  # there is no terminal any more
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


class _Teller(logging.Handler):
    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told(record.getMessage())


@contextlib.contextmanager
def logging_aside(told: Callable[[str], None]) -> Iterator[None]:
    """Tell the library's warnings, in the place of writing them across the screen."""
    log, teller = logging.getLogger("tympan"), _Teller(told)
    others = list(log.handlers)
    for handler in others:
        log.removeHandler(handler)
    log.addHandler(teller)
    try:
        yield
    finally:
        log.removeHandler(teller)
        for handler in others:
            log.addHandler(handler)
