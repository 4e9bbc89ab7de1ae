"""What a registration holds unread: in order, each counted once, and a release behind it, once."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from broker import NOTIFICATION_RELEASE, UNIDIRECTIONAL, Name, Notification
from broker._backlog import Backlog
from broker._entries import EntryId
from broker._keys import Audience
from broker._room import Room

TYPE = UUID(int=1)
PRINTER = Name("print01", "laser-3")


def room(whom: str = "=alice") -> Room:
    return Room(Audience("laser-3", TYPE, UNIDIRECTIONAL, whom), EntryId(1, 0), 2, 2)


def page(data: bytes = b"page") -> Notification[Any]:
    return Notification(TYPE, data, "c", PRINTER, "alice", 0.0)


def release() -> Notification[Any]:
    return Notification(NOTIFICATION_RELEASE, None, "", PRINTER, None, 0.0)


def drained(backlog: Backlog[Any]) -> list[bytes | None]:
    found: list[bytes | None] = []
    while backlog:
        found.append(backlog.head.data)
        backlog.pop()
    return found


def test_what_arrived_leaves_in_order() -> None:
    backlog: Backlog[Any] = Backlog()
    place = room()
    for data in (b"1", b"2", b"3"):
        backlog.add(place, page(data))
    assert len(backlog) == 3
    assert drained(backlog) == [b"1", b"2", b"3"]
    assert not backlog


def test_the_head_is_counted_once_however_often_it_is_begun() -> None:
    backlog: Backlog[Any] = Backlog()
    place = room()
    backlog.add(place, page())
    backlog.add(place, page())
    assert [backlog.count_head() for _ in range(3)] == [place, None, None]
    assert place.taken == 1
    backlog.pop()
    assert backlog.count_head() is place
    assert place.taken == 2


def test_what_has_left_its_room_counts_for_nothing() -> None:
    backlog: Backlog[Any] = Backlog()
    place = room()
    backlog.add(place, page(b"1"))
    backlog.count_head()
    backlog.leave_rooms()
    assert backlog.count_head() is None
    assert place.taken == 1
    assert drained(backlog) == [b"1"]


def test_a_release_waits_in_no_room() -> None:
    backlog: Backlog[Any] = Backlog()
    backlog.release(release())
    assert backlog.head.is_release
    assert backlog.count_head() is None


def test_a_deletion_is_complete_when_every_audience_told_of_it() -> None:
    backlog: Backlog[Any] = Backlog()
    rooms = [room(), room("*")]
    assert not backlog.hear_of("d", rooms[0], rooms)
    assert not backlog.hear_of("d", rooms[0], rooms), "the same one again"
    assert backlog.hear_of("d", rooms[1], rooms)
    assert not backlog.hear_of("e", rooms[1], rooms), "another deletion"
    assert not backlog.hear_of("f", rooms[0], rooms), "the first never came here"
    assert backlog.hear_of("f", rooms[1], rooms)


def test_what_was_told_before_the_rooms_were_left_is_forgotten() -> None:
    backlog: Backlog[Any] = Backlog()
    rooms = [room(), room("*")]
    backlog.hear_of("d", rooms[0], rooms)
    backlog.leave_rooms()
    assert not backlog.hear_of("d", rooms[1], rooms)


def test_a_release_is_said_once_until_something_comes() -> None:
    backlog: Backlog[Any] = Backlog()
    place = room()
    backlog.add(place, page())
    for _ in range(3):
        backlog.release(release())
    assert drained(backlog) == [b"page", None]
    backlog.release(release())
    assert not backlog, "also where it was fetched already"
    backlog.add(place, page(b"again"))
    backlog.release(release())
    assert drained(backlog) == [b"again", None]


def test_whether_a_release_is_the_last_that_waits() -> None:
    backlog: Backlog[Any] = Backlog()
    place = room()
    assert not backlog.ends_with_release
    backlog.release(release())
    assert backlog.ends_with_release
    backlog.add(place, page())
    assert not backlog.ends_with_release
    backlog.release(release())
    backlog.pop()
    assert backlog.ends_with_release
    drained(backlog)
    assert not backlog.ends_with_release, "it was fetched"
    assert backlog.is_released


def test_what_is_dropped_is_dropped_with_all_that_is_known_of_it() -> None:
    backlog: Backlog[Any] = Backlog()
    place = room()
    backlog.add(place, page())
    backlog.count_head()
    backlog.release(release())
    backlog.hear_of("d", place, [place])
    backlog.clear()
    assert not backlog
    assert not backlog.is_released
    backlog.add(place, page())
    assert backlog.count_head() is place
