"""Connecting: redis-py makes and authenticates each connection; here its faults get their types."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any, Protocol

from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from broker._scripts import Arg
from broker.errors import (
    ForeignLayout,
    InvalidUrl,
    RedisError,
    RedisFull,
    RedisReadOnly,
    RedisRefused,
    RedisTooOld,
    RedisUnreachable,
)
from broker.settings import Settings

OLDEST = (6, 2)
MEMORY_RUN = "memory"
"""Run id of the in-memory double, which has no INFO."""
BROKEN = (RedisConnectionError, RedisTimeoutError, OSError, asyncio.IncompleteReadError)
"""What a connection that broke raises."""


class Connector(Protocol):
    """Makes connections, not yet connected."""

    url: str

    def connection(self) -> Connection:
        """A new connection."""


class UrlConnector:
    """Connections to the Redis that a URL names; the URL is read by redis-py."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = _without_password(url)
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise InvalidUrl(
                f"{self.url!r} is no Redis URL: write redis://host:port/0, rediss:// or unix://"
            )
        try:
            self._pool: ConnectionPool = ConnectionPool.from_url(
                url,
                protocol=2,
                socket_timeout=None,
                socket_connect_timeout=settings.connect_timeout,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),
                client_name=f"tympan-{socket.gethostname()}-{os.getpid()}".replace(" ", "-"),
            )
            self._pool.make_connection()
        except (ValueError, TypeError) as error:
            raise InvalidUrl(f"{self.url!r} is no Redis URL: {error}") from None

    def connection(self) -> Connection:
        made: Connection = self._pool.make_connection()
        return made


def _without_password(url: str) -> str:
    scheme, sep, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    user = credentials.partition(":")[0]
    return f"{scheme}{sep}{user + ':***@' if at else ''}{host}"


def fault(error: Exception, where: str) -> RedisError:
    """The typed error for one that Redis answered."""
    text = str(error)
    match error:
        case NoPermissionError():
            return RedisRefused(f"the ACL of {where} forbids this to our user: {text}")
        case AuthenticationError():
            return RedisRefused(f"{where} refuses our credentials: {text}")
        case OutOfMemoryError():
            return RedisFull(
                f"{where} is out of memory, nothing was written: raise maxmemory or free some"
            )
        case ReadOnlyError():
            return RedisReadOnly(f"{where} is a read-only replica: connect to its primary")
    if text.startswith(("MISCONF", "NOREPLICAS")):
        return RedisReadOnly(f"{where} refuses writes: {text}")
    if "WRONGTYPE" in text:
        return ForeignLayout(
            f"{where} holds keys of another program under our names ({text}): "
            "use another namespace or database"
        )
    return RedisError(f"{where} answered: {text}")


def is_passing(error: Exception) -> bool:
    """Whether an error answer is weather: loading, busy, failing over; ask again."""
    return str(error).startswith(("LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN"))


async def open_connection(connector: Connector, settings: Settings) -> Connection:
    """A connected, authenticated connection. Raises RedisUnreachable or RedisRefused."""
    connection = connector.connection()
    try:
        async with asyncio.timeout(settings.connect_timeout + 1):
            await connection.connect()
    except (AuthenticationError, NoPermissionError) as error:
        raise fault(error, connector.url) from None
    except (*BROKEN, TimeoutError) as error:
        await connection.disconnect(nowait=True)
        raise RedisUnreachable(
            f"no connection to {connector.url}: {str(error) or 'no answer'}; is Redis there? "
            "`tympan up` starts one"
        ) from None
    except ResponseError as error:
        await connection.disconnect(nowait=True)
        raise fault(error, connector.url) from None
    return connection


async def _ask(connection: Connection, *command: Arg) -> Any:
    await connection.send_command(*command)
    return await connection.read_response(disable_decoding=True, disconnect_on_error=False)


async def identify(connection: Connection, url: str) -> tuple[str, tuple[int, ...]]:
    """Run id and version of the Redis process that a new connection reached."""
    try:
        async with asyncio.timeout(5):
            info = await _ask(connection, "INFO", "server")
    except ResponseError as error:
        if "unknown command" in str(error).lower():
            return MEMORY_RUN, (7, 0, 0)
        await connection.disconnect(nowait=True)
        raise fault(error, url) from None
    except (*BROKEN, TimeoutError) as error:
        await connection.disconnect(nowait=True)
        raise RedisUnreachable(f"{url} accepted a connection and does not answer") from error
    facts = dict(
        line.split(":", 1) for line in info.decode(errors="replace").splitlines() if ":" in line
    )
    version = tuple(int(part) for part in facts.get("redis_version", "0").split(".")[:3])
    if version < OLDEST:
        await connection.disconnect(nowait=True)
        raise RedisTooOld(
            f"{url} is Redis {facts.get('redis_version')}; Tympan needs "
            f"{'.'.join(map(str, OLDEST))} or later"
        )
    return facts.get("run_id", MEMORY_RUN), version
