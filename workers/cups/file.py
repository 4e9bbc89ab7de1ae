"""The settings file as it stands: who may have written it, and what the notifier needs of it.

Nothing but the standard library: cupsd starts what reads it.
"""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT = Path("/etc/tympan/cups.toml")
SPOOL = Path("/var/spool/tympan")
MAX_EVENTS = 100_000
_MASTERS = frozenset({0})
"""Whose files count, beside those of who runs this."""
_MOST = 1_048_576
"""Bytes of a file that is read."""


class SettingsFault(ValueError):
    """The file cannot be used; says what is wrong with it, and what to do."""


@dataclass(frozen=True)
class Place:
    """Where the parts of one print host meet."""

    spool: Path = SPOOL
    max_events: int = MAX_EVENTS
    without_bridge: str = "print"

    @property
    def journal(self) -> Path:
        """Events that wait."""
        return self.spool / "journal"

    @property
    def answers(self) -> Path:
        """Questions that stand, and what was decided."""
        return self.spool / "answers"

    @property
    def bell(self) -> Path:
        """The socket by which the notifier wakes the bridge."""
        return self.spool / "bell"

    @property
    def counter(self) -> Path:
        """The socket where backends ask the bridge."""
        return self.spool / "counter"

    @property
    def lock(self) -> Path:
        """Held by the bridge."""
        return self.spool / "lock"

    @classmethod
    def read(cls, path: str | os.PathLike[str] = DEFAULT) -> Place:
        """From the settings file. Raises SettingsFault; the rest of the file is not looked at."""
        table = read_table(path)
        return cls(
            Path(_typed(path, table, "spool", str, str(SPOOL))),
            _typed(path, table, "max_events", int, MAX_EVENTS),
            _typed(path, table, "without_bridge", str, "print"),
        )


def read_text(path: str | os.PathLike[str]) -> str:
    """A file that only root, or who runs this, may have written. Raises SettingsFault."""
    try:
        with Path(path).open("rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise SettingsFault(f"{path} is no plain file")
            if facts.st_uid not in _MASTERS | {os.geteuid()}:
                raise SettingsFault(
                    f"{path} belongs to user {facts.st_uid}: it has to be root's "
                    f"(chown root {path})"
                )
            if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise SettingsFault(
                    f"{path} may be written by others than its owner: chmod go-w {path}"
                )
            data = file.read(_MOST + 1)
    except OSError as error:
        raise SettingsFault(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > _MOST:
        raise SettingsFault(f"{path} has more than {_MOST} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsFault(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None


def read_table(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The TOML in such a file. Raises SettingsFault."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise SettingsFault(f"{path} is no TOML: {error}") from None


def _typed(
    path: str | os.PathLike[str], table: dict[str, Any], name: str, kind: type, default: Any
) -> Any:
    value = table.get(name, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise SettingsFault(f"{path}: {name} is {value!r}; it has to be a {kind.__name__}")
    return value
