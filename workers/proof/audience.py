"""An audience: registrations and channels of many users, and who was shown what for whom."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

from broker import ALL_USERS, Broker, Name, Notification, UserFilter
from broker.errors import AccessDenied, RegistrationEnded
from broker.registration import Registration
from workers.proof.history import Attempt, Feed, History, Listening, is_meant_for
from workers.proof.patience import done, now, until

EACH = 5
"""Notifications on each channel."""


class Audience:
    """Whoever listens one way, and whoever speaks to them."""

    def __init__(self, history: History, patience: float) -> None:
        self.spoken = 0
        """Channels so far."""
        self._history = history
        self._patience = patience
        self._mine: dict[str, Listening] = {}
        self._registrations: list[Registration[Any]] = []
        self._hearing: list[asyncio.Task[None]] = []
        self._feeds: list[Feed] = []

    @property
    def listeners(self) -> int:
        """How many were admitted."""
        return len(self._mine)

    async def listen(
        self, broker: Broker, place: str, type_: str, wish: UserFilter, *, has_right: bool
    ) -> None:
        """Register, where that is admitted; a server's name hears all its printers."""
        name, all_users = Name.parse(place), wish is ALL_USERS
        whom = "all users" if all_users else "himself"
        attempt = Attempt(
            f"{broker.user} listens for {whom} on {name}", has_right, is_admitted=True
        )
        self._history.attempts.append(attempt)
        try:
            registration: Registration[Any] = await broker.register(
                name, type_, user_filter=wish, printers=not name.printer
            )
        except AccessDenied:
            attempt.is_admitted = False
            return
        listening = Listening(
            broker.user, str(name), type_, False, all_users, printers=not name.printer, since=now()
        )
        self._mine[registration.id] = self._history.listening[registration.id] = listening
        self._registrations.append(registration)
        self._hearing.append(asyncio.create_task(self._hear(registration, registration.id)))

    async def _hear(self, registration: Registration[Any], name: str) -> None:
        with contextlib.suppress(RegistrationEnded):  # its right was taken away
            async for notification in registration:
                assert isinstance(notification, Notification)
                feed = self._history.feed(notification.channel)
                feed.heard.setdefault(name, []).append(int(notification.text))

    async def speak(self, broker: Broker, place: str, type_: str, user: str) -> None:
        """Some notifications on a channel of its own; ``user`` is empty for all users."""
        whom: dict[str, Any] = {"user": user} if user else {"user_filter": ALL_USERS}
        channel = await broker.open_channel(place, type_, **whom)
        feed = self._history.feed(channel.id)
        feed.user, feed.printer, feed.type = user, str(channel.name), type_
        self._feeds.append(feed)
        self.spoken += 1
        for number in range(EACH):
            await feed.send(number, partial(channel.send, str(number)))
        await done(channel.close)
        feed.closed, feed.end = now(), "closed"

    async def refused(self, broker: Broker, place: str, type_: str) -> None:
        """Speak to all users, without the right to."""
        attempt = Attempt(f"{broker.user} speaks to all users on {place}", False, True)
        self._history.attempts.append(attempt)
        try:
            channel = await broker.open_channel(place, type_, user_filter=ALL_USERS)
        except AccessDenied:
            attempt.is_admitted = False
        else:
            await channel.release()

    def being_denied(self, user: str, place: str) -> None:
        """A right is about to be taken away: nothing more is owed to what stands on it."""
        for listening in self._on_right(user, place):
            listening.until = now()

    def denied(self, user: str, place: str) -> None:
        """The right was taken away: what is sent from now on is not for them."""
        for listening in self._on_right(user, place):
            listening.denied = now()

    def _on_right(self, user: str, place: str) -> list[Listening]:
        name = str(Name.parse(place))
        return [
            one
            for one in self._mine.values()
            if (one.user, one.printer, one.all_users) == (user, name, True)
        ]

    async def hears_all(self) -> None:
        """Wait until everybody heard what is theirs; who did not is found by the invariants."""

        def is_heard() -> bool:
            return all(
                len(feed.heard.get(name, ())) >= EACH
                for name, listening in self._mine.items()
                for feed in self._feeds
                if is_meant_for(feed, listening) and listening.until > max(feed.answered.values())
            )

        with contextlib.suppress(TimeoutError):
            await until(is_heard, "the last notification", self._patience)

    async def end(self) -> None:
        """They listen no more."""
        for listening in self._mine.values():
            listening.until = min(listening.until, now())
        for registration in self._registrations:
            await registration.unregister()
        await asyncio.gather(*self._hearing)
