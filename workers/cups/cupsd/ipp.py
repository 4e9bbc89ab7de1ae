"""IPP messages: their bytes, and what these say (RFC 8010). Pure; nothing but the standard library.

Values are Python's: ``int`` (also of enums), ``bool``, ``str``, ``bytes``, ``datetime``, a
:class:`Range`, a :class:`Resolution`, a ``dict`` for a collection, and None for a value that is
missing, unknown, or not as its own tag has it. A text with a language is a ``str`` without it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum
from typing import NamedTuple, TypeVar

MOST = 65_536
"""Bytes of a message that is read, unless more is allowed."""
DEEPEST = 8
"""Collections in collections that are read."""
HEADER = struct.Struct(">BBHI")
_SHORT = struct.Struct(">h")
_INT = struct.Struct(">i")
_RANGE = struct.Struct(">ii")
_RESOLUTION = struct.Struct(">iib")


class Tag(IntEnum):
    """What a group or a value is."""

    OPERATION = 0x01
    JOB = 0x02
    END = 0x03
    PRINTER = 0x04
    UNSUPPORTED_GROUP = 0x05
    SUBSCRIPTION = 0x06
    EVENT = 0x07

    UNSUPPORTED = 0x10
    UNKNOWN = 0x12
    NO_VALUE = 0x13
    DELETE = 0x16
    INTEGER = 0x21
    BOOLEAN = 0x22
    ENUM = 0x23
    OCTETS = 0x30
    DATE_TIME = 0x31
    RESOLUTION = 0x32
    RANGE = 0x33
    COLLECTION = 0x34
    TEXT_WITH_LANGUAGE = 0x35
    NAME_WITH_LANGUAGE = 0x36
    END_COLLECTION = 0x37
    TEXT = 0x41
    NAME = 0x42
    KEYWORD = 0x44
    URI = 0x45
    URI_SCHEME = 0x46
    CHARSET = 0x47
    LANGUAGE = 0x48
    MIME_TYPE = 0x49
    MEMBER = 0x4A


FIRST_VALUE_TAG = 0x10


class Range(NamedTuple):
    """Both ends belong to it."""

    lower: int
    upper: int


class Resolution(NamedTuple):
    """``units``: 3 for dots per inch, 4 for dots per centimetre."""

    across: int
    down: int
    units: int


Value = int | bool | str | bytes | datetime | Range | Resolution | dict[str, list["Value"]] | None
V = TypeVar("V", str, int, bytes, datetime)


class Fault(ValueError):
    """Bytes that are no message; the text says what is wrong with them."""


class Short(Fault):
    """Bytes that may be the beginning of a message: more have to come."""


@dataclass(slots=True)
class Group:
    """Attributes in their order; of two of one name the first counts."""

    tag: int
    attributes: dict[str, list[Value]] = field(default_factory=dict)

    def all(self, name: str, kind: type[V]) -> list[V]:
        """The values of this kind that an attribute has."""
        found = self.attributes.get(name, ())
        return [value for value in found if isinstance(value, kind) and _is(value, kind)]

    def one(self, name: str, kind: type[V]) -> V | None:
        """The first of them; None where there is none."""
        return next(iter(self.all(name, kind)), None)

    def flag(self, name: str) -> bool | None:
        """A truth value; None where there is none."""
        found = self.attributes.get(name, ())
        return next((value for value in found if isinstance(value, bool)), None)


def _is(value: object, kind: type) -> bool:
    return kind is not int or not isinstance(value, bool)


@dataclass(slots=True)
class Message:
    """A request (``code``: the operation), a response or an event (``code``: the status)."""

    code: int
    request_id: int = 1
    groups: list[Group] = field(default_factory=list)
    version: tuple[int, int] = (2, 0)

    def of(self, tag: int) -> list[Group]:
        """Its groups with this tag."""
        return [group for group in self.groups if group.tag == tag]

    def first(self, tag: int) -> Group:
        """The first of them; an empty one where there is none."""
        return next(iter(self.of(tag)), Group(tag))


class TooLong(Fault):
    """A message of more bytes than are read."""


# Reading ----------------------------------------------------------------------------------------


def decode(data: bytes, *, most: int = MOST) -> Message:
    """A message; what follows its end is not looked at. Raises Fault.

    The bytes may be anything: nothing in them makes it read beyond them, nor deeper than DEEPEST.
    """
    if len(data) > most:
        end_of(data, most=most)
    if len(data) < HEADER.size:
        raise Short("it ends within its header")
    major, minor, code, request_id = HEADER.unpack_from(data)
    message = Message(code, request_id, version=(major, minor))
    group = Group(0)
    values: list[Value] = []
    fields = _fields(data)
    for tag, name, value in fields:
        if tag < FIRST_VALUE_TAG:
            group = Group(tag)
            message.groups.append(group)
            values = []
        elif not message.groups:
            raise Fault("an attribute stands before the first group")
        else:
            if name:
                values = []
                group.attributes.setdefault(_text(name), values)
            if tag == Tag.COLLECTION:
                values.append(_collection(fields, DEEPEST))
            else:
                values.append(_value(tag, value))
    return message


def end_of(data: bytes | bytearray, start: int = 0, *, most: int = MOST) -> int:
    """Where a message that begins at ``start`` ends.

    Raises Short where it is not whole yet, and Fault where it is none or longer than ``most``.
    """
    at = start + HEADER.size
    length = len(data)
    limit = start + most
    while at < length:
        tag = data[at]
        at += 1
        if tag < FIRST_VALUE_TAG:
            if tag == Tag.END:
                if at > limit:
                    break
                return at
            if tag == 0:
                raise Fault(f"there is a group of tag 0 at byte {at - 1 - start}")
            continue
        for _ in range(2):  # the name, the value
            if at + 2 > length:
                at = length
                break
            many = data[at] << 8 | data[at + 1]
            if many > 0x7FFF:
                raise Fault(f"there is a negative length at byte {at - start}")
            at += 2 + many
        if at > limit:
            break
    if at > limit:
        raise TooLong(f"the message is longer than {most} bytes")
    raise Short("it is not whole")


Field = tuple[int, bytes, bytes]


def _fields(data: bytes) -> Iterator[Field]:
    """Tag, name and value of each attribute; of a group its tag alone. Raises Fault, Short."""
    at = HEADER.size
    length = len(data)
    while at < length:
        tag = data[at]
        at += 1
        if tag == Tag.END:
            return
        if tag < FIRST_VALUE_TAG:
            if tag == 0:
                raise Fault(f"there is a group of tag 0 at byte {at - 1}")
            yield tag, b"", b""
            continue
        name, at = _counted(data, at)
        value, at = _counted(data, at)
        yield tag, name, value
    raise Short("it ends before its end tag")


def _counted(data: bytes, at: int) -> tuple[bytes, int]:
    """Bytes behind their number."""
    end = at + 2
    if end > len(data):
        raise Short("it ends within a length")
    (many,) = _SHORT.unpack_from(data, at)
    if many < 0:
        raise Fault(f"there is a negative length at byte {at}")
    if end + many > len(data):
        raise Short("it ends within an attribute")
    return data[end : end + many], end + many


def _collection(fields: Iterator[Field], depth: int) -> dict[str, list[Value]]:
    """Up to its end; those that are in too many others are left out."""
    members: dict[str, list[Value]] = {}
    values: list[Value] = []
    for tag, _, value in fields:
        if tag == Tag.END_COLLECTION:
            return members
        if tag < FIRST_VALUE_TAG:
            raise Fault("a group begins within a collection")
        if tag == Tag.MEMBER:
            values = members.setdefault(_text(value), [])
        elif tag == Tag.COLLECTION and depth:
            values.append(_collection(fields, depth - 1))
        elif tag == Tag.COLLECTION:
            _skip(fields)
        else:
            values.append(_value(tag, value))
    raise Fault("a collection has no end")


def _skip(fields: Iterator[Field]) -> None:
    """To the end of a collection, without recursion."""
    depth = 1
    for tag, _, _ in fields:
        depth += (tag == Tag.COLLECTION) - (tag == Tag.END_COLLECTION)
        if not depth:
            return
    raise Fault("a collection has no end")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _value(tag: int, data: bytes) -> Value:
    """A value; None where its bytes are not as its tag has it."""
    try:
        match tag:
            case Tag.INTEGER | Tag.ENUM:
                return int(_INT.unpack(data)[0])
            case Tag.BOOLEAN:
                return {b"\0": False, b"\1": True}.get(data)
            case Tag.RANGE:
                return Range(*_RANGE.unpack(data))
            case Tag.RESOLUTION:
                return Resolution(*_RESOLUTION.unpack(data))
            case Tag.DATE_TIME:
                return _moment(data)
            case Tag.TEXT_WITH_LANGUAGE | Tag.NAME_WITH_LANGUAGE:
                _, at = _counted(data, 0)
                return _text(_counted(data, at)[0])
            case Tag.OCTETS:
                return data
            case _ if 0x40 <= tag < 0x60:
                return _text(data)
            case _:
                return None
    except (struct.error, ValueError, OverflowError):  # Fault is a ValueError
        return None


def _moment(data: bytes) -> datetime:
    year, month, day, hour, minute, second, tenth, sign, hours, minutes = struct.unpack(
        ">HBBBBBBcBB", data
    )
    ahead = timedelta(hours=hours, minutes=minutes) * (-1 if sign == b"-" else 1)
    at = datetime(year, month, day, hour, minute, min(second, 59), tenth * 100_000, UTC)
    return at.replace(tzinfo=timezone(ahead))


# Writing ----------------------------------------------------------------------------------------

Attributes = Mapping[str, tuple[int, object]]
"""By name: a tag with one value, or with a list of values."""


def encode(code: int, request_id: int, groups: Sequence[tuple[int, Attributes]]) -> bytes:
    """A message of version 2.0. Raises ValueError for a value that its tag does not have."""
    out = bytearray(HEADER.pack(2, 0, code, request_id))
    for tag, attributes in groups:
        out.append(tag)
        for name, (kind, given) in attributes.items():
            values = given if isinstance(given, list) else [given]
            for place, value in enumerate(values):
                _write(out, kind, "" if place else name, value)
    out.append(Tag.END)
    return bytes(out)


def _write(out: bytearray, tag: int, name: str, value: object) -> None:
    out.append(tag)
    _write_counted(out, name.encode())
    _write_counted(out, _bytes_of(tag, value))


def _write_counted(out: bytearray, data: bytes) -> None:
    if len(data) > 0x7FFF:
        raise ValueError(f"{len(data)} bytes are too many for one value: 32767 at the most")
    out += _SHORT.pack(len(data))
    out += data


def _bytes_of(tag: int, value: object) -> bytes:
    match tag, value:
        case Tag.BOOLEAN, bool():
            return b"\1" if value else b"\0"
        case ((Tag.INTEGER | Tag.ENUM), int()):
            return _INT.pack(value)
        case Tag.RANGE, (int() as lower, int() as upper):
            return _RANGE.pack(lower, upper)
        case Tag.OCTETS, bytes():
            return value
        case Tag.DATE_TIME, datetime():
            at = value.astimezone(UTC)
            return struct.pack(
                ">HBBBBBBcBB",
                *(at.year, at.month, at.day, at.hour, at.minute, at.second),
                *(at.microsecond // 100_000, b"+", 0, 0),
            )
        case ((Tag.NO_VALUE | Tag.UNKNOWN | Tag.UNSUPPORTED | Tag.DELETE), None):
            return b""
        case _, str() if 0x40 <= tag < 0x60:
            return value.encode()
    raise ValueError(f"{value!r} is no value of tag {tag:#04x}")
