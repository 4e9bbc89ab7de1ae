"""A worker whose handler notes what it was given: run by ``tests.scale`` in many processes.

Each run appends a line to a file of its process when it ends, and another one when it begins, all
without a buffer, so that a killed process has said what it did: ``+`` for a beginning, the
notification's number, how often it was delivered, and when.
"""

from __future__ import annotations

import asyncio
import os
import time

from broker import Delivery, Notification
from tests.farm import SERVER, TYPE
from workers import EVERYWHERE, Worker

NOTES = os.environ.get("SCALE_NOTES", "")
WHERE = os.environ.get("SCALE_WHERE", SERVER)
SECONDS = float(os.environ.get("SCALE_SECONDS", "0.005"))
"""How long a handler awaits."""

worker = Worker("scale", user="scale", max_deliveries=1000, timeout=None)
_notes = os.open(f"{NOTES}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND) if NOTES else -1


@worker.listen(EVERYWHERE if WHERE == "*" else WHERE, TYPE, printers=True)
async def handle(notification: Notification, delivery: Delivery) -> None:  # type: ignore[type-arg]
    note(b"+" + notification.body, delivery.times)
    await asyncio.sleep(SECONDS)
    note(notification.body, delivery.times)


def note(body: bytes, times: int) -> None:
    os.write(_notes, b"%s %d %.6f\n" % (body, times, time.time()))
