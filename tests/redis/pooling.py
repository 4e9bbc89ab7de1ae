"""Pools for tests: members that a test holds by the hand, and members in processes of their own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Broker, Channel
from broker._keys import Keys
from broker._plan import PoolPlan
from broker.errors import TympanError
from broker.pool import PoolFacts, Subscription
from broker.pooled_offer import PooledOffer
from broker.replica import Delivery, Replica, ReplicaListener
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.redis.scenes import BRISK, QUIET, until

POOL = "helpdesk"
ALERTS = Subscription(PRINTER, TYPE)
QUESTIONS = Subscription(PRINTER, TYPE, style=BIDIRECTIONAL)
LEASE = 1.5
SPRY: dict[str, Any] = BRISK | {"lease": LEASE}
"""Who dies is found dead soon."""


class Member(ReplicaListener):
    """A process that serves a pool, and takes when the test says so."""

    replica: Replica[Any]

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.stirred = asyncio.Event()
        """Set when there may be something to take."""
        self._is_idle = False
        self.spoken: asyncio.Queue[PooledOffer[Any]] = asyncio.Queue()
        """Dialogs whose sources spoke again."""
        self.overs: list[PooledOffer[Any]] = []
        self.lapses = 0
        self.ends = 0
        self.end: asyncio.Future[TympanError] = asyncio.get_running_loop().create_future()

    @classmethod
    async def of(
        cls, broker: Broker, subscription: Subscription = ALERTS, pool: str = POOL
    ) -> Self:
        """One of a process that is there."""
        member = cls(broker)
        member.replica = await broker.pools.join(pool, subscription, member)
        return member

    @classmethod
    async def join(
        cls, farm: Farm, subscription: Subscription = ALERTS, pool: str = POOL, **options: Any
    ) -> Self:
        """One of another process; quiet unless the options say otherwise."""
        return await cls.of(await farm.broker("alice", **QUIET | options), subscription, pool)

    # What it is told

    def work(self, replica: Replica[Any]) -> None:  # noqa: ARG002
        self.stirred.set()

    def turn(self, offer: PooledOffer[Any]) -> None:
        self.spoken.put_nowait(offer)

    def over(self, offer: PooledOffer[Any]) -> None:
        self.overs.append(offer)

    def lapsed(self, replica: Replica[Any]) -> None:  # noqa: ARG002
        self.lapses += 1

    def ended(self, replica: Replica[Any], cause: TympanError) -> None:  # noqa: ARG002
        self.ends += 1
        if not self.end.done():
            self.end.set_result(cause)

    # Taking

    async def take(self, many: int, within: float = PATIENCE) -> list[Any]:
        """Take until it has so many more in hand; where nothing was left, wait to be told."""
        taken: list[Any] = []
        async with asyncio.timeout(within):
            while (more := many - len(taken)) > 0:
                if self._is_idle:
                    await self.stirred.wait()
                self.stirred.clear()
                some = await self.replica.take(more)
                self._is_idle = len(some) < more
                taken += some
        return taken

    async def delivery(self, within: float = PATIENCE) -> Delivery[Any]:
        """The next notification."""
        (one,) = await self.take(1, within)
        assert isinstance(one, Delivery)
        return one

    async def offer(self, within: float = PATIENCE) -> PooledOffer[Any]:
        """The next question, or a dialog to carry on."""
        (one,) = await self.take(1, within)
        assert isinstance(one, PooledOffer)
        return one

    async def serve(self, most: int, handle: Callable[[Any], Awaitable[object]]) -> None:
        """Take up to so many, handle them, and so on."""
        while True:
            self.stirred.clear()
            taken = await self.replica.take(most)
            for one in taken:
                await handle(one)
            if len(taken) < most:
                await self.stirred.wait()

    async def is_idle(self) -> None:
        """Nothing is there for it, and Redis knows that it waits."""
        self.stirred.clear()
        self._is_idle = True
        assert await self.replica.take(10) == []
        self.stirred.clear()

    async def drain(self) -> list[bytes | None]:
        """Take all that is there and finish it; the bodies."""
        bodies: list[bytes | None] = []
        while some := await self.replica.take(256):
            for one in some:
                bodies.append(one.notification.data)
                await one.done()
        return bodies


def keys_of(farm: Farm, server: str = "print01") -> Keys:
    return Keys(farm.namespace, server)


def plan_of(member: Member) -> PoolPlan:
    return member.replica._plan


async def facts(broker: Broker, pool: str = POOL, style: Any = UNIDIRECTIONAL) -> PoolFacts:
    """What is said of a pool's one registration in this style."""
    (found,) = [
        each
        for each in await broker.pools.on_server(PRINTER)
        if (each.pool, each.style) == (pool, style)
    ]
    return found


async def counted(broker: Broker, waiting: int, in_hand: int, style: Any = UNIDIRECTIONAL) -> None:
    """Return when so much waits, and so much is in hand."""

    async def is_so() -> bool:
        found = await facts(broker, style=style)
        return (found.waiting, found.in_hand) == (waiting, in_hand)

    try:
        await until(is_so)
    except TimeoutError:
        found = await facts(broker, style=style)
        raise AssertionError(
            f"{found.waiting} wait and {found.in_hand} are in hand, not {waiting} and {in_hand}"
        ) from None


async def pending(farm: Farm, member: Member) -> list[tuple[str, str, int]]:
    """Entry, holder and number of deliveries of all that the pool has in hand."""
    plan, keys = plan_of(member), keys_of(farm)
    found: list[Any] = []
    for audience in plan.audiences:
        found += await farm.client.xpending_range(
            keys.stream(audience), plan.group, "-", "+", 100_000
        )
    return [
        (one["message_id"].decode(), one["consumer"].decode(), one["times_delivered"])
        for one in found
    ]


async def stopped(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel these, and return when they are over; raises what one of them raised."""
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Exception):
            raise found


async def send(channel: Channel, *bodies: bytes) -> None:
    for body in bodies:
        await channel.send(body)


@asynccontextmanager
async def pool(
    farm: Farm, *subscriptions: Subscription, name: str = POOL, **options: Any
) -> AsyncIterator[Broker]:
    """A source's broker on a farm with this pool, which is deleted at the end."""
    source = await farm.broker("alice", **QUIET | options)
    for subscription in subscriptions:
        await source.pools.create(name, subscription)
    try:
        yield source
    finally:
        await end_pools(source)


async def end_pools(broker: Broker) -> None:
    """Delete all pools of the tests' print server."""
    for each in await broker.pools.on_server(r"\\print01"):
        await broker.pools.delete(each.pool, r"\\print01")


# Processes ---------------------------------------------------------------------------------------


class Process:
    """A member in a process of its own, told what to do by a line, and saying what came of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.session = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def said(self) -> dict[str, Any]:
        """The next thing that it says."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        assert line, "it is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def asked(self, *words: str) -> dict[str, Any]:
        """Have it do something; what came of it."""
        self.tell(*words)
        return await self.said()

    def tell(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")

    async def take(self, many: int) -> list[dict[str, Any]]:
        """Have it take until it has so many more; entry or channel, body, redelivered, times."""
        answer = await self.asked("take", str(many))
        taken: list[dict[str, Any]] = answer["taken"]
        return taken

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """At once, and by force."""
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def process(
    farm: Farm, url: str, subscription: Subscription = ALERTS, lease: float = LEASE
) -> AsyncIterator[Process]:
    """A member of the pool in another process; it leaves in order unless it was killed."""
    style = "bi" if subscription.style is BIDIRECTIONAL else "uni"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.redis.pool_process", url, farm.namespace, str(lease), style,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    made = Process(child)
    try:
        made.session = (await made.said())["session"]
        yield made
        if child.returncode is None:
            assert child.stdin is not None
            child.stdin.close()
            assert await asyncio.wait_for(child.wait(), PATIENCE) == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
