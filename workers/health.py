"""Health: one small HTTP port that says whether this process lives, and what it does.

It answers from a thread with an event loop of its own: also while the worker's loop is stuck.
Only code that keeps the interpreter's lock for itself silences it, and then silence is the answer.

========== =======================================================================================
/livez     200, or 503 while the worker's loop did not go around for three poll intervals; Redis
           has no say in it: a restart would not mend Redis
/readyz    200, or 503 and each reason: not started, draining, stuck, or what the runner names
/startupz  200 once everything was joined
/metrics   for Prometheus
/backlog   JSON: what each pool has not finished; 503 while that is unknown
========== =======================================================================================
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, Self

from broker import results
from broker.errors import InvalidArgument, TympanError
from broker.results import Result
from workers.backlog import Read, backlog_record
from workers.extras import needed

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger("tympan")

POLL = 1.0
"""Seconds between two polls of a worker's loop."""
MISSED_POLLS = 3
PATIENCE = 2.0
"""Seconds that requests under way have at the end."""
WAITING_CLIENTS = 16


class InvalidAddress(InvalidArgument):
    """What was given is not HOST:PORT."""


class PortUnusable(TympanError):
    """The health port cannot be opened."""

    result = Result("PORT_UNUSABLE", results.UNEXPECTED.hresult)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: ``127.0.0.1:8080``, ``localhost:0`` (any free port), ``[::1]:8080``."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidAddress."""
        host, colon, port = text.rpartition(":")
        if not colon:
            raise InvalidAddress(f"{text!r} is no HOST:PORT: write 127.0.0.1:8080 or [::1]:8080")
        if not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise InvalidAddress(f"{text!r}: {port!r} is no port: write a number from 0 to 65535")
        if not host:
            raise InvalidAddress(
                f"{text!r} names no host: write 127.0.0.1{text}, or 0.0.0.0{text} for all of them"
            )
        return cls(_host(host, text), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _host(host: str, text: str) -> str:
    """The host without its brackets."""
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise InvalidAddress(f"{text!r}: {host[1:-1]!r} is no IPv6 address") from None
    if ":" in host:
        raise InvalidAddress(f"{text!r}: an IPv6 address stands in brackets: [::1]:8080")
    if "[" in host or "]" in host or "/" in host or not host.isprintable() or " " in host:
        raise InvalidAddress(f"{text!r}: {host!r} is no host: write 127.0.0.1:8080")
    return host


class State(Enum):
    """Where a worker is in its life."""

    STARTING = "starting: not everything is joined yet"
    READY = "ready"
    DRAINING = "draining: it takes nothing new"


class Liveness:
    """Whether a worker's loop goes around. The loop beats; any thread may look.

    Args:
        interval: seconds between two beats.
        clock: seconds, for differences.
    """

    def __init__(
        self, interval: float = POLL, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval = interval
        self.state = State.STARTING
        self._clock = clock
        self._beat = clock()

    def beat(self) -> None:
        """The loop finished a poll."""
        self._beat = self._clock()

    async def keep(self) -> None:
        """Beat until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(self.interval)

    @property
    def age(self) -> float:
        """Seconds since the last finished poll."""
        return max(0.0, self._clock() - self._beat)

    @property
    def bound(self) -> float:
        """The most seconds that a loop which is not stuck needs for a poll."""
        return MISSED_POLLS * self.interval

    @property
    def fault(self) -> str | None:
        """Why the process is not to be taken for alive; None while it is."""
        age = self.age
        if age <= self.bound:
            return None
        return (
            f"the worker's loop finished no poll for {age:.1f} s, and {self.bound:g} s are "
            "allowed: a handler blocks it, or the process gets no processor"
        )


class Metrics(Protocol):
    """Who has the metrics; :class:`workers.telemetry.Telemetry`."""

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """All of them as a client that accepts this wants them, and their content type."""


def _nothing() -> Iterable[str]:
    return ()


class HealthPort:
    """The HTTP port.

    Args:
        address: where to listen.
        liveness: the beats of the worker's loop, and its state.
        obstacles: what keeps a started worker from being ready, a sentence for each: what is not
            joined, a Redis that is silent. Called in the port's thread, as the next ones, and
            not while the worker's loop is stuck.
        metrics: without one there is no ``/metrics``.
        backlog: without one there is no ``/backlog``.

    Raises InvalidAddress.
    """

    def __init__(
        self,
        address: str | Address,
        liveness: Liveness,
        *,
        obstacles: Callable[[], Iterable[str]] = _nothing,
        metrics: Metrics | None = None,
        backlog: Read | None = None,
    ) -> None:
        self._wanted = Address.parse(address) if isinstance(address, str) else address
        self._liveness = liveness
        self._obstacles = obstacles
        self._metrics = metrics
        self._backlog = backlog
        self._sockets: list[socket.socket] = []
        self._bound: Address | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._fault: BaseException | None = None

    @property
    def address(self) -> Address:
        """Where it listens, by its real port; before the start, where it is to listen."""
        return self._bound or self._wanted

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"http://{self.address}"

    def start(self) -> Self:
        """Listen, and return when requests are answered. Raises PortUnusable, ExtraMissing."""
        with needed("worker", "the health port"):
            import aiohttp.web  # noqa: F401 - loaded here, where its absence can be told
        self._sockets = _listen(self._wanted)
        self._bound = Address(self._wanted.host, self._sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="tympan-health", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._fault is not None:
            raise PortUnusable(f"the health port {self.address} failed: {self._fault}")
        return self

    def close(self) -> None:
        """Stop listening; answers under way are finished."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:  # its loop ended by itself
            log.debug("the health port was not running any more")
        thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # In its thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._fault = error
            if self._started.is_set():  # otherwise whoever starts it is told
                log.exception("the health port %s failed", self.address)
        finally:
            for each in self._sockets:
                each.close()
            self._started.set()

    async def _serve(self) -> None:
        from aiohttp import web

        self._loop = asyncio.get_running_loop()
        app = web.Application()
        app.add_routes([web.get(path, handle) for path, handle in self._routes()])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=PATIENCE)
        await runner.setup()
        try:
            for each in self._sockets:
                await web.SockSite(runner, each, backlog=WAITING_CLIENTS).start()
            self._started.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()

    def _routes(self) -> Iterable[tuple[str, Callable[[web.Request], Awaitable[web.Response]]]]:
        yield "/livez", self._livez
        yield "/readyz", self._readyz
        yield "/startupz", self._startupz
        if self._metrics is not None:
            yield "/metrics", self._show_metrics
        if self._backlog is not None:
            yield "/backlog", self._show_backlog

    async def _livez(self, _: web.Request) -> web.Response:
        fault = self._liveness.fault
        if fault is not None:
            return _text(503, fault)
        return _text(200, f"alive: the last poll finished {self._liveness.age:.1f} s ago")

    async def _startupz(self, _: web.Request) -> web.Response:
        state = self._liveness.state
        return _text(503 if state is State.STARTING else 200, state.value)

    async def _readyz(self, _: web.Request) -> web.Response:
        state = self._liveness.state
        faults = [] if state is State.READY else [state.value]
        stuck = self._liveness.fault
        if stuck is not None:  # what the loop would know is out of date
            faults.append(stuck)
        elif state is State.READY:
            faults.extend(dict.fromkeys(self._obstacles()))
        return _text(503, *faults) if faults else _text(200, state.value)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        from aiohttp import web

        assert self._metrics is not None
        body, content_type = self._metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type, **FRESH})

    async def _show_backlog(self, _: web.Request) -> web.Response:
        assert self._backlog is not None
        facts = self._backlog()
        if facts is None:
            return _json(503, {"error": "the backlog is not known: Redis was not read lately"})
        return _json(200, backlog_record(facts))


FRESH = {"Cache-Control": "no-store"}


def _text(status: int, *lines: str) -> web.Response:
    from aiohttp import web

    return web.Response(status=status, text="".join(f"{line}\n" for line in lines), headers=FRESH)


def _json(status: int, record: dict[str, Any]) -> web.Response:
    from aiohttp import web

    return web.json_response(record, status=status, headers=FRESH)


def _listen(address: Address) -> list[socket.socket]:
    """Sockets on all that a host's name stands for, with one port. Raises PortUnusable."""
    made: list[socket.socket] = []
    port = address.port
    try:
        found = socket.getaddrinfo(
            address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, place in dict.fromkeys(found):
            opened = socket.socket(family, kind, protocol)
            made.append(opened)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind((place[0], port, *place[2:]))
            opened.listen(WAITING_CLIENTS)
            port = opened.getsockname()[1]
    except OSError as error:
        for each in made:
            each.close()
        raise PortUnusable(_why_unusable(address, error)) from None
    return made


def _why_unusable(address: Address, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the health port {address} cannot be opened: the host is not known ({error})"
    why = os.strerror(error.errno).lower() if error.errno else str(error)
    return (
        f"the health port {address} cannot be opened: {why}; choose another HOST:PORT, "
        "or port 0 for any that is free"
    )
