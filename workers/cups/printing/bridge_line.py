"""A backend's line to its bridge.

Nothing but the standard library: cupsd starts what uses it.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from workers.cups.printing import slip

_AT_ONCE = 65_536
_PATIENCE = 1.0
"""Seconds that a bridge has to take a connection, or a line."""


class BridgeLine:
    """The connection to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = slip.Lines()
        self._socket: socket.socket | None = None
        self.why = ""
        """Why there is none."""

    def connect(self) -> bool:
        """Whether there is one now."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        made.settimeout(_PATIENCE)
        try:
            made.connect(os.fspath(self._path))
        except OSError as error:
            self.why = f"{self._path}: {error.strerror or error}"
            made.close()
            return False
        self._lines, self._socket = slip.Lines(), made
        return True

    @property
    def descriptor(self) -> int:
        """Of the connection; -1 without one."""
        return self._socket.fileno() if self._socket else -1

    def say(self, word: str, **fields: Any) -> None:
        """Say it, where somebody is there."""
        if self._socket is not None:
            try:
                self._socket.sendall(slip.encode(word, **fields))
            except OSError as error:
                self.leave(str(error))

    def heard(self) -> list[dict[str, Any]]:
        """What it says; nothing, and no connection any more, where it has gone."""
        assert self._socket is not None
        try:
            data = self._socket.recv(_AT_ONCE)
            said = [slip.decode(line) for line in self._lines.feed(data)]
        except (OSError, slip.Misspoken) as error:
            self.leave(str(error))
            return []
        if not data:
            self.leave("it has ended")
        return said

    def leave(self, why: str = "") -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket, self.why = None, why
