"""Rooms: the bound on what one registration holds unread of one audience. Pure.

Redis keeps, for each registration, the number of the last entry that it has room for; a send
whose number is above it is denied to that registration, and the sender is told. The room grows
only by this process's own takes, so the process knows of each entry whether it was denied:
above the room, while no take is under way, means denied; during a take the answer decides.

A release (R65) is never denied. It takes a number, and so a place where there is one; that place
is given back as soon as it arrives, for it waits in no buffer.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from broker._entries import Entry, EntryId
from broker._keys import Audience

LARGE = 2048
"""Notifications that all sources together do not send in some hundredths of a second."""


class Take(NamedTuple):
    """What one line of the take script is told."""

    room: int
    taken: int
    received: EntryId


class Room:
    """One registration's room in one audience."""

    __slots__ = (
        "_in_flight", "_received", "_refused", "_undecided", "_unsettled", "_written",
        "audience", "buffer", "denied", "room", "taken",
    )  # fmt: skip

    def __init__(self, audience: Audience, start: EntryId, room: int, buffer: int) -> None:
        self.audience = audience
        self.buffer = buffer
        self.room = room
        self.taken = 0
        self.denied = 0
        self._received = start
        self._written = start
        self._in_flight: Take | None = None
        self._unsettled = False
        self._undecided: list[Entry] = []
        self._refused: deque[tuple[int, int]] = deque()
        """Ranges (above, up to) that were denied and have not all come yet."""

    @property
    def received(self) -> EntryId:
        """The last entry that this process holds, has delivered, or knows to be denied."""
        return self._received

    @property
    def is_writing(self) -> bool:
        """Whether a take is under way."""
        return self._in_flight is not None and not self._unsettled

    @property
    def is_half_full(self) -> bool:
        """Whether at most half of the buffer is left for senders, as they know it."""
        return 2 * (self.room - self._received.number) <= self.buffer

    @property
    def is_short(self) -> bool:
        """Whether takes must be written now."""
        return self.taken > 0 and self.is_half_full

    @property
    def is_large(self) -> bool:
        """Whether senders need a while to fill it, however fast they are."""
        return self.room - self._received.number > LARGE

    @property
    def is_dirty(self) -> bool:
        """Whether Redis does not know everything yet."""
        return self.taken > 0 or self._unsettled or self._received > self._written

    def arrive(self, entry: Entry) -> bool:
        """One entry, in order; whether it is accepted now. Undecided ones come back later."""
        if entry.id <= self._received:
            return False
        self._received = entry.id
        if entry.id.number <= self.room and not (self._undecided or self._refused):
            self.taken += entry.is_release
            return True
        if self._undecided or (entry.id.number > self.room and self._in_flight is not None):
            self._undecided.append(entry)
            return False
        return self._accepts(
            entry, entry.id.number <= self.room and not self._was_denied(entry.id.number)
        )

    def _accepts(self, entry: Entry, had_room: bool) -> bool:
        if entry.is_release:
            self.taken += had_room
            return True
        self.denied += not had_room
        return had_room

    def _was_denied(self, number: int) -> bool:
        """Whether a take's answer said so before the entry came."""
        while self._refused and self._refused[0][1] < number:
            self._refused.popleft()
        return bool(self._refused) and self._refused[0][0] < number

    def begin(self) -> Take:
        """A take is sent; one at a time. One whose outcome is unknown is sent again unchanged."""
        if self.is_writing:
            raise RuntimeError("a take is under way")
        if self._in_flight is None:
            received = self._received
            if self._undecided:
                first = self._undecided[0].id
                received = EntryId(first.epoch, first.number - 1)
            self._in_flight = Take(self.room, self.taken, received)
            self.taken = 0
        self._unsettled = False
        return self._in_flight

    def finish(self, room: int) -> list[Entry]:
        """The answer: the room now. Returns the entries that were undecided and are accepted."""
        take = self._in_flight
        if take is None:
            raise RuntimeError("no take is under way")
        self._in_flight = None
        self._unsettled = False
        self._written = max(self._written, take.received)
        undecided, self._undecided = self._undecided, []
        if room < take.room:  # Redis forgot takes: they are written again
            self.taken += take.room - room + take.taken
            last_denied = take.room
        else:
            last_denied = room - take.taken if take.taken else take.room
            if last_denied > max(take.room, self._received.number):
                self._refused.append((take.room, last_denied))
        self.room = room
        return [
            entry
            for entry in undecided
            if self._accepts(entry, last_denied < entry.id.number <= room)
        ]

    def fail(self) -> None:
        """Nobody knows whether the take was done: the same will be sent again, and counts once."""
        self._unsettled = self._in_flight is not None

    def resume(self, room: int) -> list[Entry]:
        """Redis is another process now, and this is the room that it knows.

        A take that it forgot is written again; one that is being asked gets its answer there.
        Returns what :meth:`finish` returns.
        """
        if self.is_writing:
            return []
        if self._in_flight is not None and room != self.room:
            return self.finish(room)
        if self._in_flight is not None:
            self.taken += self._in_flight.taken
            self._in_flight, self._unsettled = None, False
        undecided, self._undecided = self._undecided, []
        self.taken += max(0, self.room - room)
        self.room = room
        return [entry for entry in undecided if self._accepts(entry, had_room=False)]

    def restart(self, start: EntryId, room: int) -> None:
        """Redis forgot the registration, and made it anew from here."""
        self._received = self._written = start
        self._in_flight, self._unsettled = None, False
        self._undecided = []
        self._refused.clear()
        self.taken = 0
        self.room = room
