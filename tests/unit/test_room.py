"""A process and Redis agree on what one registration had room for, whatever is lost between them.

Redis judges each send by the room that it knows; the process learns of entries and of its takes'
answers on two connections, in any order between the two. Whatever that order, and however often
an answer is lost and asked for again, the process accepts exactly the entries that were not
denied, in their order, and never holds more than the buffer. A release is accepted always, and
what it took of the room is given back.
"""

from __future__ import annotations

from collections import deque
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker import UNIDIRECTIONAL
from broker._entries import Entry, EntryId
from broker._keys import Audience
from broker._room import Room, Take

AUDIENCE = Audience("laser-3", UUID(int=1), UNIDIRECTIONAL, "=alice")


def entry(number: int, epoch: int = 1) -> Entry:
    return Entry(EntryId(epoch, number), {})


def release(number: int, epoch: int = 1) -> Entry:
    return Entry(EntryId(epoch, number), {"event": b"release"})


def room(size: int = 2, buffer: int = 2) -> Room:
    return Room(AUDIENCE, EntryId(1, 0), size, buffer)


# By example -------------------------------------------------------------------------------------


def test_entries_up_to_the_room_are_accepted_and_those_above_denied() -> None:
    place = room(2)
    assert [place.arrive(entry(number)) for number in (1, 2, 3)] == [True, True, False]
    assert place.denied == 1
    assert place.received == EntryId(1, 3)


def test_an_entry_that_came_before_is_not_taken_again() -> None:
    place = room(2)
    assert place.arrive(entry(1))
    assert not place.arrive(entry(1))
    assert place.denied == 0


def test_an_entry_above_the_room_waits_for_the_answer_of_a_take_under_way() -> None:
    """Sent after the take, it had room; sent before, it had none: only the answer tells."""
    place = room(2)
    place.arrive(entry(1))
    place.arrive(entry(2))
    place.taken = 1
    assert place.begin() == Take(2, 1, EntryId(1, 2))
    assert not place.arrive(entry(3)), "it is undecided"
    assert place.finish(3) == [entry(3)]
    assert place.denied == 0


def test_an_entry_that_was_denied_before_the_take_stays_denied() -> None:
    place = room(2)
    place.arrive(entry(1))
    place.taken = 1
    place.begin()
    place.arrive(entry(2))
    place.arrive(entry(3))
    assert place.finish(4) == [], "room 4 after 1 was taken: number 3 was the last at that time"
    assert place.denied == 1
    assert place.arrive(entry(4))


def test_an_entry_that_was_denied_stays_denied_when_it_comes_after_the_takes_answer() -> None:
    """Bells and answers come on two connections: the answer may be the quicker one."""
    place = room(2)
    place.arrive(entry(1))
    place.taken = 1
    place.begin()
    assert place.finish(4) == []
    assert [place.arrive(entry(number)) for number in (2, 3, 4)] == [True, False, True]
    assert place.denied == 1


def test_a_take_whose_answer_was_lost_is_sent_again_unchanged() -> None:
    place = room(2)
    place.arrive(entry(1))
    place.taken = 1
    first = place.begin()
    place.fail()
    place.taken = 1
    assert place.begin() == first
    assert place.finish(3) == []
    assert place.taken == 1, "what was taken since waits for the next take"


def test_one_take_at_a_time() -> None:
    place = room()
    place.begin()
    with pytest.raises(RuntimeError, match="under way"):
        place.begin()


def test_an_answer_needs_a_take() -> None:
    with pytest.raises(RuntimeError, match="no take"):
        room().finish(2)


def test_takes_are_pressing_once_half_of_the_buffer_is_gone() -> None:
    place = Room(AUDIENCE, EntryId(1, 0), 4, 4)
    place.arrive(entry(1))
    place.taken = 1
    assert place.is_dirty
    assert not place.is_short
    place.arrive(entry(2))
    assert place.is_short


def test_a_registration_that_redis_forgot_begins_anew() -> None:
    place = room(2)
    place.arrive(entry(1))
    place.taken = 1
    place.begin()
    place.restart(EntryId(2, 7), 9)
    assert not place.is_dirty
    assert not place.arrive(entry(7, 2))
    assert place.arrive(entry(8, 2))


def test_a_release_with_room_gives_its_place_back() -> None:
    place = room(2)
    assert place.arrive(release(1))
    assert place.taken == 1
    assert place.is_dirty
    assert [place.arrive(entry(number)) for number in (2, 3)] == [True, False]


def test_a_release_above_the_room_is_accepted_and_counts_for_nothing() -> None:
    place = room(1)
    assert place.arrive(entry(1))
    assert place.arrive(release(2))
    assert (place.taken, place.denied) == (0, 0)
    assert not place.arrive(entry(3))


def test_a_release_that_was_above_the_room_when_it_was_sent_counts_for_nothing() -> None:
    """Although it comes after the answer of the take that made room behind it."""
    place = room(2)
    place.arrive(entry(1))
    place.taken = 1
    place.begin()
    place.finish(4)
    assert [place.arrive(each) for each in (entry(2), release(3), entry(4))] == [True] * 3
    assert (place.taken, place.denied) == (0, 0)


def test_an_undecided_release_is_accepted_whatever_the_answer() -> None:
    for answer, given_back in ((3, 1), (4, 0)):
        place = room(2)
        for number in (1, 2):
            place.arrive(entry(number))
        place.taken = 1
        place.begin()
        assert not place.arrive(release(3)), "its order is kept"
        assert place.finish(answer) == [release(3)]
        assert (place.taken, place.denied) == (given_back, 0)


def test_an_undecided_release_survives_a_redis_that_forgot_takes() -> None:
    place = room(2)
    for number in (1, 2):
        place.arrive(entry(number))
    place.taken = 1
    place.begin()
    place.arrive(release(3))
    place.arrive(entry(4))
    assert place.finish(1) == [release(3)]
    assert place.denied == 1


def test_an_undecided_release_survives_a_restart() -> None:
    place = room(2)
    for number in (1, 2):
        place.arrive(entry(number))
    place.taken = 1
    place.begin()
    place.arrive(release(3))
    place.fail()
    assert place.resume(2) == [release(3)]
    assert place.taken == 1, "the take that was forgotten"


# Against a model --------------------------------------------------------------------------------


class Agreement(RuleBasedStateMachine):
    """Redis as a model of few lines, the process as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = 3
        self.place = Room(AUDIENCE, EntryId(1, 0), self.buffer, self.buffer)
        # Redis
        self.epoch = 1
        self.number = 0
        self.room = self.buffer
        self.granted: list[EntryId] = []
        self.denied: list[EntryId] = []
        # Between the two
        self.bells: deque[Entry] = deque()
        self.under_way: Take | None = None
        # The application
        self.accepted: list[EntryId] = []
        self.unread = 0

    def _accept(self, entries: list[Entry]) -> None:
        self.accepted += [each.id for each in entries]
        self.unread += sum(not each.is_release for each in entries)

    def _execute(self, take: Take) -> int:
        """The take script, for one room."""
        if self.room == take.room and take.taken:
            self.room = max(self.room, self.number) + take.taken
        return self.room

    @rule(others=st.booleans())
    def send(self, others: bool) -> None:
        """A source sends; others listen too, and have room, or nobody has."""
        is_granted = self.number < self.room
        if not is_granted and not others:
            return
        self.number += 1
        id_ = EntryId(self.epoch, self.number)
        (self.granted if is_granted else self.denied).append(id_)
        self.bells.append(Entry(id_, {}))

    @rule()
    def release(self) -> None:
        """The printer is deleted; nobody is asked for room."""
        self.number += 1
        id_ = EntryId(self.epoch, self.number)
        self.granted.append(id_)
        self.bells.append(release(self.number, self.epoch))

    @precondition(lambda self: self.bells)
    @rule(often=st.integers(1, 2))
    def hear(self, often: int) -> None:
        """The next bell, or the same one twice: by bell and by a look."""
        heard = self.bells.popleft()
        for _ in range(often):
            if self.place.arrive(heard):
                self._accept([heard])

    @precondition(lambda self: self.unread)
    @rule()
    def take(self) -> None:
        self.unread -= 1
        self.place.taken += 1

    @precondition(lambda self: self.under_way is None)
    @rule(is_executed=st.booleans())
    def begin(self, is_executed: bool) -> None:
        """The take is written; perhaps it reaches Redis at once."""
        self.under_way = self.place.begin()
        if is_executed:
            self._execute(self.under_way)

    @precondition(lambda self: self.under_way is not None)
    @rule()
    def answer(self) -> None:
        assert self.under_way is not None
        answered = self._execute(self.under_way)
        self.under_way = None
        self._accept(self.place.finish(answered))

    @precondition(lambda self: self.under_way is not None)
    @rule()
    def lose_answer(self) -> None:
        """The answer, or the take itself, is lost; it will be written again."""
        self.under_way = None
        self.place.fail()

    @rule()
    def restart(self) -> None:
        """Redis is another process, and forgot nothing."""
        self.epoch += 1
        self.under_way = None
        if self.place.is_writing:
            self.place.fail()
        self._accept(self.place.resume(self.room))

    @invariant()
    def accepts_in_order_and_once_what_was_granted(self) -> None:
        assert self.accepted == self.granted[: len(self.accepted)]

    @invariant()
    def holds_no_more_than_the_buffer(self) -> None:
        assert self.unread <= self.buffer

    def teardown(self) -> None:
        """Everything that is under way arrives: now they agree to the last entry."""
        if self.under_way is not None:
            self.answer()
        while self.bells:
            self.hear(1)
        for _ in range(2):
            if self.under_way is None:
                self.begin(is_executed=True)
            self.answer()
        assert self.accepted == self.granted
        assert self.place.denied == len(self.denied)
        assert not self.place.is_dirty
        free = max(0, self.room - self.number)
        assert free == self.buffer - self.unread, "what was taken is room again, and no more"


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)
