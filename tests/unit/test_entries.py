"""What scripts append reads the same here; a bell that is torn or foreign is recognised as such.

Anybody who may publish can ring: whatever a bell carries, reading it ends at once, with the bell
or with a ValueError.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker._entries import Entry, EntryId, entry, read_bell, read_range

parts = st.binary(max_size=20)
ids = st.builds(EntryId, st.integers(0, 2**53), st.integers(0, 2**53))


values = st.binary(max_size=20).filter(lambda value: b"\0" not in value)
names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=9
)
fields = st.dictionaries(names.filter(lambda name: name != "body"), values, max_size=5)
carried = st.tuples(ids, fields, st.none() | parts)


def netstrings(*parts: bytes) -> bytes:
    """Without a comma."""
    return b"".join(b"%d:%s" % (len(part), part) for part in parts)


def bell(id_: bytes, *flat: bytes, body: bytes | None = None) -> bytes:
    """What a bell says of one entry, as the scripts ring it."""
    return netstrings(b"\0".join((id_, *flat, *([] if body is None else [b"body"]))), body or b"")


def rung(entries: list[tuple[EntryId, dict[str, bytes], bytes | None]]) -> bytes:
    """A bell that carries these."""
    return b"".join(
        bell(
            str(id_).encode(),
            *(part for name, value in fields.items() for part in (name.encode(), value)),
            body=body,
        )
        for id_, fields, body in entries
    )


# Ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["5-7", b"5-7"])
def test_an_id_is_epoch_and_number(text: str | bytes) -> None:
    id_ = EntryId.parse(text)
    assert (id_.epoch, id_.number, str(id_)) == (5, 7, "5-7")
    assert id_.next == EntryId(5, 8)


@given(ids)
def test_an_id_reads_as_it_was_written(id_: EntryId) -> None:
    assert EntryId.parse(str(id_)) == EntryId.parse(str(id_).encode()) == id_


def test_ids_are_ordered_by_epoch_then_number() -> None:
    falling = [EntryId(10, 0), EntryId(2, 1), EntryId(1, 10), EntryId(1, 9)]
    assert sorted(falling) == falling[::-1], "as numbers, not as text"


@pytest.mark.parametrize("text", ["", "-", "5", "5-", "-7", "a-b", b"\xff-1", "5:7"])
def test_what_is_no_id_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        EntryId.parse(text)


# Entries ----------------------------------------------------------------------------------------


def test_a_release_is_told_from_notifications() -> None:
    assert entry(b"5-7", [b"event", b"release", b"deletion", b"d"]).is_release
    assert not entry(b"5-7", [b"channel", b"release", b"body", b"release"]).is_release


def test_fields_read_by_name_and_bodies_stay_bytes() -> None:
    read = entry(b"5-7", [b"event", b"offer", b"body", b"\x00\xff"])
    assert read == Entry(EntryId(5, 7), {"event": b"offer", "body": b"\x00\xff"})
    assert (read.text("event"), read.text("missing")) == ("offer", "")


def test_a_body_by_reference_is_put_in_beside_its_reference() -> None:
    read = entry(b"5-7", [b"ref", b"tympan:{p}:body:c0ffee"])
    assert read.reference == "tympan:{p}:body:c0ffee"
    whole = read.with_body(b"page")
    assert (whole.id, whole.fields["body"], whole.reference) == (read.id, b"page", read.reference)
    assert "body" not in read.fields, "the entry that was read stays as it was"


def test_an_entry_without_a_reference_has_none() -> None:
    assert entry(b"5-7", [b"body", b""]).reference is None


def test_an_entry_that_was_deleted_meanwhile_is_left_out() -> None:
    reply = [[b"5-7", [b"a", b"1"]], [b"5-8", None], [b"5-9", [b"a", b"3"]]]
    assert [(read.id.number, read.text("a")) for read in read_range(reply)] == [(7, "1"), (9, "3")]


# Bells ------------------------------------------------------------------------------------------


def test_a_bell_without_an_entry_announces_an_id() -> None:
    assert read_bell(bell(b"5-7")) == [(EntryId(5, 7), None)]


def test_a_bell_carries_the_entry() -> None:
    ((id_, carried),) = read_bell(bell(b"5-7", b"event", b"offer", body=b"a:b\x00,"))
    assert id_ == EntryId(5, 7)
    assert carried == Entry(id_, {"event": b"offer", "body": b"a:b\x00,"})


def test_an_empty_body_is_told_from_none() -> None:
    assert read_bell(bell(b"5-7", b"a", b"", body=b"")) == [
        (EntryId(5, 7), Entry(EntryId(5, 7), {"a": b"", "body": b""}))
    ]
    assert read_bell(bell(b"5-7", b"a", b"")) == [(EntryId(5, 7), Entry(EntryId(5, 7), {"a": b""}))]


@given(st.lists(carried, min_size=1, max_size=4))
def test_a_bell_reads_as_it_was_rung(
    entries: list[tuple[EntryId, dict[str, bytes], bytes | None]],
) -> None:
    expected = [
        (id_, fields if body is None else {**fields, "body": body}) for id_, fields, body in entries
    ]
    assert read_bell(rung(entries)) == [
        (id_, Entry(id_, fields) if fields else None) for id_, fields in expected
    ]


@given(st.lists(carried, min_size=1, max_size=4), st.data())
def test_a_torn_bell_is_no_bell(
    entries: list[tuple[EntryId, dict[str, bytes], bytes | None]], data: st.DataObject
) -> None:
    """Torn within an entry it is refused; torn between two it is a shorter bell."""
    whole = rung(entries)
    ends = {len(rung(entries[:n])) for n in range(1, len(entries) + 1)}
    cut = data.draw(st.sampled_from(sorted(set(range(len(whole))) - ends)))
    with pytest.raises(ValueError, match=r"."):
        read_bell(whole[:cut])


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"hello", id="text"),
        pytest.param(b":", id="no length"),
        pytest.param(b"3:5-", id="cut off"),
        pytest.param(b"3:5-7", id="no body behind"),
        pytest.param(b"3:5-70:x", id="something behind"),
        pytest.param(b"3:abc0:", id="no id"),
        pytest.param(b"x:abc0:", id="a length that is no number"),
        pytest.param(b"-3:", id="a length that points back to its own beginning"),
        pytest.param(b"3:5-7-2:", id="a later length that points back"),
        pytest.param(b"-1:5-70:", id="a negative length"),
        pytest.param(b"+3:5-70:", id="a length with a sign"),
        pytest.param(b" 3:5-70:", id="a length with a space"),
        pytest.param(b"0_3:5-70:", id="a length with an underscore"),
        pytest.param("\u0663:5-70:".encode(), id="a length in other digits"),
        pytest.param(b"9" * 5000 + b":5-7", id="a length of five thousand digits"),
        pytest.param(bell(b"5-7", b"\xff\xfe", b"x"), id="a field that is no text"),
        pytest.param(bell(b"5-7", b"event"), id="a field without a value"),
        pytest.param(netstrings(b"5-7", b"event", b"1"), id="one of an earlier version"),
        pytest.param(netstrings(b"5-7", b"page"), id="a body without its field"),
    ],
)
def test_a_foreign_message_is_no_bell(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_bell(payload)


@pytest.mark.timeout(30)
@given(st.binary(max_size=40))
def test_any_message_at_all_is_a_bell_or_a_value_error(payload: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_bell(payload)
