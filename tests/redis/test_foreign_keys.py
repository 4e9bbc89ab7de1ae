"""Keys of another program, or of a newer Tympan, under our names are left as they are.

The operation that meets one is refused with ForeignLayout, and changes nothing at all: a script
that wrote before it compared would leave half of it behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, UNIDIRECTIONAL, Broker, Style
from broker._keys import Audience, Keys, directory
from broker.errors import ForeignLayout
from tests.dump import unchanged
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.redis.scenes import QUIET

KeyOf = Callable[[Keys], str]


def keys_of(farm: Farm) -> Keys:
    return Keys(farm.namespace, "print01")


def stream(style: Style, whom: str) -> KeyOf:
    return lambda keys: keys.stream(Audience("laser-3", TYPE, style, whom))


def room(style: Style, whom: str) -> KeyOf:
    return lambda keys: keys.room(Audience("laser-3", TYPE, style, whom))


async def put(farm: Farm, key: str) -> None:
    """A foreign program's value: of a type that Tympan uses nowhere."""
    await farm.client.delete(key)
    await farm.client.rpush(key, "theirs")


async def quiet(farm: Farm) -> Broker:
    broker = await farm.broker(**QUIET)
    await broker.server(PRINTER)
    return broker


async def refused(farm: Farm, operation: Callable[[], Awaitable[object]]) -> None:
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(ForeignLayout, match="namespace") as found:
            await operation()
    assert not found.value.retryable


# The first look ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda keys: keys.meta, id="meta"),
        pytest.param(lambda keys: keys.leases, id="leases"),
        pytest.param(lambda keys: keys.streams, id="streams"),
    ],
)
async def test_a_session_does_not_begin_on_foreign_keys(farm: Farm, key: KeyOf) -> None:
    broker = await farm.broker(**QUIET)
    name = key(keys_of(farm))
    await put(farm, name)
    await refused(farm, lambda: broker.open_channel(PRINTER, TYPE))
    await farm.client.delete(name)
    await broker.open_channel(PRINTER, TYPE)


@pytest.mark.parametrize("field", ["layout", "something"])
async def test_a_session_does_not_begin_on_a_foreign_hash(farm: Farm, field: str) -> None:
    broker = await farm.broker(**QUIET)
    meta = keys_of(farm).meta
    await farm.client.hset(meta, field, "theirs")
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(ForeignLayout, match=meta.replace("{", r"\{")):
            await broker.register(PRINTER, TYPE)
    await farm.client.delete(meta)


async def test_a_newer_layout_is_named(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    meta = keys_of(farm).meta
    newer: dict[Any, Any] = {"layout": "99", "run": "r", "epoch": "1", "novelty": "x"}
    await farm.client.hset(meta, mapping=newer)
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(ForeignLayout, match=r"layout 99.*reads layout \d+.*namespace"):
            await broker.open_channel(PRINTER, TYPE)
    await farm.client.delete(meta)


async def test_other_servers_of_the_farm_are_served_meanwhile(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    meta = keys_of(farm).meta
    await put(farm, meta)
    with pytest.raises(ForeignLayout):
        await broker.open_channel(PRINTER, TYPE)
    await broker.open_channel(r"\\print02\laser-3", TYPE)
    await farm.client.delete(meta)


async def test_a_foreign_directory_is_refused(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    await put(farm, directory(farm.namespace))
    for call in (broker.servers, broker.channels):
        with pytest.raises(ForeignLayout):
            await call()
    with pytest.raises(ForeignLayout):
        await broker.open_channel(PRINTER, TYPE)
    await farm.client.delete(directory(farm.namespace))
    await broker.open_channel(PRINTER, TYPE)
    assert await broker.servers() == ["print01"]


# While a session runs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda keys: keys.opened, id="opened"),
        pytest.param(lambda keys: keys.channels, id="channels"),
    ],
)
async def test_a_channel_is_not_half_opened(farm: Farm, key: KeyOf) -> None:
    broker = await quiet(farm)
    name = key(keys_of(farm))
    await put(farm, name)
    await refused(farm, lambda: broker.open_channel(PRINTER, TYPE))
    await farm.client.delete(name)


async def test_rights_are_not_read_from_a_foreign_key(farm: Farm) -> None:
    broker = await quiet(farm)
    grants = keys_of(farm).grants
    await put(farm, grants)
    await refused(farm, lambda: broker.grant(PRINTER, "bob", "use"))
    await refused(farm, lambda: broker.open_channel(PRINTER, TYPE, user_filter=ALL_USERS))
    await refused(farm, lambda: broker.register(PRINTER, TYPE, user_filter=ALL_USERS))
    await farm.client.delete(grants)


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("whom", ["=alice", "*"], ids=["own", "everybody"])
@pytest.mark.parametrize("make", [stream, room])
async def test_a_registration_is_not_half_made_by_its_streams(
    farm: Farm, style: Style, whom: str, make: Callable[[Style, str], KeyOf]
) -> None:
    broker = await quiet(farm)
    name = make(style, whom)(keys_of(farm))
    await put(farm, name)
    await refused(farm, lambda: broker.register(PRINTER, TYPE, style=style))
    await farm.client.delete(name)
    assert await broker.registrations() == []


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda keys: keys.counts, id="counts"),
        pytest.param(lambda keys: keys.registrations, id="registrations"),
    ],
)
async def test_a_registration_is_not_half_made(farm: Farm, key: KeyOf) -> None:
    broker = await quiet(farm)
    name = key(keys_of(farm))
    await put(farm, name)
    await refused(farm, lambda: broker.register(PRINTER, TYPE))
    await farm.client.delete(name)


@pytest.mark.parametrize("make", [stream, room])
async def test_a_unidirectional_notification_is_not_half_sent(
    farm: Farm, make: Callable[[Style, str], KeyOf]
) -> None:
    """The first audience has a listener, the second one is somebody else's."""
    broker = await quiet(farm)
    registration = await broker.register(PRINTER, TYPE)
    channel = await broker.open_channel(PRINTER, TYPE)
    name = make(UNIDIRECTIONAL, "+")(keys_of(farm))
    await put(farm, name)
    if make is stream:
        admins = keys_of(farm).room(Audience("laser-3", TYPE, UNIDIRECTIONAL, "+"))
        await farm.client.zadd(admins, {"group": 100})
    await refused(farm, lambda: channel.send(b"page"))
    await farm.client.delete(name)
    if make is stream:
        await farm.client.delete(admins)
    assert (await channel.send(b"page")).succeeded
    found = await registration.fetch(PATIENCE)
    assert found is not None
    assert registration.unread == 0, "it was sent once"


@pytest.mark.parametrize("make", [stream, room])
async def test_a_question_is_not_half_asked(
    farm: Farm, make: Callable[[Style, str], KeyOf]
) -> None:
    broker = await quiet(farm)
    channel = await broker.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    name = make(BIDIRECTIONAL, "+")(keys_of(farm))
    await put(farm, name)
    await refused(farm, lambda: channel.send(b"continue?"))
    await farm.client.delete(name)
    assert (await channel.send(b"continue?")).succeeded


async def test_an_answer_is_not_half_given(farm: Farm) -> None:
    """The log of the conversation was overwritten by somebody else."""
    source, listener = await quiet(farm), await quiet(farm)
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    keys = keys_of(farm)
    log = keys.log(channel.id)
    await put(farm, log)
    await refused(farm, lambda: offer.respond(b"yes"))
    await farm.client.delete(log)
    assert (await offer.respond(b"yes")).succeeded
    assert (await channel.response(PATIENCE)).data == b"yes"
