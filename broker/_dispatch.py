"""Dispatch: hands what comes to a callback, one call at a time for each handle."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from broker._end import End, inside_closed
from broker.callback import Callback
from broker.errors import RegistrationError
from broker.notification import Notification

if TYPE_CHECKING:
    from broker.channel import Channel
    from broker.farm import FarmRegistration
    from broker.offer import Offer
    from broker.registration import Registration

log = logging.getLogger("tympan")


class Dispatcher:
    """Feeds one callback from a registration or a channel."""

    def __init__(self, callback: Callback) -> None:
        self._callback: Callback | None = callback
        self._base = 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialogs = 0

    @property
    def references(self) -> int:
        """One while registered (or the channel is open), and one for each live dialog (R118)."""
        return self._base + self._dialogs

    def listen(self, registration: Registration[Any] | FarmRegistration[Any]) -> Dispatcher:
        """Follow a registration until it ends; its dialogs until they end."""
        self._run(self._listen(registration))
        return self

    def hear(self, registration: Registration[Any]) -> Dispatcher:
        """Follow a unidirectional registration until it ends: a plain function is called at once.

        A coroutine function needs a task in any case.
        """
        method = self._callback.on_event_notify if self._callback is not None else None
        is_plain = not inspect.iscoroutinefunction(method)
        self._run(self._hear(registration) if is_plain else self._listen(registration))
        return self

    def follow(self, channel: Channel) -> Dispatcher:
        """Follow a channel's responses."""
        self._run(self._follow(channel))
        return self

    async def close(self) -> None:
        """Call back no more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._callback = None

    def _run(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work, name="tympan-callback")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("dispatch failed", exc_info=task.exception())
        if not self._base and not self._tasks:
            self._callback = None

    async def _listen(self, registration: Registration[Any] | FarmRegistration[Any]) -> None:
        from broker.offer import Offer

        try:
            while True:
                item = await registration.fetch()
                if isinstance(item, Offer):
                    self._dialogs += 1
                    self._run(self._dialog(item))
                elif item is not None:
                    await self._notify(None, item)
        except RegistrationError:
            return
        finally:
            self._base = 0

    async def _hear(self, registration: Registration[Any]) -> None:
        try:
            await registration.hand_to(self._hand)
        except RegistrationError:
            return
        finally:
            self._base = 0

    def _hand(self, notification: Notification[Any]) -> Coroutine[Any, Any, None] | None:
        """Call back; what is to be awaited before the next one, if anything."""
        if self._callback is None:
            return None
        return self._begun(self._callback.on_event_notify, None, notification)

    async def _dialog(self, offer: Offer[Any]) -> None:
        try:
            await self._notify(offer, offer.notification)
            await self._until_closed(offer)
        finally:
            self._dialogs -= 1

    async def _follow(self, channel: Channel) -> None:
        try:
            await self._until_closed(channel)
        finally:
            self._base = 0

    async def _until_closed(self, end: End[Any]) -> None:
        while (told := await end.next_told()) is not None:
            if end.closing is None:  # nothing is notified after a close (R104)
                await self._notify(end, told)
        if end.was_told and end.closing is not None and self._callback is not None:
            token = inside_closed.set(end)
            try:
                await self._call(self._callback.channel_closed, end, end.closing.reason)
            finally:
                inside_closed.reset(token)
                end.closed_returned()

    async def _notify(self, end: End[Any] | None, notification: Notification[Any]) -> None:
        if self._callback is not None:
            await self._call(self._callback.on_event_notify, end, notification)

    async def _call(self, method: Callable[..., object], *args: object) -> None:
        waiting = self._begun(method, *args)
        if waiting is not None:
            await waiting

    def _begun(
        self, method: Callable[..., object], *args: object
    ) -> Coroutine[Any, Any, None] | None:
        """Call it; what is to be awaited until it is done, if anything.

        A callback that fails is its author's fault, and must not end the listener.
        """
        try:
            answer = method(*args)
        except Exception:
            log.exception("callback %r failed", method)
            return None
        return self._finished(method, answer) if inspect.isawaitable(answer) else None

    @staticmethod
    async def _finished(method: Callable[..., object], answer: Awaitable[object]) -> None:
        try:
            await answer
        except Exception:
            log.exception("callback %r failed", method)
