"""Runs the ``tympan`` command in processes of its own, and awaits what it reports."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.cli.launcher import Launched, Launcher

PATIENCE = 30.0
"""Seconds that a test waits for what must come, on a machine that does much else."""
TYPE = "5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a01"
COMMAND = (sys.executable, "-m", "workers.cli")
CHECKOUT = Path(__file__).resolve().parents[2]
LONGEST_LINE = 2**25
OF_THE_INTERPRETER = ("PYTHON", "LANG", "LC_")
"""Variables that are read when a process begins, not by what it runs."""

Event = dict[str, Any]


class Place:
    """A print server of one test, so that tests share a Redis without meeting."""

    def __init__(self) -> None:
        self.server = rf"\\print-{secrets.token_hex(4)}"
        self.printer = rf"{self.server}\laser-3"
        self.other = rf"{self.server}\laser-4"


class Process:
    """One command that runs, or ran."""

    def __init__(
        self, words: tuple[str, ...], command: Sequence[str] = COMMAND, cwd: Path = CHECKOUT
    ) -> None:
        self.words = words
        self._command = command
        self._cwd = cwd
        self.lines: list[str] = []
        self.notes = ""
        self._process: asyncio.subprocess.Process | Launched | None = None
        self._input: asyncio.WriteTransport | None = None
        self._output: asyncio.ReadTransport | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    async def start(self, environment: Mapping[str, str], stdin: int) -> Self:
        """Start it. Standard input is a pipe, or the descriptor that is given."""
        loop = asyncio.get_running_loop()
        (said, to_say), (noted, to_note) = os.pipe(), os.pipe()
        theirs = [to_say, to_note]
        if stdin == asyncio.subprocess.PIPE:
            stdin, ours = os.pipe()
            theirs.append(stdin)
            self._input, _ = await loop.connect_write_pipe(
                asyncio.BaseProtocol, os.fdopen(ours, "wb", 0)
            )
        elif stdin == asyncio.subprocess.DEVNULL:
            stdin = os.open(os.devnull, os.O_RDONLY)
            theirs.append(stdin)
        try:
            self._process = await self._begin(environment, (stdin, to_say, to_note))
        finally:
            for descriptor in theirs:
                os.close(descriptor)
            self._output, lines = await _reader(said)
            _, notes = await _reader(noted)
        self._readers = [
            asyncio.create_task(self._read(lines, self.lines.append)),
            asyncio.create_task(self._read(notes, self._remark)),
        ]
        return self

    async def _begin(
        self, environment: Mapping[str, str], streams: tuple[int, int, int]
    ) -> asyncio.subprocess.Process | Launched:
        if tuple(self._command) == COMMAND and not self._differs(environment):
            launcher = Launcher.of(CHECKOUT)
            return await launcher.start(self.words, environment, self._cwd, streams)
        stdin, stdout, stderr = streams
        return await asyncio.create_subprocess_exec(
            *self._command,
            *self.words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd=self._cwd,
        )

    def _differs(self, environment: Mapping[str, str]) -> bool:
        """Whether it is to be another version of the program, or in another locale."""
        path = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
        return any(
            (folder / "workers").exists() for folder in {self._cwd, *map(Path, path)} - {CHECKOUT}
        ) or any(
            os.environ.get(name) != environment.get(name)
            for name in os.environ.keys() | environment.keys()
            if name.startswith(OF_THE_INTERPRETER) and name != "PYTHONPATH"
        )

    async def _read(self, stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
        async for line in stream:
            take(line.decode().rstrip("\n"))
            self._news.set()
        self._news.set()

    def _remark(self, line: str) -> None:
        self.notes += line + "\n"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended, or not been read to its end."""
        return not all(reader.done() for reader in self._readers)

    @property
    def events(self) -> list[Event]:
        """What was reported so far, each line one JSON object."""
        return [json.loads(line) for line in self.lines]

    @property
    def kinds(self) -> list[str]:
        """Which events were reported so far, in order."""
        return [event["event"] for event in self.events]

    @property
    def answer(self) -> Event:
        """The one object that was reported."""
        (event,) = self.events
        return event

    async def event(self, kind: str, number: int = 1) -> Event:
        """The first (or ``number``-th) event of this kind, when it is reported."""
        await self.until(lambda: self.kinds.count(kind) >= number, f"event {kind!r} no. {number}")
        return [event for event in self.events if event["event"] == kind][number - 1]

    async def note(self, text: str) -> None:
        """Wait until this is said on standard error."""
        await self.until(lambda: text in self.notes, f"remark {text!r}")

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for it; fails when the process ended without it, or is silent for too long."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    over = all(reader.done() for reader in self._readers)
                    assert not over, f"{self} ended without {what}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{self}: no {what} within {PATIENCE:g} s") from None

    async def ended(self) -> int:
        """Its exit status."""
        assert self._process is not None
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*self._readers)
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"{self} does not end") from None

    def signal(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def type(self, line: str) -> None:
        """Write a line to its standard input."""
        self.feed(f"{line}\n".encode())

    def feed(self, data: bytes, *, end: bool = False) -> None:
        """Write bytes to its standard input."""
        assert self._input is not None
        self._input.write(data)
        if end:
            self._input.close()

    def stop_reading(self) -> None:
        """Close the pipe of its standard output, as ``head`` does."""
        assert self._output is not None
        self._output.close()

    async def clean_up(self) -> None:
        """End it, whatever it does."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        if self._input is not None:
            self._input.close()
        await self._process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def __str__(self) -> str:
        return f"`tympan {' '.join(self.words)}` (reported {self.lines}, said {self.notes!r})"


async def _reader(descriptor: int) -> tuple[asyncio.ReadTransport, asyncio.StreamReader]:
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    return transport, reader


class Tympan:
    """Starts commands, and cleans up after them; by default those of the checkout."""

    def __init__(
        self,
        url: str,
        command: Sequence[str] = COMMAND,
        cwd: Path = CHECKOUT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url
        self._command = command
        self._cwd = cwd
        self._environment = environment or {}
        self._processes: list[Process] = []

    async def start(
        self, *words: str, url: str | None = None, stdin: int = asyncio.subprocess.PIPE
    ) -> Process:
        """Start a command; the farm's URL is in its environment."""
        environment = os.environ | {"TYMPAN_URL": url or self.url, "NO_COLOR": "1"}
        environment |= self._environment
        environment.pop("COLUMNS", None)
        process = Process(words, self._command, self._cwd)
        self._processes.append(process)
        return await process.start(environment, stdin)

    async def listening(self, *words: str, stdin: int = asyncio.subprocess.PIPE) -> Process:
        """A listener with ``--json`` that can be reached."""
        process = await self.start("listen", *words, "--json", stdin=stdin)
        await process.event("registered")
        return process

    async def run(self, *words: str, url: str | None = None, status: int = 0) -> Process:
        """Run a command to its end; checks its exit status."""
        process = await self.start(*words, url=url, stdin=asyncio.subprocess.DEVNULL)
        ended = await process.ended()
        assert ended == status, f"exit status {ended}, not {status}: {process}"
        return process

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.clean_up()

    async def clean_up(self) -> None:
        """End what still runs."""
        await asyncio.gather(*(process.clean_up() for process in self._processes))
