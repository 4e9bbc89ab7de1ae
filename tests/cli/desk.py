"""A pool's replica beside the command, which puts aside what a test says."""

from __future__ import annotations

from typing import Self

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Broker, Style
from broker.pool import Subscription
from tests.cli.commands import TYPE
from tests.redis.pooling import Member


class Desk(Member):
    """One replica of a pool for Alice."""

    @classmethod
    async def at(
        cls, broker: Broker, name: str, pool: str = "helpdesk", style: Style = UNIDIRECTIONAL
    ) -> Self:
        """Serve the pool, which the first one makes."""
        return await cls.of(broker, Subscription(name, TYPE, user="alice", style=style), pool)

    @classmethod
    async def asked(cls, broker: Broker, name: str) -> Self:
        """The same for questions."""
        return await cls.at(broker, name, style=BIDIRECTIONAL)

    async def bury(self, reason: str = "no such tray") -> str:
        """Put the next thing aside; the letter's id."""
        (found,) = await self.take(1)
        return str(await found.bury(reason))
