"""A rights source of one's own is asked in the place of the grants, before and again each lease.

What it says decides; what it does not say decides nothing: a call is refused whole, and what
stands goes on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    Broker,
    Registration,
    Replica,
    ReplicaListener,
    Right,
    RightsSource,
    Style,
    Subscription,
    TympanError,
)
from broker.errors import (
    AccessDenied,
    InvalidArgument,
    RegistrationEnded,
    RightsUnavailable,
    SessionLapsed,
)
from broker.names import Name
from broker.results import S_OK
from tests.conformance.actors import eventually
from tests.dump import unchanged
from tests.farm import OTHER_PRINTER, PATIENCE, PRINTER, SERVER, TYPE, Farm
from tests.redis.scenes import BRISK, QUIET, heard

NAME = Name.parse(PRINTER)
SHORT: dict[str, Any] = {"lease": 1.0, "resync": 0.1, "retry_least": 0.02, "retry_most": 0.1}


class Directory:
    """A rights source whose answers, faults and pauses a test decides."""

    def __init__(self, *grants: tuple[str, str, Right]) -> None:
        self.grants = {(user, Name.parse(name)): right for user, name, right in grants}
        self.asked: list[tuple[str, Name]] = []
        self.fault: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def rights(self, user: str, name: Name) -> Right:
        self.asked.append((user, name))
        await self.answers.wait()
        if self.fault is not None:
            raise self.fault
        return self.grants.get((user, name), Right(0))

    async def asked_again(self) -> None:
        """Return when it was asked once more from now on, and answered."""
        count = len(self.asked)
        await eventually(lambda: len(self.asked) > count + 1, "another question")


def administers(user: str = "carol", name: str = PRINTER) -> Directory:
    right = Right.PRINTER_ACCESS_ADMINISTER
    return Directory((user, name, right if "laser" in name else Right.SERVER_ACCESS_ADMINISTER))


async def register(broker: Broker, name: str = PRINTER, **options: Any) -> Registration[Any]:
    return await broker.register(name, TYPE, user_filter=ALL_USERS, **options)


# Before -----------------------------------------------------------------------------------------


async def test_it_is_asked_in_the_place_of_the_grants(farm: Farm) -> None:
    source = administers()
    broker = await farm.broker("Carol", rights=source)
    everyones = await register(broker)
    channel = await broker.open_channel(PRINTER, TYPE, user_filter=ALL_USERS)
    assert await channel.send(b"page") == S_OK
    assert await heard(everyones) == b"page"
    assert source.asked == [("carol", NAME)] * 2, "folded, and once for each"
    assert await broker.grants() == []


async def test_a_grant_in_redis_counts_for_nothing_beside_it(farm: Farm) -> None:
    broker = await farm.broker("carol", rights=Directory())
    await broker.grant(PRINTER, "carol", "all")
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(AccessDenied, match="the rights source Directory says so") as denied:
            await register(broker)
        with pytest.raises(AccessDenied, match="carol lacks the right 'administer'"):
            await broker.open_channel(PRINTER, TYPE, user_filter=ALL_USERS)
    assert denied.value.result.hresult == 0x80070005


async def test_it_is_asked_about_the_name_itself(farm: Farm) -> None:
    """R19, and D1: all printers of a server are the server's matter."""
    broker = await farm.broker("carol", rights=administers(name=SERVER))
    await register(broker, SERVER, printers=True)
    with pytest.raises(AccessDenied):
        await register(broker, PRINTER)


@pytest.mark.parametrize(
    ("name", "missing", "strict"),
    [
        (SERVER, "SERVER_ACCESS_ADMINISTER", False),
        (PRINTER, "PRINTER_ACCESS_ADMINISTER", False),
        (SERVER, "SERVER_ALL_ACCESS", True),
    ],
)
async def test_a_denial_names_the_mask_that_it_misses(
    farm: Farm, name: str, missing: str, strict: bool
) -> None:
    """One that gives a printer's right on a server is told which the server has."""
    other = Right.SERVER_ACCESS_ADMINISTER if name == PRINTER else Right.PRINTER_ACCESS_ADMINISTER
    for source in (None, Directory(("carol", name, other))):
        broker = await farm.broker("carol", rights=source, strict_rights=strict)
        with pytest.raises(AccessDenied, match=rf"lacks the right '[a-z]+' \({missing}\) on"):
            await register(broker, name)


async def test_strict_rights_ask_it_for_the_whole_mask(farm: Farm) -> None:
    source = administers()
    broker = await farm.broker("carol", rights=source, strict_rights=True)
    with pytest.raises(AccessDenied, match="lacks the right 'all'"):
        await register(broker)
    source.grants["carol", NAME] = Right.PRINTER_ALL_ACCESS
    await register(broker)


async def test_require_use_asks_it_too_and_nothing_else_does(farm: Farm) -> None:
    source = Directory(("alice", PRINTER, Right.PRINTER_ACCESS_USE))
    free = await farm.broker("bob", rights=source)
    await free.register(PRINTER, TYPE)
    await free.open_channel(PRINTER, TYPE, user="alice")
    assert source.asked == []
    bound = await farm.broker("alice", rights=source, require_use=True)
    await bound.register(PRINTER, TYPE)
    with pytest.raises(AccessDenied, match="bob lacks the right 'use'"):
        await bound.register(PRINTER, TYPE, user="bob")


async def test_a_farm_wide_registration_asks_it_for_each_server(farm: Farm) -> None:
    source = administers(name=SERVER)
    broker = await farm.broker("carol", rights=source)
    for server in (SERVER, r"\\print02"):
        await broker.server(server)
    everywhere = await broker.register_everywhere(TYPE, user_filter=ALL_USERS)
    assert everywhere.reached == ("print01",)
    assert isinstance(everywhere.missing["print02"], AccessDenied)
    await everywhere.unregister()


async def test_who_stands_on_what_is_listed(farm: Farm) -> None:
    admin = await farm.administrator("admin", PRINTER)
    broker = await farm.broker("carol", rights=administers())
    on_grant, on_source = await register(admin), await register(broker)
    own = await broker.register(PRINTER, TYPE)
    facts = {each.id: (each.needed, each.source) for each in await broker.registrations()}
    assert facts == {
        on_grant.id: (Right.PRINTER_ACCESS_ADMINISTER, None),
        on_source.id: (Right.PRINTER_ACCESS_ADMINISTER, "Directory"),
        own.id: (Right(0), None),
    }


# Faults -----------------------------------------------------------------------------------------


async def test_a_source_that_fails_refuses_and_nothing_is_half_done(farm: Farm) -> None:
    source = administers()
    broker = await farm.broker("carol", rights=source, **QUIET)
    await broker.server(PRINTER)
    source.fault = ConnectionRefusedError("no directory today")
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        for call in (register(broker), broker.open_channel(PRINTER, TYPE, user_filter=ALL_USERS)):
            with pytest.raises(RightsUnavailable, match=r"Directory.*no directory today") as failed:
                await call
            assert failed.value.retryable
            assert failed.value.__cause__ is source.fault
            assert not failed.value.result.succeeded
    source.fault = None
    await register(broker)


async def test_a_silent_source_is_given_up(farm: Farm) -> None:
    source = administers()
    broker = await farm.broker("carol", rights=source, reply_timeout=0.1, **QUIET)
    source.answers.clear()
    with pytest.raises(RightsUnavailable, match=r"silent for 0\.1 s"):
        await register(broker)
    source.answers.set()
    await register(broker)


async def test_a_cancelled_call_leaves_nothing(farm: Farm) -> None:
    source = administers()
    broker = await farm.broker("carol", rights=source, **QUIET)
    await broker.server(PRINTER)
    source.answers.clear()
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        call = asyncio.create_task(register(broker))
        await eventually(lambda: len(source.asked) == 1, "the question")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        source.answers.set()


async def nothing(*_: object) -> Any:
    return None


async def a_word(*_: object) -> Any:
    return "administer"


@pytest.mark.parametrize("answer", [nothing, a_word, lambda *_: Right.PRINTER_ALL_ACCESS])
async def test_an_answer_that_is_no_right_is_a_fault(farm: Farm, answer: Any) -> None:
    source = administers()
    source.rights = answer  # type: ignore[method-assign]
    broker = await farm.broker("carol", rights=source)
    with pytest.raises(RightsUnavailable, match="Error: "):
        await register(broker)


@pytest.mark.parametrize("source", [object(), {}, "grants", lambda *_: Right(0)])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(InvalidArgument, match="no rights source"):
        Broker.connect(rights=source)


def test_the_protocol_is_what_a_source_implements() -> None:
    source: RightsSource = Directory()
    assert callable(source.rights)


# Each lease -------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", Style, ids=lambda style: style.word)
async def test_what_lost_its_right_ends_with_the_reason(
    farm: Farm, caplog: pytest.LogCaptureFixture, style: Style
) -> None:
    source = administers()
    source.grants["dave", NAME] = Right.PRINTER_ACCESS_ADMINISTER
    broker = await farm.broker("carol", rights=source, **SHORT)
    lost = await register(broker, style=style)
    kept = await register(broker, style=style, user="dave")
    own = await broker.register(PRINTER, TYPE, style=style)
    del source.grants["carol", NAME]
    with pytest.raises(RegistrationEnded, match="carol lacks the right 'administer'") as ended:
        await lost.fetch(PATIENCE)
    assert isinstance(ended.value.__cause__, AccessDenied)
    assert not lost.is_registered

    async def left() -> bool:
        return {each.id for each in await broker.registrations()} == {kept.id, own.id}

    await eventually(left, "its end in Redis")
    assert f"registration {lost.id} ends: carol lacks the right" in caplog.text
    await source.asked_again()
    assert kept.is_registered


async def test_a_dialog_goes_on_without_its_registration(farm: Farm) -> None:
    source = administers()
    host = await farm.broker("carol", rights=source, **SHORT)
    registration = await register(host, style=BIDIRECTIONAL)
    channel = await farm.question(host)
    offer = await farm.offered(registration)
    await offer.respond(b"yes")
    source.grants.clear()
    with pytest.raises(RegistrationEnded):
        await registration.fetch(PATIENCE)
    await channel.response(PATIENCE)
    await channel.send(b"sure?")
    assert (await offer.follow_up(PATIENCE)).data == b"sure?"
    await offer.close()


async def test_a_source_that_fails_ends_nothing(
    farm: Farm, caplog: pytest.LogCaptureFixture
) -> None:
    source = administers()
    source.grants["dave", NAME] = Right.PRINTER_ACCESS_ADMINISTER
    broker = await farm.broker("carol", rights=source, reply_timeout=0.1, **SHORT)
    registrations = [await register(broker, user=user) for user in ("carol", "dave")]
    for spoil in (True, False):
        if spoil:
            source.fault = OSError("no directory today")
        else:
            source.fault = None
            source.answers.clear()
        caplog.clear()
        await eventually(lambda: "registrations of 2 users go on" in caplog.text, "a warning")
    assert all(each.is_registered for each in registrations)
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    source.answers.set()
    await source.asked_again()
    assert all(each.is_registered for each in registrations)


async def test_each_user_and_name_is_asked_about_once(farm: Farm) -> None:
    source = administers()
    broker = await farm.broker("carol", rights=source, **SHORT)
    for _ in range(3):
        await register(broker)
    await broker.register(PRINTER, TYPE)
    source.asked.clear()
    await eventually(lambda: len(source.asked) >= 3, "three rounds")
    assert set(source.asked) == {("carol", NAME)}
    await asyncio.gather(*(each.unregister() for each in _registrations(broker)))
    source.asked.clear()
    sessions = [await broker.server(PRINTER)]
    for _ in range(3):
        await _renewed(sessions[0].settings.lease)
    assert source.asked == [], "nothing stands on it"


def _registrations(broker: Broker) -> list[Registration[Any]]:
    servers = broker._servers.values()
    return [each for server in servers for each in server.listening.registrations.values()]


async def _renewed(lease: float) -> None:
    await asyncio.sleep(lease)


async def test_it_is_asked_again_before_registering_again(farm: Farm) -> None:
    """After a lapse; while it fails the registration is tried again, and a no is final."""
    source = administers()
    broker = await farm.broker("carol", rights=source, **BRISK)
    registration = await register(broker)
    server = await broker.server(PRINTER)
    source.fault = OSError("no directory today")
    await farm.client.zadd(server.keys.leases, {server.session: 0})
    with pytest.raises(SessionLapsed):
        await server.ask(server._renewal)
    asked = len(source.asked)
    await eventually(lambda: len(source.asked) > asked + 2, "further tries")
    assert not registration.is_registered
    source.fault = None
    await eventually(lambda: registration.is_registered, "the registration")
    source.grants.clear()
    await farm.client.zadd(server.keys.leases, {server.session: 0})
    with pytest.raises(SessionLapsed):
        await server.ask(server._renewal)
    with pytest.raises(RegistrationEnded, match="lacks the right"):
        await registration.fetch(PATIENCE)
    await broker.run_down(PRINTER)


# Beside the grants ------------------------------------------------------------------------------


async def test_revoking_in_redis_ends_nothing_that_stands_on_a_source(farm: Farm) -> None:
    admin = await farm.administrator("carol", PRINTER, OTHER_PRINTER)
    broker = await farm.broker("carol", rights=administers())
    on_grant, on_source = await register(admin), await register(broker)
    await broker.revoke(PRINTER, "carol", "administer")
    with pytest.raises(RegistrationEnded, match="right revoked"):
        await on_grant.fetch(PATIENCE)
    assert [each.id for each in await admin.registrations()] == [on_source.id]
    assert on_source.is_registered


async def test_deleting_the_printer_ends_nothing_that_stands_on_a_source(farm: Farm) -> None:
    broker = await farm.broker("carol", rights=administers())
    registration = await register(broker)
    await broker.delete_printer(PRINTER)
    found = await registration.fetch(PATIENCE)
    assert getattr(found, "is_release", False)
    assert registration.is_registered


async def test_a_revocation_whose_author_died_halfway_is_finished(farm: Farm) -> None:
    """The grant is gone, what stood on it was not ended: its own process finds out."""
    broker = await farm.administrator("carol", PRINTER, **SHORT)
    registration = await register(broker)
    server = await broker.server(PRINTER)
    await farm.client.hdel(server.keys.grants, "laser-3|carol")
    with pytest.raises(RegistrationEnded, match="carol lacks the right 'administer'"):
        await registration.fetch(PATIENCE)

    async def is_gone() -> bool:
        return await broker.registrations() == []

    await eventually(is_gone, "its end in Redis")


async def test_a_pool_ends_with_the_right_that_a_source_took_back(real_farm: Farm) -> None:
    source = administers()
    broker = await real_farm.broker("carol", rights=source, **SHORT)
    told: list[TympanError] = []

    class Told(ReplicaListener):
        def ended(self, replica: Replica[Any], cause: TympanError) -> None:  # noqa: ARG002
            told.append(cause)

    wish = Subscription(PRINTER, TYPE, "carol", user_filter=ALL_USERS)
    await broker.pools.join("desk", wish, Told())
    await source.asked_again()
    assert len(await broker.pools.on_server(PRINTER)) == 1
    source.grants.clear()
    await eventually(lambda: bool(told), "the end of the pool")
    assert isinstance(told[0], AccessDenied)
    assert await broker.pools.on_server(PRINTER) == []
