"""IPP messages: read as they were captured, written as they are read, and safe with any bytes."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cups.messages import CAPTURED, event_message
from workers.cups.cupsd.event import Event
from workers.cups.cupsd.ipp import (
    Fault,
    Group,
    Message,
    Range,
    Resolution,
    Short,
    Tag,
    TooLong,
    decode,
    encode,
    end_of,
)
from workers.cups.events.torn import Stream

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
VALUES = st.one_of(
    st.tuples(st.just(Tag.INTEGER), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(Tag.BOOLEAN), st.booleans()),
    st.tuples(st.just(Tag.OCTETS), st.binary(max_size=40)),
    st.tuples(st.just(Tag.RANGE), st.builds(Range, st.integers(-9, 9), st.integers(-9, 9))),
    *[st.tuples(st.just(tag), TEXT) for tag in (Tag.TEXT, Tag.NAME, Tag.KEYWORD, Tag.URI)],
)
ATTRIBUTES = st.dictionaries(st.text("abcdefgh-", min_size=1, max_size=12), VALUES, max_size=8)


def attribute(tag: int, value: bytes, name: str = "a") -> bytes:
    return (
        struct.pack(">bh", tag, len(name)) + name.encode() + struct.pack(">h", len(value)) + value
    )


def message(*attributes: bytes, group: int = Tag.PRINTER) -> bytes:
    return b"\2\0\0\0\0\0\0\1" + bytes([group]) + b"".join(attributes) + bytes([Tag.END])


def value(tag: int, data: bytes) -> object:
    return decode(message(attribute(tag, data))).first(Tag.PRINTER).attributes["a"][0]


def test_captured_events_are_read() -> None:
    events = [Event.decode(one) for one in Stream().feed(CAPTURED.read_bytes())]
    assert [event.sequence for event in events] == list(range(1, 29))
    assert {event.subscription for event in events} == {1}
    assert {event.user_data for event in events} == {b"tympan/0123"}
    created = events[6]
    assert (created.name, created.job, created.title) == ("job-created", 1, "Ünï “q” 'x'")
    assert (created.printer, created.job_state) == ("büro-3", 4)
    assert created.job_reasons == ("job-hold-until-specified",)
    assert [e.pages for e in events if e.name == "job-progress"] == [1, 2, 2]
    assert events[17].printer_reasons == ("toner-low-warning",)
    assert [e.is_accepting for e in events[22:24]] == [False, True]
    restarted = events[24]
    assert (restarted.name, restarted.printer, restarted.is_accepting) == (
        "server-restarted",
        "",
        None,
    )


@given(st.lists(st.tuples(st.sampled_from([Tag.OPERATION, Tag.JOB, Tag.EVENT]), ATTRIBUTES)))
def test_what_is_written_is_read(groups: list[tuple[int, dict[str, tuple[int, object]]]]) -> None:
    data = encode(0x4002, 77, groups)
    assert end_of(data) == len(data)
    read = decode(data + b"the document")
    assert (read.code, read.request_id, read.version) == (0x4002, 77, (2, 0))
    assert [group.tag for group in read.groups] == [tag for tag, _ in groups]
    for group, (_, attributes) in zip(read.groups, groups, strict=True):
        assert group.attributes == {name: [value] for name, (_, value) in attributes.items()}


def test_several_values_of_one_name() -> None:
    data = encode(0, 1, [(Tag.PRINTER, {"r": (Tag.KEYWORD, ["x", "y"]), "n": (Tag.INTEGER, 3)})])
    group = decode(data).first(Tag.PRINTER)
    assert group.all("r", str) == ["x", "y"]
    assert group.one("n", int) == 3
    assert group.one("n", str) is None
    assert group.all("missing", str) == []


def test_every_syntax() -> None:
    assert value(Tag.ENUM, b"\0\0\0\5") == 5
    assert value(Tag.BOOLEAN, b"\1") is True
    assert value(Tag.BOOLEAN, b"\2") is None
    assert value(Tag.RESOLUTION, struct.pack(">iib", 600, 300, 3)) == Resolution(600, 300, 3)
    assert value(Tag.RANGE, struct.pack(">ii", 1, 9)) == Range(1, 9)
    assert value(Tag.NO_VALUE, b"") is None
    assert value(Tag.OCTETS, b"\0\xff") == b"\0\xff"
    assert value(Tag.TEXT, b"caf\xe9") == "caf\ufffd"
    assert value(Tag.TEXT_WITH_LANGUAGE, b"\0\2de\0\4Saft") == "Saft"
    assert value(Tag.NAME_WITH_LANGUAGE, b"\0\2de\0\x40Saft") is None
    assert value(0x7F, b"anything") is None
    at = struct.pack(">HBBBBBBcBB", 2026, 11, 21, 18, 0, 5, 3, b"-", 1, 30)
    behind = timezone(-timedelta(hours=1, minutes=30))
    assert value(Tag.DATE_TIME, at) == datetime(2026, 11, 21, 18, 0, 5, 300_000, behind)
    assert value(Tag.DATE_TIME, at[:-1]) is None
    assert value(Tag.DATE_TIME, b"\0" * 11) is None
    assert value(Tag.INTEGER, b"\0\0\1") is None


def test_a_moment_is_written_in_utc() -> None:
    at = datetime(2026, 11, 21, 18, 0, 5, 300_000, timezone(timedelta(hours=2)))
    data = encode(0, 1, [(Tag.JOB, {"a": (Tag.DATE_TIME, at)})])
    assert decode(data).first(Tag.JOB).one("a", datetime) == at.astimezone(UTC)


def test_of_two_attributes_of_one_name_the_first_counts() -> None:
    data = message(
        attribute(Tag.INTEGER, b"\0\0\0\1"),
        attribute(Tag.INTEGER, b"\0\0\0\2"),
        attribute(Tag.INTEGER, b"\0\0\0\3", name=""),
    )
    assert decode(data).first(Tag.PRINTER).attributes == {"a": [1]}


def test_collections_are_read_and_too_deep_ones_skipped() -> None:
    begin, end = (attribute(tag, b"", "") for tag in (Tag.COLLECTION, Tag.END_COLLECTION))
    member = attribute(Tag.MEMBER, b"m", "")

    def whole(depth: int) -> bytes:
        inside = depth * (member + begin) + member + attribute(Tag.INTEGER, b"\0\0\0\7", "")
        after = attribute(Tag.KEYWORD, b"there", "after")
        return message(attribute(Tag.COLLECTION, b"", "c") + inside + (depth + 1) * end + after)

    group = decode(whole(1)).first(Tag.PRINTER)
    assert group.attributes["c"] == [{"m": [{"m": [7]}]}]
    for depth in (9, 20, 2000):
        group = decode(whole(depth)).first(Tag.PRINTER)
        assert group.one("after", str) == "there"
        assert "m" in str(group.attributes["c"])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", Short),
        (b"\2\0\0", Short),
        (message(attribute(Tag.TEXT, b"abc"))[:-1], Short),
        (message(attribute(Tag.TEXT, b"abc"))[:-3], Short),
        (b"\2\0\0\0\0\0\0\1" + attribute(Tag.TEXT, b"x") + b"\3", Fault),
        (b"\2\0\0\0\0\0\0\1\0\3", Fault),
        (b"\2\0\0\0\0\0\0\1\1\x41\xff\xff\3", Fault),
        (message(attribute(Tag.COLLECTION, b"")), Fault),
        (message(attribute(Tag.COLLECTION, b""), b"\2"), Fault),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, kind: type[Fault]) -> None:
    with pytest.raises(kind):
        decode(data)


def test_a_message_is_bounded() -> None:
    big = message(*[attribute(Tag.TEXT, b"x" * 30_000)] * 3)
    with pytest.raises(TooLong):
        decode(big)
    assert decode(big, most=100_000).groups
    small = event_message(1)
    assert decode(small + bytes(100_000)).groups


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_a_fault(data: bytes) -> None:
    try:
        read = decode(b"\2\0\0\0\0\0\0\1\1" + data)
    except Fault:
        return
    assert isinstance(read, Message)
    assert end_of(b"\2\0\0\0\0\0\0\1\1" + data) <= len(data) + 9


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_captured_event_with_one_byte_changed_is_harmless(place: int, byte: int) -> None:
    data = bytearray(Stream().feed(CAPTURED.read_bytes())[8])
    data[place % len(data)] = byte
    try:
        event = Event.decode(bytes(data))
    except Fault:
        return
    assert event.sequence > 0
    assert event.at.tzinfo is UTC


@pytest.mark.parametrize(
    ("tag", "wrong"),
    [(Tag.INTEGER, "3"), (Tag.BOOLEAN, 1), (Tag.TEXT, b"x"), (Tag.OCTETS, "x"), (0x7F, None)],
)
def test_a_value_that_its_tag_does_not_have_is_not_written(tag: int, wrong: object) -> None:
    with pytest.raises(ValueError, match="no value of tag"):
        encode(0, 1, [(Tag.JOB, {"a": (tag, wrong)})])


def test_a_value_is_at_most_32767_bytes() -> None:
    with pytest.raises(ValueError, match="too many"):
        encode(0, 1, [(Tag.JOB, {"a": (Tag.TEXT, "x" * 32_768)})])


def test_an_event_without_a_number_is_refused() -> None:
    with pytest.raises(Fault):
        Event.of(Group(Tag.EVENT))
