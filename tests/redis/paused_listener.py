"""A listener in a process of its own, which a test can freeze: ``... URL NAMESPACE LEASE``.

It says what happens to it, a line at a time, and answers the question it was offered when a line
comes on its standard input: channel, registration, body.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from broker import BIDIRECTIONAL, Broker, Offer
from broker.errors import TympanError
from tests.farm import PRINTER, TYPE


def say(event: str, **facts: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


async def main(url: str, namespace: str, lease: float) -> None:
    options: dict[str, Any] = {
        "namespace": namespace,
        "lease": lease,
        "resync": lease / 2,
        "retry_least": 0.1,
    }
    async with Broker.connect(url, user="alice", **options) as broker:
        registration = await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        server = await broker.server(PRINTER)
        say("registered", session=server.session, registration=registration.id)
        offers: dict[tuple[str, str], Offer[Any]] = {}

        async def listen() -> None:
            async for offer in registration:
                offers[offer.id, registration.id] = offer
                say("offered", channel=offer.id, registration=registration.id)

        listening = asyncio.create_task(listen())
        while line := await asyncio.to_thread(sys.stdin.readline):
            channel, made, body = line.split()
            try:
                await offers[channel, made].respond(body)
            except TympanError as error:
                say("refused", error=type(error).__name__, lapses=server.lapses)
            else:
                say("answered")
        listening.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
