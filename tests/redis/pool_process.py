"""A pool's member in a process of its own: ``... URL NAMESPACE LEASE uni|bi``.

It does what a line on its standard input says, a JSON list of words, and answers with a line:

- ``take N``: until it has so many more in hand.
- ``done N``, ``back N SECONDS``: with the Nth of all that it took.
- ``respond N BODY``, ``ends N BODY``: an answer; the second ends its turn.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from broker import BIDIRECTIONAL, Broker
from broker.errors import TympanError
from broker.pooled_offer import PooledOffer
from tests.redis.pooling import ALERTS, QUESTIONS, SPRY, Member


def say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def seen(one: Any) -> dict[str, Any]:
    """What the test needs to know of something that was taken."""
    told = one.turn if isinstance(one, PooledOffer) else one.notification
    return {
        "entry": one.place.entry if one.place else "",
        "channel": one.notification.channel,
        "body": (told.data or b"").decode() if told is not None else None,
        "times": one.times,
        "redelivered": one.redelivered,
    }


async def do(member: Member, taken: list[Any], words: list[str]) -> dict[str, Any]:
    match words:
        case ["take", many]:
            some = await member.take(int(many))
            taken += some
            return {"taken": [seen(one) for one in some]}
        case ["done", number]:
            await taken[int(number)].done()
        case ["back", number, seconds]:
            await taken[int(number)].hand_back(float(seconds))
        case ["respond", number, body]:
            await taken[int(number)].respond(body.encode())
        case ["ends", number, body]:
            await taken[int(number)].respond(body.encode(), ends_turn=True)
    return {}


async def main(url: str, namespace: str, lease: str, style: str) -> None:
    options = SPRY | {"namespace": namespace, "lease": float(lease)}
    subscription = QUESTIONS if style == BIDIRECTIONAL.word else ALERTS
    async with Broker.connect(url, user="alice", **options) as broker:
        member = await Member.of(broker, subscription)
        server = member.replica.server
        say(session=server.session)
        taken: list[Any] = []
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                answer = await do(member, taken, json.loads(line))
            except TympanError as error:
                answer = {"error": type(error).__name__}
            say(**answer, lapses=member.lapses, session=server.session)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
