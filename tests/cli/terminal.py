"""A terminal for a command: what a person types there, and what is shown to them."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
from collections.abc import Callable
from typing import Self

from tests.cli.commands import CHECKOUT, COMMAND, PATIENCE

_STEERING = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """One command on a pseudo-terminal of its own: input, output and errors."""

    def __init__(self, *words: str, url: str, columns: int = 100) -> None:
        self.words = words
        self._url = url
        self._columns = columns
        self._shown = b""
        self._news = asyncio.Event()
        self._ours = self._theirs = -1
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._ours, self._theirs = pty.openpty()
        self._process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *self.words,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env=os.environ
            | {"TYMPAN_URL": self._url, "TERM": "xterm", "COLUMNS": str(self._columns)},
            cwd=CHECKOUT,
        )
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self) -> None:
        self._shown += os.read(self._ours, 65_536)
        self._news.set()

    @property
    def shown(self) -> str:
        """All that was shown so far, without colours."""
        return _STEERING.sub("", self._shown.decode(errors="replace"))

    async def shows(self, *texts: str) -> None:
        """Wait until all of this was shown."""
        await self._until(lambda: all(text in self.shown for text in texts), f"{texts}")

    async def draws(self, begin: str, *texts: str, without: str) -> None:
        """Wait for a whole screen that has all of this, and not that; each begins alike."""

        def holds() -> bool:
            *_, screen, _ = ["", "", *self.shown.split(begin)]
            return all(text in screen for text in texts) and without not in screen

        await self._until(holds, f"{texts} without {without!r}")

    async def prompts(self, number: int) -> None:
        """Wait until the prompt was shown for the ``number``-th time."""
        await self._until(lambda: self.shown.count("answer as") >= number, f"{number} prompts")

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{what} not shown; what is: {self.shown!r}") from None

    def type(self, keys: str) -> None:
        """Press these keys; a newline is Enter."""
        os.write(self._ours, keys.encode())

    def signal(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send the command a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """The exit status."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()
