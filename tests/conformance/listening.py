"""What the conformance tests listen with."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Notification, Offer, Registration
from tests.farm import PATIENCE

T = TypeVar("T")

both_styles = pytest.mark.parametrize(
    "style", [BIDIRECTIONAL, UNIDIRECTIONAL], ids=lambda style: style.word
)


async def parked(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """The work, started, and waiting for something that is not there."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)
    assert not task.done(), "it was to wait, and did not"
    return task


async def notified(registration: Registration[Any]) -> Notification[Any]:
    """The next notification: of a bidirectional registration the next offer's."""
    item = await registration.fetch(PATIENCE)
    assert item is not None, f"nothing within {PATIENCE:g} s"
    return item.notification if isinstance(item, Offer) else item


async def heard_before(registration: Registration[Any], last: bytes) -> list[bytes | None]:
    """What the registration got before the notification that was sent last."""
    heard: list[bytes | None] = []
    while (data := (await notified(registration)).data) != last:
        heard.append(data)
    assert not registration.unread, "more came after what was sent last"
    return heard
