"""An end in a process of its own, which does what it is told, one thing after the other.

``python -m tests.faults.puppet SOCKET`` takes connections on a Unix socket and forks a process for
each, so that a process more costs no start of an interpreter. It ends with its standard input.

Such a process is told its settings in a first line of JSON, and says its process id. Then each
line is a list of words, and the answer is an object: what came of it or ``error``, the name of
what was raised; with the session that it has then, and how often it lost one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from broker import BIDIRECTIONAL, Broker, Channel, Offer, Registration
from broker._server import Server
from broker.conversation import Style
from broker.errors import TympanError
from broker.pooled_offer import PooledOffer
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.redis.pool_process import seen
from tests.redis.pooling import ALERTS, QUESTIONS, Member
from tests.redis.scenes import heard

wall = time.time


class Puppet:
    """What it has, and what it can be told."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._server: Server | None = None
        self._channel: Channel | None = None
        self._registrations: dict[str, Registration[Any]] = {}
        self._offers: list[Offer[Any]] = []
        self._member: Member | None = None
        self._taken: list[Any] = []

    async def do(self, words: list[Any]) -> dict[str, Any]:
        """Do one thing; what came of it."""
        name, *rest = words
        try:
            found: dict[str, Any] = await getattr(self, f"do_{name}")(*rest) or {}
        except (TympanError, AssertionError, TimeoutError) as error:
            found = {"error": type(error).__name__, "why": str(error)}
        if self._server is not None:
            found |= {"session": self._server.session, "lapses": self._server.lapses}
        return found

    async def do_connect(self) -> None:
        """Take up a session on the tests' print server."""
        self._server = await self._broker.server(PRINTER)

    async def do_clock(self, seconds: float) -> None:
        """Have the wall clock jump so far from the truth; Redis's and the loop's do not."""
        time.time = lambda: wall() + seconds

    async def do_ahead(self) -> dict[str, Any]:
        """How far ahead it takes Redis's clock to be, in seconds."""
        assert self._server is not None
        return {"ahead": self._server.ahead}

    # A source

    async def do_open(self, style: int = BIDIRECTIONAL) -> dict[str, Any]:
        self._channel = await self._broker.open_channel(
            PRINTER, TYPE, user="alice", style=Style(style)
        )
        return {"channel": self._channel.id}

    async def do_send(self, body: str) -> dict[str, Any]:
        assert self._channel is not None
        return {"result": (await self._channel.send(body)).name}

    async def do_response(self) -> dict[str, Any]:
        assert self._channel is not None
        return {"body": (await self._channel.response(PATIENCE)).text}

    async def do_end(self, reason: str) -> None:
        """Close the channel."""
        assert self._channel is not None
        await self._channel.close(reason)

    # A listener

    async def do_register(self, style: int = BIDIRECTIONAL) -> dict[str, Any]:
        made = await self._broker.register(PRINTER, TYPE, style=Style(style))
        self._registrations[made.plan.style.word] = made
        return {"registration": made.id}

    async def do_hear(self) -> dict[str, Any]:
        """The next notification."""
        return {"body": (await heard(self._registrations["uni"]) or b"").decode()}

    async def do_offer(self) -> dict[str, Any]:
        """The next question."""
        offer = await self._registrations["bi"].fetch(PATIENCE)
        assert isinstance(offer, Offer), "no question came"
        self._offers.append(offer)
        number = len(self._offers) - 1
        return {"channel": offer.id, "body": offer.notification.text, "number": number}

    async def do_answer(self, number: int, body: str) -> None:
        await self._offers[number].respond(body)

    async def do_follow_up(self, number: int) -> dict[str, Any]:
        return {"body": (await self._offers[number].follow_up(PATIENCE)).text}

    async def do_decline(self, number: int) -> None:
        await self._offers[number].decline()

    async def do_close(self, number: int, reason: str) -> None:
        await self._offers[number].close(reason)

    # A pool's replica

    async def do_join(self, style: int) -> None:
        wish = QUESTIONS if Style(style) is BIDIRECTIONAL else ALERTS
        self._member = await Member.of(self._broker, wish)

    async def do_take(self, many: int) -> dict[str, Any]:
        assert self._member is not None
        some = await self._member.take(many, PATIENCE / 2)
        self._taken += some
        return {"taken": [seen(one) for one in some], "index": len(self._taken) - len(some)}

    async def do_done(self, number: int) -> None:
        await self._taken[number].done()

    async def do_finish(self, many: int) -> None:
        """The last ones that it took are done."""
        await asyncio.gather(*(one.done() for one in self._taken[-many:]))

    async def do_back(self, number: int, seconds: float = 0.0) -> None:
        await self._taken[number].hand_back(seconds)

    async def do_bury(self, number: int) -> None:
        await self._taken[number].bury("told to")

    async def do_respond(self, number: int, body: str) -> None:
        await self._taken[number].respond(body)

    async def do_ends(self, number: int, body: str) -> None:
        """Answer, and end the turn."""
        offer: PooledOffer[Any] = self._taken[number]
        await offer.respond(body, ends_turn=True)
        offer.end_turn()

    async def do_spoken(self, number: int) -> dict[str, Any]:
        """What the source says in the dialog; begins a turn."""
        offer: PooledOffer[Any] = self._taken[number]
        return {"body": (await offer.follow_up(PATIENCE)).text}

    async def do_over(self, number: int, reason: str) -> None:
        """Close a pool's dialog."""
        await self._taken[number].close(reason)

    async def do_carry(self) -> None:
        """Carry the last dialog to its end, in two turns."""
        offer: PooledOffer[Any] = self._taken[-1]
        assert (await offer.ask("a1", PATIENCE)).text == "q2"
        await offer.respond("a2", ends_turn=True)
        offer.end_turn()
        assert (await offer.follow_up(PATIENCE)).text == "q3"
        await offer.close("bye")

    # Whoever looks for the dead

    async def do_run_down(self) -> dict[str, Any]:
        return {"buried": await self._broker.run_down(PRINTER)}


Doing = Callable[[list[Any]], Awaitable[dict[str, Any]]]
Make = Callable[[dict[str, Any]], AbstractAsyncContextManager[Doing]]


@asynccontextmanager
async def puppet(options: dict[str, Any]) -> AsyncIterator[Doing]:
    """One with a broker of these settings."""
    async with Broker.connect(user="alice", **options) as broker:
        yield Puppet(broker).do


async def obeys(connection: socket.socket, make: Make) -> None:
    """Do what is said on a connection, until that ends."""
    reader, writer = await asyncio.open_connection(sock=connection)
    options = json.loads(await reader.readline())
    writer.write(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    async with make(options) as do:
        while line := await reader.readline():
            writer.write(json.dumps(await do(json.loads(line))).encode() + b"\n")


def forks(path: str, make: Make) -> None:
    """Fork a process for each connection, until the standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4096)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                asyncio.run(obeys(connection, make))
                os._exit(0)
            connection.close()


if __name__ == "__main__":
    forks(sys.argv[1], puppet)
