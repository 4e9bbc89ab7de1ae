"""Places: what becomes of a farm-wide registration on each server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tenacity import AsyncRetrying, retry_if_exception, wait_exponential

from broker._server import Server
from broker._sessions import Sessions
from broker.conversation import Style, UserFilter
from broker.errors import (
    AccessDenied,
    BrokerClosed,
    InvalidArgument,
    RedisRefused,
    RedisUnreachable,
    SessionLapsed,
    TympanError,
)
from broker.names import Name
from broker.registration import Registration

if TYPE_CHECKING:
    from broker.payload import Payload
    from broker.settings import Settings

log = logging.getLogger("tympan")

FINAL = (AccessDenied, RedisRefused, InvalidArgument)
"""Refusals that another try would not change (R126)."""


@dataclass(frozen=True)
class Wish:
    """What is asked of every server."""

    model: type[Payload] | None
    type: UUID
    user: str
    user_filter: UserFilter
    style: Style
    printers: bool
    buffer: int | None


class Place:
    """One server of the farm, and the registration there; made until it stands, or is refused.

    ``on_change(place)`` when it came to stand, failed or ended, and when something came.
    """

    def __init__(
        self,
        server: str,
        wish: Wish,
        sessions: Sessions,
        settings: Settings,
        gate: asyncio.Semaphore,
        on_change: Callable[[Place], None],
        *,
        is_own: bool,
    ) -> None:
        self.server = server
        self.registration: Registration[Any] | None = None
        self._wish = wish
        self._sessions = sessions
        self._settings = settings
        self._gate = gate
        self._on_change = on_change
        self._is_own = is_own
        self._session: Server | None = None
        self._former: Registration[Any] | None = None
        self._error: TympanError | None = None
        self._trying: asyncio.Task[None] | None = None

    # How it stands ------------------------------------------------------------------------------

    @property
    def is_reached(self) -> bool:
        """Whether the registration stands now."""
        return self.registration is not None and self.registration.is_registered

    @property
    def is_refused(self) -> bool:
        """Whether there is none, and nobody asks for it again."""
        return self.registration is None and (self._trying is None or self._trying.done())

    @property
    def is_answered(self) -> bool:
        """Whether the server said something, be it no."""
        return self.registration is not None or self._error is not None or self.is_refused

    @property
    def has_news(self) -> bool:
        """Whether something waits to be fetched."""
        return self.registration is not None and self.registration.unread > 0

    @property
    def error(self) -> TympanError:
        """Why it is not reached."""
        if self.registration is not None:
            return SessionLapsed(f"server {self.server}: it is being registered there again")
        return self._error or RedisUnreachable(
            f"server {self.server} has not answered yet; it is being asked"
        )

    # Coming and going ---------------------------------------------------------------------------

    def attempt(self) -> None:
        """Begin to ask."""
        self._error = None
        self._trying = asyncio.create_task(self._attempt(), name=f"tympan-at {self.server}")
        self._trying.add_done_callback(self._attempted)

    def _attempted(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, FINAL):
            log.error("server %s: registering failed", self.server, exc_info=error)
        self._on_change(self)

    async def _attempt(self) -> None:
        """R125, R126: with pauses from retry_least to retry_most; a refusal is final."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_is_worth_another_try),
            wait=wait_exponential(
                multiplier=self._settings.retry_least,
                min=self._settings.retry_least,
                max=self._settings.retry_most,
            ),
        ):
            with attempt:
                try:
                    async with self._gate:
                        await self._register()
                except TympanError as error:
                    self._error = error
                    log.info("server %s: not registered there: %s", self.server, error)
                    self._on_change(self)
                    raise

    async def _register(self) -> None:
        if self._is_own:
            await self._sessions.at(self.server)  # the own server may be a new one
        session = await self._sessions.borrow(self.server)
        wish = self._wish
        registration: Registration[Any] = Registration(
            session, Name(session.name), wish.model, everywhere=True
        )
        try:
            await registration.register(
                wish.type,
                user=wish.user,
                user_filter=wish.user_filter,
                style=wish.style,
                printers=wish.printers,
                buffer=wish.buffer,
            )
        except BaseException:
            await self._sessions.give_back(session)
            raise
        self._session, self.registration = session, registration
        registration.on_news = self._news

    def _news(self) -> None:
        registration = self.registration
        if registration is not None and registration.has_ended:
            self.registration, self._former = None, registration
            self._error = registration.ending
            log.warning("server %s: %s", self.server, self._error)
        self._on_change(self)

    async def stop(self) -> None:
        """Ask no more, and say nothing more. What stands stays."""
        if self.registration is not None:
            self.registration.on_news = None
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.wait({self._trying})

    async def leave(self) -> None:
        """End it. Raises what keeps the server from answering; then it may be called again."""
        await self.stop()
        if self.registration is not None:
            with contextlib.suppress(BrokerClosed):  # and with it all that was registered there
                await self.registration.unregister()
            self.registration = None
        await self.give_back()

    async def give_back(self) -> None:
        """Without a registration: end the session that it stood on, if nobody else uses it."""
        session, self._session = self._session, None
        if session is None:
            return
        if self._former is not None:  # it may have ended just now
            await session.listening.leave(self._former)
        await self._sessions.give_back(session)


def _is_worth_another_try(error: BaseException) -> bool:
    return isinstance(error, TympanError) and not isinstance(error, FINAL)
