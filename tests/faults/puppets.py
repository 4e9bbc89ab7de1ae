"""Processes that play an end of a channel, and are killed or paused wherever that hurts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any, Self

PATIENCE = 30.0
"""Seconds that a process is given to do what it is told, as a rule."""
LINE = 16 * 1024 * 1024


class Puppet:
    """One such process, as its teller sees it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._patience = patience
        self._reading = asyncio.Lock()
        self.pid = 0
        self.session = ""
        """The session that it had when it answered last."""
        self.is_gone = False

    async def begin(self, options: dict[str, Any]) -> None:
        """Tell it its settings."""
        self._say(options)
        self.pid = int((await self._said())["pid"])

    async def asked(self, *words: object) -> dict[str, Any]:
        """Have it do something; what came of it."""
        self.tell(*words)
        return await self.said()

    async def does(self, *words: object) -> dict[str, Any]:
        """The same, of what must succeed."""
        found = await self.asked(*words)
        assert "error" not in found, f"{words} of {self.session}: {found}"
        return found

    def tell(self, *words: object) -> None:
        """Have it do something, without waiting for it."""
        self._say(words)

    def _say(self, what: object) -> None:
        self._writer.write(json.dumps(what).encode() + b"\n")

    async def said(self) -> dict[str, Any]:
        """What came of the next thing that it was told."""
        answer = await self._said()
        self.session = answer.get("session", self.session)
        return answer

    async def _said(self) -> dict[str, Any]:
        async with self._reading, asyncio.timeout(self._patience):
            line = await self._reader.readline()
        assert line, f"process {self.pid} is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """At once, and by force; it is gone when this returns."""
        self.is_gone = True
        os.kill(self.pid, signal.SIGKILL)
        await self._end()

    async def leave(self) -> None:
        """It ends in order, unless it is gone."""
        if not self.is_gone:
            self.is_gone = True
            self._writer.write_eof()
            await self._end()

    async def _end(self) -> None:
        async with self._reading, asyncio.timeout(self._patience):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(LINE):
                    pass
        self._writer.close()


class Puppets:
    """Makes them: a process of ``module`` that forks one for each; all end with it."""

    def __init__(self, module: str = "tests.faults.puppet", patience: float = PATIENCE) -> None:
        self._module = module
        self._patience = patience
        self._folder = tempfile.TemporaryDirectory()
        self._path = str(Path(self._folder.name) / "forks")
        self._process: Process | None = None
        self._made: list[Puppet] = []

    async def made(self, url: str, **options: Any) -> Puppet:
        """Another process; ``options`` are its broker's settings."""
        reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE)
        puppet = Puppet(reader, writer, self._patience)
        self._made.append(puppet)
        await puppet.begin({"url": url, **options})
        return puppet

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module, self._path, stdin=PIPE, stdout=PIPE
        )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        assert line == b"ready\n", f"{self._module} said {line!r}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for puppet in self._made:
            if not puppet.is_gone:
                await puppet.kill()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        self._folder.cleanup()
