"""The ACL lines of the README give a print host and a listener what they need, and no more."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Subscription
from broker.errors import AccessDenied, RedisRefused
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.redis.pooling import Member, end_pools
from tests.redis.scenes import QUIET
from tests.servers import RedisServer
from tests.told import README, acl_commands, type_at

ALERTS = Subscription(PRINTER, TYPE, user="desk")
QUESTIONS = Subscription(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)


@pytest.fixture
def confined() -> Iterator[RedisServer]:
    """A redis-server with the users of the README."""
    with RedisServer() as server:
        for command in acl_commands().values():
            type_at(server, command)
        yield server


def url(server: RedisServer, user: str) -> str:
    return f"redis://{user}:secret@127.0.0.1:{server.port}/0"


async def test_a_dialog_runs_between_the_two_credentials(confined: RedisServer) -> None:
    async with (
        Broker.connect(url(confined, "print01"), user="spooler") as source,
        Broker.connect(url(confined, "helpdesk"), user="desk") as listener,
    ):
        questions = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        channel = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
        await channel.send(b"x" * 20_000)
        (offer,) = await questions.fetch_offers(PATIENCE)
        await offer.respond(b"yes")
        assert (await channel.response(PATIENCE)).data == b"yes"
        await channel.send(b"sure?")
        assert (await offer.follow_up(PATIENCE)).data == b"sure?"
        await offer.close(b"quite")
        assert (await channel.response(PATIENCE)).is_final


async def test_a_listeners_credential_opens_no_channel(confined: RedisServer) -> None:
    async with Broker.connect(url(confined, "helpdesk"), user="desk") as listener:
        with pytest.raises(AccessDenied):
            await listener.open_channel(PRINTER, TYPE)
        assert await listener.channels() == []


async def test_a_listener_for_all_users_needs_the_grants(confined: RedisServer) -> None:
    async with (
        Broker.connect(confined.url, user="root") as operator,
        Broker.connect(url(confined, "helpdesk"), user="desk") as listener,
    ):
        await operator.grant(PRINTER, "desk", "administer")
        with pytest.raises(RedisRefused):
            await listener.register(PRINTER, TYPE, user_filter=ALL_USERS)
        with pytest.raises(RedisRefused):
            await listener.grant(PRINTER, "desk", "all")
        confined.cli("ACL", "SETUSER", "helpdesk", "~tympan:{*}:grants")
        await listener.register(PRINTER, TYPE, user_filter=ALL_USERS)


async def test_a_listeners_credential_deletes_no_printer(confined: RedisServer) -> None:
    """Who may not give rights may not take away the printer that they are for."""
    async with (
        Broker.connect(url(confined, "print01"), user="spooler") as source,
        Broker.connect(url(confined, "helpdesk"), user="desk") as listener,
    ):
        alerts = await listener.register(PRINTER, TYPE)
        with pytest.raises(RedisRefused):
            await listener.delete_printer(PRINTER)
        channel = await source.open_channel(PRINTER, TYPE, user="desk")
        with pytest.raises(RedisRefused):
            await listener.delete_printer(PRINTER)
        await channel.send(b"still here")
        found = await alerts.fetch(PATIENCE)
        assert getattr(found, "data", None) == b"still here"
        assert (await source.delete_printer(PRINTER)).told == 1
        found = await alerts.fetch(PATIENCE)
        assert getattr(found, "is_release", False)


async def test_a_listeners_credential_serves_pools(confined: RedisServer) -> None:
    async with (
        Broker.connect(url(confined, "print01"), user="spooler") as source,
        Broker.connect(url(confined, "helpdesk"), user="desk") as listener,
        Broker.connect(url(confined, "helpdesk"), user="desk") as another,
    ):
        member = await Member.of(listener, ALERTS)
        channel = await source.open_channel(PRINTER, TYPE, user="desk")
        for body in (b"small", b"x" * 20_000, b"poison"):
            await channel.send(body)
        first, second, third = await member.take(3)
        await first.done()
        await second.hand_back()
        again = await member.delivery()
        assert (again.notification.data, again.times) == (b"x" * 20_000, 2)
        await again.done()
        letter = await third.bury("it burns")
        await listener.dead_letters.replay(PRINTER, letter)
        assert await member.drain() == [b"poison"]
        (ended,) = await listener.pools.delete("helpdesk", PRINTER)
        assert ended.backlog == 0

        one, other = await Member.of(listener, QUESTIONS), await Member.of(another, QUESTIONS)
        channel = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
        await channel.send(b"continue?")
        await (await one.offer()).respond(b"yes")
        await one.replica.leave()
        dialog = await other.offer()
        await channel.send(b"sure?")
        await dialog.respond(b"yes")  # once more from the beginning of the turn
        assert (await dialog.follow_up(PATIENCE)).data == b"sure?"
        await dialog.respond(b"quite")
        assert [(await channel.response(PATIENCE)).data for _ in range(2)] == [b"yes", b"quite"]
        await end_pools(listener)


async def test_a_pool_for_all_users_needs_the_grants(confined: RedisServer) -> None:
    everybody = Subscription(PRINTER, TYPE, user="desk", user_filter=ALL_USERS)
    async with (
        Broker.connect(confined.url, user="root") as operator,
        Broker.connect(url(confined, "helpdesk"), user="desk") as listener,
    ):
        await operator.grant(PRINTER, "desk", "administer")
        with pytest.raises(RedisRefused):
            await listener.pools.create("helpdesk", everybody)
        assert await listener.pools.on_server(PRINTER) == []
        confined.cli("ACL", "SETUSER", "helpdesk", "~tympan:{*}:grants")
        assert await listener.pools.create("helpdesk", everybody)


@pytest.fixture
def narrow(confined: RedisServer) -> RedisServer:
    """The print host is only to send to pools."""
    text = README.read_text(encoding="utf-8")
    (patterns,) = re.findall(r"only to send to them gets\s+`([^`]+)` in the place", text)
    command = acl_commands()["print01"].replace("'~tympan:{print01}:*'", patterns, 1)
    assert patterns in command, "its first pattern is there to be replaced"
    type_at(confined, command.replace(" print01 ", " print01 reset ", 1))
    return confined


async def test_a_print_host_may_be_kept_from_all_but_sending_to_pools(narrow: RedisServer) -> None:
    async with (
        Broker.connect(url(narrow, "print01"), user="spooler") as source,
        Broker.connect(url(narrow, "helpdesk"), user="desk") as listener,
    ):
        with pytest.raises(RedisRefused):
            await source.pools.create("helpdesk", ALERTS)
        member = await Member.of(listener, ALERTS)
        with pytest.raises(RedisRefused):
            await Member.of(source, ALERTS)
        await member.is_idle()
        channel = await source.open_channel(PRINTER, TYPE, user="desk")
        await channel.send(b"x" * 20_000)
        taken = await member.delivery()
        assert taken.notification.data == b"x" * 20_000
        with pytest.raises(RedisRefused):
            await source.pools.delete("helpdesk", PRINTER)
        letter = await taken.bury("it burns")
        for change in (source.dead_letters.replay, source.dead_letters.drop):
            with pytest.raises(RedisRefused):
                await change(PRINTER, letter)
        (facts,) = await source.pools.on_server(PRINTER)
        assert (facts.backlog, facts.denied) == (0, 0)
        (left,) = await source.dead_letters.on_server(PRINTER)
        assert left.reason == "it burns"
        await end_pools(listener)


async def test_such_a_print_host_runs_down_what_it_may(narrow: RedisServer) -> None:
    """A dead replica's dialog is no obstacle to what else the dead held."""
    async with (
        Broker.connect(url(narrow, "print01"), user="spooler", **QUIET) as source,
        Broker.connect(url(narrow, "helpdesk"), user="desk", **QUIET) as listener,
        Broker.connect(url(narrow, "helpdesk"), user="desk", **QUIET) as alive,
        Broker.connect(url(narrow, "print01"), user="spooler", **QUIET) as gone,
    ):
        member = await Member.of(listener, QUESTIONS)
        channel = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
        await channel.send(b"continue?")
        await (await member.offer()).respond(b"yes")
        left = await gone.open_channel(PRINTER, TYPE, user="desk")
        keys = (await source.server(PRINTER)).keys
        dead = [await listener.server(PRINTER), await gone.server(PRINTER)]
        narrow.cli("ZADD", keys.leases, *(part for on in dead for part in ("0", on.session)))
        assert await source.run_down(PRINTER) == 1
        assert left.id not in {facts.id for facts in await source.channels()}
        other = await Member.of(alive, QUESTIONS)
        assert await alive.run_down(PRINTER) == 1
        assert (await other.offer()).id == channel.id
        await end_pools(alive)


async def test_a_print_hosts_credential_stays_on_its_server(confined: RedisServer) -> None:
    async with Broker.connect(url(confined, "print01"), user="spooler") as source:
        with pytest.raises(RedisRefused):
            await source.open_channel(r"\\print02\laser-1", TYPE)
    assert not [key for key in confined.cli("KEYS", "*") if "print02" in key]


@pytest.mark.parametrize(
    ("part", "more"),
    [("to:", ()), ("meta", ("&tympan:{print02}:*",)), ("channels", ())],
    ids=["bells", "scripts", "reading"],
)
async def test_a_refusal_names_the_key_and_who_tells_more(
    confined: RedisServer, part: str, more: tuple[str, ...]
) -> None:
    """Redis itself says only that it was one of the keys, or of the channels."""
    confined.cli("ACL", "SETUSER", "print01", *more)
    confined.cli("HSET", "tympan:servers", "print02", "print02")
    async with Broker.connect(url(confined, "print01"), user="spooler") as source:
        call: Callable[[str], Awaitable[Any]] = partial(source.grant, user="alice", right="use")
        if part == "channels":
            call = source.channels
        with pytest.raises(RedisRefused) as found:
            await call(r"\\print02\laser-1")
    assert f"(tympan:{{print02}}:{part}" in str(found.value)
    assert r"`tympan doctor '\\print02'` says what it may do there" in str(found.value)
