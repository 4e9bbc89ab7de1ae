"""Backlogs: what a unidirectional registration holds unread, in order. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Generic

from broker._room import Room
from broker.notification import Notification, P


class Backlog(Generic[P]):
    """Notifications that arrived and were not fetched yet, each with the room that it waits in.

    A NOTIFICATION_RELEASE waits in no room. Each audience of the registration tells of a
    deletion; it is handed out once, when the last of them told of it: behind everything that was
    sent before. Told again, without a notification since, it is left out.
    """

    def __init__(self) -> None:
        self._unread: deque[tuple[Room | None, Notification[P]]] = deque()
        self._head_is_counted = False
        self._deletions: dict[Room, str] = {}
        self.is_released = False
        """Whether the last thing that arrived was a release."""

    def __len__(self) -> int:
        return len(self._unread)

    def add(self, place: Room, notification: Notification[P]) -> None:
        """A notification arrived in this room."""
        self._unread.append((place, notification))
        self.is_released = False

    def hear_of(self, deletion: str, place: Room, rooms: Collection[Room]) -> bool:
        """One audience told of a deletion; whether now all of ``rooms`` did."""
        self._deletions[place] = deletion
        return all(self._deletions.get(each) == deletion for each in rooms)

    def release(self, notification: Notification[P]) -> None:
        """The printer is gone, and this says so; unless it was the last thing that was said."""
        if not self.is_released:
            self._unread.append((None, notification))
            self.is_released = True

    @property
    def ends_with_release(self) -> bool:
        """Whether a release is the last thing that waits to be fetched."""
        return bool(self._unread) and self.is_released

    @property
    def head(self) -> Notification[P]:
        """The oldest one."""
        return self._unread[0][1]

    def count_head(self) -> Room | None:
        """The room in which the head's take makes room; None where that was counted before."""
        place, _ = self._unread[0]
        if place is None or self._head_is_counted:
            return None
        self._head_is_counted = True
        place.taken += 1
        return place

    def pop(self) -> None:
        """The head was handed out."""
        self._unread.popleft()
        self._head_is_counted = False

    def leave_rooms(self) -> None:
        """The rooms are gone; what arrived stays to be fetched."""
        self._unread = deque((None, each) for _, each in self._unread)
        self._head_is_counted = False
        self._deletions.clear()

    def clear(self) -> None:
        """Drop everything."""
        self._unread.clear()
        self._head_is_counted = False
        self._deletions.clear()
        self.is_released = False
