"""Replicas: one process's part in a pool, and what it has in hand.

A pool is one registration that outlives the processes that serve it. Each notification and each
question is handed to one of its replicas; what that one neither finished nor handed back goes to
another when its lease runs out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from broker import _calls, _pools
from broker._bodies import read_body
from broker._calls import Place
from broker._entries import Entry, entry, read_range
from broker._keys import EVERYONE, Audience
from broker._plan import PoolPlan, RegistrationPlan
from broker._scripts import Arg
from broker._standing import granted
from broker.conversation import BIDIRECTIONAL
from broker.errors import (
    AccessDenied,
    MaxRegistrationCountExceeded,
    NoSuchPool,
    NotInHand,
    OutcomeUnknown,
    RedisError,
    RedisUnreachable,
    RightsUnavailable,
    SessionLapsed,
    TympanError,
)
from broker.names import Name, name_of
from broker.notification import Notification, P
from broker.pooled_offer import PooledOffer
from broker.rights import Right, short_name

if TYPE_CHECKING:
    from broker._end import End
    from broker._server import Server

log = logging.getLogger("tympan")

AT_ONCE = 64
FINISHED_AT_ONCE = 256
"""A call that reads bodies takes longer for each than one that does not."""
"""Printers whose names are kept at hand."""
Where = tuple[str, str, int]
"""One delivery: the stream's audience, the entry, and how often it was delivered by then."""
Answer = str | BaseException
"""Redis's word, or what kept it from answering."""
Finishing = tuple[Place, Callable[[Answer], None]]
"""What is to be finished, and who is told of it."""


class Delivery(Generic[P]):
    """A notification that this replica has in hand: to be finished, handed back, or put aside."""

    __slots__ = ("_body", "_is_doubtful", "notification", "place", "replica")

    def __init__(
        self,
        replica: Replica[P],
        place: Place,
        notification: Notification[P],
        is_doubtful: bool = False,
        body: str | None = None,
    ) -> None:
        self.replica = replica
        self.place = place
        self.notification = notification
        self._is_doubtful = is_doubtful
        self._body = body

    @property
    def times(self) -> int:
        """How often it was delivered, as Redis counted."""
        return self.place.times

    @property
    def redelivered(self) -> bool:
        """Whether somebody had it in hand before, and may have done something with it.

        Also true where Redis may have forgotten that somebody had.
        """
        return self.times > 1 or self._is_doubtful

    @property
    def payload(self) -> P:
        """The notification's validated model; raises PayloadInvalid, BodyGone."""
        return self.notification.payload

    async def done(self) -> None:
        """It is handled. Raises NotInHand where another replica was given it meanwhile."""
        is_first = await self.replica.finish(self.place)
        if is_first and self._body is not None:
            self.replica.server.spawn(self._drop_body(self._body))

    @property
    def has_body(self) -> bool:
        """Whether a body under a key of its own ends with it."""
        return self._body is not None

    async def _drop_body(self, body: str) -> None:
        """Of those who heard it nobody needs it any more."""
        with contextlib.suppress(RedisError):  # it ends by itself
            await self.replica.server.command("UNLINK", body)

    def mark(self) -> None:
        """Somebody has begun with it: whoever is given it now finds it redelivered."""
        self._is_doubtful = True

    async def hand_back(self, after: float = 0.0) -> None:
        """Give it up; the pool hands it out again in ``after`` seconds. Raises NotInHand."""
        await self.replica.hand_back(self.place, after)

    async def bury(self, reason: str) -> str:
        """Put it aside as a dead letter; returns the letter's id. Raises NotInHand."""
        return await self.replica.bury(self.notification, self.times, reason, self.place)

    def __repr__(self) -> str:
        return f"<Delivery {self.place.entry} of {self.notification.name} to {self.replica.pool}>"


class ReplicaListener:
    """Who is told what concerns a replica; a base whose methods do nothing."""

    def work(self, replica: Replica[Any]) -> None:
        """There may be something to take."""

    def turn(self, offer: PooledOffer[Any]) -> None:
        """The source of a dialog that is carried here spoke again."""

    def over(self, offer: PooledOffer[Any]) -> None:
        """A question that is in hand, or a dialog, is over."""

    def lapsed(self, replica: Replica[Any]) -> None:
        """What was in hand is others' now. It joins again by itself."""

    def ended(self, replica: Replica[Any], cause: TympanError) -> None:
        """The pool is gone, or refuses this replica."""


class Replica(Generic[P]):
    """This process's part in one of a pool's registrations on one print server."""

    def __init__(
        self,
        server: Server,
        plan: PoolPlan,
        model: type[P] | None,
        listener: ReplicaListener,
    ) -> None:
        self.server = server
        self.model = model
        self._plan = plan
        self._listener = listener
        self._state = "new"
        self._in_hand: dict[Where, Delivery[P] | PooledOffer[P]] = {}
        self._dialogs: dict[str, PooledOffer[P]] = {}
        self._taking = asyncio.Lock()
        self._due: asyncio.TimerHandle | None = None
        self._finishing: list[Finishing] = []
        self._finisher: asyncio.Task[None] | None = None
        self._listed = ""
        """The last list of pools that is known to have had this one."""
        self.lost = 0
        """How often what was in hand was lost with the lease."""

    @property
    def pool(self) -> str:
        """The pool's name."""
        return self._plan.pool

    @property
    def id(self) -> str:
        """The pool's registration: the same for all its replicas."""
        return self._plan.id

    @property
    def pool_plan(self) -> PoolPlan:
        """What its pool asked for."""
        return self._plan

    @property
    def plan(self) -> RegistrationPlan:
        """What the pool listens to."""
        return self._plan.plan

    @property
    def name(self) -> Name:
        """The printer or server that it listens to."""
        return self.plan.name

    @property
    def is_joined(self) -> bool:
        """Whether it may take work now."""
        return self._state == "joined"

    @property
    def load(self) -> int:
        """What it has in hand, dialogs among it."""
        return len(self._in_hand) + len(self._dialogs)

    # Joining and leaving ------------------------------------------------------------------------

    async def join(self) -> bool:
        """Become a replica; the first one makes the pool. Whether it did.

        Raises AccessDenied, RightsUnavailable, MaxRegistrationCountExceeded.
        """
        self.server.replicas[self.id] = self
        self.server.serves = True
        self._state = "joining"
        try:
            made = await _pools.create(self.server, self._plan)
            if self.plan.style is BIDIRECTIONAL:
                await self.server.listening.attend(self._plan.audiences, self)
            await self._join()
            if self.plan.needed:
                self.server.listening.keep_watch()
        except BaseException:
            self._state = "left"
            await self._part()
            raise
        return made

    async def _join(self) -> None:
        """Join the pool that is there; one that Redis forgot is made again.

        Raises NoSuchPool where somebody deleted it, and what keeps it from being made.
        """
        server = self.server
        joined, listed = await self._asked_to_join()
        if not joined and _pools.is_forgotten(self._listed, listed):
            await _pools.create(server, self._plan)
            joined, listed = await self._asked_to_join()
        if not joined:
            raise await self._gone()
        if self._state in ("left", "ended"):  # meanwhile
            return
        self._state, self._listed = "joined", listed
        self.look()

    async def _asked_to_join(self) -> tuple[bool, str]:
        server = self.server
        word, listed = await server.ask_anew(
            lambda: _calls.join(server.keys, server.session, self.id)
        )
        return word == "OK", listed.decode()

    async def _gone(self) -> NoSuchPool:
        plan, why = self.plan, "it was deleted, or Redis lost it"
        if plan.right:
            why = "its right was revoked, it was deleted, or Redis lost it"
            with contextlib.suppress(RedisError, OutcomeUnknown):  # then nobody knows which
                has = await granted(self.server, {(plan.user, plan.name)})
                if plan.needed & ~has[plan.user, plan.name]:
                    right = short_name(Right(plan.needed), plan.name)
                    why = f"its right was revoked ({right}, of {plan.user})"
        return NoSuchPool(
            f"pool {self.pool} does not listen to {self.name} any more: {why}", self.pool
        )

    async def leave(self) -> None:
        """Hand back what is in hand, let dialogs wait for another replica, and be none any more."""
        if self._state == "left":
            return
        self._state = "left"
        try:
            async with self._taking:  # what is being taken comes in hand first
                await self._flush()
                with contextlib.suppress(SessionLapsed):  # then it holds nothing any more
                    await self._give_up()
        finally:
            await self._part()

    async def _give_up(self) -> None:
        server = self.server
        await _pools.disown(server, self._plan, server.session)
        for channel, registration in list(server.dialogs):
            if registration == self.id:
                await _pools.give_up_dialog(server, channel, self.id)
        await _pools.give_up_unknown(server)  # what it took while it left

    async def _part(self) -> None:
        self._look_in(-1)
        if self.server.replicas.get(self.id) is self:
            del self.server.replicas[self.id]
        self.broker_closed()
        if self.plan.style is BIDIRECTIONAL:
            await self.server.listening.attend_no_more(self._plan.audiences, self)

    def broker_closed(self) -> None:
        """It ends here: whoever waits on one of its offers is woken."""
        self._state = "left"
        self._look_in(-1)
        offers = [*self._offers(), *self._dialogs.values()]
        self._in_hand.clear()
        self._dialogs.clear()
        for offer in offers:
            offer.broker_closed()

    def lapsed(self) -> None:
        """This process was declared dead: what it had in hand is others'; it joins again."""
        if self._state == "joined":
            self._state = "joining"
        self.lost += bool(self._in_hand or self._dialogs)
        offers = [*self._offers(), *self._dialogs.values()]
        self._in_hand.clear()
        self._dialogs.clear()
        for offer in offers:
            offer.peer_died()
        finishing, self._finishing = self._finishing, []
        for _, told in finishing:
            told("LAPSED")
        self._listener.lapsed(self)

    async def rejoin(self) -> None:
        """After a lapse, under the new session. Raises what keeps it from joining."""
        if self._state == "joining":
            await self._join()

    async def refused(self, cause: TympanError) -> None:
        """The pool has lost the right that it stood on, and ends for all its replicas."""
        log.warning("pool %s: it listens to %s no more: %s", self.pool, self.name, cause)
        await _pools.delete(self.server, self._plan)
        self.ended(cause)

    def ended(self, cause: TympanError) -> None:
        """The pool is gone, or was refused."""
        if self._state in ("left", "ended"):
            return
        self._state = "ended"
        self._listener.ended(self, cause)

    def _offers(self) -> list[PooledOffer[P]]:
        return [one for one in self._in_hand.values() if isinstance(one, PooledOffer)]

    # Work comes ---------------------------------------------------------------------------------

    def look(self) -> None:
        """There may be something to take."""
        if self._state == "joined":
            self._listener.work(self)

    async def take(self, most: int) -> list[Delivery[P] | PooledOffer[P]]:
        """Take up to so many in hand; those that come back are marked as redelivered.

        When it returns fewer, this replica is idle in Redis's eyes: it is told when more comes.
        Raises NoSuchPool, and whatever keeps Redis from answering.
        """
        async with self._taking:
            if self._state != "joined" or most < 1:
                return []
            server, plan, session = self.server, self._plan, self.server.session
            word, *rest = await server.ask(
                lambda: _calls.fetch(server.keys, server.session, plan, most, self.load)
            )
            if word != "OK":
                await self._join_instead()
                return []
            due, dialogs, *streams = rest
            self._look_in(int(due))
            taken: list[Delivery[P] | PooledOffer[P]] = []
            found = len(dialogs)
            try:
                for audience, (back, new, doubtful) in zip(plan.audiences, streams, strict=True):
                    found += len(back) + len(new)
                    await self._take_in(taken, audience, back, new, doubtful)
                for dialog in dialogs:
                    adopted = await self._adopt(dialog.decode().split(":")[1])
                    if adopted is not None:
                        taken.append(adopted)
            except BaseException:
                self._drop(taken)
                raise
            if self._state != "joined" or server.session != session:
                self._drop(taken)
                return []
            if found == most > len(taken):
                self.look()  # others were first: Redis takes this replica for busy
            return taken

    async def _join_instead(self) -> None:
        """Redis does not know this replica, or its pool. Raises NoSuchPool."""
        try:
            await self._join()
        except NoSuchPool as error:
            self.ended(error)
            raise
        except (AccessDenied, RightsUnavailable, MaxRegistrationCountExceeded) as error:
            log.warning("pool %s: it is not made again yet: %s", self.pool, error)
            if self._state == "joined":
                self._state = "joining"
                self.server.join_again(self)

    def _drop(self, taken: list[Delivery[P] | PooledOffer[P]]) -> None:
        """Nobody will have these: the audit finds them, or whoever runs this session down."""
        for one in taken:
            if one.place is not None:
                self._forget(one.place)
            if isinstance(one, PooledOffer):
                self._dialogs.pop(one.id, None)
                one.let_go()

    def _look_in(self, milliseconds: int) -> None:
        """Something that was handed back is due then."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if milliseconds >= 0:
            loop = asyncio.get_running_loop()
            self._due = loop.call_later(milliseconds / 1000 + 0.001, self.look)

    async def _take_in(
        self,
        taken: list[Delivery[P] | PooledOffer[P]],
        audience: Audience,
        back: list[Any],
        new: list[Any],
        doubtful: int,
    ) -> None:
        """Entries that Redis gave from one stream: some that were handed back, and new ones."""
        given = [(*one, False) for one in back]
        given += [(id_, 1, flat, number < doubtful) for number, (id_, flat) in enumerate(new)]
        for id_, times, flat, is_doubtful in given:
            place = Place(self._plan, audience, id_.decode(), times)
            found = entry(id_, flat)
            if found.reference is not None:
                found = await self._whole(found)
            taken.append(self._taken(place, found, is_doubtful))

    def _taken(self, place: Place, found: Entry, is_doubtful: bool) -> Delivery[P] | PooledOffer[P]:
        if self.plan.style is BIDIRECTIONAL:
            one: Delivery[P] | PooledOffer[P] = PooledOffer(
                self, found, place, place.times, is_doubtful=is_doubtful
            )
            self.server.listening.know(place.audience, found)
        else:
            body = found.reference if found.fields.get("keep") == b"sole" else None
            one = Delivery(self, place, self._notification(found), is_doubtful, body)
        self._in_hand[_where(place)] = one
        return one

    async def _whole(self, found: Entry) -> Entry:
        """The entry with its body; one that Redis has not, or does not give, is gone."""
        if found.reference is None:
            return found
        try:
            body = await read_body(self.server.command, found.reference)
        except RedisUnreachable:
            raise
        except RedisError as error:
            log.warning("pool %s: %s is not read: %s", self.pool, found.reference, error)
            return found
        return found if body is None else found.with_body(body)

    def _notification(self, found: Entry) -> Notification[P]:
        sent = found.sent
        return Notification(
            self.plan.type,
            sent.body,
            sent.channel,
            name_of(self.server.name, sent.printer),
            None if sent.user == EVERYONE else sent.user,
            sent.at,
            self.model,
            trace=sent.trace,
        )

    async def audit(self) -> None:
        """Compare with Redis what is in hand: an answer that was lost has left something there.

        It is handed back, to whoever is next.
        """
        async with self._taking:
            if self._state != "joined":
                return
            unknown = [
                place
                for audience in self._plan.audiences
                async for place in self._pending(audience)
                if _where(place) not in self._in_hand
            ]
            for i in range(0, len(unknown), AT_ONCE):
                part = [(place, 0) for place in unknown[i : i + AT_ONCE]]
                call = _calls.hand_back(self.server.keys, part)
                await self.server.ask(lambda: call)  # noqa: B023 (asked in the same turn)

    async def _pending(self, audience: Audience) -> AsyncIterator[Place]:
        """What Redis says that this replica has in hand of one stream."""
        server, after = self.server, "-"
        while True:
            try:
                pending = await server.command(
                    "XPENDING", server.keys.stream(audience), self._plan.group,
                    after, "+", AT_ONCE, server.session,
                )  # fmt: skip
            except RedisUnreachable:
                raise
            except RedisError as error:  # no group: the next take makes it, or finds no pool
                log.info("pool %s: %s", self.pool, error)
                return
            for id_, _, _, times in pending:
                yield Place(self._plan, audience, id_.decode(), times)
            if len(pending) < AT_ONCE:
                return
            after = f"({pending[-1][0].decode()}"

    # Offers -------------------------------------------------------------------------------------

    def offered(self, _: Entry) -> None:
        """A question is open: who fetches it first has it in hand."""
        self.look()

    def withdrawn(self, found: Entry) -> None:
        """A question is over: acquired, or closed by its source."""
        for offer in self._offers():
            if offer.id == found.text("channel"):
                offer.withdrawn(found)
                if offer.closing is not None:
                    self.forget(offer)

    def forget(self, offer: End[Any]) -> None:
        """A question that is over need not be in hand."""
        if isinstance(offer, PooledOffer):
            self.server.spawn(offer.settle())

    def open_offers(self) -> set[str]:
        """Channels in hand that nobody answered yet, as far as is known here."""
        return {offer.id for offer in self._offers() if not offer.is_mine}

    def acquired(self, offer: PooledOffer[P]) -> None:
        """The pool owns the dialog now, and this replica carries it."""
        self._dialogs[offer.id] = offer

    def over(self, offer: PooledOffer[P]) -> None:
        """A question, or a dialog, is over."""
        self._dialogs.pop(offer.id, None)
        self._listener.over(offer)

    def turn(self, offer: PooledOffer[P]) -> None:
        """The source of a dialog that is carried here spoke again."""
        self._listener.turn(offer)

    async def _adopt(self, channel: str) -> PooledOffer[P] | None:
        """Carry on a dialog whose replica left or died; None where another one does."""
        server = self.server
        facts = await _pools.dialog_facts(server, channel)
        if "subject" not in facts:  # it is long over
            facts = {"subject": "|".join(("", str(self.plan.type), "bi", EVERYONE)), "session": ""}
        offer = PooledOffer.waiting(self, channel, facts)
        try:
            word, *rest = await server.ask(
                lambda: _calls.adopt(
                    server.keys, server.session, channel, self.id, facts["session"]
                )
            )
            if word == "OK":
                offer.adopted(rest[0].decode(), int(rest[1]), int(rest[2]))
                self._dialogs[channel] = offer
                offer.resume(await self.conversation(channel))
        except BaseException:  # if it was adopted, the audit has it wait again
            self._drop([offer])
            raise
        if word != "OK" or offer.closing is not None:
            self._drop([offer])
            return None
        return offer

    async def conversation(self, channel: str) -> list[Entry]:
        """What was said on a channel, with the bodies."""
        log = self.server.keys.log(channel)
        reply = await self.server.command("XRANGE", log, "-", "+")
        return [await self._whole(found) for found in read_range(reply)]

    # Work goes ----------------------------------------------------------------------------------

    async def finish(self, place: Place) -> bool:
        """It is handled; written together with what else is finished in the same moment.

        Whether it was this call that ended it, as far as Redis can tell.
        Raises NotInHand, and SessionLapsed, OutcomeUnknown or RedisError; then it is delivered
        again, here or elsewhere.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.finish_beside(place, partial(_resolve, future))
        answer = await future
        error = self.refusal(place, answer)
        if error is not None:
            raise error
        return answer == "OK"

    def finish_beside(self, place: Place, told: Callable[[Answer], None]) -> None:
        """The same without waiting: ``told`` is called with the answer."""
        self._finishing.append((place, told))
        if self._finisher is None or self._finisher.done():
            self._finisher = asyncio.create_task(self._finish(), name="tympan-finish")

    def refusal(self, place: Place, answer: Answer) -> BaseException | None:
        """What :meth:`finish` raises where this is the answer."""
        if answer == "NOT_YOURS":
            return self._not_in_hand(place)
        if answer == "LAPSED":
            return SessionLapsed(f"server {self.server.name}: this process did not renew its lease")
        return answer if isinstance(answer, BaseException) else None

    async def _finish(self) -> None:
        while self._finishing:
            batch = self._finishing[:FINISHED_AT_ONCE]
            del self._finishing[:FINISHED_AT_ONCE]
            call = _calls.finish(self.server.keys, [place for place, _ in batch])
            try:
                _, *words = await self.server.ask(lambda: call)  # noqa: B023 (in the same turn)
            except BaseException as error:
                self._tell(batch, [error] * len(batch))
                if not isinstance(error, TympanError):
                    raise
            else:
                self._tell(batch, [word.decode() for word in words])

    def _tell(self, batch: list[Finishing], answers: Sequence[Answer]) -> None:
        for place, _ in batch:
            self._forget(place)
        for (_, told), answer in zip(batch, answers, strict=True):
            told(answer)

    async def _flush(self) -> None:
        if self._finisher is not None and not self._finisher.done():
            await asyncio.wait({self._finisher})

    async def hand_back(self, place: Place, after: float) -> None:
        """Give it up; it is handed out again in ``after`` seconds. Raises NotInHand."""
        call = _calls.hand_back(self.server.keys, [(place, round(after * 1000))])
        try:
            _, word = await self.server.ask(lambda: call)
        finally:
            self._forget(place)
        if word == b"NOT_YOURS":
            raise self._not_in_hand(place)
        if after and (self._due is None or self._due.when() > self._in(after)):
            self._look_in(round(after * 1000))

    @staticmethod
    def _in(seconds: float) -> float:
        return asyncio.get_running_loop().time() + seconds

    async def bury(
        self, notification: Notification[Any], times: int, reason: str, place: Place | None
    ) -> str:
        """Put aside what was in hand, or where there is no place a dialog; the letter's id.

        Raises NotInHand. Where it fails otherwise the audit hands back what was in hand.
        """
        try:
            word, *rest = await self._bury(notification, times, reason, place)
        finally:
            if place is not None:
                self._forget(place)
        if place is not None and word != "OK":
            raise self._not_in_hand(place)
        return str(rest[0].decode())

    async def _bury(
        self, notification: Notification[Any], times: int, reason: str, place: Place | None
    ) -> list[Any]:
        server, settings = self.server, self.server.settings
        found = await _pools.letter_of(server, place) if place is not None else {}
        letter: dict[str, Arg] = {
            "pool": self.pool,
            "registration": self.id,
            "type": str(self.plan.type),
            "style": self.plan.style.word,
            "stream": place.audience.field if place is not None else "",
            "entry": place.entry if place is not None else "",
            "reason": reason[:2000].encode(errors="backslashreplace").decode(),
            "times": times,
            **(found or _pools.fields_of(notification)),
        }
        reference = found.get("ref")
        call = _calls.dead_letter(
            server.keys,
            place,
            reference.decode() if isinstance(reference, bytes) else None,
            settings.dead_letters,
            round(settings.keep_pooled * 1000),
            letter,
            await _pools.after_letters(server),
        )
        return await server.ask(lambda: call)

    def holds(self, one: Delivery[P] | PooledOffer[P]) -> bool:
        """Whether it is in hand here, as far as is known."""
        place = one.place
        return place is not None and self._in_hand.get(_where(place)) is one

    def keep(self, one: Delivery[P] | PooledOffer[P]) -> None:
        """Have it stay in hand: Redis wrote nothing of what was to become of it.

        Otherwise the audit hands back what a call could not settle.
        """
        if one.place is not None and self._state == "joined":
            self._in_hand[_where(one.place)] = one

    def _forget(self, place: Place) -> None:
        self._in_hand.pop(_where(place), None)

    def _not_in_hand(self, place: Place) -> NotInHand:
        return NotInHand(
            f"pool {self.pool}: entry {place.entry} of {self.name} is not in this replica's hands "
            "any more; what it did with it may be done again by another",
            self.pool,
        )

    def __repr__(self) -> str:
        return f"<Replica of {self.pool} for {self.name} {self.plan.type}>"


def _where(place: Place) -> Where:
    return place.audience.field, place.entry, place.times


def _resolve(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
