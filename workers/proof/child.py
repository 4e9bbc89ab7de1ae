"""Children: processes of a play, which report in lines of JSON and can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[2]
"""Where the packages lie that this process runs."""
LONGEST_LINE = 64 * 1024 * 1024


class ChildEnded(Exception):
    """A process of the play ended by itself; it said why on standard error."""


class Child:
    """One process that runs :mod:`workers.proof.party`; ``told`` gets each line that it writes."""

    def __init__(self, part: dict[str, Any], told: Callable[[dict[str, Any]], None]) -> None:
        self._part = part
        self._told = told
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and hand it its part: not in its arguments, which others could read."""
        path = os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"))))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "workers.proof.party"),
            stdin=PIPE,
            stdout=PIPE,
            limit=LONGEST_LINE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C at the terminal is its parent's matter
        )
        self._reading = asyncio.create_task(self._read(self._process))
        self.say(self._part)

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if line.endswith(b"\n"):  # one that was killed may leave half a line
                self._told(json.loads(line))

    def say(self, what: object) -> None:
        """One line to it."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """End it at once, as ``kill -9`` does; what it wrote before was heard when this returns."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self.ended()

    async def leave(self, seconds: float) -> None:
        """Tell it that it is over, and kill it where it does not end then."""
        if self.is_running:
            self.say({"over": True})
        try:
            async with asyncio.timeout(seconds):
                await self.ended()
        except TimeoutError:
            await self.kill()

    async def ended(self) -> int:
        """Its exit status, when it ends by itself."""
        assert self._process is not None
        if self._reading is not None:
            await asyncio.shield(self._reading)
        return await self._process.wait()
