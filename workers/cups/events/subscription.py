"""The subscription: how cupsd is made to tell everything to the notifier, and goes on doing so."""

from __future__ import annotations

import asyncio
import logging
import os

from workers.cups.cupsd.client import Client, NotFound, Refused, SubscriptionFacts
from workers.cups.events.keeping import Keeping
from workers.cups.notifier import RECIPIENT

log = logging.getLogger("tympan.cups")

LEASE = 86_400
"""Seconds; it is renewed when half of them are over."""
EVENTS = ("all",)
_NO_NOTIFIER = 0x040C
"""cupsd found no program for the scheme of the recipient."""


class NoNotifier(Exception):
    """The notifier is not installed where cupsd looks for it."""


class Subscription:
    """One on the whole server. Its user data is a secret of the bridge: others' are refused."""

    def __init__(self, cups: Client, keeping: Keeping, *, lease: int = LEASE) -> None:
        self._cups = cups
        self._keeping = keeping
        self._lease = lease
        self.renewed_at = float("-inf")
        """By the loop's clock."""

    async def ensure(self, number: int) -> tuple[int, bool]:
        """Have one: this one, renewed, or a new one; its number, and whether it is new.

        What else of this bridge's is there ends. A cupsd that was killed may give a new one the
        number of one that it lost. Raises NoNotifier, IppError, JournalFault.
        """
        token = await self._token()
        own = [facts for facts in await self._cups.subscriptions() if self._is_ours(facts)]
        kept = next((f.id for f in own if f.id == number and f.user_data == token.encode()), None)
        if kept is not None:
            try:
                await self.renew(kept)
            except NotFound:
                kept = None
        is_new = kept is None
        if kept is None:
            kept = await self._make(token)
        for facts in own:
            if facts.id != kept:
                log.info("subscription %d is of an earlier bridge, and is ended", facts.id)
                await self._cups.unsubscribe(facts.id)
        return kept, is_new

    def _is_ours(self, facts: SubscriptionFacts) -> bool:
        return (
            facts.recipient == RECIPIENT
            and not facts.printer_uri
            and facts.user in ("", self._cups.user)
        )

    async def _token(self) -> str:
        token = await self._keeping.do(lambda journal: journal.fact("token"))
        if isinstance(token, str):
            return token
        made = f"tympan/{os.urandom(12).hex()}"
        await self._keeping.do(lambda journal: journal.keep(token=made))
        return made

    async def _make(self, token: str) -> int:
        try:
            number = await self._cups.subscribe(RECIPIENT, EVENTS, token.encode(), self._lease)
        except Refused as error:
            if error.status == _NO_NOTIFIER:
                raise NoNotifier(
                    f"cupsd knows no notifier {RECIPIENT[:-1]!r}: tympan cups install places it"
                ) from error
            raise
        self.renewed_at = asyncio.get_running_loop().time()
        log.info("cupsd tells its events to subscription %d", number)
        return number

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew it."""
        return asyncio.get_running_loop().time() - self.renewed_at >= self._lease / 2

    async def renew(self, number: int) -> None:
        """Begin its lease anew. Raises NotFound, IppError."""
        await self._cups.renew(number, self._lease)
        self.renewed_at = asyncio.get_running_loop().time()
