"""Waiting: what Redis does not answer is asked again, and a long wait is told, once for all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from broker import _outage
from broker.errors import RedisUnreachable

log = logging.getLogger("tympan")

MOMENT = 2.0
"""Seconds after which a wait is worth a word, where it may take several times as long."""
LONG = 4 * MOMENT
_told: set[str] = set()
"""Of whom a call that still waits has spoken."""

T = TypeVar("T")


class LinkLost(Exception):
    """The connection broke, or owed an answer for too long: the call's outcome is unknown."""


async def until_answered(
    ask: Callable[[], Awaitable[T]],
    where: str,
    patience: float,
    is_worth_it: Callable[[], bool] = lambda: True,
) -> T:
    """Ask, with growing pauses, until there is an answer or ``patience`` seconds are over.

    ``is_worth_it``: whether to ask again, after each failure. Raises the last failure, which is
    LinkLost or RedisUnreachable; whatever else goes wrong at once.
    """
    last: BaseException | None = None

    def asks_again(error: BaseException) -> bool:
        nonlocal last
        last = error
        return isinstance(error, LinkLost | RedisUnreachable) and is_worth_it()

    with telling(where, patience, lambda: last):
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(asks_again),
            wait=wait_random_exponential(multiplier=0.02, max=1.0),
            stop=stop_after_delay(patience),
            reraise=True,
        ):
            with attempt:
                return await ask()
    raise AssertionError("unreachable")


@contextlib.contextmanager
def telling(
    where: str, patience: float, why: Callable[[], object | None] = lambda: None
) -> Iterator[None]:
    """Log that ``where`` is waited for, where what is done inside takes longer than a moment."""
    is_teller = False

    def tell() -> None:
        nonlocal is_teller
        if where in _told or _outage.is_told(where):
            return
        _told.add(where)
        is_teller = True
        log.warning("waiting for up to %g s: %s", patience, why() or f"{where} does not answer")

    timer = asyncio.get_running_loop().call_later(MOMENT, tell) if patience >= LONG else None
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        if is_teller:
            _told.discard(where)
