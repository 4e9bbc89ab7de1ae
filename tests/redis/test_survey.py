"""A survey finds what stands on each server, begins no session, and outlives a part of the farm."""

from __future__ import annotations

import pytest

from broker import BIDIRECTIONAL, Broker, Name
from broker._keys import Keys
from broker.errors import RedisError
from tests.farm import OTHER_SERVER, PATIENCE, PRINTER, SERVER, TYPE, Farm
from tests.redis.pooling import QUESTIONS, Member
from tests.redis.scenes import QUIET, clock


async def test_questions_and_dialogs_that_are_not_closed(farm: Farm) -> None:
    source = await farm.broker(**QUIET)
    listener = await source.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    await source.open_channel(PRINTER, TYPE)
    await source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    began = await clock(farm.client)
    owned, asked, over = [await farm.question(source) for _ in range(3)]
    for channel in (owned, over):
        offer = await farm.offered(listener)
        while offer.id != channel.id:
            offer = await farm.offered(listener)
        await offer.respond(b"yes")
        await channel.response(PATIENCE)
    await over.close()
    (survey,) = await source.survey(PRINTER)
    assert {(one.id, one.state, one.owner) for one in survey.questions} == {
        (owned.id, "answered", "alice"),
        (asked.id, "offered", None),
    }
    assert all(began - 0.01 <= one.opened_at <= survey.now for one in survey.questions)
    assert survey.server.channels == 4
    assert [one.id for one in survey.registrations] == [listener.id]


async def test_it_begins_no_session_and_makes_no_server(farm: Farm) -> None:
    member = await Member.join(farm, QUESTIONS)
    await member.broker.server(OTHER_SERVER)
    await farm.question(member.broker)
    await (await member.offer()).bury("it burns")
    looker = await farm.broker("looker", **QUIET)
    here, there = await looker.survey()
    assert (here.name, there.name) == (Name.parse(SERVER), Name.parse(OTHER_SERVER))
    (pool,) = here.pools
    assert (pool.backlog, pool.replicas) == (0, (member.replica.server.session,))
    assert here.letters == 1
    assert here.last_letter is not None
    assert here.last_letter.reason == "it burns"
    assert (there.pools, there.questions, there.letters, there.last_letter) == ((), (), 0, None)
    assert await looker.survey(r"\\nowhere") == []
    assert [survey.name for survey in await looker.survey(OTHER_SERVER)] == [there.name]
    assert await looker.pools.on_server(SERVER) == [pool]
    assert abs(await looker.clock(SERVER) - await clock(farm.client)) < PATIENCE
    assert await sessions(farm, "print01", "print03") == [1, 1]
    assert await looker.servers() == ["print01", "print03"]
    await member.broker.pools.delete(member.replica.pool, SERVER)


async def test_lists_begin_no_session_either(farm: Farm) -> None:
    source = await farm.broker("admin", **QUIET)
    channel = await source.open_channel(PRINTER, TYPE)
    registration = await source.register(PRINTER, TYPE)
    await source.grant(PRINTER, "alice", "use")
    looker = await farm.broker("looker", **QUIET)
    for name in (None, SERVER, PRINTER):
        assert [one.id for one in await looker.channels(name)] == [channel.id]
        assert [one.id for one in await looker.registrations(name)] == [registration.id]
        assert [one.user for one in await looker.grants(name)] == ["alice"]
    shown = await looker.show(channel.id)
    assert shown is not None
    assert shown[0].id == channel.id
    assert await looker.channels(OTHER_SERVER) == []
    assert await looker.servers() == ["print01"]
    assert await sessions(farm, "print01", "print03") == [1, 0]


async def test_an_overview_of_a_farm_that_cannot_be_read_everywhere(farm: Farm) -> None:
    source: Broker = await farm.broker(**QUIET)
    channel = await source.open_channel(PRINTER, TYPE)
    await source.server(OTHER_SERVER)
    channels = Keys(farm.namespace, "print03").channels
    await farm.client.set(channels, "somebody else's")
    whole, broken = await source.overview()
    assert (whole.channels, whole.unread) == (1, None)
    assert (broken.name, broken.channels) == (Name.parse(OTHER_SERVER), 0)
    assert isinstance(broken.unread, RedisError)
    with pytest.raises(RedisError):
        await source.channels()
    assert [one.id for one in await source.channels(SERVER)] == [channel.id]
    shown = await source.show(channel.id)
    assert shown is not None
    await farm.client.delete(channels)


async def sessions(farm: Farm, *servers: str) -> list[int]:
    return [int(await farm.client.zcard(Keys(farm.namespace, one).leases)) for one in servers]


async def test_a_server_that_cannot_be_read_says_why_and_the_others_are_there(farm: Farm) -> None:
    source: Broker = await farm.broker(**QUIET)
    await source.server(SERVER)
    await source.server(OTHER_SERVER)
    pools = Keys(farm.namespace, "print01").pools
    await farm.client.set(pools, "somebody else's")
    broken, whole = await source.survey()
    assert isinstance(broken.unread, RedisError)
    assert (broken.name, broken.now, broken.pools) == (Name.parse(SERVER), 0.0, ())
    assert whole.unread is None
    assert whole.server.sessions == 1
    await farm.client.delete(pools)
