"""A party: one process of a contender, asked for operations by JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

CHECKOUT = Path(__file__).resolve().parents[1]
PEERS = CHECKOUT / ".venv-bench"
"""What the peers run in; ``benchmarks/peers/prepare`` makes it."""
NO_PEER = "no peer here: benchmarks/peers/prepare"

_LINE = 64 * 1024 * 1024
_ANSWER_S = 120.0
_PATIENCE_S = 10.0
_LAST_NOTES = 15
_MOST_NOTES = 20_000

Role = Literal["source", "listener"]


class ContenderFailed(RuntimeError):
    """A contender's program did not do what it was asked for; says which, what and why."""


class ContenderAbsent(ContenderFailed):
    """What the contender needs is not on this machine; says what to do."""


@dataclass(frozen=True)
class Contender:
    """Who is compared."""

    name: str
    """As the table names it."""
    program: str
    """Module in ``benchmarks.contenders``."""
    form: str = ""
    """Which of the program's forms."""
    server: str = "redis"
    """What it speaks to; see :mod:`benchmarks.stage`."""
    home: str = ""
    """Folder in the peers' environment, where the peer has one of its own there."""
    command: tuple[str, ...] = ()
    """What runs it, where that is no Python module; the role is appended."""

    @property
    def is_peer(self) -> bool:
        """Whether it runs in the peers' environment."""
        return self.program.startswith("peers.")

    def argv(self, role: Role, python: str) -> list[str]:
        """Command line of a party; ``python`` is for contenders of the house.

        Raises ContenderAbsent.
        """
        if self.is_peer:
            home = PEERS / self.home
            if not home.exists() or (self.command and not shutil.which(self.command[0])):
                raise ContenderAbsent(NO_PEER)
            python = str(home / "bin" / "python")
        return [*(self.command or (python, "-m", f"benchmarks.contenders.{self.program}")), role]


class Party:
    """One process; asked for one thing at a time."""

    def __init__(
        self, contender: Contender, role: Role, process: Process, notes: IO[bytes]
    ) -> None:
        self.contender = contender
        self.role = role
        self._process = process
        self._notes = notes

    @classmethod
    async def start(
        cls,
        contender: Contender,
        role: Role,
        url: str,
        python: str,
        environment: Mapping[str, str] | None = None,
    ) -> Party:
        """Run the program; what it writes to standard error is shown where it fails.

        Raises ContenderAbsent.
        """
        notes = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the party ends
        process = await asyncio.create_subprocess_exec(
            *contender.argv(role, python),
            stdin=PIPE,
            stdout=PIPE,
            stderr=notes,
            limit=_LINE,
            cwd=CHECKOUT,
            env={
                **os.environ,
                "BENCH_URL": url,
                "BENCH_FORM": contender.form,
                **(environment or {}),
            },
        )
        return cls(contender, role, process, notes)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def ask(self, operation: str, **arguments: object) -> dict[str, Any]:
        """Have it do something, and return what it answers.

        Raises ContenderFailed where it says that it failed, where it is gone, and where it is
        silent for two minutes.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ConnectionError):  # a program that ended may have said why
            self._process.stdin.write(json.dumps({"do": operation, **arguments}).encode() + b"\n")
            await self._process.stdin.drain()
        try:
            async with asyncio.timeout(_ANSWER_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise self._failed(f"{self}: no answer to {operation} in {_ANSWER_S:g} s") from None
        if not line:
            status = await self._process.wait()
            raise self._failed(f"{self} ended (status {status}) when asked to {operation}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self._failed(f"{self}: {answer['error']}")
        done: dict[str, Any] = answer["ok"]
        return done

    def _failed(self, why: str) -> ContenderFailed:
        """With the last that it wrote to standard error as a note."""
        failure = ContenderFailed(why)
        # Read without moving the position, at which the process writes.
        size = os.fstat(self._notes.fileno()).st_size
        read = os.pread(self._notes.fileno(), _MOST_NOTES, max(0, size - _MOST_NOTES))
        lines = read.decode(errors="replace").splitlines()
        if lines:
            failure.add_note("\n".join(lines[-_LAST_NOTES:]))
        return failure

    async def end(self) -> None:
        """End it: by the end of its input, and by force after ten seconds."""
        if self._process.returncode is None and self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._notes.close()

    def __str__(self) -> str:
        return f"{self.contender.name}'s {self.role} (pid {self.pid})"
