"""Fixtures that all tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.farm import Backend, Farm, MemoryBackend, RedisBackend
from tests.servers import RedisServer

BACKENDS = ("memory", "redis")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real redis-server for the session; each test has its own namespace on it."""
    with RedisServer() as server:
        yield server


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn. The real server is started only where it is used."""
    if request.param == "memory":
        return MemoryBackend()
    return RedisBackend(request.getfixturevalue("redis_server"))


@pytest.fixture
async def farm(backend: Backend) -> AsyncIterator[Farm]:
    """A farm on each backend; at its end nothing may be left behind."""
    async with Farm(backend) as made:
        yield made


@pytest.fixture
async def real_farm(redis_server: RedisServer) -> AsyncIterator[Farm]:
    """A farm on the real server only, for what the double cannot show."""
    async with Farm(RedisBackend(redis_server)) as made:
        yield made
