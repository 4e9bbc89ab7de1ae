"""Channels: the source's end. Only a source opens one, and only it speaks first (R1, R12)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from broker import _calls, _trace
from broker._calls import Route, Stowed, inside, together
from broker._end import Answer, End
from broker._entries import Entry, EntryId
from broker._keys import EVERYONE, Audience, channel_audiences, grant_field, subject
from broker._outbox import Outbox, Sending
from broker._outcomes import SENT, SOURCE, refusal, words_of
from broker._rundown import end_channel
from broker._scripts import Call
from broker._server import Server, new_id
from broker._standing import denied
from broker.conversation import BIDIRECTIONAL, Style
from broker.errors import (
    AccessDenied,
    ChannelAlreadyClosed,
    ChannelAlreadyOpened,
    ChannelNotOpened,
    ContractViolation,
    InvalidArgument,
    MaxChannelCountExceeded,
    OutcomeUnknown,
    RedisError,
    RedisRefused,
    ResponseTimeout,
    SessionLapsed,
    TympanError,
)
from broker.names import Name
from broker.notification import Body, Response
from broker.results import Result
from broker.rights import to_administer

if TYPE_CHECKING:
    from broker.payload import Payload

log = logging.getLogger("tympan")

_NEVER = EntryId(0, 0)
HEARD = frozenset({"OK", "LOST"})
"""Words of a unidirectional send that reached somebody; after any other its body may go."""


class Channel(End[Response[Any]]):
    """One channel, from its source's side.

    ``async with await broker.open_channel(...) as channel`` leaves no channel behind: one on
    which nothing was sent is released (R100, R113), any other closed. That raises what close()
    raises; while another error passes, it is logged instead.
    """

    def __init__(
        self,
        server: Server,
        name: Name,
        type_: UUID,
        model: type[Payload] | None,
        style: Style,
        user: str | None,
        opened_by: str,
    ) -> None:
        super().__init__(server, new_id(), name, type_)
        self._style = style
        self._user = user
        self._opened_by = opened_by
        self._is_opened = False
        self._asked: str | None = None
        self._model = model
        self._sending = asyncio.Lock()
        self._outbox = Outbox(self._send_all, server.spawn, lambda: len(self._route.streams))
        self._settled: dict[bytes, deque[Answer]] = {}
        """Answers to sends whose callers were told that the outcome is unknown."""
        self._awaits_response = False
        self._token = ""
        """The acquisition that this end saw first; empty before."""
        self._adoption = _NEVER
        """The last time, as far as this end knows, that the dialog changed hands in its pool."""
        self._owner = ""
        self._owner_session = ""
        self._last_route: Route | None = None

    @property
    def style(self) -> Style:
        """Its conversation style, fixed at creation (R4)."""
        return self._style

    @property
    def user(self) -> str | None:
        """Its target user; None for all users."""
        return self._user

    @property
    def opened_by(self) -> str:
        """The user who opened it."""
        return self._opened_by

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and nothing closed it yet that this end knows of."""
        return self._is_opened and self.closing is None

    @property
    def owner(self) -> str | None:
        """Registration that acquired the dialog, once its first response arrived."""
        return self._owner or None

    @property
    def other_session(self) -> str:
        """See :attr:`broker._end.End.other_session`."""
        return self._owner_session

    @property
    def _target(self) -> str:
        return self.user or EVERYONE

    @property
    def _me(self) -> str:
        return SOURCE

    @cached_property
    def _audiences(self) -> tuple[Audience, ...]:
        return channel_audiences(self.name, self.type, self.style, self._target)

    @property
    def _route(self) -> Route:
        """Its audiences and, for a unidirectional one, the pools that it concerns now."""
        server, listed = self._server, self._server.pools_listed
        if self._last_route is None or self._last_route.listed != listed:
            pools = [pool for pool in server.pools if pool.concerns(self._audiences)]
            place = (server.keys, self.id, self.name.printer, self._target)
            self._last_route = Route.of(*place, self._audiences, pools, listed)
        return self._last_route

    @cached_property
    def _boards(self) -> Route:
        keys = self._server.keys
        if self.style is BIDIRECTIONAL:
            return Route.to_boards(keys, self.id, self.name, self.type, self._target)
        return Route.of(keys, self.id, self.name.printer, self._target, ())

    # Opening ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the channel; listeners are not needed (R3).

        Raises ChannelAlreadyOpened (R8), AccessDenied (R1, R9), RightsUnavailable,
        MaxChannelCountExceeded (R7).
        """
        server = self._server
        if self._is_opened:
            raise ChannelAlreadyOpened(f"channel {self.id} was opened before", self.id)
        if not server.settings.is_source:
            raise AccessDenied(
                "this client is a listener: only a source opens channels (settings.role)"
            )
        all_users = self.user is None
        limit = server.settings.max_channels

        mask = to_administer(self.name, strict=server.settings.strict_rights) if all_users else 0
        standing = server.listening.standing
        await standing.require(server, self.opened_by, self.name, int(mask))
        asked_in_redis = all_users and not standing.source
        right = grant_field(self.name.printer, self.opened_by) if asked_in_redis else ""
        where = subject(self.name, self.type, self.style, self._target)

        def call() -> Call:
            return _calls.open_channel(
                server.keys,
                server.session,
                self.id,
                where,
                self.style.word,
                self.opened_by,
                right,
                int(mask),
                limit,
            )

        def afresh() -> None:
            self._id = server.another_id(self.id)

        server.beginning.add(self.id)
        try:
            word, *_ = await server.ask_anew(call, afresh)
        except RedisRefused as error:
            raise AccessDenied(f"this credential may not open channels: {error}") from error
        finally:
            server.beginning.discard(self.id)
        if word == "DENIED":
            raise denied(self.opened_by, self.name, int(mask))
        if word == "LIMIT":
            raise MaxChannelCountExceeded(
                f"server {self.name.server} has {limit} open channels; the limit is max_channels"
            )
        if word != "OK":
            raise refusal(word, channel=self.id)
        self._is_opened = True
        server.channels[self.id] = self

    def doubt(self) -> None:
        """Its opening was broken off, and nobody has this object: it must not stand."""
        self._server.doubt(self.id)

    # Sending ------------------------------------------------------------------------------------

    async def send(
        self, body: Body, *, lossless: bool = False, timeout: float | None = None
    ) -> Result:
        """Send a notification.

        Unidirectional: S_OK, NO_LISTENERS or UNIRECTIONAL_NOTIFICATION_LOST, decided in the same
        step that sends it; raises NotificationFailure where listeners exist and none got it. With
        ``lossless`` nothing is sent while anyone would miss it: the call backs off and tries
        again for up to ``timeout`` seconds (default: the operation timeout), then raises QueueFull.

        Bidirectional: the first one is held until somebody answers, with or without listeners;
        after an answer it goes to the owner only. Raises WaitingForResponse (R87).

        Either way: InvalidNotificationType, NotificationTooLarge, ChannelAlreadyClosed,
        ChannelNotOpened. A failed send leaves the channel as it was (R93).
        """
        self._refuse_unopened()
        data = self._encode(body)
        self._refuse_when_told()
        with _trace.sending("send", self.id, self.type, self.name):
            if self.style is BIDIRECTIONAL:
                async with self._sending:
                    call = self._follow_up_call if self._token else self._offer_call
                    answer = await self._with_body("send", data, call)
            else:
                patience = self._server.settings.operation_timeout if timeout is None else timeout
                answer = await self._send_unidirectional(data, patience if lossless else None)
        self._server.observer.sent(self.style, answer.word)
        if answer.word not in SENT:
            raise self._refusal(answer)
        self._awaits_response = answer.word == "OK" and self.style is BIDIRECTIONAL
        return self._durable(answer, SENT[answer.word])

    async def _send_unidirectional(self, data: bytes, lossless_for: float | None) -> Answer:
        """``lossless_for``: seconds to wait for room everywhere; None sends with what there is."""
        now = asyncio.get_running_loop().time()
        due = None if lossless_for is None else now + lossless_for
        sending = Sending(data, _trace.current(), self._server.is_large(data), due)
        answer = await self._outbox.put(sending)
        if answer.word not in HEARD and sending.stowed is not None:
            await self._server.discard(sending.stowed)
        return answer

    async def _send_all(self, sendings: Sequence[Sending]) -> list[Answer]:
        """The answer to each; one call for those that have none yet."""
        await self._settle_sends()
        if not self._settled:
            return await self._send_unsent(sendings)
        known = [self._take_settled(each.data) for each in sendings]
        unsent = [each for each, answer in zip(sendings, known, strict=True) if answer is None]
        if not unsent:
            return [answer for answer in known if answer is not None]
        self._settled.clear()
        answers = iter(await self._send_unsent(unsent))
        return [next(answers) if answer is None else answer for answer in known]

    async def _send_unsent(self, sendings: Sequence[Sending]) -> list[Answer]:
        first, bodies = sendings[0], tuple(each.data for each in sendings)
        if len(sendings) > 1:
            stowed = together(bodies)
        elif first.is_large:
            stowed = first.stowed = first.stowed or await self._server.stow(first.data)
        else:
            stowed = inside(first.data)
        keep = round(self._server.settings.keep_pooled * 1000)

        def call(op: int, stowed: Stowed) -> Call:
            return _calls.uni_send(
                self._server.keys,
                self._route,
                op,
                stowed,
                first.trace,
                keep,
                lossless=first.lossless,
            )

        answer = await self._carry(("send", bodies), first.data, stowed, call, len(bodies))
        return _answers(answer, len(bodies))

    async def _settle_sends(self) -> None:
        """Ask for answers to sends whose outcome is unknown; whoever sends them again has them."""
        found = await self._settle("send")
        if found is None or found[1].word == "NO_BODY":
            return
        (_, bodies), answer = found
        for body, each in zip(bodies, _answers(answer, len(bodies)), strict=True):
            self._settled.setdefault(body, deque()).append(each)

    def _take_settled(self, body: bytes) -> Answer | None:
        answers = self._settled.get(body)
        if answers is None:
            return None
        answer = answers.popleft()
        if not answers:
            del self._settled[body]
        return answer

    def _moved(self, session: str) -> None:
        self._owner_session = session

    def _offer_call(self, op: int, stowed: Stowed) -> Call:
        self._asked = stowed.key
        return _calls.offer(self._server.keys, self._boards, op, stowed, _trace.current())

    def _follow_up_call(self, op: int, stowed: Stowed) -> Call:
        return _calls.follow_up(
            self._server.keys,
            self.id,
            op,
            self._token,
            self._owner_session,
            stowed,
            _trace.current(),
        )

    # Hearing ------------------------------------------------------------------------------------

    async def response(self, timeout: float | None = None) -> Response[Any]:
        """The next response. One that closed the channel has ``is_final`` set.

        Raises ResponseTimeout after ``timeout`` seconds (the channel stays open), and
        ChannelAlreadyClosed where the channel ended without one.
        """
        self._refuse_unopened()
        if self.style is not BIDIRECTIONAL:
            raise InvalidArgument(f"channel {self.id} is unidirectional: nobody can answer (R52)")
        if not await self._await(lambda: bool(self._arrived) or self.closing is not None, timeout):
            raise ResponseTimeout(f"channel {self.id}: no response in {timeout:g} s", self.id)
        if self._arrived:
            return self._next()
        raise self._is_over()

    def _next(self) -> Response[Any]:
        self._awaits_response = False
        return super()._next()

    async def responses(self) -> AsyncIterator[Response[Any]]:
        """Responses as they come, until the channel closes."""
        while True:
            try:
                yield await self.response()
            except ChannelAlreadyClosed:
                return

    def _hear(self, entry: Entry) -> None:
        """A response. The first acquisition seen is pinned: no second owner gets through (D15).

        A pool's replicas take over from each other: each has a token that names the acquisition,
        and the last one heard of counts.
        """
        acquisition, adoption = _parts(entry.text("token"))
        if not self._accepts(acquisition, adoption):
            return
        self._token, self._adoption = acquisition, adoption
        self._owner = entry.text("registration")
        self._owner_session = entry.text("session")
        if entry.text("event") == "moved":
            return
        if self._is_repeated(entry):
            return
        self._present(entry)
        self._wake()

    def _present(self, entry: Entry) -> None:
        self._arrived.append(self._notification(entry))
        self._server.observer.responded()

    def _accepts(self, acquisition: str, adoption: EntryId) -> bool:
        return not self._token or (acquisition == self._token and adoption >= self._adoption)

    def told(self, entry: Entry) -> None:
        """A response, or the owner's close; a final answer is a response too."""
        if entry.text("event") == "closed" and self.closing is None:
            token = entry.text("token")
            if token and not self._accepts(*_parts(token)):
                return
            self._owner = self._owner or entry.text("registration")
            waiting = list(self._arrived)
            self._closed(self._closing(entry))
            self._arrived.extend(waiting)
            if "body" in entry.fields or "ref" in entry.fields:
                self._present(entry)
            self._wake()
            return
        super().told(entry)

    def _notification(self, entry: Entry) -> Response[Any]:
        return Response(
            self.type,
            entry.fields.get("body"),
            self.id,
            self.name,
            self.user,
            float(entry.text("at") or 0) / 1000,
            self._model.response_model if self._model else None,
            trace=entry.text("trace"),
            by=entry.text("user"),
            registration=entry.text("registration"),
            is_final=entry.text("event") == "closed",
        )

    # Ending -------------------------------------------------------------------------------------

    async def close(self, reason: Body | None = None) -> Result:
        """Close the channel; the listeners or the owner are told the reason (R94 to R98).

        Raises ChannelNotOpened before anything was sent (R100: release it instead),
        ChannelAlreadyClosed, InvalidNotificationType, NotificationTooLarge.
        """
        self._refuse_unopened()
        return await super().close(reason)

    async def release(self) -> Result:
        """Let go of the channel, where it is this end's to let go (section 6 of the rules)."""
        if not self._references:
            self._refuse_unopened()
            if self._awaits_response and self.closing is None:
                raise ContractViolation(
                    f"channel {self.id}: the broker owns it from a send until its response is "
                    "presented; close it instead (R114)",
                    self.id,
                )
        return await super().release()

    def _refuse_unopened(self) -> None:
        if not self._is_opened:
            raise ChannelNotOpened(f"channel {self.id} is not open: await open() first", self.id)

    def _close_call(self, op: int, kind: str, reason: Stowed) -> Call:
        server = self._server
        return _calls.source_close(
            server.keys,
            self._boards,
            op,
            kind,
            server.session,
            self._owner_session,
            server.keep,
            self._asked,
            reason,
        )

    @property
    def is_asking(self) -> bool:
        """Whether its question may be open: nobody answered that this end knows of."""
        return self.style is BIDIRECTIONAL and self.is_open and self._op > 0 and not self._token

    async def offer_again(self) -> None:
        """Put an open question back on the boards that lost it, for those who come late.

        Where Redis does not know the question any more, both ends are told NOTIFICATION_RELEASE.
        """
        lost = await self._known(lambda: _calls.offer_again(self._server.keys, self._boards))
        if any(lost):
            log.warning("channel %s: Redis lost its question on %d boards", self.id, *lost)

    def _confirm_call(self) -> Call:
        return _calls.confirm(self._server.keys, self.id, SOURCE, self._op, self._token)

    def _forgotten(self) -> None:
        super()._forgotten()
        self._server.spawn(self._clear_away())

    async def _clear_away(self) -> None:
        with contextlib.suppress(RedisError, OutcomeUnknown, SessionLapsed):
            await self._end_forgotten()

    async def _end_forgotten(self) -> None:
        await end_channel(
            self._server, self.id, "abandon", self._server.session, boards=self._boards
        )

    def _over(self) -> None:
        self._server.channels.pop(self.id, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.is_open:
            return
        try:
            await self._leave()
        except TympanError as fault:
            if error is None:
                raise
            log.warning("channel %s, left by %s: %s", self.id, type(error).__name__, fault)

    async def _leave(self) -> None:
        try:
            await self.close()
        except ChannelNotOpened:
            await self.release()
        except ChannelAlreadyClosed:
            return


def _parts(token: str) -> tuple[str, EntryId]:
    """A fencing token's acquisition, and the adoption in a pool that followed."""
    acquisition, _, adoption = token.partition("/")
    return acquisition, EntryId.parse(adoption) if adoption else _NEVER


def _answers(answer: Answer, many: int) -> list[Answer]:
    """What one call's answer says of each of its notifications."""
    if answer.word != "MANY":
        return [answer] * many
    return [Answer(word, "", answer.held) for word in words_of(answer.detail)]
