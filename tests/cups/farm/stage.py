"""The stage: a Redis, print hosts with a cupsd and a bridge each, and who listens to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from broker import BIDIRECTIONAL, Broker, Name, Payload
from broker.conversation import ALL_USERS, PER_USER, UNIDIRECTIONAL
from broker.offer import Offer
from broker.registration import Registration
from tests.cups.host import CupsHost
from tests.servers import RedisServer

CHECKOUT = Path(__file__).resolve().parents[3]
PATIENCE = 20.0
"""Seconds that is waited for what must come, on a machine that does much else."""
LEASE = 3
BRIDGE = (sys.executable, "-m", "workers.cli", "bridge", "run", "cups")
QUESTIONS = """
[[question]]
name = "paper"
when = "media-empty"
text = "{printer} is out of paper. Continue “{title}”?"
time_out = 600
otherwise = "hold"

[[question]]
name = "many"
when = "before"
copies_over = 50
text = "{copies} copies of “{title}”?"
block_for = 1
time_out = 600
otherwise = "cancel"
"""


class Transcript:
    """What happens, for people; each line with the seconds since the beginning."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._began = time.monotonic()

    def __call__(self, who: str, text: str) -> None:
        self._tell(f"{time.monotonic() - self._began:7.2f}  {who:10} {text}")

    def head(self, text: str) -> None:
        """A line between cases."""
        self._tell("")
        self._tell(text)


class Bridge:
    """A bridge in a process of its own."""

    def __init__(self, host: CupsHost, url: str) -> None:
        self.host = host
        self._url = url
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.said: list[str] = []

    async def start(self) -> None:
        """Start it, and wait until it has the subscription and takes questions."""
        words = ("--settings", str(self.host.settings), "--server", rf"\\{self.host.name}")
        self._process = await asyncio.create_subprocess_exec(
            *BRIDGE, *words, "--as", "spooler",
            cwd=CHECKOUT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {"TYMPAN_URL": self._url, "TYMPAN_SET_LEASE": str(LEASE)},
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read(self._process))
        await until(self._is_ready, "the bridge to be ready", lambda: "\n".join(self.said))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.said.append(line.decode(errors="replace").rstrip())

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise AssertionError("the bridge ended:\n" + "\n".join(self.said))
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.host.spool / "counter")) != 0:
                return False
        subscriptions = self.host.subscriptions()
        return any(one["notify-recipient-uri"] == "tympan:" for one in subscriptions)

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """Kill -9; its sockets stay."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """End it in order; its exit status."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                raise AssertionError("the bridge does not end:\n" + "\n".join(self.said)) from None
        if self._reader is not None:
            await self._reader
        assert self._process.returncode is not None
        return self._process.returncode


@dataclass(frozen=True)
class Heard:
    """A notification, and when it came."""

    at: float
    """By ``time.perf_counter``."""
    payload: Any


@dataclass
class Listener:
    """One client, and all that it heard; questions it holds until somebody takes them."""

    who: str
    broker: Broker
    heard: list[Heard] = field(default_factory=list)
    offers: list[Offer[Any]] = field(default_factory=list)
    attends: Callable[[Heard], None] = lambda _: None
    """Called with each notification."""
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def listen(
        self,
        name: str,
        *models: type[Payload],
        everybody: bool = False,
        asks: bool = False,
        buffer: int | None = None,
    ) -> Self:
        """Listen there, on a server to its printers, too."""
        for model in models:
            registration: Registration[Any] = await self.broker.register(
                name,
                model,
                user_filter=ALL_USERS if everybody else PER_USER,
                style=BIDIRECTIONAL if asks else UNIDIRECTIONAL,
                printers=not Name.parse(name).printer,
                buffer=buffer,
            )
            self._tasks.append(asyncio.create_task(self._take(registration)))
        return self

    async def _take(self, registration: Registration[Any]) -> None:
        async for one in registration:
            async with self._news:
                if isinstance(one, Offer):
                    self.offers.append(one)
                elif not one.is_release:
                    self.heard.append(Heard(time.perf_counter(), one.payload))
                    self.attends(self.heard[-1])
                self._news.notify_all()

    def of(self, model: type[Payload], **facts: Any) -> list[Any]:
        """What it heard of a kind, with these facts."""
        return [
            one.payload
            for one in self.heard
            if isinstance(one.payload, model)
            and all(getattr(one.payload, name) == value for name, value in facts.items())
        ]

    async def hears(self, model: type[Payload], **facts: Any) -> Any:
        """The first of a kind with these facts, awaited."""
        await self._until(lambda: bool(self.of(model, **facts)), f"{model.__name__} {facts}")
        return self.of(model, **facts)[0]

    async def asked(self, **facts: Any) -> Offer[Any]:
        """The first question with these facts, awaited."""

        def found() -> list[Offer[Any]]:
            return [
                one
                for one in self.offers
                if all(getattr(one.payload, name) == value for name, value in facts.items())
            ]

        await self._until(lambda: bool(found()), f"a question with {facts}")
        return found()[0]

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE), self._news:
                await self._news.wait_for(holds)
        except TimeoutError:
            raise AssertionError(
                f"{self.who} awaited {what} for {PATIENCE:g} s; heard "
                f"{[one.payload for one in self.heard[-5:]]}"
            ) from None

    async def leave(self) -> None:
        """Listen no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.broker.close()


class Stage:
    """A farm: use :func:`staged`."""

    def __init__(
        self,
        redis: RedisServer,
        hosts: Sequence[CupsHost],
        tell: Transcript,
        is_short: bool = False,
    ) -> None:
        self.redis = redis
        self.is_short = is_short
        """Whether a case shows the same with less."""
        self.hosts = list(hosts)
        self.tell = tell
        self.bridges = {host.name: Bridge(host, redis.url) for host in hosts}
        self._listeners: list[Listener] = []

    async def listener(self, who: str, *, administers: Sequence[str] = ()) -> Listener:
        """A client of a user, who may administer these names."""
        broker = Broker.connect(self.redis.url, user=who, lease=LEASE)
        await broker.start()
        for name in administers:
            await broker.grant(name, who, "administer")
        made = Listener(who, broker)
        self._listeners.append(made)
        return made

    def said(self) -> str:
        """What the bridges wrote."""
        return "\n".join(line for bridge in self.bridges.values() for line in bridge.said)

    async def close(self) -> None:
        """End clients and bridges."""
        await asyncio.gather(*[one.leave() for one in self._listeners])
        self._listeners.clear()
        await asyncio.gather(*[bridge.stop() for bridge in self.bridges.values()])


@asynccontextmanager
async def staged(
    *names: str,
    tell: Callable[[str], None] = lambda _: None,
    poll: float = 0,
    saves_after: int = 0,
    is_short: bool = False,
) -> AsyncIterator[Stage]:
    """A farm of print hosts with these names, each with its bridge; none of it outlives this."""
    with contextlib.ExitStack() as stack:
        # Every write counts: what Redis has said yes to survives its death.
        redis = stack.enter_context(RedisServer(appendonly=True, config={"appendfsync": "always"}))
        hosts = [CupsHost(name, saves_after=saves_after) for name in names]
        for host in hosts:
            stack.enter_context(host)
            host.place()
            table = f"\n[redis]\nurl = '{redis.url}'\n[redis.settings]\nlease = {LEASE}\n"
            host.configure(table + QUESTIONS, server=host.name, poll=poll)
        stage = Stage(redis, hosts, Transcript(tell), is_short)
        try:
            await asyncio.gather(*[bridge.start() for bridge in stage.bridges.values()])
            yield stage
        finally:
            await stage.close()


async def until(holds: Callable[[], bool], what: str, more: Callable[[], str] = lambda: "") -> None:
    """Wait for a condition that may block a little."""
    deadline = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(holds):
        if time.monotonic() > deadline:
            raise AssertionError(f"awaited {what} for {PATIENCE:g} s\n{more()}")
        await asyncio.sleep(0.02)
