"""One server has many names, and is one server: in every call, and in races for a name (D2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Name, Right
from broker._keys import IDENTITY, Keys, directory
from broker.errors import (
    AliasTaken,
    BrokerClosed,
    ForeignLayout,
    InvalidArgument,
    InvalidName,
    NotInDirectory,
    RedisRefused,
    ServerInUse,
    TympanError,
)
from broker.results import S_OK
from tests.conformance.actors import SHORT, die, eventually
from tests.dump import unchanged
from tests.farm import PATIENCE, PRINTER, SERVER, TYPE, Farm, RedisBackend
from tests.redis.scenes import QUIET
from tests.servers import RedisServer

SPELLINGS = (
    PRINTER,
    r"\\PRINT01.Farm.Example\laser-3",
    r"\\10.1.2.3\laser-3",
    r"\\2001:DB8:0::7\Laser-3",
)
"""The same printer, once its server has these aliases."""
ALIASES = (r"\\print01.farm.example", r"\\10.1.2.3", r"\\2001:db8::7")
BRISK = {"lease": 60.0, "resync": 0.1}


async def named(farm: Farm, **options: Any) -> Broker:
    """A broker on a farm whose print01 has all its names."""
    broker = await farm.broker("operator", **options)
    for alias in ALIASES:
        await broker.add_alias(alias, SERVER)
    return broker


async def names(farm: Farm) -> dict[str, str]:
    """The directory as Redis has it."""
    found: dict[Any, Any] = await farm.client.hgetall(directory(farm.namespace))
    told = {name.decode(): server.decode() for name, server in found.items()}
    return {name: server for name, server in told.items() if name != IDENTITY}


# One printer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("listens", SPELLINGS)
@pytest.mark.parametrize("speaks", SPELLINGS)
async def test_all_spellings_are_one_printer(farm: Farm, listens: str, speaks: str) -> None:
    await named(farm)
    listener, source = await farm.broker("alice"), await farm.broker("spooler")
    registration = await listener.register(listens, TYPE)
    channel = await source.open_channel(speaks, TYPE, user="alice")
    assert await channel.send(b"page") == S_OK
    assert registration.name == channel.name == Name.parse(PRINTER)
    found = await registration.fetch(PATIENCE)
    assert found is not None
    assert found.name == Name.parse(PRINTER), "told by its own name"
    assert {key.split(":")[1] for key in await farm.keys()} == {"servers", "{print01}"}


@pytest.mark.parametrize("name", SPELLINGS)
async def test_looking_and_granting_understand_every_spelling(farm: Farm, name: str) -> None:
    operator = await named(farm)
    channel = await operator.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    registration = await operator.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    of_server = str(Name.parse(name).of_server)
    for place in (name, of_server):
        assert [facts.id for facts in await operator.channels(place)] == [channel.id]
        assert [facts.id for facts in await operator.registrations(place)] == [registration.id]
    assert await operator.grant(name, "carol", "administer") == Right.PRINTER_ACCESS_ADMINISTER
    assert [grant.name for grant in await operator.grants(name)] == [Name.parse(PRINTER)]
    admin = await farm.broker("carol")
    everybodys = await admin.register(name, TYPE, user_filter=ALL_USERS)
    assert await operator.revoke(name, "carol", "administer") == Right(0)
    with pytest.raises(TympanError):
        await everybodys.fetch(PATIENCE)
    assert await operator.run_down(of_server) == 0


async def test_the_own_server_may_be_given_by_an_alias(farm: Farm) -> None:
    await named(farm)
    client = await farm.broker("alice", server="print01.farm.example")
    registration = await client.register(None, TYPE)
    assert registration.name == Name("print01")
    assert (await client.server()).name == "print01"


async def test_one_process_has_one_session_whatever_it_calls_the_server(farm: Farm) -> None:
    await named(farm)
    client = await farm.broker("alice")
    found = await asyncio.gather(*(client.server(name) for name in SPELLINGS * 3))
    assert len({server.session for server in found}) == 1
    assert await farm.client.zcard(Keys(farm.namespace, "print01").leases) == 1


async def test_an_alias_is_followed_within_resync_wherever_it_was_known(farm: Farm) -> None:
    operator, client = await farm.broker("operator"), await farm.broker("alice", **BRISK)
    await operator.add_alias("laser-host", "print01")
    assert (await client.server(r"\\laser-host")).name == "print01"
    assert await operator.remove_alias("laser-host") == "print01"
    await operator.add_alias("laser-host", "print02")

    async def is_followed() -> bool:
        return (await client.server(r"\\laser-host")).name == "print02"

    await eventually(is_followed, "the new server behind the alias")
    assert await operator.servers() == ["print01", "print02"]
    assert await operator.aliases() == {"laser-host": "print02"}


async def test_names_that_are_none_are_refused(farm: Farm) -> None:
    broker = await farm.broker("operator")
    for alias, server in ((PRINTER, SERVER), (SERVER, PRINTER), ("a b", "print01"), ("", "b")):
        with pytest.raises(InvalidName):
            await broker.add_alias(alias, server)
    for name in (PRINTER, "a b"):
        with pytest.raises(InvalidName):
            await broker.remove_alias(name)
        with pytest.raises(InvalidName):
            await broker.forget_server(name)
    assert await names(farm) == {}


async def test_a_broker_that_is_not_open_tells_no_names(farm: Farm) -> None:
    broker = await farm.broker("operator")
    await broker.close()
    calls: list[Awaitable[object]] = [
        broker.servers(), broker.aliases(), broker.overview(), broker.add_alias("a", "b"),
        broker.remove_alias("a"), broker.forget_server("b"), broker.register_everywhere(TYPE),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(BrokerClosed):
            await call


# Races for a name -------------------------------------------------------------------------------


async def test_of_fifty_servers_that_claim_one_alias_one_wins(real_farm: Farm) -> None:
    """Ten processes, five claims each, at once; again and again."""
    brokers = [await real_farm.broker("operator") for _ in range(10)]
    for turn in range(20):
        alias = f"alias-{turn}"
        servers = [f"print-{turn}-{n}" for n in range(50)]
        claims = [brokers[n % 10].add_alias(alias, server) for n, server in enumerate(servers)]
        outcomes = await asyncio.gather(*claims, return_exceptions=True)
        won = [outcome for outcome in outcomes if isinstance(outcome, str)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, AliasTaken)]
        assert len(won) == 1
        assert len(lost) == 49
        assert {error.server for error in lost} == set(won), "the losers are told who won"
        assert (await names(real_farm))[alias] == won[0]


async def test_a_name_becomes_a_server_or_an_alias_and_never_both(real_farm: Farm) -> None:
    """Somebody opens a channel there while somebody else makes it another server's alias."""
    operator = await real_farm.broker("operator")
    kinds = set()
    for turn in range(40):
        name = f"print-{turn}"
        source = await real_farm.broker("spooler")

        async def make(name: str = name, turn: int = turn) -> bool:
            await asyncio.sleep(0.0001 * 1.2**turn)
            try:
                return bool(await operator.add_alias(name, "print01"))
            except AliasTaken:
                return False

        channel, used, is_alias = await asyncio.gather(
            source.open_channel(rf"\\{name}\laser-3", TYPE), used_often(source, name), make()
        )
        kinds.add(is_alias)
        server = "print01" if is_alias else name
        assert channel.name == Name(server, "laser-3")
        assert used == {server}
        assert (await names(real_farm))[name] == server
        opened = [facts.name for facts in await operator.channels(rf"\\{name}")]
        assert opened == [channel.name]
        if is_alias:
            leases = Keys(real_farm.namespace, name).leases
            assert not await real_farm.client.exists(leases), "the session there is over"
        await source.close()
    assert kinds == {False, True}, "the race was run both ways"


async def used_often(broker: Broker, name: str) -> set[str]:
    """The servers that a name stands for in many calls of one process, each a little later."""
    uses = []
    for _ in range(20):
        uses.append(asyncio.create_task(broker.server(rf"\\{name}")))
        await asyncio.sleep(0)
    return {(await each).name for each in uses}


# What is not ours -------------------------------------------------------------------------------


CALLS: list[Callable[[Broker], Awaitable[object]]] = [
    lambda broker: broker.servers(),
    lambda broker: broker.aliases(),
    lambda broker: broker.overview(),
    lambda broker: broker.add_alias("a", "print01"),
    lambda broker: broker.remove_alias("a"),
    lambda broker: broker.forget_server("print01"),
    lambda broker: broker.open_channel(PRINTER, TYPE),
    lambda broker: broker.register(PRINTER, TYPE),
    lambda broker: broker.register_everywhere(TYPE),
    lambda broker: broker.grant(PRINTER, "bob", "use"),
]


@pytest.mark.parametrize("call", CALLS)
async def test_a_foreign_directory_is_left_alone(
    farm: Farm, call: Callable[[Broker], Awaitable[object]]
) -> None:
    broker = await farm.broker("operator", **QUIET)
    key = directory(farm.namespace)
    await farm.client.sadd(key, "theirs")
    async with unchanged(farm.client, f"{farm.namespace}:*"):
        with pytest.raises(ForeignLayout, match="namespace"):
            await call(broker)
    await farm.client.delete(key)


# What Redis lost --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_idle", [True, False])
async def test_a_directory_that_is_lost_is_made_again_by_whoever_stands_there(
    farm: Farm, is_idle: bool
) -> None:
    source = await farm.broker("spooler", **BRISK)
    channel = await source.open_channel(PRINTER, TYPE)
    if is_idle:
        await channel.release()
    await farm.client.delete(directory(farm.namespace))

    async def is_back() -> bool:
        return await names(farm) == {"print01": "print01"}

    await eventually(is_back, "the server's entry")


async def test_an_entry_that_a_failover_lost_is_made_again(farm: Farm) -> None:
    source = await farm.broker("spooler", **BRISK)
    await source.open_channel(PRINTER, TYPE)
    await source.server(r"\\print02")
    await farm.client.hdel(directory(farm.namespace), "print01")

    async def is_back() -> bool:
        return await names(farm) == {"print01": "print01", "print02": "print02"}

    await eventually(is_back, "the server's entry")


async def test_whoever_looks_puts_back_what_he_holds(farm: Farm) -> None:
    source = await farm.broker("spooler", **QUIET)
    await source.open_channel(PRINTER, TYPE)
    await farm.client.hdel(directory(farm.namespace), "print01")
    assert await source.servers() == ["print01"]
    assert len(await source.channels()) == 1


# Forgetting -------------------------------------------------------------------------------------


async def test_a_server_is_forgotten_with_its_aliases_and_comes_back_when_it_is_used(
    farm: Farm,
) -> None:
    operator = await named(farm)
    source = await farm.broker("spooler")
    await source.grant(PRINTER, "carol", "administer")
    await source.close()
    await operator.add_alias("p2", "print02")
    gone = await operator.forget_server(SERVER)
    assert gone == sorted(alias.strip("\\") for alias in ALIASES)
    assert await names(farm) == {"print02": "print02", "p2": "print02"}
    assert await operator.channels(SERVER) == []
    with pytest.raises(NotInDirectory):
        await operator.forget_server(SERVER)

    await operator.open_channel(PRINTER, TYPE)
    assert await operator.servers() == ["print01", "print02"]
    assert [grant.user for grant in await operator.grants(SERVER)] == ["carol"], "rights stay"


async def test_a_server_is_not_forgotten_while_something_stands_there(farm: Farm) -> None:
    operator, client = await farm.broker("operator"), await farm.broker("alice")
    for hold, end, what in await things(client):
        held = await hold()
        before = await names(farm)
        with pytest.raises(ServerInUse, match=what) as refused:
            await operator.forget_server("print01")
        assert r"\\print01" in str(refused.value)
        assert await names(farm) == before
        await end(held)
    await client.close()
    assert await operator.forget_server("print01") == []
    assert await names(farm) == {}
    left = await farm.client.exists(Keys(farm.namespace, "print01").leases)
    assert not left, "whoever looked left no session there"


async def things(client: Broker) -> list[tuple[Any, Any, str]]:
    """What may stand on a server: how to hold it, how to end it, and what it is called."""
    return [
        (
            lambda: client.register(PRINTER, TYPE),
            lambda registration: registration.unregister(),
            "1 session, 1 registration",
        ),
        (
            lambda: client.open_channel(PRINTER, TYPE),
            lambda channel: channel.release(),
            "1 session, 1 channel",
        ),
    ]


async def test_what_the_process_itself_holds_stands_too(farm: Farm) -> None:
    operator = await farm.broker("operator")
    channel = await operator.open_channel(PRINTER, TYPE)
    with pytest.raises(ServerInUse):
        await operator.forget_server(SERVER)
    await channel.release()
    await operator.forget_server(SERVER)
    assert await operator.servers() == []
    assert (await operator.open_channel(PRINTER, TYPE)).name == Name.parse(PRINTER)
    assert await operator.servers() == ["print01"]


async def test_an_alias_is_not_forgotten_for_its_server(farm: Farm) -> None:
    operator = await named(farm)
    with pytest.raises(InvalidArgument, match=r"is an alias of \\\\print01"):
        await operator.forget_server("10.1.2.3")
    assert await operator.servers() == ["print01"]


async def test_what_the_dead_left_is_ended_first(farm: Farm) -> None:
    """Nobody else uses the server, so nobody else would run them down."""
    operator, dying = await farm.broker("operator", **SHORT), await farm.broker("spooler", **SHORT)
    await dying.open_channel(PRINTER, TYPE)
    await dying.register(PRINTER, TYPE)
    await die(farm, dying)

    async def is_forgotten() -> bool:
        try:
            await operator.forget_server(SERVER)
        except ServerInUse:
            return False
        return True

    await eventually(is_forgotten, "the end of the dead process's lease")
    assert await names(farm) == {}


async def test_the_overview_counts_what_stands_and_adds_nothing(farm: Farm) -> None:
    operator, client = await named(farm), await farm.broker("alice")
    await client.register(PRINTER, TYPE)
    await client.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    await client.open_channel(PRINTER, TYPE)
    await operator.add_alias("p2", "print02")
    before = await farm.keys()
    first, second = await operator.overview()
    assert (first.name, second.name) == (Name("print01"), Name("print02"))
    assert [str(alias) for alias in first.aliases] == sorted(ALIASES)
    assert (first.sessions, first.registrations, first.channels) == (1, 2, 1)
    assert (second.sessions, second.registrations, second.channels) == (0, 0, 0)
    assert await farm.keys() == before


# By credentials ---------------------------------------------------------------------------------


async def test_a_refused_server_does_not_come_into_the_directory() -> None:
    with RedisServer() as server:
        async with Farm(RedisBackend(server)) as farm:
            server.cli(
                "ACL", "SETUSER", "print01", "on", ">secret", "+@all", "allchannels",
                f"~{farm.namespace}:servers", f"~{farm.namespace}:{{print01}}:*",
            )  # fmt: skip
            url = f"redis://print01:secret@127.0.0.1:{server.port}/0"
            async with Broker.connect(url, namespace=farm.namespace) as source:
                with pytest.raises(TympanError):
                    await source.open_channel(r"\\print02\laser-3", TYPE)
                await source.open_channel(PRINTER, TYPE)
                assert await names(farm) == {"print01": "print01"}


async def test_a_listener_on_known_servers_needs_to_read_the_directory_only() -> None:
    with RedisServer() as server:
        async with Farm(RedisBackend(server)) as farm:
            server.cli(
                "ACL", "SETUSER", "desk", "on", ">secret", "+@all", "allchannels",
                f"%R~{farm.namespace}:*", f"~{farm.namespace}:{{*}}:*",
            )  # fmt: skip
            url = f"redis://desk:secret@127.0.0.1:{server.port}/0"
            source = await farm.broker("spooler")
            channel = await source.open_channel(SERVER, TYPE, user="desk")
            before = await names(farm)
            async with Broker.connect(url, user="desk", namespace=farm.namespace) as listener:
                registration = await listener.register(SERVER, TYPE)
                everywhere = await listener.register_everywhere(TYPE)
                assert await channel.send(b"page") == S_OK
                for hears in (registration, everywhere):
                    assert await hears.fetch(PATIENCE) is not None
                calls: list[Awaitable[object]] = [
                    listener.add_alias("mine", SERVER),
                    listener.register(r"\\mine", TYPE),
                    listener.forget_server(SERVER),
                ]
                for call in calls:
                    with pytest.raises((RedisRefused, ServerInUse)):
                        await call
            assert await names(farm) == before
