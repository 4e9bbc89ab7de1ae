"""The counter: the Unix socket where backends ask the bridge about their jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any, Self

import click

from workers.cups.dialogs.answers import JobKey
from workers.cups.dialogs.asking import Asking
from workers.cups.dialogs.job_run import SETTLES, Hello, JobRun
from workers.cups.events.bell import share
from workers.cups.file import Place
from workers.cups.printing import slip
from workers.cups.printing.held_note import HeldNote, notes
from workers.cups.printing.run_file import FOLDER, sweep

log = logging.getLogger("tympan.cups")

MOST = 1_000
"""Backends at a time."""
FIRST_WORD = 10.0
"""Seconds that a backend has for it."""
SWEEP_EVERY = 3_600.0
KEEP_RUNS = 7 * 86_400.0
_CREDENTIALS = struct.Struct("3i")


class Uncounted(click.ClickException):
    """The socket cannot be made; says why, and what to do."""


def trusted(spool: Path) -> frozenset[int]:
    """Who may ask: root, who owns the spool, and who runs this."""
    return frozenset({0, spool.stat().st_uid, os.geteuid()})


class Counter:
    """It is open while it is entered; whoever is at it when it is left comes again.

    Args:
        place: where the socket is to be.
        asking: where questions stand.
        users: numbers of those who may ask; default as :func:`trusted` says.
        settles: seconds for which a state reason stands before it is asked about.
    """

    def __init__(
        self,
        place: Place,
        asking: Asking,
        *,
        users: Collection[int] | None = None,
        settles: float = SETTLES,
    ) -> None:
        self._place = place
        self._asking = asking
        self._users = trusted(place.spool) if users is None else frozenset(users)
        self._settles = settles
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._backends = 0

    async def __aenter__(self) -> Self:
        path = self._place.counter
        try:
            self._server = await asyncio.start_unix_server(
                self._came, os.fspath(path), limit=slip.LONGEST
            )
            share(path)
        except OSError as error:
            why = error.strerror or str(error)
            raise Uncounted(
                f"backends cannot be served at {path} ({why}): the folder has to be this user's, "
                "and the path below 108 bytes"
            ) from None
        self._spawn(self._sweep())
        for note in notes(self._place.spool):
            self._spawn(self._let_go(note))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._place.counter.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._attend(reader, writer))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(word: str, text: str) -> None:
            if not writer.is_closing():
                writer.write(slip.encode(word, text=text[: slip.LONGEST_TEXT]))

        self._backends += 1
        try:
            await self._follow(reader, writer, say)
        except* slip.Misspoken as errors:
            why = str(errors.exceptions[0])
            log.warning("a backend was refused: %s", why)
            say("refused", why)
        except* (OSError, TimeoutError) as errors:
            log.debug("a backend went: %s", errors.exceptions[0])
        except* Exception:
            log.exception("a backend is left alone: a fault of Tympan's")
        finally:
            self._backends -= 1
            writer.close()
            with contextlib.suppress(OSError):  # it is gone already
                await writer.wait_closed()

    async def _follow(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, say: Any
    ) -> None:
        user = _peer(writer)
        if user not in self._users:
            raise slip.Misspoken(f"user {user} may not ask here")
        if self._backends > MOST:
            raise slip.Misspoken(f"{MOST} backends are here already")
        lines = _lines(reader)
        async with asyncio.timeout(FIRST_WORD):
            first = await anext(lines, None)
        if first is not None:
            await JobRun(self._asking, Hello.of(first), say, self._settles).follow(lines)

    async def _let_go(self, note: HeldNote) -> None:
        await self._asking.let_go(JobKey(note.job, note.mark))
        note.remove()

    async def _sweep(self) -> None:
        while True:
            await asyncio.to_thread(sweep, self._place.spool / FOLDER, KEEP_RUNS)
            await asyncio.sleep(SWEEP_EVERY)


def _peer(writer: asyncio.StreamWriter) -> int:
    """The number of the user at the other end."""
    connection: socket.socket = writer.get_extra_info("socket")
    said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(said)
    return int(user)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[Mapping[str, Any]]:
    """What a backend says, until it goes. Raises Misspoken."""
    while True:
        try:
            line = await reader.readline()
        except ValueError:
            raise slip.Misspoken(f"a line has more than {slip.LONGEST} bytes") from None
        if not line.endswith(b"\n"):
            return
        yield slip.decode(line)
