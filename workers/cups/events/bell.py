"""The bell: a socket by which the notifier, and whoever else has something, wakes the bridge."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from workers.cups.notifier import END


class Bell(asyncio.DatagramProtocol):
    """Enter it to hear it; a ring while nobody waits is not lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rang = asyncio.Event()
        self._has_ended = False
        self._transport: asyncio.BaseTransport | None = None

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        """Somebody rings."""
        self._has_ended = self._has_ended or data == END
        self._rang.set()

    def took_leave(self) -> bool:
        """Whether a notifier ended since this was asked last."""
        ended, self._has_ended = self._has_ended, False
        return ended

    def ring(self) -> None:
        """The same, from here."""
        self._rang.set()

    async def wait(self, timeout: float) -> None:
        """Until it rings, or for so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._rang.wait()
        self._rang.clear()

    async def __aenter__(self) -> Self:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            bell.setblocking(False)
            bell.bind(str(self._path))
            share(self._path)
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=bell)
        except BaseException:
            bell.close()
            raise
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be heard."""
        self._transport = transport

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._transport is not None:
            self._transport.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def share(path: Path) -> None:
    """Let those use a socket who may write to its folder: cupsd's user among them.

    They may also put something else in its place, which is left alone. Raises OSError.
    """
    folder = path.parent.stat()
    held = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(held).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), str(path))
        itself = f"/proc/self/fd/{held}"
        os.chmod(itself, 0o660 & folder.st_mode)  # noqa: PTH101 - it is no path
        if os.geteuid() == 0:
            os.chown(itself, folder.st_uid, folder.st_gid)
    finally:
        os.close(held)
