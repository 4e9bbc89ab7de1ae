"""Keys of another program, or of a newer Tympan, under our names are left as they are.

The operation that meets one is refused with ForeignLayout, and changes nothing at all: a script
that wrote before it compared would leave half of it behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, UNIDIRECTIONAL, Broker, Style, Subscription
from broker._keys import Audience, Keys, directory
from broker.errors import ForeignLayout
from tests.dump import unchanged
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.redis.pooling import ALERTS, POOL, QUESTIONS, Member, plan_of, pool
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


# Pools ------------------------------------------------------------------------------------------


@asynccontextmanager
async def taken_by_another(farm: Farm, key: str) -> AsyncIterator[None]:
    """For a while the key is somebody else's; then what it held is there again."""
    had = await farm.client.exists(key)
    if had:
        await farm.client.rename(key, "kept")
    await farm.client.rpush(key, "theirs")
    yield
    await farm.client.delete(key)
    if had:
        await farm.client.rename("kept", key)


def key_of_pool(farm: Farm, member: Member, kind: str) -> str:
    """One of the keys of a pool; of its last stream, where it has several."""
    keys, plan = keys_of(farm), plan_of(member)
    audience = plan.audiences[0]
    return {
        "pools": keys.pools,
        "dead": keys.dead,
        "streams": keys.streams,
        "counts": keys.counts,
        "stream": keys.stream(audience),
        "room": keys.room(audience),
        "returned": keys.returned(plan.id, audience),
        "idle": keys.idle(plan.id),
        "waiting": keys.held(plan.id),
    }[kind]


TOUCHED = {
    "join": ("pools",),
    "take": ("pools", "streams", "idle", "waiting", "stream", "returned"),
    "finish": ("stream", "room"),
    "hand back": ("stream", "returned", "idle"),
    "bury": ("dead", "stream", "room"),
    "replay": ("pools", "streams", "dead", "receipt", "stream", "room", "returned", "idle"),
    "delete": (
        "counts", "pools", "streams", "waiting", "idle", "stream", "room", "returned",
    ),
}  # fmt: skip
"""What replicas and operators do with pools, and the keys of it that may be somebody else's."""


@pytest.mark.parametrize("subscription", [ALERTS, QUESTIONS], ids=["alerts", "questions"])
@pytest.mark.parametrize(
    ("what", "kind"), [(what, kind) for what, kinds in TOUCHED.items() for kind in kinds]
)
async def test_a_pool_is_not_half_served(
    farm: Farm, what: str, kind: str, subscription: Subscription
) -> None:
    async with pool(farm, subscription) as source:
        member = await Member.join(farm, subscription)
        another = await quiet(farm)
        channel = await source.open_channel(PRINTER, TYPE, style=subscription.style)
        await channel.send(b"page")
        letter = ""
        if what == "replay":
            letter = await (await member.take(1))[0].bury("it burns")
        operations: dict[str, Callable[[], Awaitable[object]]] = {
            "join": lambda: Member.of(another, subscription),
            "take": lambda: member.replica.take(10),
            "replay": lambda: source.dead_letters.replay(PRINTER, letter),
            "delete": lambda: source.pools.delete(POOL, PRINTER),
        }
        if what not in operations:
            (taken,) = await member.take(1)
            operations |= {
                "finish": taken.done,
                "hand back": taken.hand_back,
                "bury": lambda: taken.bury("it burns"),
            }
        key = keys_of(farm).receipt(letter)
        async with taken_by_another(
            farm, key if kind == "receipt" else key_of_pool(farm, member, kind)
        ):
            await refused(farm, operations[what])
        if what == "delete":
            assert len(await source.pools.delete(POOL, PRINTER)) == 1
            return
        await member.replica.audit()  # what it did not get rid of it hands back
        if what == "replay":
            await source.dead_letters.replay(PRINTER, letter)
        (found,) = await member.take(1)
        assert found.notification.data == b"page", "it is there, and once"
        assert await member.replica.take(10) == []
        await found.done()


@pytest.mark.parametrize("kind", ["streams", "stream", "room", "idle"])
async def test_a_notification_is_not_half_sent_to_a_pool(farm: Farm, kind: str) -> None:
    """The listener beside it does not get what the pool cannot be given."""
    async with pool(farm, ALERTS) as source:
        member = await Member.join(farm)
        registration = await source.register(PRINTER, TYPE)
        channel = await source.open_channel(PRINTER, TYPE)
        async with taken_by_another(farm, key_of_pool(farm, member, kind)):
            await refused(farm, lambda: channel.send(b"page"))
        assert (await channel.send(b"page")).succeeded
        assert await member.drain() == [b"page"]
        assert getattr(await registration.fetch(PATIENCE), "data", None) == b"page"
        assert registration.unread == 0, "it was sent once"


@pytest.mark.parametrize("subscription", [ALERTS, QUESTIONS], ids=["alerts", "questions"])
@pytest.mark.parametrize("kind", ["pools", "streams", "counts", "stream", "room"])
async def test_a_pool_is_not_half_made(farm: Farm, kind: str, subscription: Subscription) -> None:
    async with pool(farm, subscription) as source:
        member = await Member.of(source, subscription)
        await source.pools.delete(POOL, PRINTER)
        async with taken_by_another(farm, key_of_pool(farm, member, kind)):
            await refused(farm, lambda: source.pools.create(POOL, subscription))
        assert await source.pools.create(POOL, subscription)


@pytest.mark.parametrize("kind", ["channel", "log", "waiting", "streams"])
async def test_a_dialog_is_not_half_carried_on(farm: Farm, kind: str) -> None:
    async with pool(farm, QUESTIONS) as source:
        first, second = [await Member.join(farm, QUESTIONS) for _ in range(2)]
        channel = await farm.question(source)
        await (await first.offer()).respond(b"yes")
        await first.replica.leave()
        keys = keys_of(farm)
        of_channel = {"channel": keys.channel(channel.id), "log": keys.log(channel.id)}
        key = of_channel.get(kind) or key_of_pool(farm, first, kind)
        async with taken_by_another(farm, key):
            await refused(farm, lambda: second.replica.take(1))
        await second.replica.audit()
        assert (await second.offer()).id == channel.id
        assert (await channel.response(PATIENCE)).data == b"yes"


async def test_facts_of_pools_are_not_read_from_foreign_keys(farm: Farm) -> None:
    async with pool(farm, ALERTS) as source:
        member = await Member.join(farm)
        for kind in ("pools", "stream", "returned", "streams"):
            async with taken_by_another(farm, key_of_pool(farm, member, kind)):
                await refused(farm, lambda: source.pools.on_server(PRINTER))
        async with taken_by_another(farm, keys_of(farm).dead):
            await refused(farm, lambda: source.dead_letters.on_server(PRINTER))


# Values of the right type, and no sense ---------------------------------------------------------

JUNK = (b"junk", b"{}", b"\xff", b"[1]", b'{"printer": 5}')
every_junk = pytest.mark.parametrize("junk", JUNK, ids=repr)


@every_junk
@pytest.mark.parametrize(
    ("key", "look"),
    [
        (lambda keys: keys.registrations, lambda broker: broker.registrations(PRINTER)),
        (lambda keys: keys.pools, lambda broker: broker.pools.on_server(PRINTER)),
        (lambda keys: keys.grants, lambda broker: broker.grants(PRINTER)),
        (lambda keys: keys.channel("c"), lambda broker: broker.channels(PRINTER)),
    ],
    ids=["registrations", "pools", "grants", "channel"],
)
async def test_a_list_names_what_it_cannot_read(
    farm: Farm, key: KeyOf, look: Callable[[Broker], Awaitable[object]], junk: bytes
) -> None:
    broker, keys = await quiet(farm), keys_of(farm)
    field = "subject" if key(keys) == keys.channel("c") else "x"
    await farm.client.hset(keys.channels, "c", "laser-3|junk")
    await farm.client.hset(key(keys), field, junk)
    await refused(farm, lambda: look(broker))
    (survey,) = await broker.survey(PRINTER)
    assert isinstance(survey.unread, ForeignLayout)
    await farm.client.delete(key(keys), keys.channels)


async def test_a_dead_letter_that_is_none(farm: Farm) -> None:
    broker, dead = await quiet(farm), keys_of(farm).dead
    await farm.client.xadd(dead, {"pool": b"\xff"}, id="1-1")
    for look in (
        lambda: broker.dead_letters.on_server(PRINTER),
        lambda: broker.dead_letters.get(PRINTER, "1-1"),
        lambda: broker.dead_letters.replay(PRINTER, "1-1"),
        lambda: broker.dead_letters.drop(PRINTER, "1-1"),
    ):
        await refused(farm, look)
    await farm.client.delete(dead)


@every_junk
async def test_junk_keeps_nobody_from_ending_what_the_dead_held(farm: Farm, junk: bytes) -> None:
    """What cannot be read stays, and its session; what else it held is ended, and all others'."""
    alive, keys = await quiet(farm), keys_of(farm)
    one, other = await quiet(farm), await quiet(farm)
    held = [await broker.open_channel(PRINTER, TYPE) for broker in (one, other)]
    first, second = [(await broker.server(PRINTER)).session for broker in (one, other)]
    await farm.client.hset(keys.registrations, "x", junk)
    await farm.client.sadd(keys.held(first), "registration:x")
    await farm.client.zadd(keys.leases, {first: 0, second: 0})
    assert await alive.run_down(PRINTER) == 1
    assert not {facts.id for facts in await alive.channels(PRINTER)} & {one.id for one in held}
    assert await farm.client.smembers(keys.held(first)) == {b"registration:x"}
    await farm.client.delete(keys.registrations, keys.held(first))
    assert await alive.run_down(PRINTER) == 1
