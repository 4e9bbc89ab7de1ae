"""Membership: a worker's replicas on the servers that its handlers listen to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception, wait_exponential

from broker import Broker, Name
from broker.errors import (
    AccessDenied,
    BrokerClosed,
    InvalidArgument,
    RedisRefused,
    TympanError,
)
from broker.pool import Subscription
from broker.replica import Replica, ReplicaListener
from workers.handler import Handler
from workers.worker import Worker

log = logging.getLogger("tympan")

AT_ONCE = 64
"""Servers that are joined at the same time."""
FINAL = (AccessDenied, BrokerClosed, InvalidArgument, RedisRefused)
"""Refusals that another try would not change (R126)."""
Where = tuple[int, str]
"""Number of a handler, and a server."""


class Membership:
    """Joins the pool for each handler, on its server or on all of them as they come and go."""

    def __init__(
        self,
        worker: Worker,
        broker: Broker,
        listener: ReplicaListener,
        on_change: Callable[[], None],
    ) -> None:
        self.replicas: dict[Where, Replica[Any]] = {}
        self.refused: dict[Where, TympanError] = {}
        """Where the pool was not joined, and why; those that are still tried are among them."""
        self._worker = worker
        self._broker = broker
        self._listener = listener
        self._on_change = on_change
        self._handlers: dict[Replica[Any], Handler] = {}
        self._joining: dict[Where, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._is_over = False

    def handler_of(self, replica: Replica[Any]) -> Handler | None:
        """Whose replica it is; None for one that is no member, or not yet."""
        return self._handlers.get(replica)

    @property
    def is_refused(self) -> bool:
        """Whether there is nothing to serve, and nothing more to be tried."""
        return not self._joining and not self.replicas

    # Joining ------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Join everywhere; returns when each server that is known now has answered once.

        Raises what a server that was named refuses with; and, where handlers listen everywhere,
        RedisError where the directory cannot be read.
        """
        for number, handler in enumerate(self._worker.handlers):
            if not handler.everywhere:
                await self._join((number, ""), handler.subscription)
        if any(handler.everywhere for handler in self._worker.handlers):
            await self._broker.follow(self)
            if self._joining:
                await asyncio.wait(list(self._joining.values()))

    def follow(self, servers: Collection[str]) -> None:
        """The farm's servers, told again and again: join those that are new, leave the others."""
        if self._is_over:
            return
        for number, handler in enumerate(self._worker.handlers):
            if not handler.everywhere:
                continue
            for server in servers:
                where = (number, server)
                if where not in self.replicas and where not in self._joining:
                    self._begin(where, replace(handler.subscription, name=Name(server)))
            for where in [key for key in self.replicas if key[0] == number]:
                if where[1] not in servers:
                    self._begin_leaving(where)

    async def broker_closed(self) -> None:
        """The broker is being closed under it."""
        await self._stop()

    def _begin(self, where: Where, subscription: Subscription) -> None:
        if isinstance(self.refused.get(where), FINAL):
            return
        task = asyncio.create_task(
            self._join_patiently(where, subscription), name=f"tympan-join {where[1]}"
        )
        self._joining[where] = task
        task.add_done_callback(lambda _: self._joined(where))

    def _joined(self, where: Where) -> None:
        self._joining.pop(where, None)
        self._on_change()

    async def _join_patiently(self, where: Where, subscription: Subscription) -> None:
        settings = self._broker.settings
        patiently = AsyncRetrying(
            retry=retry_if_exception(_is_worth_another_try),
            wait=wait_exponential(
                multiplier=settings.retry_least, min=settings.retry_least, max=settings.retry_most
            ),
        )
        try:
            async for attempt in patiently:
                with attempt:
                    async with self._gate:
                        await self._join(where, subscription)
        except FINAL as error:
            log.warning("server %s is not served: %s", where[1], error)

    async def _join(self, where: Where, subscription: Subscription) -> None:
        try:
            replica = await self._broker.pools.join(
                self._worker.pool, subscription, listener=self._listener
            )
        except TympanError as error:
            self.refused[where] = error
            raise
        self.refused.pop(where, None)
        handler = self._worker.handlers[where[0]]
        self.replicas[where], self._handlers[replica] = replica, handler
        log.info("pool %s: %s listens to %s", replica.pool, handler.name, replica.name)
        replica.look()
        self._on_change()

    # Leaving ------------------------------------------------------------------------------------

    def forget(self, replica: Replica[Any], cause: TympanError) -> None:
        """Its pool is gone, or refuses it."""
        for where, member in list(self.replicas.items()):
            if member is replica:
                del self.replicas[where], self._handlers[replica]
                self.refused[where] = cause
        self._on_change()

    def _begin_leaving(self, where: Where) -> None:
        replica = self.replicas.pop(where)
        del self._handlers[replica]
        task = asyncio.create_task(self._leave_server(replica), name=f"tympan-leave {where[1]}")
        self._joining[where] = task
        task.add_done_callback(lambda _: self._joined(where))

    async def _leave_server(self, replica: Replica[Any]) -> None:
        """Leave a server that is none of the farm any more."""
        await _leave(replica)
        try:
            await self._broker.leave(replica.name)
        except TympanError as error:  # its lease runs out
            log.info("server %s: %s", replica.name.server, error)

    async def _stop(self) -> None:
        self._is_over = True
        self._broker.unfollow(self)
        joining = list(self._joining.values())
        for task in joining:
            task.cancel()
        await asyncio.gather(*joining, return_exceptions=True)

    async def leave(self) -> None:
        """Hand back what is in hand everywhere, and be no replica any more."""
        await self._stop()
        replicas = list(self.replicas.values())
        await asyncio.gather(*(_leave(replica) for replica in replicas))
        self.replicas.clear()


async def _leave(replica: Replica[Any]) -> None:
    try:
        await replica.leave()
    except TympanError as error:  # what it held is handed out again when its lease runs out
        log.warning("pool %s: %s was not left in order: %s", replica.pool, replica.name, error)


def _is_worth_another_try(error: BaseException) -> bool:
    return isinstance(error, TympanError) and not isinstance(error, FINAL)
