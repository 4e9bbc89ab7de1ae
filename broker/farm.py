"""Farm-wide registrations: a listener on every print server, those added later among them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from broker._place import Place, Wish
from broker._sessions import Sessions
from broker.errors import (
    AccessDenied,
    AlreadyUnregistered,
    CallAlreadyParked,
    RegistrationEnded,
    RegistrationError,
    TympanError,
)
from broker.notification import Notification, P
from broker.offer import Offer
from broker.registration import UNREGISTERED
from broker.results import (
    ALREADY_UNREGISTERED,
    LOCAL_ONLY_REGISTRATION,
    REMOTE_ONLY_REGISTRATION,
    S_OK,
    Result,
)

if TYPE_CHECKING:
    from broker._dispatch import Dispatcher
    from broker.settings import Settings

log = logging.getLogger("tympan")

AT_ONCE = 64
"""Servers that are asked at the same time."""


class FarmRegistration(Generic[P]):
    """One listener on the whole farm: a registration on each server, held by this process.

    Iterate over it, or :meth:`fetch` one by one, as with a :class:`broker.Registration`. What comes
    is merged fairly: servers take turns. Order holds for each channel and for nothing else (D23).

    Servers that are added later are reached within ``resync`` seconds, usually at once; forgotten
    ones are left. A server that cannot be reached is asked again, after pauses from ``retry_least``
    to ``retry_most`` (R125). One that refused for a right is asked again when :meth:`retry` says so
    (R126). When every server refuses, and none is still asked, the registration ends.
    """

    def __init__(
        self, sessions: Sessions, settings: Settings, wish: Wish, own: str | None = None
    ) -> None:
        self.wish = wish
        self._sessions = sessions
        self._settings = settings
        self._own = own
        self._places: dict[str, Place] = {}
        self._leaving: set[Place] = set()
        self._ready: dict[Place, None] = {}
        """Places where something waits to be fetched, in the order of their turns."""
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._stirred = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._state = "new"
        self._why = ""
        self._cause: TympanError | None = None
        self._is_fetching = False
        self._dispatcher: Dispatcher | None = None

    # What it reaches ----------------------------------------------------------------------------

    @property
    def reached(self) -> tuple[str, ...]:
        """The servers on which it stands now."""
        return tuple(server for server, place in self._sorted() if place.is_reached)

    @property
    def missing(self) -> dict[str, TympanError]:
        """The servers on which it does not stand now, and why."""
        return {server: place.error for server, place in self._sorted() if not place.is_reached}

    def _sorted(self) -> list[tuple[str, Place]]:
        return sorted(self._places.items(), key=lambda item: item[0])

    @property
    def result(self) -> Result:
        """S_OK, or which side alone is reached now (R137).

        The broker's own ``server`` is the local side, all others are the remote one; a side is
        reached where one of its servers is. Where none is reached, it is an error's result.
        """
        reached, missing = set(self.reached), self.missing
        if not reached and missing:
            return missing[self._own or next(iter(missing))].result
        if self._own in missing:
            return REMOTE_ONLY_REGISTRATION
        if missing and reached == {self._own}:
            return LOCAL_ONLY_REGISTRATION
        return S_OK

    # Life ---------------------------------------------------------------------------------------

    async def register(self) -> Result:
        """Register on every server; returns when each has answered, or was given time to.

        Raises what the servers refuse with where every one does, and RedisUnreachable where the
        directory cannot be read; then it stands nowhere (R25).
        """
        self._state = "registering"
        try:
            await self._sessions.follow(self)
            await self._first_answers()
            if self._is_refused():
                raise self._refusal()
        except BaseException:
            self._ended("it was not registered")
            with contextlib.suppress(TympanError):  # the first error is the one to tell
                await self._leave()
            raise
        self._state = "registered"
        return self.result

    async def retry(self) -> Result:
        """Ask those servers again that refused, as after a grant; the result as of then."""
        self._refuse_ended()
        for place in self._places.values():
            if place.is_refused:
                place.attempt()
        await self._first_answers()
        return self.result

    async def unregister(self) -> Result:
        """End it on every server. A waiting fetch ends with RegistrationEnded (R31).

        Returns S_OK, or ALREADY_UNREGISTERED. Raises what keeps a server from answering, once all
        were asked; then the same call asks that one again.
        """
        if self._state == "ended" and not self._leaving:
            return ALREADY_UNREGISTERED
        self._ended(UNREGISTERED)
        await self._leave()
        return S_OK

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._dispatcher is not None:
            await self._dispatcher.close()
        if self._state != "ended":
            await self.unregister()

    async def broker_closed(self) -> None:
        """The broker object is being closed, which ends what stands."""
        self._ended("its broker was closed")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(place.stop() for place in self._leaving))
        self._leaving.clear()

    def _ended(self, why: str, cause: TympanError | None = None) -> None:
        if self._state != "ended":
            self._state, self._why, self._cause = "ended", why, cause
        self._sessions.unfollow(self)
        self._leaving.update(self._places.values())
        self._places.clear()
        self._ready.clear()
        self._stirred.set()

    async def _leave(self) -> None:
        """Leave every server; raises the first error once all were asked."""
        left = await asyncio.gather(*map(self._left, self._leaving), return_exceptions=True)
        for error in left:
            if error is not None:
                raise error

    async def _left(self, place: Place) -> None:
        await place.leave()
        self._leaving.discard(place)

    # Servers come and go ------------------------------------------------------------------------

    def follow(self, servers: Collection[str]) -> None:
        """These are the servers of the farm."""
        if self._state == "ended":
            return
        wanted = set(servers) | ({self._own} if self._own else set())
        for server in wanted.difference(self._places):
            self._places[server] = Place(
                server,
                self.wish,
                self._sessions,
                self._settings,
                self._gate,
                self._changed,
                is_own=server == self._own,
            )
            self._places[server].attempt()
        for server in set(self._places) - wanted:
            place = self._places.pop(server)
            self._ready.pop(place, None)
            self._leaving.add(place)
            self._beside(self._left(place))
        self._check_refused()

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="tympan-leaving")
        self._tasks.add(task)
        task.add_done_callback(self._did)

    def _did(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("a server was not left in order: %s", task.exception())

    def _changed(self, place: Place) -> None:
        """A server answered, something came from it, or the registration there ended."""
        if self._places.get(place.server) is not place:
            return
        if place.has_news:
            self._ready.setdefault(place)
        elif place.registration is None:
            self._beside(place.give_back())
            self._check_refused()
        self._stirred.set()

    async def _first_answers(self) -> None:
        """Until each server answered; after the reply timeout, until one has accepted."""

        def answered() -> bool:
            return all(place.is_answered for place in self._places.values())

        due = asyncio.get_running_loop().time() + self._settings.reply_timeout
        if not await self._until(answered, due):
            await self._until(lambda: answered() or bool(self.reached), None)

    def _is_refused(self) -> bool:
        """Whether every server refuses, and none is still asked."""
        return bool(self._places) and all(place.is_refused for place in self._places.values())

    def _refusal(self) -> TympanError:
        """One error for all that refused."""
        errors = list(self.missing.values())
        first = next((error for error in errors if isinstance(error, AccessDenied)), errors[0])
        if len(errors) == 1:
            return first
        return type(first)(f"none of {len(errors)} servers accepted the registration: {first}")

    def _check_refused(self) -> None:
        if self._state == "registered" and self._is_refused():
            refusal = self._refusal()
            self._ended(str(refusal), refusal)
            self._beside(self._leave())

    # What comes ---------------------------------------------------------------------------------

    async def fetch(self, timeout: float | None = None) -> Notification[P] | Offer[P] | None:
        """The next notification or offer of any server; None after ``timeout`` seconds.

        One fetch at a time (CallAlreadyParked). Raises AlreadyUnregistered where it was
        unregistered, and RegistrationEnded where it ends meanwhile, or was refused everywhere.
        """
        self._refuse_ended()
        if self._is_fetching:
            raise CallAlreadyParked("a farm-wide fetch waits already; one at a time")
        self._is_fetching = True
        due = None if timeout is None else asyncio.get_running_loop().time() + timeout
        try:
            while await self._until(lambda: bool(self._ready) or self._state == "ended", due):
                if self._state == "ended":
                    raise self._ending from self._cause
                item = await self._turn(next(iter(self._ready)))
                if item is not None:
                    return item
            return None
        finally:
            self._is_fetching = False

    async def _turn(self, place: Place) -> Notification[P] | Offer[P] | None:
        """One server's turn; what it still has waits for the next one."""
        del self._ready[place]
        try:
            with contextlib.suppress(RegistrationError):  # it ended: that is news of its own
                if place.registration is not None:
                    return await place.registration.fetch(0)
            return None
        finally:
            if place.has_news:
                self._changed(place)

    async def _until(self, holds: Callable[[], bool], due: float | None) -> bool:
        """Wait for it; False where it does not hold when it is due."""
        while not holds():
            self._stirred.clear()
            try:
                async with asyncio.timeout_at(due):
                    await self._stirred.wait()
            except TimeoutError:
                return holds()
        return True

    @property
    def was_unregistered(self) -> bool:
        """Whether its own listener ended it."""
        return self._state == "ended" and self._why == UNREGISTERED

    @property
    def _ending(self) -> RegistrationEnded:
        return RegistrationEnded(f"the farm-wide registration ended: {self._why}")

    def _refuse_ended(self) -> None:
        if self.was_unregistered:
            raise AlreadyUnregistered("this farm-wide registration was unregistered")
        if self._state == "ended":
            raise self._ending from self._cause

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._all()

    async def _all(self) -> AsyncIterator[Any]:
        while True:
            try:
                item = await self.fetch()
            except (AlreadyUnregistered, RegistrationEnded):
                if self.was_unregistered:
                    return
                raise
            if item is not None:
                yield item

    def dispatch_to(self, make: Callable[[FarmRegistration[P]], Dispatcher]) -> None:
        """Hand what comes to a callback, from now on."""
        self._dispatcher = make(self)
