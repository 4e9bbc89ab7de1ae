"""Post: hands alerts over to a destination, one message at a time.

Whoever gives an alert waits until it was told, by itself or in a digest, or is done with: so the
pool keeps it in hand until then, and hands it out again where this process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterable

from workers.alert import Alert
from workers.relay.allowance import Allowance
from workers.relay.destination import Destination, NotNow, Refused
from workers.relay.folding import Folding
from workers.relay.pile import Batch, Pile
from workers.verdict import PutAside, RetryLater

log = logging.getLogger("tympan")

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
"""Seconds between tries, unless the destination says how long it wants to be left alone."""
LONGEST_WISH = 3600.0
"""Seconds; a destination that wants more is asked again after these."""
Ticket = asyncio.Future[None]


class Post:
    """What waits for one destination, and what is on its way there.

    Args:
        destination: who takes messages; closed with this.
        allowance: how many.
        window: seconds within which the same is not told again.
        patience: seconds that an all-clear waits.
        timeout: seconds that the destination may take for one message.
        first_pause: seconds before the second try; later ones wait twice as long each time.
    """

    def __init__(
        self,
        destination: Destination,
        allowance: Allowance,
        *,
        window: float,
        patience: float = 0.0,
        timeout: float = 30.0,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self.destination = destination
        self._pile: Pile[Ticket] = Pile(allowance, Folding(window), _settled, patience)
        self._timeout = timeout
        self._first_pause = first_pause
        self._stirred = asyncio.Event()
        self._failures = 0
        self._is_ending = False
        self._is_held_back = False
        self._task: asyncio.Task[None] | None = None

    async def tell(self, alert: Alert) -> None:
        """Wait until it was told, or need not be. Raises RetryLater, PutAside."""
        if self._is_ending:
            raise RetryLater(0, "this replica ends")
        if self._task is None:
            self._task = asyncio.create_task(self._go_around(), name="tympan-post")
        ticket: Ticket = asyncio.get_running_loop().create_future()
        self._pile.put(alert, ticket, self._now)
        self._stirred.set()
        try:
            await ticket
        except asyncio.CancelledError:
            self._pile.withdraw(ticket)
            raise

    def end(self) -> None:
        """Take nothing more; what waits is for another replica. What is on its way goes on."""
        self._is_ending = True
        _end(self._pile.clear(), lambda: RetryLater(0, "this replica ends"))

    async def close(self) -> None:
        """End it all."""
        self.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.destination.close()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _go_around(self) -> None:
        while True:
            try:
                await self._turn()
            except Exception:  # a fault of ours must not keep what waits from another replica
                log.exception("what waits for %s goes back to the pool", self.destination.name)
                _end(self._pile.clear(), self._after_a_fault)
                await asyncio.sleep(self._first_pause)

    async def _turn(self) -> None:
        batch = self._pile.next(self._now)
        if batch is None:
            self._stirred.clear()
            self._say_held_back()
            with contextlib.suppress(TimeoutError):  # something is due
                async with asyncio.timeout_at(self._pile.next_at(self._now)):
                    await self._stirred.wait()
            return
        try:
            await self._send(batch)
        finally:  # but for a fault, its callers were told before what became of it
            _end(_tickets(batch), self._after_a_fault)

    def _say_held_back(self) -> None:
        """Once, until something goes out again."""
        count, then = self._pile.held_back(self._now), self._pile.next_at(self._now)
        if not count or then is None or self._is_held_back:
            return
        self._is_held_back = True
        log.warning(
            "%s has all messages it may get (--most): alerts wait, to be told together in %d s",
            self.destination.name,
            math.ceil(then - self._now),
        )

    def _after_a_fault(self) -> RetryLater:
        return RetryLater(self._first_pause, "a fault of the relay, which its log has")

    async def _send(self, batch: Batch[Ticket]) -> None:
        try:
            await self._handed_over(batch)
        except NotNow as error:
            self._pile.not_told(batch, perhaps=error.perhaps)
            self._failed(batch, error)
        except Refused as error:
            self._pile.not_told(batch)
            reason = f"{self.destination.name}: {error}"
            log.warning("a message is refused by %s", reason)
            _end(_tickets(batch), lambda: PutAside(reason))
        else:
            self._pile.told(batch, self._now)
            self._is_held_back = False
            if self._failures:
                log.warning("%s takes messages again", self.destination.name)
            self._failures = 0
            for ticket in _tickets(batch):
                _settled(ticket)

    async def _handed_over(self, batch: Batch[Ticket]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self.destination.send(batch)
        except TimeoutError:
            why = f"it did not answer in {self._timeout:g} s"
            raise NotNow(why, perhaps=True) from None
        except (NotNow, Refused):
            raise
        except Exception as error:  # a fault of ours must not keep what others could hand over
            log.exception("a message to %s was not made", self.destination.name)
            raise NotNow(f"{type(error).__name__}: {error}") from error

    def _failed(self, batch: Batch[Ticket], error: NotNow) -> None:
        pause = min(self._first_pause * 2 ** min(self._failures, 20), LONGEST_PAUSE)
        if error.after is not None:
            pause = min(max(error.after, self._first_pause), LONGEST_WISH)
        if not self._failures:
            log.warning("%s takes no messages: %s", self.destination.name, error)
        self._failures += 1
        self._pile.rest(self._now + pause)
        why = f"{self.destination.name}: {error}"
        _end(_tickets(batch), lambda: RetryLater(pause, why))


def _tickets(batch: Batch[Ticket]) -> list[Ticket]:
    return [item.ticket for item in batch.items]


def _settled(ticket: Ticket) -> None:
    if not ticket.done():
        ticket.set_result(None)


def _end(tickets: Iterable[Ticket], verdict: Callable[[], Exception]) -> None:
    """Tell those who still wait."""
    for ticket in tickets:
        if not ticket.done():
            ticket.set_exception(verdict())
