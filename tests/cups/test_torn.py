"""The event stream: every whole message comes out unchanged, and two never become one."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from tests.cups.messages import CAPTURED, HEADER_OF_EVENT, event_message
from workers.cups.cupsd.event import Event
from workers.cups.cupsd.ipp import MOST, Tag
from workers.cups.events.torn import Stream

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300)
MESSAGES = st.builds(
    lambda sequence, name, text, pages: event_message(sequence, name, text=text, **pages),
    st.integers(1, 2**31 - 1),
    st.sampled_from(["printer-state-changed", "server-started"]),
    TEXT,
    st.just({}),
) | st.builds(
    lambda sequence, job, title, pages, state: event_message(
        sequence, "job-progress", job=job, title=title, pages=pages, job_state=state
    ),
    st.integers(1, 2**31 - 1),
    st.integers(1, 2**31 - 1),
    TEXT,
    st.integers(0, 2**31 - 1),
    st.integers(3, 9),
)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, over and over."""
    found, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return found


def cut(stream: Stream, data: bytes, sizes: list[int]) -> list[bytes]:
    return [message for part in pieces(data, sizes) for message in stream.feed(part)]


SIZES = st.lists(st.integers(20, 700), min_size=1, max_size=6)
CUT = st.lists(st.tuples(MESSAGES, st.none() | st.floats(0, 1, exclude_max=True)), max_size=12)


@given(CUT, SIZES)
@example([(event_message(1), 8.5 / len(event_message(1))), (event_message(2), None)], [1])
def test_whole_messages_come_out_unchanged_whatever_is_cut(
    written: list[tuple[bytes, float | None]], sizes: list[int]
) -> None:
    data, whole, torn = b"", [], 0
    for message, fraction in written:
        kept = message if fraction is None else message[: int(fraction * len(message))]
        data += kept
        torn += 0 < len(kept) < len(message)
        whole += [message] if kept == message else []
    stream = Stream()
    assert cut(stream, data, sizes) == whole
    stream.finish()
    # Pieces that are shorter than a header are one with the piece before.
    assert (stream.torn > 0) == (torn > 0)
    assert stream.torn <= torn
    assert stream.oversized == 0


@given(st.data())
def test_cuts_between_attributes_never_merge_two_events(data: st.DataObject) -> None:
    """As cupsd leaves out the rest of a message: at the end of an attribute, also of the last."""
    messages = Stream().feed(CAPTURED.read_bytes())
    stream, told = b"", []
    for message in messages:
        ends = _ends_of_attributes(message)
        end = data.draw(st.sampled_from([*ends, len(message), len(message)]))
        stream += message[:end]
        told += [message] if end == len(message) else []
    assert Stream().feed(stream) == told


def _ends_of_attributes(message: bytes) -> list[int]:
    """Of its header, and of each of its attributes."""
    ends, at = [8], 9
    while message[at] != Tag.END:
        at += 1
        for _ in range(2):
            at += 2 + int.from_bytes(message[at : at + 2], "big")
        ends.append(at)
    return ends


def test_it_makes_no_difference_how_few_bytes_are_read_at_a_time() -> None:
    messages = Stream().feed(CAPTURED.read_bytes())[:4]
    assert cut(Stream(), b"".join(messages), [1]) == messages


def test_the_naive_reader_would_merge_these() -> None:
    first, second = event_message(1, text="one"), event_message(2, text="two")
    stream = Stream()
    whole = stream.feed(first[:-1] + second)
    assert [Event.decode(message).text for message in whole] == ["two"]
    assert stream.torn == 1


@given(st.binary(max_size=2000), SIZES)
def test_what_comes_after_garbage_is_found(garbage: bytes, sizes: list[int]) -> None:
    message = event_message(7, text="after")
    stream = Stream()
    found = cut(stream, garbage + message, sizes)
    assert found[-1] == message


def test_a_message_that_is_too_long_is_dropped_and_counted() -> None:
    long = event_message(1, text="x" * 30_000)[:-1]
    attribute = bytes([Tag.TEXT]) + b"\0\1a" + (30_000).to_bytes(2, "big") + b"y" * 30_000
    endless = long + 4 * attribute
    after = event_message(2)
    for sizes in ([1 << 20], [4096], [9999, 17]):
        stream = Stream()
        assert cut(stream, event_message(9) + endless + after, sizes)[-1] == after
        assert (stream.oversized, stream.torn) in {(1, 0), (0, 1)}
        assert stream.feed(b"") == []
    stream = Stream()
    assert cut(stream, endless, [4096]) == []
    assert (stream.oversized, stream.torn) == (1, 0)
    assert len(stream._buffer) < MOST


def test_memory_is_bounded_whatever_comes() -> None:
    stream = Stream()
    for _ in range(100):
        stream.feed(b"\x41\0\0" * 30_000)
        assert len(stream._buffer) <= 2 * MOST
    assert stream.torn + stream.oversized == 1


def test_the_rest_of_a_stream_that_ends_is_torn() -> None:
    stream = Stream()
    stream.feed(event_message(1)[:40])
    stream.finish()
    assert stream.torn == 1
    stream.finish()
    assert stream.torn == 1


def test_a_header_alone_is_not_taken_for_a_message() -> None:
    stream = Stream()
    assert stream.feed(HEADER_OF_EVENT) == []
    assert stream.feed(event_message(3)) == [event_message(3)]
    assert stream.torn == 1
