"""Entries and bells: how what a script appended reads in Python. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class EntryId(NamedTuple):
    """``<epoch>-<number>``: ordered; the number rises by one within a stream."""

    epoch: int
    number: int

    @classmethod
    def parse(cls, text: bytes | str) -> EntryId:
        """Read a stream id."""
        epoch, _, number = (text.decode() if isinstance(text, bytes) else text).partition("-")
        return cls(int(epoch), int(number))

    @property
    def next(self) -> EntryId:
        """The least id above this one."""
        return EntryId(self.epoch, self.number + 1)

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"


class Entry(NamedTuple):
    """One entry of a stream, or one event of a board."""

    id: EntryId
    fields: dict[str, bytes]

    def text(self, field: str) -> str:
        """A field's text, empty where the entry has none."""
        return self.fields.get(field, b"").decode()

    @property
    def reference(self) -> str | None:
        """Key of the body where it is kept apart."""
        ref = self.fields.get("ref")
        return None if ref is None else ref.decode()

    @property
    def is_release(self) -> bool:
        """Whether it says that the printer is gone (R65), and is no notification."""
        return self.fields.get("event") == b"release"

    def with_body(self, body: bytes) -> Entry:
        """The same entry, its body fetched."""
        return Entry(self.id, {**self.fields, "body": body})


def entry(id_: bytes, flat: Sequence[bytes]) -> Entry:
    """An entry from its flat list of fields and values."""
    return Entry(
        EntryId.parse(id_),
        {flat[i].decode(): flat[i + 1] for i in range(0, len(flat) - 1, 2)},
    )


def read_range(reply: Sequence[Any]) -> list[Entry]:
    """The reply of XRANGE. An entry that was deleted meanwhile has no fields and is left out."""
    return [entry(id_, flat) for id_, flat in reply if flat is not None]


def read_bell(payload: bytes) -> tuple[EntryId, Entry | None]:
    """A bell: the id that it announces, and the entry where it travelled inside.

    Raises ValueError for anything that is no bell.
    """
    parts = _netstrings(payload)
    if len(parts) % 2 == 0:
        raise ValueError("no bell: an id, and fields with their values")
    return EntryId.parse(parts[0]), entry(parts[0], parts[1:]) if len(parts) > 1 else None


def _netstrings(payload: bytes) -> list[bytes]:
    parts: list[bytes] = []
    at = 0
    while at < len(payload):
        colon = payload.index(b":", at, at + 12)
        length = payload[at:colon]
        if not length.isdigit():
            raise ValueError("no length")
        end = colon + 1 + int(length)
        if end > len(payload):
            raise ValueError("a bell that was cut off")
        parts.append(payload[colon + 1 : end])
        at = end
    return parts
