"""Connecting: redis-py makes and authenticates each connection; here its faults get their types."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator
from typing import Any, Protocol

from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError as AnyRedisError
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
        if not isinstance(url, str):
            raise InvalidUrl(f"{url!r} is no Redis URL: write redis://host:port/0")
        self.url = _without_password(url)
        if not _URL.fullmatch(url):
            raise InvalidUrl(
                f"{self.url!r} is no Redis URL: write redis://host:port/0, rediss:// or unix://"
            )
        try:
            self._pool: ConnectionPool = ConnectionPool.from_url(
                url,
                protocol=2,
                socket_timeout=None,
                socket_connect_timeout=settings.connect_timeout,
                **({} if url.startswith("unix://") else {"socket_keepalive": True}),
                retry=Retry(NoBackoff(), 0),
                client_name=f"tympan-{socket.gethostname()}-{os.getpid()}".replace(" ", "-"),
            )
            self._pool.make_connection()
        except (ValueError, TypeError) as error:
            raise InvalidUrl(f"{self.url!r} is no Redis URL: {error}") from None

    def connection(self) -> Connection:
        made: Connection = self._pool.make_connection()
        return made


_URL = re.compile(r"rediss?://[^/?#]*(?:/\d*)?(?:\?[^#]*)?|unix://[^#]+")
"""A database is a number; redis-py reads the rest."""
_SECRET = re.compile(r"(?<=password=)[^&]*")


def _without_password(url: str) -> str:
    scheme, sep, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    user = credentials.partition(":")[0]
    return f"{scheme}{sep}{user + ':***@' if at else ''}{_SECRET.sub('***', host)}"


def fault(error: Exception, where: str) -> RedisError:
    """The typed error for one that Redis answered."""
    text = str(error)
    match _code(error):
        case "NOPERM":
            return RedisRefused(f"the ACL of {where} forbids this to our user: {text}")
        case "WRONGPASS" | "NOAUTH":
            return RedisRefused(f"{where} refuses our credentials: {text}")
        case "OOM":
            return RedisFull(
                f"{where} is out of memory, nothing was written: raise maxmemory or free some"
            )
        case "READONLY":
            return RedisReadOnly(f"{where} is a read-only replica: connect to its primary")
        case "MISCONF" | "NOREPLICAS":
            return RedisReadOnly(f"{where} refuses writes: {text}")
        case "WRONGTYPE":
            return ForeignLayout(
                f"{where} holds keys of another program under our names ({text}): "
                "use another namespace or database"
            )
    return RedisError(f"{where} answered: {text}")


_CODES = re.compile(
    r"(?:^|-)(NOPERM|WRONGPASS|NOAUTH|OOM|READONLY|MISCONF|NOREPLICAS|WRONGTYPE|LOADING|BUSY"
    r"|TRYAGAIN|MASTERDOWN|CLUSTERDOWN)\b"
)
_TYPES: dict[type[Exception], str] = {
    NoPermissionError: "NOPERM",
    AuthenticationError: "WRONGPASS",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
}


def _code(error: Exception) -> str:
    """The code of an error answer: redis-py's class, or the word, also from inside a script."""
    for kind, code in _TYPES.items():
        if isinstance(error, kind):
            return code
    found = _CODES.search(str(error))
    if found is None and "WRONGTYPE" in str(error):
        return "WRONGTYPE"
    return found[1] if found else ""


def is_passing(error: Exception) -> bool:
    """Whether an error answer is weather: loading, busy, failing over; ask again."""
    return _code(error) in {"LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN"}


async def open_connection(connector: Connector, settings: Settings) -> Connection:
    """A connected, authenticated connection. Raises RedisUnreachable or RedisRefused."""
    connection = connector.connection()
    async with _or_disconnected(connection, connector.url):
        async with asyncio.timeout(settings.connect_timeout):
            await connection.connect()
    return connection


@contextlib.asynccontextmanager
async def _or_disconnected(connection: Connection, url: str) -> AsyncIterator[None]:
    """Whatever goes wrong inside, also a cancellation, leaves no connection behind."""
    is_good = False
    try:
        yield
        is_good = True
    except (*BROKEN, TimeoutError, AnyRedisError) as error:
        raise _unconnected(error, url) from None
    finally:
        if not is_good:
            await connection.disconnect(nowait=True)


def _unconnected(error: Exception, url: str) -> RedisError:
    """Why there is no connection, as our own error."""
    match error:
        case AuthenticationError() | NoPermissionError() | ResponseError():
            return fault(error, url)
        case InvalidResponse():
            return RedisError(f"what answers at {url} is no Redis: {error}")
    return RedisUnreachable(
        f"no connection to {url}: {str(error) or 'no answer'}; is Redis there? "
        "`tympan up` starts one"
    )


async def _ask(connection: Connection, *command: Arg) -> Any:
    await connection.send_command(*command)
    return await connection.read_response(disable_decoding=True, disconnect_on_error=False)


async def identify(
    connection: Connection, url: str, patience: float
) -> tuple[str, tuple[int, ...]]:
    """Run id and version of the Redis process that a new connection reached."""
    async with _or_disconnected(connection, url), asyncio.timeout(patience):
        try:
            info = await _ask(connection, "INFO", "server")
        except ResponseError as error:
            if "unknown command" not in str(error).lower():
                raise
            return MEMORY_RUN, (7, 0, 0)
    facts = dict(
        line.split(":", 1) for line in info.decode(errors="replace").splitlines() if ":" in line
    )
    version = tuple(map(int, re.findall(r"\d+", facts.get("redis_version", "0"))[:3]))
    if version < OLDEST:
        await connection.disconnect(nowait=True)
        raise RedisTooOld(
            f"{url} is Redis {facts.get('redis_version')}; Tympan needs "
            f"{'.'.join(map(str, OLDEST))} or later"
        )
    return facts.get("run_id", MEMORY_RUN), version
