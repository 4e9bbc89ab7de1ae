"""Patience: waiting for what must come, and calls that are made until they are settled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from broker.errors import NotDurable, OutcomeUnknown, RedisFull, RedisReadOnly
from broker.results import NO_LISTENERS, NOTIFICATION_LOST

REFUSED = (RedisFull, RedisReadOnly)
"""Nothing was done, and the same call may succeed later."""
AGAIN = 0.05
"""Seconds until a call that was refused is made again."""
_LOOK_EVERY = 0.005


def now() -> float:
    """Seconds of this host's monotonic clock: the same one in all processes here."""
    return time.monotonic()


async def until(holds: Callable[[], object], what: str, seconds: float) -> None:
    """Wait for it; raises TimeoutError, which names it."""
    due = now() + seconds
    while not holds():
        if now() > due:
            raise TimeoutError(f"no {what} within {seconds:g} s")
        await asyncio.sleep(_LOOK_EVERY)


async def done(call: Callable[[], Awaitable[object]]) -> bool:
    """Make a call until it is settled; whether what it did is as safe as was asked."""
    while True:
        try:
            await call()
        except NotDurable:
            return False
        except OutcomeUnknown:
            continue
        except REFUSED:
            await asyncio.sleep(AGAIN)
            continue
        return True


async def reaches_all(send: Callable[[], Awaitable[object]]) -> bool:
    """Send a notification likewise; whether all who listen had room for it, too."""
    answers: list[object] = []

    async def sent() -> None:
        answers.append(await send())

    return await done(sent) and answers[-1] not in (NO_LISTENERS, NOTIFICATION_LOST)
