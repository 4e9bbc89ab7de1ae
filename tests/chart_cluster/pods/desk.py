r"""What the chart's workers serve: each run of a handler is noted in Redis.

A notification is a JSON object: ``number``, and ``seconds`` that its run takes; with ``dies`` its
first run ends the process. A note is ``begun|ended <number> <times> <when> <process>``; of a
dialog's turn, where nobody counts deliveries, the times are 0.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time

import redis.asyncio

from broker import BIDIRECTIONAL, Delivery, Notification
from workers import Worker

SERVER = r"\\chart-test"
TOLD = "5c0f3c52-6c0e-4a53-a1f6-20f3d0e7b101"
ASKED = "5c0f3c52-6c0e-4a53-a1f6-20f3d0e7b102"
NOTES = "chart-test:notes"
KILLED = 137

worker = Worker("chart-test", user="chart-test", max_deliveries=1000, timeout=None)


@worker.on_startup
async def open_notes(worker: Worker) -> None:
    worker.state["notes"] = redis.asyncio.Redis.from_url(os.environ["NOTES_URL"])


@worker.on_shutdown
async def close_notes(worker: Worker) -> None:
    await worker.state["notes"].aclose()


async def note(what: str, number: str, times: int) -> None:
    line = f"{what} {number} {times} {time.time():.3f} {socket.gethostname()}"
    await worker.state["notes"].rpush(NOTES, line)


@worker.listen(SERVER, TOLD)
async def told(notification: Notification, delivery: Delivery) -> None:  # type: ignore[type-arg]
    wish = json.loads(notification.body)
    await note("begun", wish["number"], delivery.times)
    if wish.get("dies") and delivery.times == 1:
        os._exit(KILLED)
    await asyncio.sleep(wish["seconds"])
    await note("ended", wish["number"], delivery.times)


@worker.listen(SERVER, ASKED, style=BIDIRECTIONAL)
async def asked(notification: Notification) -> bytes:  # type: ignore[type-arg]
    wish = json.loads(notification.body)
    await note("begun", wish["number"], 0)
    await asyncio.sleep(wish["seconds"])
    await note("ended", wish["number"], 0)
    return wish["number"].encode()  # type: ignore[no-any-return]
