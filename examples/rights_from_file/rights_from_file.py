r"""Rights from a TOML file: groups, and what users and groups may do on which printer or server.

::

    [groups]
    helpdesk = ["carol", 'CORP\dave']

    [rights.'\\print01']
    "@helpdesk" = "administer"

    [rights.'\\print01\laser-3']
    alice = ["use", "READ_CONTROL"]

A name is exact: rights on a server are none on its printers. The file is read again when it
changed; while it cannot be read, or has a fault, the broker says RightsUnavailable.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

from broker import Name, Right
from broker.names import parse_user
from broker.rights import parse_right

GROUP = "@"


class RightsFromFile:
    """A rights source: ``Broker.connect(..., rights=RightsFromFile("rights.toml"))``."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._seen: tuple[int, ...] = ()
        self._rights: dict[tuple[str, Name], Right] = {}

    async def rights(self, user: str, name: Name) -> Right:
        """What the file gives this user on this printer or server, by himself and by his groups."""
        await asyncio.to_thread(self._read)
        return self._rights.get((user, name), Right(0))

    def _read(self) -> None:
        about = self._path.stat()
        seen = (about.st_mtime_ns, about.st_size, about.st_ino)
        if seen != self._seen:
            with self._path.open("rb") as file:
                self._rights = read(tomllib.load(file))
            self._seen = seen


def read(content: dict[str, Any]) -> dict[tuple[str, Name], Right]:
    """User and name to rights. Raises InvalidName, InvalidArgument and KeyError for faults."""
    groups = {
        group: [parse_user(user) for user in users]
        for group, users in content.get("groups", {}).items()
    }
    found: dict[tuple[str, Name], Right] = defaultdict(lambda: Right(0))
    for text, given in content.get("rights", {}).items():
        name = Name.parse(text)
        for who, words in given.items():
            users = groups[who.removeprefix(GROUP)] if who.startswith(GROUP) else [parse_user(who)]
            for word in [words] if isinstance(words, str) else words:
                for user in users:
                    found[user, name] |= parse_right(word, name)
    return dict(found)
