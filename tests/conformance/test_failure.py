"""Death: the survivor is told once, with NOTIFICATION_RELEASE, and nothing comes back silently.

Each test has a Redis of its own, which it may kill, restart or empty, or the only farm on the
Cluster meanwhile. The in-memory double is emptied where a real server restarts without its data.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    NOTIFICATION_RELEASE,
    UNIDIRECTIONAL,
    Broker,
    Channel,
    Data,
    Notification,
    Offer,
    Settings,
)
from broker._address import Address, Dialer
from broker._cluster import Cluster
from broker._connect import Direct, Maker
from broker._end import End
from broker._scripts import REGISTER
from broker._topology import Single, Topology
from broker._wire import Wire
from broker.errors import (
    AccessDenied,
    ChannelAcquired,
    ChannelError,
    InvalidName,
    InvalidNotificationType,
    InvalidSettings,
    RegistrationEnded,
    TympanError,
)
from broker.results import NOT_REGISTERED, S_OK
from tests.conformance.actors import (
    SHORT,
    Recorder,
    all_heard,
    asked,
    called,
    dialog,
    die,
    eventually,
    listener,
    pass_away,
    said,
    sessions,
    state,
)
from tests.conformance.conftest import ALL_BACKENDS
from tests.conformance.rules import rule
from tests.conftest import backend_named
from tests.farm import (
    PATIENCE,
    PRINTER,
    SERVER,
    TYPE,
    Backend,
    ClusterBackend,
    Farm,
    MemoryBackend,
    RedisBackend,
)
from tests.servers import RedisServer

QUICK: dict[str, Any] = {"resync": 0.2, "retry_least": 0.05, "retry_most": 0.2}
"""Whoever was forgotten finds it out, and registers again, soon."""
RELEASE = (None, 0, NOTIFICATION_RELEASE)


@pytest.fixture(params=ALL_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend in turn, a single Redis for this test alone."""
    if request.param != "redis":
        yield backend_named(request.param, request)
        return
    with RedisServer() as server:
        yield RedisBackend(server)


@pytest.fixture
async def lasting_farm() -> AsyncIterator[Farm]:
    """A farm on a real server that keeps its data, through a kill too."""
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as server:
        async with Farm(RedisBackend(server)) as farm:
            yield farm


@pytest.fixture
async def forgetful_farm() -> AsyncIterator[Farm]:
    """A farm on a real server that comes back with what was saved last, if anything was."""
    with RedisServer() as server:
        async with Farm(RedisBackend(server)) as farm:
            yield farm


def redis_server(farm: Farm) -> RedisServer:
    """The Redis process that has the tests' print server."""
    if isinstance(farm.backend, ClusterBackend):
        return farm.backend.cluster.node_of(server_key(farm, "meta"))
    assert isinstance(farm.backend, RedisBackend)
    return farm.backend.server


async def restart(farm: Farm) -> None:
    """The broker dies and comes back, with the data that its server keeps: mostly none."""
    if isinstance(farm.backend, MemoryBackend):
        await farm.client.flushall()
        return
    server = redis_server(farm)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    if isinstance(farm.backend, ClusterBackend):
        await asyncio.to_thread(farm.backend.cluster.await_agreement)


def server_key(farm: Farm, name: str) -> str:
    """A key of the tests' print server."""
    return f"{farm.namespace}:{{print01}}:{name}"


async def released(end: End[Any]) -> None:
    """The end is told of NOTIFICATION_RELEASE, by nobody."""
    closing = await end.wait_closed(PATIENCE)
    assert closing is not None, f"{end!r} was told nothing"
    assert closing.reason.acquire_data() == RELEASE
    assert closing.by is None


async def refuses_everything(channel: Channel, *offers: Offer[Any]) -> None:
    """The channel is over at every end."""
    calls: list[Callable[[bytes], Any]] = [channel.send, channel.close]
    for offer in offers:
        calls += [offer.respond, offer.close]
    for call in calls:
        with pytest.raises(ChannelError):
            await call(b"after the end")


# Deaths of processes ----------------------------------------------------------------------------


@rule(121)
@pytest.mark.parametrize("turn", ["source", "owner"])
async def test_when_the_owner_dies_the_source_is_told_release_once(farm: Farm, turn: str) -> None:
    at_source = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    _, other = await listener(farm)
    channel = await asked(source, at_source)
    offer = await farm.offered(registration)
    loser = await farm.offered(other)
    await offer.respond(b"mine")
    await at_source.until(notified=1)
    if turn == "owner":
        await channel.send(b"go on")
    await pass_away(farm, process)
    await at_source.until(closed=1)
    assert at_source.closed[0].acquire_data() == RELEASE
    with pytest.raises(ChannelError):
        await channel.send(b"after the end")
    with pytest.raises(ChannelAcquired):
        await loser.respond(b"then I")
    survivor = farm.brokers[1]
    await all_heard(farm, source, survivor)
    _, late = await listener(farm)
    left = await farm.question(source)
    assert (await farm.offered(late)).id == left.id, "offered a second time"
    assert [told.event for told in at_source.told] == ["notified", "closed"]


@rule(121)
async def test_a_death_is_found_out_by_the_clock(farm: Farm) -> None:
    """By anybody whose own lease is short; on a slow machine the source's may lapse, too."""
    at_source = Recorder()
    source = await farm.broker("spooler", **SHORT)
    process, registration = await listener(farm, **SHORT)
    await asked(source, at_source)
    await (await farm.offered(registration)).respond(b"mine")
    await at_source.until(notified=1)
    await die(farm, process)
    await at_source.until(closed=1)
    assert at_source.closed[0].acquire_data() == RELEASE


@rule(122)
async def test_when_another_listener_dies_the_source_hears_nothing(farm: Farm) -> None:
    at_source = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    _, other = await listener(farm)
    channel = await asked(source, at_source)
    await farm.offered(registration)
    await pass_away(farm, process)
    await all_heard(farm, source, farm.brokers[1])
    assert not at_source.told
    assert await state(source, channel) == "offered"
    assert await (await farm.offered(other)).respond(b"I will") == S_OK
    await at_source.until(notified=1)
    assert at_source.bodies == [b"I will"]


@rule(122)
async def test_when_the_last_listener_dies_the_question_is_held(farm: Farm) -> None:
    at_source = Recorder()
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    await asked(source, at_source)
    await farm.offered(registration)
    await pass_away(farm, process)
    late_process, late = await listener(farm)
    await all_heard(farm, source, late_process)
    assert not at_source.told
    assert await (await farm.offered(late)).respond(b"I will") == S_OK
    await at_source.until(notified=1)


@rule(123, 127)
@pytest.mark.parametrize("acquired", [False, True], ids=["offered", "acquired"])
async def test_when_the_source_dies_every_handle_is_told_release_once(
    farm: Farm, acquired: bool
) -> None:
    recorders = [Recorder() for _ in range(3)]
    source = await farm.broker("spooler")
    for recorder in recorders:
        await called(farm, recorder)
    channel = await farm.question(source)
    for recorder in recorders:
        await recorder.until(notified=1)
    if acquired:
        await recorders[0].handle.respond(b"mine")
        await channel.response(PATIENCE)
    await pass_away(farm, source)
    for recorder in recorders:
        await recorder.until(closed=1)
        assert recorder.closed[0].acquire_data() == RELEASE
    second = await farm.broker("spooler")
    await all_heard(farm, second, *farm.brokers[:3])
    _, late = await listener(farm)
    left = await farm.question(second)
    assert (await farm.offered(late)).id == left.id, "a dead source's question is open"
    assert [each.id for each in await second.channels()] == [left.id]
    for recorder in recorders:
        about_it = [told for told in recorder.told if told.channel is recorder.handle]
        assert [told.event for told in about_it] == ["notified", "closed"]
        with pytest.raises(ChannelError):
            await recorder.handle.respond(b"after the end")


@rule(123)
async def test_a_question_of_a_dead_source_that_nobody_fetched_is_not_handed_out(
    farm: Farm,
) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    await farm.question(source)
    await eventually(lambda: registration.unread == 1, "the question")
    await pass_away(farm, source)
    await eventually(lambda: registration.unread == 0, "its end")
    second = await farm.broker("spooler")
    left = await farm.question(second)
    assert (await farm.offered(registration)).id == left.id


# Death of the broker ----------------------------------------------------------------------------


@rule(124)
async def test_when_the_broker_forgets_everything_both_ends_are_told_release_once(
    farm: Farm,
) -> None:
    at_source, at_owner, beside = Recorder(), Recorder(), Recorder()
    source = await farm.broker("spooler", **QUICK)
    owning, _ = await called(farm, at_owner, **QUICK)
    channel = await asked(source, at_source)
    await at_owner.until(notified=1)
    await called(farm, beside, **QUICK)
    await beside.until(notified=1)
    await at_owner.handle.respond(b"mine")
    await at_source.until(notified=1)
    await beside.until(closed=1)
    await restart(farm)
    for recorder in (at_source, at_owner):
        await recorder.until(closed=1)
        assert recorder.closed[0].acquire_data() == RELEASE
    await refuses_everything(channel, at_owner.handle)
    await eventually(lambda: standing(farm, 2), "both registrations")
    await all_heard(farm, source, owning)
    assert await source.channels() == []
    assert [told.event for told in at_source.told] == ["notified", "closed"]
    assert [told.event for told in at_owner.told] == ["notified", "closed"]


@rule(124)
async def test_when_the_broker_forgets_a_question_it_does_not_come_back(farm: Farm) -> None:
    at_source = Recorder()
    source = await farm.broker("spooler", **QUICK)
    registrations = await sessions(farm, 2, **QUICK)
    channel = await asked(source, at_source)
    offer = await farm.offered(registrations[0])
    await restart(farm)
    await released(offer)
    await at_source.until(closed=1)
    assert at_source.closed[0].acquire_data() == RELEASE
    await refuses_everything(channel, offer)
    await eventually(lambda: standing(farm, 2), "both registrations")
    _, late = await listener(farm, **QUICK)
    left = await farm.question(source)
    for registration in (*registrations, late):
        assert (await farm.offered(registration)).id == left.id, "the lost question came back"
        assert registration.unread == 0
    assert len(at_source.told) == 1


@rule(124, on="redis")
async def test_a_dialog_goes_on_where_the_broker_kept_its_data(lasting_farm: Farm) -> None:
    farm = lasting_farm
    at_source, at_owner = Recorder(), Recorder()
    source = await farm.broker("spooler", **QUICK)
    owning, _ = await called(farm, at_owner, **QUICK)
    channel = await asked(source, at_source)
    await at_owner.until(notified=1)
    await at_owner.handle.respond(b"one")
    await at_source.until(notified=1)
    epoch = int(await farm.client.hget(server_key(farm, "meta"), "epoch") or 0)
    await restart(farm)
    assert await channel.send(b"go on") == S_OK
    await at_owner.until(notified=2)
    assert await at_owner.handle.respond(b"two") == S_OK
    await at_source.until(notified=2)
    assert int(await farm.client.hget(server_key(farm, "meta"), "epoch") or 0) > epoch
    assert at_source.bodies == [b"one", b"two"]
    assert at_owner.bodies == [b"continue?", b"go on"]
    await channel.close(b"done")
    await at_owner.until(closed=1)
    await all_heard(farm, source, owning)
    assert [reason.data for reason in at_owner.closed] == [b"done"]
    assert not at_source.closed


@rule(124, on="redis")
async def test_what_waits_goes_on_waiting_where_the_broker_kept_its_data(
    lasting_farm: Farm,
) -> None:
    farm = lasting_farm
    source = await farm.broker("spooler", **QUICK)
    process, asking = await listener(farm, **QUICK)
    plain = await process.register(PRINTER, TYPE)
    channel = await farm.question(source)
    offer = await farm.offered(asking)
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    await pages.send(b"page 1")
    await restart(farm)
    assert await pages.send(b"page 2") == S_OK
    for page in (b"page 1", b"page 2"):
        notification = await plain.fetch(PATIENCE)
        assert isinstance(notification, Notification)
        assert notification.data == page
    _, late = await listener(farm, **QUICK)
    assert (await farm.offered(late)).id == channel.id, "the held question was lost"
    assert await offer.respond(b"mine") == S_OK
    assert (await channel.response(PATIENCE)).data == b"mine"
    assert plain.unread == asking.unread == 0


@rule(124, on="redis")
async def test_a_dialog_ends_where_the_broker_came_back_without_its_owner(
    forgetful_farm: Farm,
) -> None:
    """The data is of a time when the question was unanswered: the two ends know better."""
    farm = forgetful_farm
    at_source, at_owner = Recorder(), Recorder()
    source = await farm.broker("spooler", **QUICK)
    owning, _ = await called(farm, at_owner, **QUICK)
    channel = await asked(source, at_source)
    await at_owner.until(notified=1)
    redis_server(farm).cli("SAVE")
    await at_owner.handle.respond(b"mine")
    await at_source.until(notified=1)
    await restart(farm)
    for recorder in (at_source, at_owner):
        await recorder.until(closed=1)
        assert recorder.closed[0].acquire_data() == RELEASE
    _, late = await listener(farm, **QUICK)
    await all_heard(farm, source, owning)
    left = await farm.question(source)
    assert (await farm.offered(late)).id == left.id, "the old question was resurrected"
    await refuses_everything(channel, at_owner.handle)
    assert [each.id for each in await source.channels()] == [left.id]
    assert ("response", b"mine") not in await said(source, channel)
    for recorder in (at_source, at_owner):
        about_it = [each for each in recorder.told if each.notification.channel == channel.id]
        assert [told.event for told in about_it] == ["notified", "closed"], "told of it again"


@rule(124, 125, on="redis")
async def test_all_are_told_though_the_broker_refuses_the_first_calls_after_its_restart(
    forgetful_farm: Farm,
) -> None:
    farm = forgetful_farm
    at_source, at_owner = Recorder(), Recorder()
    source = await farm.broker("spooler", **QUICK)
    await called(farm, at_owner, **QUICK)
    channel = await asked(source, at_source)
    await at_owner.until(notified=1)
    await at_owner.handle.respond(b"mine")
    await at_source.until(notified=1)
    server = redis_server(farm)
    server.config("maxmemory", 1)
    await farm.client.flushall()

    def has_refused_both() -> bool:
        return int(server.cli("INFO", "errorstats").get("errorstat_OOM", {}).get("count", 0)) >= 4

    await eventually(has_refused_both, "calls that are refused for want of memory")
    server.config("maxmemory", 0)
    for recorder in (at_source, at_owner):
        await recorder.until(closed=1)
        assert recorder.closed[0].acquire_data() == RELEASE
    await eventually(lambda: standing(farm, 1), "the registration")
    await refuses_everything(channel, at_owner.handle)


# Registering again ------------------------------------------------------------------------------


async def standing(farm: Farm, count: int) -> bool:
    """Whether Redis knows so many registrations."""
    return int(await farm.client.hlen(server_key(farm, "registrations"))) == count


@rule(125)
async def test_after_a_restart_listeners_are_registered_again_by_themselves(farm: Farm) -> None:
    at_plain, at_asking = Recorder(), Recorder()
    source = await farm.broker("spooler", **QUICK)
    process = await farm.broker("alice", **QUICK)
    asking = await process.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    plain = await process.register(PRINTER, TYPE)
    await process.listen(PRINTER, TYPE, at_asking, style=BIDIRECTIONAL)
    await process.listen(PRINTER, TYPE, at_plain)
    parked = asyncio.create_task(plain.fetch())
    await restart(farm)
    await eventually(lambda: standing(farm, 4), "all four registrations")
    await eventually(lambda: asking.is_registered and plain.is_registered, "both objects' word")
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await pages.send(b"page 1") == S_OK
    channel = await farm.question(source)
    async with asyncio.timeout(PATIENCE):
        notification = await parked
    assert isinstance(notification, Notification)
    assert notification.data == b"page 1"
    await at_plain.until(notified=1)
    await at_asking.until(notified=1)
    assert await (await farm.offered(asking)).respond(b"still here") == S_OK
    assert (await channel.response(PATIENCE)).data == b"still here"
    assert {each.user for each in await source.registrations()} == {"alice"}


@rule(125, on="redis")
async def test_registrations_that_the_broker_kept_are_not_made_twice(lasting_farm: Farm) -> None:
    farm = lasting_farm
    source = await farm.broker("spooler", **QUICK)
    process = await farm.broker("alice", **QUICK)
    registration = await process.register(PRINTER, TYPE)
    before = [each.id for each in await source.registrations()]
    await restart(farm)
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await pages.send(b"page 1") == S_OK
    notification = await registration.fetch(PATIENCE)
    assert isinstance(notification, Notification)
    assert [each.id for each in await source.registrations()] == before
    assert registration.unread == 0


@rule(125)
def test_the_default_pauses_are_a_second_to_a_minute(backend: Backend) -> None:
    settings = Settings()
    assert (settings.retry_least, settings.retry_most) == (1.0, 60.0)
    with pytest.raises(InvalidSettings):
        backend.broker(retry_least=2.0, retry_most=1.0)


class Watched:
    """A connector that notes when Redis was asked for a registration.

    Make one and forget its time first: of a script that Redis has not seen yet it asks twice.
    """

    def __init__(self, farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings.of(namespace=farm.namespace, **QUICK)
        backend = farm.backend
        self._inner: Maker | Dialer
        self._cluster: Address | None = None
        if isinstance(backend, MemoryBackend):
            self._inner = backend.redis
        elif isinstance(backend, ClusterBackend):
            self._cluster = Address.parse(backend.cluster.url, self.settings)
            self._inner = self._cluster.redis
        else:
            self._inner = Address.parse(redis_server(farm).url, self.settings).redis
        self.asked_at: list[float] = []
        self._made: list[Any] = []
        over = Wire.over

        def watched(connection: Any, *told: Any) -> Wire:
            wire = over(connection, *told)
            return self._watch(wire) if connection in self._made else wire

        monkeypatch.setattr(Wire, "over", watched)

    def connection(self, *node: Any) -> Any:
        self._made.append(self._inner.connection(*node))
        return self._made[-1]

    def _watch(self, wire: Wire) -> Wire:
        write, asks = wire.write, REGISTER.sha.encode()

        def noting(chunks: Iterable[bytes]) -> None:
            sent = list(chunks)
            for command in sent:
                if asks in command:
                    self.asked_at.append(asyncio.get_running_loop().time())
            write(sent)

        wire.write = noting  # type: ignore[method-assign]
        return wire

    async def broker(self, farm: Farm, user: str = "alice") -> Broker:
        def topology(settings: Settings, *ears: Any) -> Topology:
            if self._cluster is not None:
                watched: Any = self
                return Cluster(replace(self._cluster, redis=watched), settings, *ears)
            return Single(Direct(self, "watched", settings), settings, *ears)

        broker = Broker(topology, self.settings, user=user)
        await broker.start()
        farm.brokers.append(broker)
        return broker

    @property
    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in itertools.pairwise(self.asked_at)]


async def forget_and_refuse(farm: Farm) -> None:
    """Redis forgets everything, and has a key of another kind where registrations are counted."""
    both = "redis.call('FLUSHALL') redis.call('SET', KEYS[1], 'not a hash')"
    await farm.client.eval(both, 1, server_key(farm, "counts"))


@rule(125)
async def test_failing_registrations_are_tried_again_after_growing_pauses(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(farm, monkeypatch)
    process = await watched.broker(farm)
    registration = await process.register(PRINTER, TYPE)
    watched.asked_at.clear()
    await forget_and_refuse(farm)
    await eventually(lambda: len(watched.asked_at) >= 6, "six attempts")
    least, most = watched.settings.retry_least, watched.settings.retry_most
    assert all(pause >= least * 0.95 for pause in watched.pauses), watched.pauses
    assert all(pause >= most * 0.95 for pause in watched.pauses[3:]), "they do not grow"
    assert all(pause <= most + 1 for pause in watched.pauses), "above the longest pause"
    await farm.client.delete(server_key(farm, "counts"))
    await eventually(lambda: standing(farm, 1), "the registration")
    await eventually(lambda: registration.is_registered, "its client to know")
    source = await farm.broker("spooler", **QUICK)
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await pages.send(b"page 1") == S_OK
    notification = await registration.fetch(PATIENCE)
    assert isinstance(notification, Notification)


@rule(125)
async def test_a_listener_may_go_on_fetching_while_its_registration_is_tried_again(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(farm, monkeypatch)
    process = await watched.broker(farm)
    registration = await process.register(PRINTER, TYPE)
    watched.asked_at.clear()
    await forget_and_refuse(farm)
    await eventually(lambda: len(watched.asked_at) >= 2, "a failed attempt")
    await eventually(lambda: not registration.is_registered, "the pause before the next")
    assert await registration.fetch(0) is None
    parked = asyncio.create_task(registration.fetch())
    await farm.client.delete(server_key(farm, "counts"))
    await eventually(lambda: standing(farm, 1), "the registration")
    source = await farm.broker("spooler", **QUICK)
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await pages.send(b"page 1") == S_OK
    async with asyncio.timeout(PATIENCE):
        notification = await parked
    assert isinstance(notification, Notification)


@rule(125)
async def test_a_callback_hears_again_though_it_was_busy_while_registrations_failed(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def linger(*_: object) -> None:
        inside.set()
        await go_on.wait()

    heard = Recorder(linger)
    watched = Watched(farm, monkeypatch)
    source = await farm.broker("spooler", **QUICK)
    process = await watched.broker(farm)
    await process.listen(PRINTER, TYPE, heard)
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    await pages.send(b"page 1")
    await inside.wait()
    watched.asked_at.clear()
    await forget_and_refuse(farm)
    await eventually(lambda: len(watched.asked_at) >= 2, "a failed attempt")
    go_on.set()
    await heard.until_idle()
    await farm.client.delete(server_key(farm, "counts"))
    await eventually(lambda: standing(farm, 1), "the registration")
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await pages.send(b"page 2") == S_OK
    await heard.until(notified=2)
    assert heard.bodies == [b"page 1", b"page 2"]


@rule(125)
async def test_a_listener_that_lost_interest_is_not_registered_again(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(farm, monkeypatch)
    process = await watched.broker(farm)
    unwanted = await process.register(PRINTER, TYPE)
    wanted = await process.register(PRINTER, TYPE)
    watched.asked_at.clear()
    await forget_and_refuse(farm)
    await eventually(lambda: len(watched.asked_at) >= 4, "failed attempts of both")
    result = await unwanted.unregister()
    assert result.succeeded
    assert result != NOT_REGISTERED, "it was registered, and is wanted no more"
    await farm.client.delete(server_key(farm, "counts"))
    await eventually(lambda: wanted.is_registered, "the other registration")
    await pass_time(3 * watched.settings.retry_most)
    assert await standing(farm, 1), "an unregistered listener came back"
    assert not unwanted.is_registered


@rule(125)
async def test_a_registration_limit_met_by_registering_again_is_not_final(farm: Farm) -> None:
    """Of all refusals only those for a right or a name are."""
    other = await farm.broker("alice", **QUICK)
    process = await farm.broker("alice", max_registrations=1, **QUICK)
    registration = await process.register(PRINTER, TYPE)
    (facts,) = await process.registrations()
    in_the_way = await other.register(PRINTER, TYPE)
    await farm.client.zadd(server_key(farm, "leases"), {facts.session: 0})

    async def is_run_down() -> bool:
        await other.run_down()
        return facts.id not in [each.id for each in await other.registrations()]

    await eventually(is_run_down, "the end of what was declared dead")
    await eventually(lambda: not registration.is_registered, "an attempt that the limit refuses")
    await in_the_way.unregister()
    await eventually(lambda: registration.is_registered, "the registration")
    source = await farm.broker("spooler", **QUICK)
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await pages.send(b"page 1") == S_OK
    assert isinstance(await registration.fetch(PATIENCE), Notification)


# Refusals that are final ------------------------------------------------------------------------


async def pass_time(seconds: float) -> None:
    """Let time pass: the subject is what must not happen in it."""
    await asyncio.sleep(seconds)


@rule(126)
async def test_a_registration_whose_right_is_gone_is_not_tried_again(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(farm, monkeypatch)
    process = await watched.broker(farm, "admin")
    await process.grant(PRINTER, "admin", "administer")
    revoked = await process.register(PRINTER, TYPE, user_filter=ALL_USERS)
    own = await process.register(PRINTER, TYPE)
    parked = asyncio.create_task(revoked.fetch())
    watched.asked_at.clear()
    await farm.client.flushall()
    with pytest.raises(RegistrationEnded) as ended:
        async with asyncio.timeout(PATIENCE):
            await parked
    assert isinstance(ended.value.__cause__, AccessDenied)
    assert ended.value.__cause__.result.hresult == 0x8007_0005
    await eventually(lambda: own.is_registered, "the registration that needs no right")
    assert len(watched.asked_at) == 2, "one attempt for each"
    await process.grant(PRINTER, "admin", "administer")
    await pass_time(3 * watched.settings.retry_most)
    assert len(watched.asked_at) == 2, "a refusal for a right is final"
    assert not revoked.is_registered
    assert await standing(farm, 1)
    with pytest.raises(RegistrationEnded):
        await revoked.fetch(0)


@rule(126)
async def test_first_registrations_refused_for_a_right_or_a_name_are_not_tried_again(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(farm, monkeypatch)
    process = await watched.broker(farm)
    await (await process.register(PRINTER, TYPE)).unregister()
    watched.asked_at.clear()
    refusals: list[TympanError] = []
    with pytest.raises(AccessDenied) as denied:
        await process.register(PRINTER, TYPE, user_filter=ALL_USERS)
    refusals.append(denied.value)
    with pytest.raises(InvalidName) as misnamed:
        await process.register(SERVER + r"\a,b", TYPE)
    refusals.append(misnamed.value)
    assert [each.result.hresult for each in refusals] == [0x8007_0005, 0x8007_007B]
    assert not any(each.retryable for each in refusals)
    await process.grant(PRINTER, "alice", "administer")
    await pass_time(3 * watched.settings.retry_most)
    assert len(watched.asked_at) == 1, "asked again by itself"
    assert await standing(farm, 0)


# NOTIFICATION_RELEASE in OnEventNotify ----------------------------------------------------------


@rule(127)
@pytest.mark.parametrize("end", ["source-closes", "source-dies", "lost", "broker-forgets"])
async def test_bidirectional_listeners_get_release_through_channel_closed_only(
    farm: Farm, end: str
) -> None:
    heard, plain = Recorder(), Recorder()
    source = await farm.broker("spooler", **QUICK)
    process, _ = await called(farm, heard, **QUICK)
    await process.listen(PRINTER, TYPE, plain)
    _, other = await listener(farm, **QUICK)
    channel = await farm.question(source)
    await heard.until(notified=1)
    match end:
        case "source-closes":
            await channel.close()
        case "source-dies":
            await pass_away(farm, source)
        case "lost":
            await (await farm.offered(other)).respond(b"mine")
        case "broker-forgets":
            await restart(farm)
    await heard.until(closed=1)
    assert [told.event for told in heard.told] == ["notified", "closed"]
    assert heard.closed[0].is_release
    assert not heard.notified[0].is_release
    assert not plain.told, "the channel was none of theirs"


@rule(127)
@pytest.mark.parametrize("style", [BIDIRECTIONAL, UNIDIRECTIONAL], ids=["bi", "uni"])
async def test_nobody_can_send_release_as_a_notification(farm: Farm, style: Any) -> None:
    heard = Recorder()
    source = await farm.broker("spooler")
    process = await farm.broker("alice")
    await process.listen(PRINTER, TYPE, heard, style=style)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=style)
    with pytest.raises(InvalidNotificationType):
        await channel.send(Data(NOTIFICATION_RELEASE))
    await channel.send(b"an ordinary one")
    await heard.until(notified=1)
    if style is BIDIRECTIONAL:
        with pytest.raises(InvalidNotificationType):
            await heard.handle.respond(Data(NOTIFICATION_RELEASE))
    assert heard.bodies == [b"an ordinary one"]


# Idleness ---------------------------------------------------------------------------------------


@rule(128)
async def test_nothing_is_closed_for_being_idle(farm: Farm) -> None:
    short: dict[str, Any] = {"lease": 1.5, "resync": 0.2, "keep_closed": 1.5}
    at_source = Recorder()
    source = await farm.broker("spooler", **short)
    process, asking = await listener(farm, **short)
    plain = await process.register(PRINTER, TYPE)
    held = await asked(source, at_source, b"x" * 50_000)
    await farm.offered(asking)
    channel, offer = await dialog(farm, source, asking, turn="owner")
    unsent = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    await pages.send(b"page 1")
    await pass_time(2 * short["lease"])
    open_now = {held.id, channel.id, unsent.id, pages.id}
    assert {each.id for each in await source.channels()} == open_now
    assert len(await source.registrations()) == 2
    for key in await farm.keys():
        if any(id_ in key for id_ in open_now):
            assert await farm.client.pttl(key) == -1, f"{key} ends by itself"
    assert not at_source.told
    assert await offer.respond(b"after a long while") == S_OK
    assert (await channel.response(PATIENCE)).data == b"after a long while"
    notification = await plain.fetch(PATIENCE)
    assert isinstance(notification, Notification)
    assert notification.data == b"page 1"
    assert await pages.send(b"page 2") == S_OK
    _, late = await listener(farm, **short)
    offer = await farm.offered(late)
    assert (offer.id, offer.notification.data) == (held.id, b"x" * 50_000)
    await unsent.send(b"at last")
    assert (await farm.offered(late)).id == unsent.id


@rule(128)
async def test_a_held_notification_kept_by_reference_has_no_time_to_live(farm: Farm) -> None:
    source = await farm.broker("spooler", keep_body=60.0)
    await farm.question(source, b"x" * 50_000)
    bodies = [key for key in await farm.keys() if ":body:" in key]
    assert len(bodies) == 1
    assert await farm.client.pttl(bodies[0]) == -1


@rule(128)
async def test_waiting_in_vain_leaves_everything_open(farm: Farm) -> None:
    source = await farm.broker("spooler")
    _, registration = await listener(farm)
    assert await registration.fetch(0.05) is None
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    with pytest.raises(ChannelError):
        await channel.response(0.05)
    assert await channel.wait_closed(0.05) is None
    await offer.respond(b"here")
    with pytest.raises(ChannelError):
        await offer.follow_up(0.05)
    assert (await channel.response(PATIENCE)).data == b"here"
    await channel.send(b"go on")
    assert (await offer.follow_up(PATIENCE)).data == b"go on"
