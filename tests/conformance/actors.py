"""Parts that conformance tests share: callbacks that remember, deaths, and proof of silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from uuid import uuid4

from broker import BIDIRECTIONAL, Broker, Channel, Notification, Offer, Payload, Registration
from broker._end import End
from tests.farm import PATIENCE, PRINTER, TYPE, Farm

SHORT: dict[str, Any] = {"lease": 2.0, "resync": 0.2}
"""Settings of a farm in which somebody is found dead by the clock."""
POLL = 0.005

Handler = Callable[[Any, Notification[Any]], Awaitable[object]]


class Told(NamedTuple):
    """One call of a callback."""

    event: str
    channel: End[Any] | None
    notification: Notification[Any]


class Recorder:
    """A callback that remembers what it was told, in order.

    ``on_event`` and ``on_closed`` run inside the two calls, after they were noted.
    """

    def __init__(
        self, on_event: Handler | None = None, *, on_closed: Handler | None = None
    ) -> None:
        self.told: list[Told] = []
        self.returned = 0
        """Calls that are over."""
        self._on_event = on_event
        self._on_closed = on_closed

    async def on_event_notify(
        self, channel: End[Any] | None, notification: Notification[Any]
    ) -> None:
        await self._note("notified", channel, notification, self._on_event)

    async def channel_closed(self, channel: End[Any], reason: Notification[Any]) -> None:
        await self._note("closed", channel, reason, self._on_closed)

    async def _note(
        self,
        event: str,
        channel: End[Any] | None,
        notification: Notification[Any],
        handler: Handler | None,
    ) -> None:
        self.told.append(Told(event, channel, notification))
        try:
            if handler is not None:
                await handler(channel, notification)
        finally:
            self.returned += 1

    @property
    def notified(self) -> list[Notification[Any]]:
        """What OnEventNotify brought."""
        return [told.notification for told in self.told if told.event == "notified"]

    @property
    def closed(self) -> list[Notification[Any]]:
        """What ChannelClosed brought."""
        return [told.notification for told in self.told if told.event == "closed"]

    @property
    def bodies(self) -> list[bytes | None]:
        """The bytes of each OnEventNotify."""
        return [notification.data for notification in self.notified]

    @property
    def handle(self) -> Any:
        """The channel that the first call presented."""
        return self.told[0].channel

    async def until(self, *, notified: int = 0, closed: int = 0) -> None:
        """Wait until so many calls of each kind were made."""

        def heard() -> bool:
            return len(self.notified) >= notified and len(self.closed) >= closed

        await eventually(heard, f"{notified} OnEventNotify and {closed} ChannelClosed")

    async def until_idle(self) -> None:
        """Wait until every call that was made has returned."""
        await eventually(lambda: self.returned == len(self.told), "the callbacks' return")


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], what: str, patience: float = PATIENCE
) -> None:
    """Wait for a condition; fail with ``what`` was awaited."""
    loop = asyncio.get_running_loop()
    due = loop.time() + patience
    while True:
        answer = condition()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert loop.time() < due, f"awaited {what} for {patience:g} s"
        await asyncio.sleep(POLL)


async def listener(
    farm: Farm, user: str = "alice", **options: Any
) -> tuple[Broker, Registration[Payload]]:
    """A process that listens to the tests' printer and type, bidirectionally."""
    broker = await farm.broker(user, **options)
    return broker, await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)


async def sessions(farm: Farm, count: int, **options: Any) -> list[Registration[Payload]]:
    """So many processes of one user, each with a registration."""
    return [(await listener(farm, **options))[1] for _ in range(count)]


async def called(
    farm: Farm, recorder: Recorder, user: str = "alice", **options: Any
) -> tuple[Broker, Registration[Any]]:
    """A process that listens with a callback."""
    broker = await farm.broker(user, **options)
    return broker, await broker.listen(PRINTER, TYPE, recorder, style=BIDIRECTIONAL)


async def asked(source: Broker, recorder: Recorder, body: bytes = b"continue?") -> Channel:
    """An open bidirectional channel whose source hears through a callback; its question is sent."""
    channel = await source.open_channel(
        PRINTER, TYPE, user="alice", style=BIDIRECTIONAL, callback=recorder
    )
    await channel.send(body)
    return channel


async def dialog(
    farm: Farm, source: Broker, registration: Registration[Any], *, turn: str = "source"
) -> tuple[Channel, Offer[Any]]:
    """A channel that this registration owns; ``turn`` says who has to speak next."""
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    await offer.respond(b"here")
    assert (await channel.response(PATIENCE)).data == b"here"
    if turn == "owner":
        await channel.send(b"go on")
        assert (await offer.follow_up(PATIENCE)).data == b"go on"
    return channel, offer


async def all_heard(farm: Farm, source: Broker, *listeners: Broker) -> None:
    """Whatever was told to these processes before this call has arrived when it returns.

    A conversation of another type goes the same ways, boards and inboxes, behind it.
    """
    for each in listeners:
        type_ = uuid4()
        registration = await each.register(PRINTER, type_, style=BIDIRECTIONAL)
        channel = await source.open_channel(PRINTER, type_, user=each.user, style=BIDIRECTIONAL)
        await channel.send(b"do you hear me?")
        offer = await farm.offered(registration)
        await offer.respond(b"yes")
        await channel.response(PATIENCE)
        await channel.send(b"and now?")
        await offer.follow_up(PATIENCE)
        await offer.close()
        assert await channel.wait_closed(PATIENCE) is not None, "the fence was not closed in time"
        await registration.unregister()


async def die(farm: Farm, broker: Broker) -> None:
    """The process behind a broker dies: it ends nothing, tells nobody, renews no lease."""
    farm.brokers.remove(broker)
    await broker._sessions.close()
    for server in broker._servers.values():
        await server.close()
    await broker._topology.close()
    broker._state = "closed"


async def pass_away(farm: Farm, broker: Broker, *witnesses: Broker) -> None:
    """It dies, its lease is over, and witnesses run it down (default: the farm's first broker).

    Everybody does the same by the clock, which a slow machine may stop for longer than a short
    lease lasts: then the living lapse, too.
    """
    held = [(server.keys, server.session) for server in broker._servers.values()]
    await die(farm, broker)
    for keys, session in held:
        await farm.client.hset(keys.meta, "grace", "0")
        await farm.client.zadd(keys.leases, {session: 1}, xx=True)

    async def is_buried() -> bool:
        """Not in the millisecond in which an epoch began: an outage kills nobody."""
        await asyncio.gather(*(each.run_down() for each in witnesses or farm.brokers[:1]))
        left = [await farm.client.zscore(keys.leases, session) for keys, session in held]
        return left == [None] * len(held)

    await eventually(is_buried, "the burial of a session whose lease ran out")


async def state(source: Broker, channel: Channel) -> str:
    """The channel's state as Redis has it."""
    shown = await source.show(channel.id)
    return "gone" if shown is None else shown[0].state


async def said(source: Broker, channel: Channel) -> list[tuple[str, bytes | None]]:
    """Event and bytes of each entry of the conversation."""
    shown = await source.show(channel.id)
    return [] if shown is None else [(entry.event, entry.data) for entry in shown[1]]
