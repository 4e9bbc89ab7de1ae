"""What an application takes makes room for senders, once, whatever happens meanwhile (R57, R58).

The client batches takes. A take must neither be lost nor count twice when Redis becomes another
process in the middle of it, and a listener that took what it got must not be passed over.
"""

from __future__ import annotations

from broker import Broker, Channel, Payload, Registration
from broker.errors import NotificationFailure
from broker.results import S_OK, Result
from tests.conformance.actors import eventually
from tests.farm import PATIENCE, PRINTER, TYPE, Farm


async def pair(farm: Farm, buffer: int, **options: float) -> tuple[Channel, Registration[Payload]]:
    """A source's channel, and a listener of another process."""
    source, listener = await farm.broker("spooler"), await farm.broker("alice", **options)
    registration = await listener.register(PRINTER, TYPE, buffer=buffer)
    return await source.open_channel(PRINTER, TYPE, user="alice"), registration


async def send(channel: Channel, *bodies: bytes) -> list[Result | None]:
    """Send these; None where the listener had no room."""
    results: list[Result | None] = []
    for body in bodies:
        try:
            results.append(await channel.send(body))
        except NotificationFailure:
            results.append(None)
    return results


async def take(registration: Registration[Payload], count: int) -> list[bytes | None]:
    """Fetch so many."""
    found = [await registration.fetch(PATIENCE) for _ in range(count)]
    return [getattr(notification, "data", None) for notification in found]


async def new_epoch(farm: Farm, broker: Broker) -> None:
    """Redis becomes another process, with all it knew; who calls next finds out."""
    server = await broker.server(PRINTER)
    await farm.client.hset(server.keys.meta, "run", "another")


async def test_a_take_that_meets_a_new_epoch_counts_once(real_farm: Farm) -> None:
    channel, registration = await pair(real_farm, buffer=2)
    assert await send(channel, b"1", b"2") == [S_OK, S_OK]
    await eventually(lambda: registration.unread == 2, "both notifications")
    await new_epoch(real_farm, real_farm.brokers[1])

    assert await take(registration, 2) == [b"1", b"2"]
    assert await send(channel, b"3", b"4", b"5") == [S_OK, S_OK, None]
    assert await take(registration, 2) == [b"3", b"4"]


async def test_takes_at_both_ends_of_a_new_epoch_count_once(real_farm: Farm) -> None:
    """Several places are written while the positions are checked anew."""
    channel, registration = await pair(real_farm, buffer=4, resync=0.05)
    listener = real_farm.brokers[1]
    others = [await listener.register(PRINTER, TYPE, buffer=4) for _ in range(5)]
    for round_ in range(10):
        bodies = [b"%d.%d" % (round_, i) for i in range(4)]
        assert await send(channel, *bodies) == [S_OK] * 4, f"round {round_}: everybody has room"
        for each in (registration, *others):
            assert await take(each, 2) == bodies[:2]
        await new_epoch(real_farm, listener)
        for each in (registration, *others):
            assert await take(each, 2) == bodies[2:]
        await eventually(lambda: free_everywhere(real_farm, [registration, *others]), "room")


async def free_everywhere(farm: Farm, registrations: list[Registration[Payload]]) -> bool:
    """Whether Redis knows that all that was sent was taken."""
    for registration in registrations:
        keys, group = registration.server.keys, registration.plan.group(registration.id)
        for audience in registration.plan.audiences:
            room = await farm.client.zscore(keys.room(audience), group)
            last = int(await farm.client.hget(keys.streams, audience.field) or 0)
            if room is None or max(room, last) - last != registration.buffer:
                return False
    return True


async def test_a_listener_with_room_is_not_passed_over(real_farm: Farm) -> None:
    """R57: only a registration whose buffer is at its limit loses a notification."""
    channel, registration = await pair(real_farm, buffer=10)
    assert await send(channel, b"1", b"2", b"3", b"4") == [S_OK] * 4
    assert await take(registration, 4) == [b"1", b"2", b"3", b"4"]

    bodies = [b"%d" % i for i in range(10)]
    assert await send(channel, *bodies) == [S_OK] * 10, "ten places are free, and ten are needed"
    assert await send(channel, b"11") == [None], "the eleventh has none"
    assert await take(registration, 10) == bodies
