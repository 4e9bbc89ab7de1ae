"""Connecting: redis-py makes and authenticates each connection; here its faults get their types."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection as Connection
from redis.asyncio.connection import SSLConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError as AnyRedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from broker._address import Node
from broker._scripts import Arg
from broker.errors import (
    CertificateRefused,
    ForeignLayout,
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


class Maker(Protocol):
    """Makes connections, not yet connected."""

    def connection(self) -> Connection:
        """A new connection."""


class Connector(Protocol):
    """Connects to the process to ask, which may be another one next time."""

    url: str
    """What to call it in messages; never with a password."""
    is_fixed: bool
    """Whether it is always the same address. If not, a replica is no reason to give up."""
    is_expected: bool
    """Whether somebody else who answers says that a process is there, or will be: it may be waited
    for."""
    on_change: list[Callable[[], None]]
    """Called when the address became another one."""

    async def connect(self) -> Connection:
        """A connected, authenticated connection. Raises RedisUnreachable or RedisRefused."""


class Direct:
    """Connects to one address; ``is_alone``: to the only Redis there is, as far as the URL says."""

    is_fixed = True
    is_expected = False

    def __init__(
        self, maker: Maker, url: str, settings: Settings, *, is_alone: bool = True
    ) -> None:
        self.url = url
        self.on_change: list[Callable[[], None]] = []
        self._maker = maker
        self._settings = settings
        self._is_alone = is_alone

    async def connect(self) -> Connection:
        return await open_connection(
            self._maker.connection(), self.url, self._settings, is_alone=self._is_alone
        )


class Redirected(Exception):
    """A node of a Cluster names another one for this slot; nothing was done."""

    def __init__(self, slot: int, node: Node, *, for_now: bool) -> None:
        super().__init__(slot, node)
        self.slot = slot
        self.node = node
        self.for_now = for_now
        """Whether only this call belongs there (ASK), while the slot moves."""

    @classmethod
    def of(cls, error: Exception) -> Redirected | None:
        """What an error answer says, where it is MOVED or ASK."""
        if not isinstance(error, MovedError | AskError):
            return None
        is_ask = type(error) is AskError
        return cls(error.slot_id, (error.host, error.port), for_now=is_ask)


def fault(error: Exception, where: str, keys: Iterable[object] = ()) -> RedisError:
    """The typed error for one that Redis answered; ``keys``: keys or channels that were asked for.

    An ACL names none of them.
    """
    text = str(error)
    match _code(error):
        case "NOPERM":
            forbidden = RedisRefused(
                f"the ACL of {where} forbids this to our user: {text}{_of_acl(keys)}"
            )
            forbidden.is_forbidden = True
            return forbidden
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
    TryAgainError: "TRYAGAIN",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
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


def is_between_nodes(error: Exception) -> bool:
    """Whether a call's slot is moving, with some of its keys on either node."""
    return _code(error) == "TRYAGAIN"


def is_read_only(error: Exception) -> bool:
    """Whether it was a replica that answered."""
    return _code(error) == "READONLY"


def _of_acl(keys: Iterable[object]) -> str:
    """Which key it was about, and who tells what is allowed there."""
    named = next((key for key in keys if isinstance(key, str) and ":" in key), None)
    if named is None:
        return "; `tympan doctor` says what it may do"
    server = named.partition("{")[2].partition("}")[0]
    command = rf"tympan doctor '\\{server}'" if server else "tympan doctor"
    return f" ({named}); `{command}` says what it may do there"


async def open_connection(
    connection: Connection, url: str, settings: Settings, *, is_alone: bool = True
) -> Connection:
    """Connect and authenticate. Raises RedisUnreachable or RedisRefused.

    ``is_alone``: it is no part of something larger, so another one may be started in its place.
    """
    async with or_disconnected(connection, url, is_alone=is_alone):
        async with asyncio.timeout(settings.connect_timeout):
            await connection.connect()
    return connection


@contextlib.asynccontextmanager
async def or_disconnected(
    connection: Connection, url: str, *, is_alone: bool = True
) -> AsyncIterator[None]:
    """Whatever goes wrong inside, also a cancellation, leaves no connection behind."""
    is_good = False
    try:
        yield
        is_good = True
    except (*BROKEN, TimeoutError, AnyRedisError) as error:
        raise _unconnected(error, connection, url, is_alone=is_alone) from None
    finally:
        if not is_good:
            await connection.disconnect(nowait=True)


def _unconnected(
    error: Exception, connection: Connection, url: str, *, is_alone: bool
) -> RedisError:
    """Why there is no connection, as our own error."""
    match error:
        case AuthenticationError() | NoPermissionError() | ResponseError():
            return fault(error, url)
        case InvalidResponse():
            return RedisError(f"what answers at {url} is no Redis: {error}")
    of_tls = _tls_fault(error, url)
    if of_tls is not None:
        return of_tls
    text = str(error) or "no answer"
    speaks_tls, was_cut = isinstance(connection, SSLConnection), _CUT.search(text) is not None
    advice = {
        (False, False): "`tympan up` starts one",
        (False, True): "where it speaks TLS, write rediss://",
        (True, False): "where it does not speak TLS, write redis://",
        (True, True): f"where it wants a certificate of its clients, name one: {_OURS}",
    }[speaks_tls, was_cut]
    if is_alone:
        return RedisUnreachable(f"no connection to {url}: {text}; is Redis there? {advice}")
    text = _reason(error) or text.rstrip(".")
    return RedisUnreachable(
        f"no connection to {url}: {text}{f'; {advice}' if speaks_tls or was_cut else ''}"
    )


def _reason(error: BaseException | None) -> str:
    """What the system says; redis-py names the address once more."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
            return os.strerror(error.errno)
        error = error.__cause__ or error.__context__
    return ""


_CUT = re.compile("reset by peer|closed by server", re.IGNORECASE)
_OURS = "rediss://host:port/0?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key"
_OUR_CERTIFICATE = re.compile("ALERT.*(CERTIFICATE|UNKNOWN_CA)")


def _tls_fault(error: BaseException | None, url: str) -> RedisRefused | None:
    """What is wrong with a certificate, the other side's or ours, where that is why."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateRefused(f"{url}: {_mistrust(error.verify_message)}")
    if error is not None and _OUR_CERTIFICATE.search(error.reason or ""):
        return RedisRefused(
            f"{url} does not take us for a client of its own ({error.reason}): name a certificate "
            f"that it trusts, and its key, as in {_OURS}"
        )
    return None


def _mistrust(why: str) -> str:
    """What is wrong with the other side's certificate, and what to do."""
    if "mismatch" in why or "not valid for" in why:
        return (
            f"its certificate is for another host ({why.rstrip('.')}): connect by a name that "
            "the certificate holds, or have it made for this one"
        )
    if "expired" in why or "not yet valid" in why:
        return f"its certificate cannot be trusted ({why}): renew it there, and look at the clocks"
    return (
        f"its certificate cannot be trusted ({why}): name the authority that signed it, as in "
        "rediss://host:port/0?ssl_ca_certs=/path/ca.pem"
    )


@dataclass(frozen=True, slots=True)
class Process:
    """The Redis process at the other end of a connection."""

    run_id: str
    version: tuple[int, ...]
    mode: str
    """``standalone``, ``cluster`` or ``sentinel``."""


async def ask(connection: Connection, *command: Arg) -> Any:
    """One command on a connection that nobody else uses yet."""
    await connection.send_command(*command)
    return await connection.read_response(disable_decoding=True, disconnect_on_error=False)


async def identify(connection: Connection, url: str, patience: float) -> Process:
    """Which process a new connection reached. Raises RedisTooOld, RedisUnreachable."""
    async with or_disconnected(connection, url), asyncio.timeout(patience):
        try:
            info = await ask(connection, "INFO", "server")
        except ResponseError as error:
            if "unknown command" not in str(error).lower():
                raise
            return Process(MEMORY_RUN, (7, 0, 0), "standalone")
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
    return Process(
        facts.get("run_id", MEMORY_RUN), version, facts.get("redis_mode", "standalone").strip()
    )
