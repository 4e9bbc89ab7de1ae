"""What a backend and its bridge say to each other: an object of JSON a line, over a Unix socket.

Nothing but the standard library: cupsd starts one of the two.

================  ============  ====================================================================
from the backend ``job``       first, with the ``version`` and the job's facts; ``printing`` where
                                it prints already, and only came back
..                ``reasons``   the printer's state reasons in force now, all of them
..                ``stopped``   cupsd has it stopped
..                ``over``      the inner backend has ended: its exit status
from the bridge   ``heard``     it will say more
..                ``wait``      a question stands; ``text`` for people
..                ``still``     the same, now and then: it lives
..                ``print``     nothing stands against it
..                ``cancel``    do not print, or end it; ``text`` for people
..                ``hold``      the same, and let the job be held
..                ``refused``   this bridge will have no word of it: ``text`` says why
================  ============  ====================================================================
"""

from __future__ import annotations

import json
from typing import Any

VERSION = 1
LONGEST = 65_536
"""Bytes of a line, its end included."""
LONGEST_TEXT = 1_000
"""Characters of a text for people."""
LONGEST_WORD = 4_096
"""Characters of a name or a title."""
LONGEST_OPTIONS = 16_384


class Misspoken(ValueError):
    """A line that is none of these."""


def encode(say: str, **fields: Any) -> bytes:
    """A line. Raises Misspoken where it would be too long."""
    line = json.dumps({"say": say, **fields}, separators=(",", ":")).encode() + b"\n"
    if len(line) > LONGEST:
        raise Misspoken(f"{say!r} would have {len(line)} bytes; a line has up to {LONGEST}")
    return line


def decode(line: bytes) -> dict[str, Any]:
    """What a line says; ``say`` is a word. Raises Misspoken."""
    if len(line) > LONGEST:
        raise Misspoken(f"a line has more than {LONGEST} bytes")
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Misspoken(f"no JSON: {error}") from None
    if not isinstance(said, dict) or not isinstance(said.get("say"), str):
        raise Misspoken("a line is an object with the word that it says")
    return said


class Lines:
    """Cuts what arrives into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now. Raises Misspoken where one has no end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            self._rest = b""
            raise Misspoken(f"a line has more than {LONGEST} bytes")
        return lines
