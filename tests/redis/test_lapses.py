"""A lapse in the middle of a call: Redis has made something, for a session that is over by then."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from broker import BIDIRECTIONAL, Broker
from broker._link import Link
from broker._scripts import OPEN, REGISTER, Arg, Call, Script
from broker._server import Server
from broker.errors import SessionLapsed
from broker.results import S_OK
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.redis.scenes import QUIET


async def lapses_after(
    farm: Farm, broker: Broker, script: Script, patch: pytest.MonkeyPatch
) -> Server:
    """The process's session ends while the next answer to this script is on its way."""
    server = await broker.server(PRINTER)
    run = Link.run

    async def answered_late(link: Link, call: Call, lead: Sequence[Arg]) -> list[Any]:
        reply: list[Any] = await run(link, call, lead)
        if call.script is script:
            patch.undo()
            await farm.client.zadd(server.keys.leases, {server.session: 0})
            with contextlib.suppress(SessionLapsed):
                await server.ask(server._renewal)
        return reply

    patch.setattr(Link, "run", answered_late)
    return server


async def test_a_channel_is_opened_by_the_session_that_uses_it(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, listener = await farm.broker("spooler", **QUIET), await farm.broker(**QUIET)
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    server = await lapses_after(farm, source, OPEN, monkeypatch)
    channel = await source.open_channel(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    assert server.lapses == 1
    await listener.run_down(PRINTER)
    assert [each.id for each in await source.channels()] == [channel.id]
    await channel.send(b"continue?")
    assert await (await farm.offered(registration)).respond(b"yes") == S_OK
    assert (await channel.response(PATIENCE)).data == b"yes"


async def test_a_registration_is_made_by_the_session_that_listens(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, listener = await farm.broker("spooler", **QUIET), await farm.broker(**QUIET)
    server = await lapses_after(farm, listener, REGISTER, monkeypatch)
    registration = await listener.register(PRINTER, TYPE)
    assert server.lapses == 1
    await source.run_down(PRINTER)
    assert [each.id for each in await source.registrations()] == [registration.id]
    channel = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await channel.send(b"page") == S_OK
    notification = await registration.fetch(PATIENCE)
    assert notification is not None
    assert registration.unread == 0
