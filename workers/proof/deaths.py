"""Deaths: owners and sources of dialogs are ended by kill -9, and whoever is left is told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from broker import BIDIRECTIONAL, Broker, Channel, Offer, Registration
from workers.proof.child import Child
from workers.proof.history import DIED, HUNG, SOURCE, Dialog, Hand, History, ended
from workers.proof.patience import now
from workers.proof.talk import PRINTER, TYPE

STARTING = 10.0
"""Seconds that a process may take until it says something."""
Said = dict[str, Any]
MakeChild = Callable[[str, Callable[[Said], None], str], Child]
"""A process by its role, who is told what it says, and its user."""


class Deaths:
    """Processes that hold a dialog, or ask, and are killed."""

    def __init__(
        self,
        history: History,
        broker: Callable[[str], Broker],
        child: MakeChild,
        patience: float,
    ) -> None:
        self.told_after: list[float] = []
        """For each death, seconds until the last of the others was told."""
        self._history = history
        self._broker = broker
        self._child = child
        self._patience = patience

    async def of_an_owner(self, user: str) -> None:
        """One dialog: its source is told."""
        said: asyncio.Queue[Said] = asyncio.Queue()
        child = self._child("owner", said.put_nowait, user)
        async with self._broker("spooler") as broker:
            try:
                await child.start()
                await self._next(said, "ready")
                channel = await broker.open_channel(PRINTER, TYPE, user=user, style=BIDIRECTIONAL)
                dialog = self._dialog(channel, user)
                send = partial(channel.send, "held 0")
                dialog.sends["held 0"] = await dialog.call(SOURCE, "send", send)
                response = await channel.response(self._patience)
                said_by = response.registration
                dialog.heard.append((said_by, dialog.hands_over(SOURCE, response.text)))
                owned = await self._next(said, "owns")
                dialog.hands[said_by] = Hand(user, {owned["body"]: True}, ["held 0"], end=DIED)
            finally:
                await child.kill()
            killed = now()
            closing = await channel.wait_closed(self._patience + 2 * broker.settings.lease)
            dialog.end = dialog.is_told(SOURCE, ended(closing)) if closing else HUNG
            self.told_after.append(now() - killed)

    async def of_a_source(self, user: str) -> None:
        """One question that all hold, and one dialog: their listeners are told."""
        said: asyncio.Queue[Said] = asyncio.Queue()
        child = self._child("asker", said.put_nowait, user)
        async with self._broker(user) as one, self._broker(user) as other:
            registrations = [
                await each.register(PRINTER, TYPE, style=BIDIRECTIONAL) for each in (one, other)
            ]
            try:
                await child.start()
                waiting = [await self._two_offers(registration) for registration in registrations]
                for _ in range(2):
                    opened = await self._next(said, "opened")
                    asked = await self._next(said, "asked")
                    dialog = self._history.dialog(opened["opened"])
                    dialog.user, dialog.printer, dialog.type = user, PRINTER, TYPE
                    dialog.sends[asked["body"]], dialog.end = True, DIED
                for offer in itertools.chain(*waiting):
                    dialog = self._history.dialog(offer.id)
                    text = dialog.hands_over(offer.registration.id, offer.notification.text)
                    dialog.hands[offer.registration.id] = Hand(user, heard=[text])
                await self._respond(waiting[0][1])
            finally:
                await child.kill()
            killed = now()
            for offer in itertools.chain(*waiting):
                dialog = self._history.dialog(offer.id)
                me = offer.registration.id
                closing = await offer.wait_closed(self._patience + 2 * one.settings.lease)
                dialog.hands[me].end = dialog.is_told(me, ended(closing)) if closing else HUNG
                if closing and closing.acquired:
                    dialog.hands[me].lost_to = closing.by or ""
            self.told_after.append(now() - killed)

    async def _two_offers(self, registration: Registration[Any]) -> list[Offer[Any]]:
        found: list[Offer[Any]] = []
        for _ in range(2):
            offer = await registration.fetch(self._patience)
            if not isinstance(offer, Offer):
                raise TimeoutError(f"a question was not offered within {self._patience:g} s")
            found.append(offer)
        return found

    async def _respond(self, offer: Offer[Any]) -> None:
        dialog, me, body = self._history.dialog(offer.id), offer.registration.id, "mine 0"
        call = partial(offer.respond, body)
        dialog.hands[me].responses[body] = await dialog.call(me, "respond", call)

    def _dialog(self, channel: Channel, user: str) -> Dialog:
        dialog = self._history.dialog(channel.id)
        dialog.user, dialog.printer, dialog.type = user, str(channel.name), TYPE
        return dialog

    async def _next(self, said: asyncio.Queue[Said], word: str) -> Said:
        """What a process says of this, which may only just have started. Raises TimeoutError."""
        async with asyncio.timeout(STARTING + self._patience):
            while True:
                line = await said.get()
                if word in line:
                    return line
