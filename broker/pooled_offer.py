"""Pooled offers: a pool's end of a bidirectional channel, carried by one of its replicas at a time.

A replica that takes a dialog over runs its handler from the beginning of the turn again: what the
one before it said, and what the source said to that, is read from the conversation instead of
being said again.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Generic

from broker import _calls, _trace
from broker._calls import Place, Stowed
from broker._entries import Entry, EntryId
from broker._keys import parse_subject
from broker._scripts import Call
from broker.errors import WRITES_NOTHING, TympanError
from broker.notification import Body, Notification, P
from broker.offer import Offer
from broker.results import S_OK, Result

if TYPE_CHECKING:
    from broker.replica import Replica

log = logging.getLogger("tympan")


class PooledOffer(Offer[P], Generic[P]):
    """A question that this replica has in hand, or a dialog that it carries.

    The pool as a whole answers, declines, owns: other replicas have no end of their own.
    """

    def __init__(
        self,
        replica: Replica[P],
        entry: Entry,
        place: Place | None,
        times: int = 1,
        *,
        is_doubtful: bool = False,
    ) -> None:
        super().__init__(replica, entry)
        self._is_doubtful = is_doubtful
        self.replica = replica
        self.place = place
        """Where the question lies, until the pool has answered it."""
        self.times = times
        """How often it was delivered to a replica, as Redis counted."""
        self.turn: Notification[P] | None = self.notification
        """What the source said, and nobody has answered; None while the source has the turn."""
        self._said: deque[Notification[P] | None] = deque()
        """What was said before in this turn: the source's notifications; None for a response."""
        self._ends_turn = False
        self._letter = ""
        """The dead letter that it is."""

    @classmethod
    def waiting(cls, replica: Replica[P], channel: str, facts: dict[str, str]) -> PooledOffer[P]:
        """The end of a dialog that waits for a replica, before it is known whether this one has it.

        It is told what comes from now on, so that nothing falls between.
        """
        printer, _, _, user = parse_subject(facts["subject"])
        fields = {"channel": channel, "printer": printer, "user": user, "source": facts["session"]}
        if "held" in facts:
            fields["ref"] = facts["held"]
        told = {field: value.encode() for field, value in fields.items()}
        offer = cls(replica, Entry(EntryId(0, 0), told), None)
        offer._server.dialogs[offer.id, offer._me] = offer
        return offer

    def adopted(self, token: str, op: int, times: int) -> None:
        """It is this replica's. ``times``: how often the dialog changed hands."""
        self._token, self._op, self.times = token, op, times + 1

    async def again(self) -> None:
        """Begin the turn that is not finished again, as another replica would."""
        self._said.clear()
        self.resume(await self.replica.conversation(self.id))

    def resume(self, said: Sequence[Entry]) -> None:
        """Find the turn that is not finished, and what was said in it."""
        spoken = [one for one in said if one.text("event") in ("notification", "response")]
        heard = sum(one.text("event") == "notification" for one in spoken)
        if heard >= self._heard:  # the source's last words are in the conversation, too
            self._arrived.clear()
            self._heard = heard
        if spoken:
            self.notification = self._of(spoken[0])
        ends = [i for i, one in enumerate(spoken) if one.text("turn") == "ends"]
        turn = spoken[ends[-1] + 1 :] if ends else spoken
        self.turn = self._of(turn[0]) if turn else None
        for one in turn[1:]:
            self._said.append(self._of(one) if one.text("event") == "notification" else None)

    def _of(self, said: Entry) -> Notification[P]:
        return self._notification(said)

    def let_go(self) -> None:
        """Another replica has it."""
        self._over()

    @property
    def redelivered(self) -> bool:
        """Whether another replica, or an earlier attempt, had it in hand before.

        Also true where Redis may have forgotten that somebody had.
        """
        return self.times > 1 or self._is_doubtful

    def mark(self) -> None:
        """Somebody has begun with it: whoever is given it now finds it redelivered."""
        self._is_doubtful = True

    # Answering ----------------------------------------------------------------------------------

    async def respond(self, body: Body, *, ends_turn: bool = False) -> Result:
        """Answer, as :meth:`Offer.respond`.

        ``ends_turn``: the handler is done until the source speaks again. In a dialog that was
        taken over, an answer that was given before is not given again: the first one counts.
        """
        if self._said and self._said[0] is None:
            self._said.popleft()
            self.turn = None if ends_turn else self.turn
            return S_OK
        self._ends_turn = ends_turn
        was_mine = self.is_mine
        try:
            result = await super().respond(body)
        finally:
            self._ends_turn = False
            if self.is_mine and not was_mine and self.closing is None:  # its source may be quicker
                self.replica.acquired(self)
            if self.is_mine != was_mine or self.is_lost:
                await self.settle()
        self.turn = None if ends_turn else self.turn
        return result

    def _respond_call(self, op: int, stowed: Stowed) -> Call:
        return _calls.respond(
            self._server.keys,
            self._handle,
            op,
            self._server.keep,
            stowed,
            _trace.current(),
            ends_turn=self._ends_turn,
        )

    async def follow_up(self, timeout: float | None = None) -> Notification[P]:
        """The source's next notification in the dialog, as :meth:`Offer.follow_up`."""
        if self._said and self._said[0] is not None:
            heard = self._said.popleft()
            assert heard is not None
        else:
            heard = await super().follow_up(timeout)
        self.turn = heard
        return heard

    async def ask(self, body: Body, timeout: float | None = None) -> Notification[P]:
        """Answer, and wait for what the source says to that.

        Raises ResponseTimeout after ``timeout`` seconds, ChannelAlreadyClosed at the dialog's end.
        """
        await self.respond(body)
        return await self.follow_up(timeout)

    def end_turn(self) -> None:
        """The handler is done, whether or not it answered; the source's next words begin a turn."""
        while self._said and self._said[0] is None:
            self._said.popleft()
        self.turn = None

    @property
    def waits(self) -> bool:
        """Whether the source said something with which no turn has begun."""
        return self.turn is None and bool(self._said or self._arrived)

    def begin_turn(self) -> Notification[P]:
        """The turn that is not finished, or one that begins with what the source said since."""
        if self.turn is None:
            self.turn = (self._said.popleft() if self._said else None) or self._next()
        return self.turn

    def _hear(self, entry: Entry) -> None:
        before = len(self._arrived)
        super()._hear(entry)
        if len(self._arrived) > before and self.turn is None:
            self.replica.turn(self)

    # The entry in hand --------------------------------------------------------------------------

    async def done(self) -> None:
        """It is handled: declined, lost, or closed. Raises NotInHand."""
        with self._leaving() as place:
            if place is not None:
                await self.replica.finish(place)

    async def settle(self) -> None:
        """The question is open no more, so nobody need have it in hand."""
        try:
            await self.done()
        except TympanError as error:  # the audit finds it, or whoever it was handed out to again
            log.info("%r: its entry is not settled yet: %s", self, error)

    async def hand_back(self, after: float = 0.0) -> None:
        """Give the unanswered question up; it is handed out again in ``after`` seconds.

        Where an answer was asked for whose outcome is unknown, the dialog may wait for a replica.
        """
        with self._leaving(lets_go=True) as place:
            if place is not None:
                await self.replica.hand_back(place, after)

    @contextlib.contextmanager
    def _leaving(self, *, lets_go: bool = False) -> Iterator[Place | None]:
        """What is done inside gives up its place, unless Redis wrote nothing of it."""
        place, self.place = self.place, None
        try:
            yield place
        except WRITES_NOTHING:
            self.place, lets_go = place, False
            raise
        finally:
            # If the pool came to own it here, nobody carries it: the audit has it wait.
            if lets_go and not self.is_mine:
                self.let_go()

    async def bury(self, reason: str) -> str:
        """Put it aside as a dead letter, and close the dialog if the pool owns it."""
        if not self._letter:
            with self._leaving(lets_go=True) as place:
                self._letter = await self.replica.bury(self.notification, self.times, reason, place)
        if self.is_mine and self.closing is None:
            await self.close()
        return self._letter

    def _over(self) -> None:
        super()._over()
        self.replica.over(self)

    def __repr__(self) -> str:
        return f"<PooledOffer {self.id} of {self.name} to {self.replica.pool}>"
