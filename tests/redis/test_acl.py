"""The ACL lines of the README give a print host and a listener what they need, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker
from broker.errors import AccessDenied, RedisRefused
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.servers import RedisServer

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def confined() -> Iterator[RedisServer]:
    """A redis-server with the users of the README."""
    lines = re.findall(r"^ACL SETUSER (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 2, "the README shows a print host and a listener"
    with RedisServer() as server:
        for line in lines:
            server.cli("ACL", "SETUSER", *line.split())
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


async def test_a_print_hosts_credential_stays_on_its_server(confined: RedisServer) -> None:
    async with Broker.connect(url(confined, "print01"), user="spooler") as source:
        with pytest.raises(RedisRefused):
            await source.open_channel(r"\\print02\laser-1", TYPE)
    assert not [key for key in confined.cli("KEYS", "*") if "print02" in key]
