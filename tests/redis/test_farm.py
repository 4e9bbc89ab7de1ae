"""One listener for the whole farm: servers come and go, refuse, and are away, and it goes on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    Broker,
    Channel,
    FarmRegistration,
    Name,
    Notification,
    Offer,
)
from broker import sync as plain
from broker._keys import Keys, directory
from broker.errors import (
    AccessDenied,
    AlreadyUnregistered,
    CallAlreadyParked,
    ForeignLayout,
    InvalidArgument,
    RegistrationEnded,
    ServerInUse,
)
from broker.results import (
    ALREADY_UNREGISTERED,
    LOCAL_ONLY_REGISTRATION,
    REMOTE_ONLY_REGISTRATION,
    S_OK,
)
from tests.conformance.actors import Recorder, eventually
from tests.conformance.listening import parked
from tests.farm import PATIENCE, TYPE, Answer, Farm, OutOfPaper, RedisBackend
from tests.redis.scenes import QUIET
from tests.servers import RedisServer

BRISK: dict[str, Any] = {
    "lease": 60.0,
    "resync": 0.1,
    "retry_least": 0.05,
    "retry_most": 0.1,
}
HINTED: dict[str, Any] = {**QUIET, "retry_least": 0.05, "retry_most": 0.1}
"""Nothing is noticed by the clock but what is tried again."""


async def opened(source: Broker, *servers: str, user: str = "alice") -> list[Channel]:
    """A channel on each of these servers, which are known from then on."""
    return [await source.open_channel(rf"\\{server}", TYPE, user=user) for server in servers]


async def told(registration: FarmRegistration[Any]) -> tuple[str, bytes | None]:
    """Server and bytes of the next notification."""
    found = await registration.fetch(PATIENCE)
    assert isinstance(found, Notification), f"nothing came within {PATIENCE:g} s"
    return found.name.server, found.data


async def reaches(registration: FarmRegistration[Any], *servers: str) -> None:
    """Wait until it stands on exactly these."""
    await eventually(lambda: registration.reached == servers, f"registrations on {servers}")


async def standing(farm: Farm, server: str) -> int:
    """How many registrations a server has."""
    return int(await farm.client.hlen(Keys(farm.namespace, server).registrations))


async def leases(farm: Farm, server: str) -> int:
    """How many sessions a server has."""
    return int(await farm.client.zcard(Keys(farm.namespace, server).leases))


# Every server -----------------------------------------------------------------------------------


async def test_it_hears_every_server_by_its_own_name(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    channels = await opened(source, "print01", "print02", "print03")
    await source.add_alias("p3", "print03")
    registration = await listener.register_everywhere(TYPE)
    assert registration.reached == ("print01", "print02", "print03")
    assert registration.missing == {}
    assert registration.result == S_OK
    for channel in channels:
        assert await channel.send(b"page") == S_OK
    heard = {await told(registration) for _ in channels}
    assert heard == {("print01", b"page"), ("print02", b"page"), ("print03", b"page")}


async def test_it_hears_printers_where_it_asks_for_them(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    channel = await source.open_channel(r"\\print01\laser-3", TYPE, user="alice")
    servers = await listener.register_everywhere(TYPE)
    printers = await listener.register_everywhere(TYPE, printers=True)
    await channel.send(b"page")
    found = await printers.fetch(PATIENCE)
    assert isinstance(found, Notification)
    assert found.name == Name("print01", "laser-3")
    assert await servers.fetch(0) is None


async def test_questions_are_offered_and_answered(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    await opened(source, "print01", "print02")
    registration = await listener.register_everywhere(OutOfPaper, style=BIDIRECTIONAL)
    for server in ("print02", "print01"):
        channel = await source.open_channel(
            rf"\\{server}", OutOfPaper, user="alice", style=BIDIRECTIONAL
        )
        await channel.send(OutOfPaper(tray=2))
        offer = await registration.fetch(PATIENCE)
        assert isinstance(offer, Offer)
        assert offer.payload.tray == 2
        await offer.respond(Answer(proceed=True))
        assert (await channel.response(PATIENCE)).payload == Answer(proceed=True)


async def test_a_server_that_comes_later_is_reached_by_the_hint(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice", **HINTED)
    registration = await listener.register_everywhere(TYPE)
    assert registration.reached == ()
    assert registration.result == S_OK, "there is no server yet"
    known: tuple[str, ...] = ()
    for server in ("print01", "print02"):
        (channel,) = await opened(source, server)
        known = (*known, server)
        await reaches(registration, *known)
        await channel.send(b"page")
        assert await told(registration) == (server, b"page")


async def test_a_server_that_comes_later_is_reached_by_the_clock(farm: Farm) -> None:
    """Its hint was lost."""
    listener = await farm.broker("alice", **BRISK)
    registration = await listener.register_everywhere(TYPE)
    key: Any = directory(farm.namespace)
    await farm.client.hset(key, "print01", "print01")
    await reaches(registration, "print01")


async def test_servers_take_turns(farm: Farm) -> None:
    """One that says much does not keep the others waiting; each channel keeps its order (D23)."""
    source, listener = await farm.broker("spooler"), await farm.broker("alice", **QUIET)
    loud, quiet, other = await opened(source, "print01", "print02", "print03")
    registration = await listener.register_everywhere(TYPE)
    for n in range(50):
        await loud.send(b"%d" % n)
    for n in range(3):
        await quiet.send(b"%d" % n)
        await other.send(b"%d" % n)

    def has_all() -> bool:
        held = listener._servers.values()
        waiting = [r for s in held for r in s.listening.registrations.values()]
        return sum(each.unread for each in waiting) == 56

    await eventually(has_all, "all that was sent")
    heard = [await told(registration) for _ in range(56)]
    assert {server for server, _ in heard[:9]} == {"print01", "print02", "print03"}
    assert [server for server, _ in heard[9:]] == ["print01"] * 47
    for server, many in (("print01", 50), ("print02", 3), ("print03", 3)):
        assert [data for name, data in heard if name == server] == [b"%d" % n for n in range(many)]


# Servers that refuse, or are away ---------------------------------------------------------------


async def granted(farm: Farm, *servers: str, user: str = "carol") -> Broker:
    """An operator; the user administers these servers."""
    operator = await farm.broker("operator")
    for server in servers:
        await operator.grant(rf"\\{server}", user, "administer")
    return operator


async def test_a_server_that_denies_is_not_asked_again_until_it_is_said(farm: Farm) -> None:
    operator = await granted(farm, "print01")
    await opened(operator, "print02")
    listener = await farm.broker("carol", **BRISK)
    registration = await listener.register_everywhere(TYPE, user_filter=ALL_USERS)
    assert registration.reached == ("print01",)
    assert isinstance(registration.missing["print02"], AccessDenied)
    assert r"\\print02" in str(registration.missing["print02"])
    assert await leases(farm, "print02") == 1, "a listener that is refused holds nothing there"

    await operator.grant(r"\\print02", "carol", "administer")
    await operator.grant(r"\\print03", "carol", "administer")
    await reaches(registration, "print01", "print03")
    assert isinstance(registration.missing["print02"], AccessDenied), "R126"
    assert await registration.retry() == S_OK
    assert registration.missing == {}


async def test_a_server_that_is_away_does_not_end_the_others_and_is_tried_again(
    farm: Farm,
) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice", **HINTED)
    (channel,) = await opened(source, "print01")
    await source.add_alias("p2", "print02")
    meta = Keys(farm.namespace, "print02").meta
    await farm.client.rpush(meta, "theirs")
    registration = await listener.register_everywhere(TYPE)
    assert registration.reached == ("print01",)
    assert isinstance(registration.missing["print02"], ForeignLayout)
    await channel.send(b"page")
    assert await told(registration) == ("print01", b"page")

    await farm.client.delete(meta)
    await reaches(registration, "print01", "print02")
    assert registration.missing == {}


async def test_where_every_server_denies_it_is_an_error_and_nothing_stands(farm: Farm) -> None:
    operator = await farm.broker("operator")
    await opened(operator, "print01", "print02")
    listener = await farm.broker("carol", **BRISK)
    with pytest.raises(AccessDenied, match="none of 2 servers"):
        await listener.register_everywhere(TYPE, user_filter=ALL_USERS)
    for server in ("print01", "print02"):
        assert await standing(farm, server) == 0
        assert await leases(farm, server) == 1, "the operator's"
    await granted(farm, "print03")
    await eventually(lambda: listener._sessions._followers == [], "no follower")


async def test_what_no_server_could_accept_is_an_error(farm: Farm) -> None:
    listener = await farm.broker("alice")
    await opened(listener, "print01")
    with pytest.raises(InvalidArgument, match="buffer"):
        await listener.register_everywhere(TYPE, buffer=0)
    with pytest.raises(InvalidArgument, match="callback"):
        await listener.listen_everywhere(TYPE, None)  # type: ignore[arg-type]
    assert await listener.registrations() == []


async def test_a_right_that_is_taken_away_on_one_server_ends_it_there(farm: Farm) -> None:
    operator = await granted(farm, "print01", "print02")
    listener = await farm.broker("carol", **BRISK)
    registration = await listener.register_everywhere(TYPE, user_filter=ALL_USERS)
    await operator.revoke(r"\\print02", "carol", "administer")
    await reaches(registration, "print01")
    assert isinstance(registration.missing["print02"], RegistrationEnded)
    (channel,) = await opened(operator, "print01")
    await channel.send(b"page")
    assert await told(registration) == ("print01", b"page")


async def test_a_right_that_is_taken_away_everywhere_ends_it(farm: Farm) -> None:
    operator = await granted(farm, "print01", "print02")
    listener = await farm.broker("carol", **BRISK)
    registration = await listener.register_everywhere(TYPE, user_filter=ALL_USERS)
    waiting = await parked(registration.fetch())
    for server in ("print01", "print02"):
        await operator.revoke(rf"\\{server}", "carol", "administer")
    with pytest.raises(RegistrationEnded):
        await asyncio.wait_for(waiting, PATIENCE)
    with pytest.raises(RegistrationEnded):
        await registration.fetch()
    assert registration.reached == ()

    async def has_left() -> bool:
        return [await leases(farm, server) for server in ("print01", "print02")] == [1, 1]

    await eventually(has_left, "the end of its sessions")


# Servers that are forgotten ---------------------------------------------------------------------


@pytest.mark.parametrize("settings", [HINTED, BRISK], ids=["by the hint", "by the clock"])
async def test_a_forgotten_server_is_left_and_does_not_come_back(
    farm: Farm, settings: dict[str, Any]
) -> None:
    source, operator = await farm.broker("spooler"), await farm.broker("operator")
    listener = await farm.broker("alice", **settings)
    await opened(source, "print01", "print02")
    registration = await listener.register_everywhere(TYPE)
    with pytest.raises(ServerInUse):
        await operator.forget_server("print02")
    await source.close()
    await operator.forget_server("print02")
    await reaches(registration, "print01")

    async def has_left() -> bool:
        return await leases(farm, "print02") + await standing(farm, "print02") == 0

    await eventually(has_left, "the end of the session there")
    assert await operator.servers() == ["print01"]
    (channel,) = await opened(operator, "print02")
    await reaches(registration, "print01", "print02")
    await channel.send(b"page")
    assert await told(registration) == ("print02", b"page")


async def test_a_directory_that_redis_lost_is_not_taken_for_forgotten(farm: Farm) -> None:
    """Nobody but the listener uses these servers: it alone knows that they were there."""
    source, listener = await farm.broker("spooler"), await farm.broker("alice", **BRISK)
    await opened(source, "print01", "print02")
    registration = await listener.register_everywhere(TYPE)
    await source.close()
    await farm.client.delete(directory(farm.namespace))
    operator = await farm.broker("operator")
    (channel,) = await opened(operator, "print03")
    await reaches(registration, "print01", "print02", "print03")
    assert await operator.servers() == ["print01", "print02", "print03"]
    await channel.send(b"page")
    assert await told(registration) == ("print03", b"page")


async def test_what_another_listener_holds_keeps_a_server_although_it_listens_everywhere(
    farm: Farm,
) -> None:
    listener, operator = await farm.broker("alice"), await farm.broker("operator")
    await opened(operator, "print01")
    await listener.register_everywhere(TYPE)
    own = await listener.register(r"\\print01", TYPE)
    await operator.close()
    with pytest.raises(ServerInUse, match="1 registration"):
        await (await farm.broker("operator")).forget_server("print01")
    await own.unregister()
    await (await farm.broker("operator")).forget_server("print01")


# The own server ---------------------------------------------------------------------------------


async def test_the_own_server_is_listened_to_before_anybody_knows_it(farm: Farm) -> None:
    listener = await farm.broker("alice", server="print01")
    registration = await listener.register_everywhere(TYPE)
    assert registration.reached == ("print01",)
    assert await listener.servers() == ["print01"]


@pytest.mark.parametrize(
    ("grants", "result"),
    [
        (("print01",), LOCAL_ONLY_REGISTRATION),
        (("print02",), REMOTE_ONLY_REGISTRATION),
        (("print02", "print03"), REMOTE_ONLY_REGISTRATION),
        (("print01", "print02"), S_OK),
        (("print01", "print02", "print03"), S_OK),
    ],
)
async def test_the_result_says_which_side_was_reached(
    farm: Farm, grants: tuple[str, ...], result: object
) -> None:
    operator = await granted(farm, *grants)
    await opened(operator, "print01", "print02", "print03")
    await operator.add_alias("p1", "print01")
    listener = await farm.broker("carol", server="p1")
    registration = await listener.register_everywhere(TYPE, user_filter=ALL_USERS)
    assert registration.result == result
    assert registration.reached == grants


# Its life ---------------------------------------------------------------------------------------


async def test_unregistering_ends_it_everywhere(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice", **BRISK)
    channels = await opened(source, "print01", "print02")
    registration = await listener.register_everywhere(TYPE)
    for channel in channels:
        await channel.send(b"dropped")
    assert await told(registration) in (("print01", b"dropped"), ("print02", b"dropped"))
    assert await registration.unregister() == S_OK
    assert await registration.unregister() == ALREADY_UNREGISTERED
    for server in ("print01", "print02"):
        assert await standing(farm, server) == 0
        assert await leases(farm, server) == 1, "the source's; the listener's was only borrowed"
    with pytest.raises(AlreadyUnregistered):
        await registration.fetch()
    assert [item async for item in registration] == []


async def test_a_session_that_is_used_otherwise_stays(farm: Farm) -> None:
    listener = await farm.broker("alice")
    (channel,) = await opened(listener, "print01")
    own = await listener.register(r"\\print01", TYPE)
    registration = await listener.register_everywhere(TYPE)
    await registration.unregister()
    await channel.send(b"page")
    found = await own.fetch(PATIENCE)
    assert isinstance(found, Notification)
    assert found.data == b"page"


async def test_a_waiting_fetch_ends_with_it(farm: Farm) -> None:
    listener = await farm.broker("alice")
    await opened(listener, "print01")
    registration = await listener.register_everywhere(TYPE)
    waiting = await parked(registration.fetch())
    with pytest.raises(CallAlreadyParked):
        await registration.fetch()
    await registration.unregister()
    with pytest.raises(RegistrationEnded):
        await waiting


async def test_its_block_ends_it(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    (channel,) = await opened(source, "print01")
    async with await listener.register_everywhere(TYPE) as registration:
        await channel.send(b"page")
        async for item in registration:
            assert item.data == b"page"
            break
    assert await standing(farm, "print01") == 0


async def test_a_closed_broker_ends_it(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice", **BRISK)
    await opened(source, "print01", "print02")
    registration = await listener.register_everywhere(TYPE)
    waiting = await parked(registration.fetch())
    await listener.close()
    with pytest.raises(RegistrationEnded, match="broker was closed"):
        await waiting
    for server in ("print01", "print02"):
        assert await standing(farm, server) == 0
        assert await leases(farm, server) == 1


async def test_a_fetch_gives_up_after_its_time_and_a_cancelled_one_loses_nothing(
    farm: Farm,
) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    (channel,) = await opened(source, "print01")
    registration = await listener.register_everywhere(TYPE)
    assert await registration.fetch(0.01) is None
    waiting = await parked(registration.fetch())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await channel.send(b"page")
    assert await told(registration) == ("print01", b"page")


async def test_a_callback_hears_it_all(farm: Farm) -> None:
    source, listener = await farm.broker("spooler"), await farm.broker("alice")
    channels = await opened(source, "print01", "print02")
    recorder = Recorder()
    async with await listener.listen_everywhere(TYPE, recorder):
        for channel in channels:
            await channel.send(b"page")
        await recorder.until(notified=2)
        assert {each.name.server for each in recorder.notified} == {"print01", "print02"}


async def test_it_stands_again_after_redis_forgot_everything() -> None:
    with RedisServer() as server:
        async with Farm(RedisBackend(server)) as farm:
            listener = await farm.broker("alice", **BRISK | {"lease": 2.0})
            source = await farm.broker("spooler", **BRISK | {"lease": 2.0})
            await opened(source, "print01", "print02")
            registration = await listener.register_everywhere(TYPE)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
            await farm.client.connection_pool.disconnect()

            async def stands() -> bool:
                return [await standing(farm, name) for name in ("print01", "print02")] == [1, 1]

            await eventually(stands, "the registrations made again", 3 * PATIENCE)
            await reaches(registration, "print01", "print02")
            for channel in await opened(source, "print01", "print02"):
                await channel.send(b"page")
            assert {await told(registration) for _ in range(2)} == {
                ("print01", b"page"),
                ("print02", b"page"),
            }


async def test_plain_code_listens_everywhere_too(redis_server: RedisServer) -> None:
    def work() -> None:
        options: dict[str, Any] = {"namespace": "farm-of-plain-code", "user": "alice"}
        with (
            plain.Broker.connect(redis_server.url, **options) as source,
            plain.Broker.connect(redis_server.url, **options) as listener,
        ):
            channel = source.open_channel(r"\\print01", TYPE)
            assert source.add_alias("p1", "print01") == "print01"
            assert source.aliases() == {"p1": "print01"}
            with listener.register_everywhere(TYPE) as registration:
                assert (registration.reached, registration.missing) == (("print01",), {})
                assert registration.result == registration.retry() == S_OK
                channel.send(b"page")
                for item in registration:
                    assert item.data == b"page"
                    break
            recorded: list[str] = []
            is_over = threading.Event()

            class Heard:
                def on_event_notify(self, _: object, notification: Notification[Any]) -> None:
                    recorded.append(notification.name.server)
                    registration.unregister()
                    is_over.set()

                def channel_closed(self, *_: object) -> None:
                    raise AssertionError("no channel")

            registration = listener.listen_everywhere(TYPE, Heard())
            channel.send(b"page")
            assert is_over.wait(PATIENCE)
            assert list(registration) == []
            assert recorded == ["print01"]
            channel.close()
            assert [facts.name.server for facts in source.overview()] == ["print01"]
            assert source.remove_alias("p1") == "print01"
        with plain.Broker.connect(redis_server.url, **options) as operator:
            assert operator.forget_server("print01") == []

    await asyncio.to_thread(work)
