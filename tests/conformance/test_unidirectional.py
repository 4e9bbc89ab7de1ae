"""Unidirectional delivery: each listener gets its copies, in order and within its room; one way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    NOTIFICATION_RELEASE,
    Notification,
    Registration,
    Result,
    Settings,
)
from broker.errors import (
    CallAlreadyParked,
    ChannelAlreadyClosed,
    ChannelAlreadyOpened,
    ChannelNotOpened,
    InvalidArgument,
    NotificationFailure,
)
from broker.results import S_OK
from tests.conformance.actors import Recorder, eventually
from tests.conformance.listening import heard_before, notified, parked
from tests.conformance.rules import rule
from tests.farm import OTHER_PRINTER, OTHER_TYPE, PATIENCE, PRINTER, TYPE, Farm

INLINE = b"fits into the message"
BELL_TOO_SMALL = b"does not fit into a hint " * 400
BY_REFERENCE = b"kept under a key of its own " * 1_000
SIZES = pytest.mark.parametrize(
    "body", [INLINE, BELL_TOO_SMALL, BY_REFERENCE], ids=lambda body: f"{len(body)} bytes"
)


async def fetched(registration: Registration[Any], count: int) -> list[bytes | None]:
    """The next so many notifications."""
    return [(await notified(registration)).data for _ in range(count)]


def numbered(count: int) -> list[bytes]:
    """So many bodies that can be told apart, of all sizes."""
    sizes = (1, 1, 1, 500, 1_500, 1)
    return [f"{n} ".encode() * sizes[n % len(sizes)] * 3 for n in range(count)]


@rule(50)
@SIZES
async def test_each_matching_registration_gets_a_copy_of_its_own(farm: Farm, body: bytes) -> None:
    source, admin = await farm.administrator("spooler"), await farm.administrator("admin")
    hosts = [await farm.broker("alice") for _ in range(2)]
    registrations = [await host.register(PRINTER, TYPE) for host in hosts for _ in range(2)]
    registrations.append(await admin.register(PRINTER, TYPE, user_filter=ALL_USERS))
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await channel.send(body) == S_OK
    for registration in registrations:
        copy = await notified(registration)
        assert (copy.data, copy.type, copy.channel) == (body, TYPE, channel.id)
    await channel.send(b"last")
    for registration in registrations:
        assert await heard_before(registration, b"last") == [], "one copy, and nobody else's"


@rule(51)
async def test_the_callback_gets_no_channel(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    recorder = Recorder()
    async with await listener.listen(PRINTER, TYPE, recorder):
        channel = await source.open_channel(PRINTER, TYPE, user="alice")
        await channel.send(b"out of paper")
        await recorder.until(notified=1)
    (told,) = recorder.told
    assert told.channel is None
    assert told.notification.data == b"out of paper"


@rule(52)
async def test_a_listener_has_no_way_to_send_anything_back(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    recorder = Recorder()
    registration = await listener.register(PRINTER, TYPE)
    called_back = await listener.listen(PRINTER, TYPE, recorder)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"out of paper")
    notification = await notified(registration)
    await recorder.until(notified=1)
    for handle in (notification, registration, called_back, recorder.notified[0]):
        for answering in ("send", "respond", "exchange", "close"):
            assert not hasattr(handle, answering), f"{handle!r} can {answering}"
    with pytest.raises(InvalidArgument) as refused:
        await channel.response(0)
    assert refused.value.result.hresult == 0x80070057, "and the source has nothing to wait for"


@rule(53)
@SIZES
async def test_a_send_that_nobody_listens_to_succeeds_and_is_not_kept(
    farm: Farm, body: bytes
) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    others = [
        await listener.register(PRINTER, TYPE, user="bob"),
        await listener.register(PRINTER, OTHER_TYPE),
        await listener.register(OTHER_PRINTER, TYPE),
        await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL),
    ]
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    before = await farm.keys()
    for _ in range(2):
        result = await channel.send(body)
        assert (result.hresult, result.succeeded) == (0x00040007, True)
    assert await farm.keys() == before, "nothing of it is stored"
    late = await listener.register(PRINTER, TYPE)
    assert await channel.send(b"last") == S_OK
    assert await heard_before(late, b"last") == []
    assert [other.unread for other in others] == [0, 0, 0, 0]


@rule(53)
async def test_a_send_to_all_users_that_nobody_listens_to_succeeds(farm: Farm) -> None:
    source = await farm.administrator("spooler")
    channel = await source.open_channel(PRINTER, TYPE, user_filter=ALL_USERS)
    assert (await channel.send(b"to nobody")).hresult == 0x00040007


@rule(54)
@SIZES
async def test_who_registers_after_a_send_does_not_get_it(farm: Farm, body: bytes) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    early = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(body)
    late = [
        await listener.register(PRINTER, TYPE),
        await (await farm.broker("alice")).register(PRINTER, TYPE),
    ]
    await channel.send(b"last")
    assert await heard_before(early, b"last") == [body]
    for registration in late:
        assert await heard_before(registration, b"last") == []


@rule(55)
async def test_notifications_of_a_channel_arrive_in_the_order_sent(farm: Farm) -> None:
    source, admin = await farm.administrator("spooler"), await farm.administrator("admin")
    registrations = [
        await (await farm.broker("alice")).register(PRINTER, TYPE),
        await (await farm.broker("alice")).register(PRINTER, TYPE),
        await admin.register(PRINTER, TYPE, user_filter=ALL_USERS),
    ]
    recorder = Recorder()
    await (await farm.broker("alice")).listen(PRINTER, TYPE, recorder)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    bodies = numbered(60)
    for body in bodies:
        await channel.send(body)
    for registration in registrations:
        assert await fetched(registration, len(bodies)) == bodies
    await recorder.until(notified=len(bodies))
    assert recorder.bodies == bodies


@rule(56)
async def test_sends_issued_at_once_are_queued_in_their_order(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    bodies = [BY_REFERENCE, *numbered(30)]
    first = await parked(channel.send(bodies[0]))
    others = [asyncio.create_task(channel.send(body)) for body in bodies[1:]]
    assert await asyncio.gather(first, *others) == [S_OK] * len(bodies)
    assert await fetched(registration, len(bodies)) == bodies


@rule(57)
@SIZES
async def test_a_registration_without_room_misses_the_new_and_keeps_the_old(
    farm: Farm, body: bytes
) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, buffer=3)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    kept = [f"{n} ".encode() + body for n in range(3)]
    for each in kept:
        assert await channel.send(each) == S_OK
    for _ in range(2):
        with pytest.raises(NotificationFailure):
            await channel.send(b"missed " + body)
    assert await fetched(registration, 1) == kept[:1]

    assert await channel.send(b"fits " + body) == S_OK, "a fetch made room for one"
    with pytest.raises(NotificationFailure):
        await channel.send(b"missed " + body)
    assert await fetched(registration, 3) == [*kept[1:], b"fits " + body]
    assert await channel.send(b"last") == S_OK
    assert await heard_before(registration, b"last") == []


@rule(57)
async def test_the_bound_counts_for_each_registration_and_audience(farm: Farm) -> None:
    source, listener = await farm.administrator("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE, buffer=1)
    to_alice = await source.open_channel(PRINTER, TYPE, user="alice")
    also_to_alice = await source.open_channel(PRINTER, TYPE, user="alice")
    to_all = await source.open_channel(PRINTER, TYPE, user_filter=ALL_USERS)
    assert await to_alice.send(b"to alice") == S_OK
    assert await to_all.send(b"to all") == S_OK, "another audience has a room of its own"
    for channel in (to_alice, also_to_alice, to_all):
        with pytest.raises(NotificationFailure):
            await channel.send(b"missed")
    assert set(await fetched(registration, 2)) == {b"to alice", b"to all"}


@rule(58)
@SIZES
async def test_a_send_that_some_miss_and_some_get_says_so_and_succeeds(
    farm: Farm, body: bytes
) -> None:
    source, admin = await farm.administrator("spooler"), await farm.administrator("admin")
    host = await farm.broker("alice")
    full = [
        await host.register(PRINTER, TYPE, buffer=1),
        await (await farm.broker("alice")).register(PRINTER, TYPE, buffer=1),
    ]
    roomy = [
        await host.register(PRINTER, TYPE, buffer=3),
        await admin.register(PRINTER, TYPE, user_filter=ALL_USERS, buffer=3),
    ]
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await channel.send(b"first") == S_OK
    for _ in range(2):
        result = await channel.send(body)
        assert (result.hresult, result.succeeded) == (0x00040005, True)
    for registration in roomy:
        assert await fetched(registration, 3) == [b"first", body, body]
    for registration in full:
        assert await fetched(registration, 1) == [b"first"]
    assert await channel.send(b"last") == S_OK, "all have room again"
    for registration in (*full, *roomy):
        assert await heard_before(registration, b"last") == []


@rule(59)
@SIZES
async def test_a_send_that_all_miss_fails(farm: Farm, body: bytes) -> None:
    source, admin = await farm.administrator("spooler"), await farm.administrator("admin")
    registrations = [
        await (await farm.broker("alice")).register(PRINTER, TYPE, buffer=1),
        await admin.register(PRINTER, TYPE, user_filter=ALL_USERS, buffer=1),
    ]
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"first")
    before = await farm.keys()
    for _ in range(2):
        with pytest.raises(NotificationFailure) as failed:
            await channel.send(body)
        result = failed.value.result
        assert (result.hresult, result.succeeded) == (0x80040006, False)
    assert await farm.keys() == before, "what nobody gets is not kept"
    for registration in registrations:
        assert await fetched(registration, 1) == [b"first"]
    assert await channel.send(b"last") == S_OK, "the channel is as it was"
    for registration in registrations:
        assert await heard_before(registration, b"last") == []


@rule(60)
async def test_a_listener_that_does_not_fetch_costs_the_others_nothing(farm: Farm) -> None:
    source, host = await farm.broker("spooler"), await farm.broker("alice")
    slow = [
        await host.register(PRINTER, TYPE, buffer=2),
        await (await farm.broker("alice")).register(PRINTER, TYPE, buffer=2),
    ]
    fast = [
        await host.register(PRINTER, TYPE, buffer=4),
        await (await farm.broker("alice")).register(PRINTER, TYPE, buffer=4),
    ]
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    bodies = numbered(20)
    for body in bodies:
        assert (await channel.send(body)).succeeded
        for registration in fast:
            assert await fetched(registration, 1) == [body]
    for registration in slow:
        assert await fetched(registration, 2) == bodies[:2]


class Hanging:
    """A callback that does not come back until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()

    async def on_event_notify(self, *_: object, **__: object) -> None:
        self.entered.set()
        await self.let_go.wait()

    def channel_closed(self, *_: object, **__: object) -> None:
        raise AssertionError("a unidirectional listener has no channel")


@rule(60)
async def test_a_callback_that_hangs_does_not_delay_another_of_the_same_process(
    farm: Farm,
) -> None:
    source, host = await farm.broker("spooler"), await farm.broker("alice")
    hanging, recorder = Hanging(), Recorder()
    await host.listen(PRINTER, TYPE, hanging)
    await host.listen(PRINTER, TYPE, recorder)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"first")
    async with asyncio.timeout(PATIENCE):
        await hanging.entered.wait()
    await channel.send(b"second")
    await recorder.until(notified=2)
    assert recorder.bodies == [b"first", b"second"]
    hanging.let_go.set()


async def results_until_full(farm: Farm, registration: Registration[Any]) -> list[Result]:
    """What sends return until the registration has no room."""
    source = await farm.broker("spooler")
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    results: list[Result] = []
    try:
        while len(results) <= registration.buffer:
            results.append(await channel.send(b"more"))
    except NotificationFailure as error:
        results.append(error.result)
    return results


@rule(61)
async def test_the_buffer_of_a_registration_holds_a_hundred_by_default(farm: Farm) -> None:
    assert Settings().buffer == 100
    registration = await (await farm.broker("alice")).register(PRINTER, TYPE)
    assert registration.buffer == 100
    results = await results_until_full(farm, registration)
    assert results == [S_OK] * 100 + [NotificationFailure.result]


@rule(61)
async def test_the_buffer_can_be_set_for_a_process_and_for_one_registration(farm: Farm) -> None:
    listener = await farm.broker("alice", buffer=10)
    compatible = await listener.register(PRINTER, TYPE)
    assert compatible.buffer == 10
    results = await results_until_full(farm, compatible)
    assert results == [S_OK] * 10 + [NotificationFailure.result]
    await compatible.unregister()

    tight = await listener.register(PRINTER, TYPE, buffer=1)
    assert await results_until_full(farm, tight) == [S_OK, NotificationFailure.result]
    with pytest.raises(InvalidArgument):
        await listener.register(PRINTER, TYPE, buffer=0)


@rule(62)
async def test_what_is_buffered_waits_for_the_fetches_and_leaves_one_by_one(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    bodies = numbered(6)
    for body in bodies:
        await channel.send(body)
    await channel.close()
    await eventually(lambda: registration.unread == len(bodies), "all of them")
    for n, body in enumerate(bodies, 1):
        assert await fetched(registration, 1) == [body]
        assert registration.unread == len(bodies) - n
    assert await registration.fetch(0) is None


@rule(63)
async def test_a_second_fetch_fails_and_the_first_goes_on(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE)
    first = await parked(registration.fetch(PATIENCE))
    for _ in range(2):
        with pytest.raises(CallAlreadyParked) as refused:
            await registration.fetch()
        assert refused.value.result.hresult == 0x8004000C
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"for the first")
    got = await first
    assert isinstance(got, Notification)
    assert got.data == b"for the first"
    await channel.send(b"for the next")
    assert (await notified(registration)).data == b"for the next"


@rule(64)
async def test_only_its_source_closes_a_unidirectional_channel(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    recorder = Recorder()
    registration = await listener.register(PRINTER, TYPE)
    await listener.listen(PRINTER, TYPE, recorder)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"out of paper")
    for notification in (await notified(registration), registration):
        assert not hasattr(notification, "close")
    await recorder.until(notified=1)
    assert recorder.handle is None, "there is no handle to close"
    await registration.unregister()
    await listener.close()
    assert channel.is_open
    assert [facts.id for facts in await source.channels()] == [channel.id]

    other = await farm.broker("spooler")
    copied = await other.channel(PRINTER, TYPE, user="alice")
    copied._id = channel.id
    with pytest.raises(ChannelAlreadyOpened):
        await copied.open()
    with pytest.raises(ChannelNotOpened):
        await copied.close()
    assert [facts.id for facts in await source.channels()] == [channel.id]

    assert await channel.close(b"refilled") == S_OK
    assert await source.channels() == []
    with pytest.raises(ChannelAlreadyClosed) as refused:
        await channel.send(b"too late")
    assert refused.value.result.hresult == 0x80040008
    assert recorder.closed == [], "and no listener is told"


@rule(65)
async def test_the_printers_deletion_ends_a_parked_fetch_with_a_release(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    registration = await listener.register(PRINTER, TYPE)
    elsewhere = await listener.register(OTHER_PRINTER, TYPE)
    fetching = await parked(registration.fetch(PATIENCE))
    still_fetching = await parked(elsewhere.fetch(PATIENCE))
    await source.delete_printer(PRINTER)
    release = await fetching
    assert isinstance(release, Notification)
    assert release.is_release
    assert release.acquire_data() == (None, 0, NOTIFICATION_RELEASE)
    release.release_data()
    assert registration.is_registered, "the object stays registered"

    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await channel.send(b"a printer of that name") == S_OK
    assert (await notified(registration)).data == b"a printer of that name"
    await (await source.open_channel(OTHER_PRINTER, TYPE, user="alice")).send(b"last")
    other = await still_fetching
    assert isinstance(other, Notification)
    assert other.data == b"last", "another printer was not deleted"


@rule(65, 51)
async def test_a_callback_is_told_of_the_deletion_behind_what_was_sent(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    recorder = Recorder()
    await listener.listen(PRINTER, TYPE, recorder)
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    bodies = numbered(6)
    for body in bodies:
        assert await channel.send(body) == S_OK
    await source.delete_printer(PRINTER)
    await recorder.until(notified=len(bodies) + 1)
    assert recorder.bodies == [*bodies, None]
    assert recorder.notified[-1].is_release
    assert recorder.handle is None
    assert recorder.closed == []
