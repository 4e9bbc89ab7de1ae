"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from broker import Broker
from tests.servers import RedisServer

Brokers = Callable[[str], Awaitable[Broker]]


@pytest.fixture
async def broker(redis_server: RedisServer) -> AsyncIterator[Brokers]:
    """The library beside the command: a broker for a user, entered, on the same redis-server."""
    made: list[Broker] = []

    async def make(user: str) -> Broker:
        opened = await Broker.connect(redis_server.url, user=user).start()
        made.append(opened)
        return opened

    yield make
    for opened in made:
        await opened.close()
