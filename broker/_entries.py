"""Entries and bells: how what a script appended reads in Python. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


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

    @property
    def previous(self) -> EntryId:
        """Below this one, and not below any other that is."""
        return EntryId(self.epoch, self.number - 1)

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"


class Sent(NamedTuple):
    """A unidirectional notification, as its entry tells of it."""

    channel: str
    number: int
    """Which one of its channel it is; 0 where that was not told."""
    printer: str
    user: str
    """The channel's target user, or EVERYONE."""
    at: float
    """When Redis took it, in seconds of its clock."""
    trace: str
    body: bytes | None


@dataclass(slots=True)
class Entry:
    """One entry of a stream, or one event of a board."""

    id: EntryId
    fields: dict[str, bytes]
    _sent: Sent | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    @property
    def sent(self) -> Sent:
        """Read once, however many listen."""
        if self._sent is None:
            value = self.fields.get
            self._sent = Sent(
                value("channel", b"").decode(),
                int(value("op") or 0),
                value("printer", b"").decode(),
                value("user", b"").decode(),
                float(value("at") or 0) / 1000,
                value("trace", b"").decode(),
                value("body"),
            )
        return self._sent

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


def by_name(flat: Sequence[T]) -> dict[T, T]:
    """What Redis tells as names and values in turn: XINFO, HGETALL, SENTINEL MASTER."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def entry(id_: bytes, flat: Sequence[bytes]) -> Entry:
    """An entry from its flat list of fields and values."""
    return _entry(EntryId.parse(id_), flat)


def _entry(id_: EntryId, flat: Sequence[bytes]) -> Entry:
    names = iter(flat)
    return Entry(id_, {_NAMES[name]: value for name, value in zip(names, names, strict=False)})


class _Names(dict[bytes, str]):
    """Names of fields as text; they are few."""

    MOST = 256

    def __missing__(self, name: bytes) -> str:
        text = name.decode()
        if len(self) < self.MOST:
            self[name] = text
        return text


_NAMES = _Names()


def read_range(reply: Sequence[Any]) -> list[Entry]:
    """The reply of XRANGE. An entry that was deleted meanwhile has no fields and is left out."""
    return [entry(id_, flat) for id_, flat in reply if flat is not None]


def read_bell(payload: bytes) -> list[tuple[EntryId, Entry | None]]:
    """A bell: the ids that it announces, and each entry where it travelled inside.

    Of each entry two netstrings: id, names and values with NUL between them, ``body`` last where it
    has one; then the body. Raises ValueError for anything that is no bell.
    """
    rung: list[tuple[EntryId, Entry | None]] = []
    at = 0
    while at < len(payload):
        head, at = _netstring(payload, at)
        body, at = _netstring(payload, at)
        id_, *flat = head.split(b"\0")
        parsed = EntryId.parse(id_)
        if len(flat) % 2:
            if flat[-1] != b"body":
                raise ValueError("no bell: fields with their values, and a body")
            flat.append(body)
        elif body:
            raise ValueError("no bell: a body, and no field for it")
        rung.append((parsed, _entry(parsed, flat) if flat else None))
    if not rung:
        raise ValueError("no bell: it announces nothing")
    return rung


def _netstring(payload: bytes, at: int) -> tuple[bytes, int]:
    """What begins there, and where it ends."""
    colon = payload.index(b":", at, at + 12)
    length = payload[at:colon]
    if not length.isdigit():
        raise ValueError("no length")
    end = colon + 1 + int(length)
    if end > len(payload):
        raise ValueError("a bell that was cut off")
    return payload[colon + 1 : end], end
