"""Under the line that `tympan acl` prints each role does its whole work, and no other's."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import NoPermissionError

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Durability, Offer, Subscription, _missing
from broker._keys import CATALOGUE, KeyFact, Keys
from broker._scripts import SCRIPTS
from broker.errors import (
    AccessDenied,
    DurabilityUnavailable,
    RedisRefused,
    RegistrationEnded,
    ServerInUse,
)
from broker.results import S_OK
from tests.cluster import RedisCluster
from tests.dump import unchanged
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.redis.pooling import Member
from tests.redis.scenes import QUIET, heard, until
from tests.sentinels import Sentinels
from tests.servers import RedisServer
from tests.told import ROOT, acl_commands, type_at
from workers.acl import DUTIES, READING, Role, Wish, needed_by, reach_of, rules, runnable

CHIEF = "chief"
"""A listener for all users."""
OTHER = "print02"
"""The print host of another server."""
OTHER_PRINTER = rf"\\{OTHER}\laser-1"
ALERTS = Subscription(PRINTER, TYPE, user="desk")
QUESTIONS = Subscription(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
CALM: dict[str, Any] = {"lease": 9.0, "resync": 1.0}
"""Nobody dies by accident; what the clock does is done while the test goes on."""
LARGE = b"x" * 20_000
KEYS = Keys("tympan", "print01")

every_role = pytest.mark.parametrize("role", Role)


def users() -> dict[str, Wish]:
    """By user, what he is for: one of each role, and two more."""
    mine = ("print01",)
    return {
        **{role.value: Wish(roles=[role], servers=mine) for role in Role},
        **{role.value: Wish(roles=[role]) for role in (Role.OPERATOR, Role.OBSERVER)},
        CHIEF: Wish(roles=[Role.LISTENER], servers=mine, all_users=True),
        OTHER: Wish(roles=[Role.SOURCE], servers=(OTHER,)),
    }


@contextlib.contextmanager
def confinement() -> Iterator[RedisServer]:
    """A redis-server with these users."""
    with RedisServer() as server:
        for user, wish in users().items():
            server.cli("ACL", "SETUSER", user, *rules(wish), ">secret")
        yield server


@pytest.fixture
def confined() -> Iterator[RedisServer]:
    with confinement() as server:
        yield server


def url(server: RedisServer, user: str) -> str:
    return f"redis://{user}:secret@127.0.0.1:{server.port}/0"


class Watch:
    """Who sent what to Redis, as MONITOR tells it."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._users: dict[str, str] = {}
        self._sent: dict[str, set[str]] = defaultdict(set)
        self._scripts = {script.sha: script.name for script in SCRIPTS}

    async def run(self) -> None:
        """Listen until cancelled."""
        async with self._client.monitor() as monitor:
            async for found in monitor.listen():
                words = found["command"].split(" ", 3)
                where = f"{found['client_address']}:{found['client_port']}"
                if words[0].upper() == "EVALSHA":
                    self._sent[where].add(self._scripts[words[1]])
                self._sent[where].add(words[0].upper())
                self._sent[where].add("|".join(words[:2]).upper())

    async def know(self) -> None:
        """Learn whose the connections of now are."""
        listed = await self._client.client_list()
        self._users |= {one["addr"]: one["user"] for one in listed}

    def sent(self, user: str) -> set[str]:
        """Names of scripts, and commands."""
        return {
            what
            for where, all_ in self._sent.items()
            if self._users.get(where) == user
            for what in all_
        }


class Cast:
    """One process of each role, and more of them on demand."""

    def __init__(self, server: RedisServer, stack: AsyncExitStack, watch: Watch) -> None:
        self.server = server
        self.watch = watch
        self._stack = stack
        self._brokers: dict[str, Broker] = {}

    async def another(self, user: str, **options: Any) -> Broker:
        """A process of its own."""
        made = Broker.connect(url(self.server, user), user="desk", **(CALM | options))
        return await self._stack.enter_async_context(made)

    async def of(self, user: str) -> Broker:
        """The one process of a role."""
        if user not in self._brokers:
            self._brokers[user] = await self.another(user)
        return self._brokers[user]

    async def look(self) -> None:
        """Everybody looks for all that it holds, as it does by the clock. Raises RedisRefused."""
        for broker in self._brokers.values():
            server = await broker.server(PRINTER)
            for turn in range(_missing.TURNS):
                await _missing.find(server, turn)

    async def die(self, *brokers: Broker) -> None:
        """Their leases on print01 are over."""
        for broker in brokers:
            session = (await broker.server(PRINTER)).session
            self.server.cli("ZADD", KEYS.leases, "0", session)


@pytest.fixture
async def cast(confined: RedisServer) -> AsyncIterator[Cast]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(redis.asyncio.Redis.from_url(confined.url))
        watch = Watch(client)
        watching = asyncio.create_task(watch.run())
        stack.callback(watching.cancel)
        yield Cast(confined, stack, watch)


def another_epoch(server: RedisServer) -> None:
    """All are to look whether Redis forgot anything."""
    server.cli("HSET", KEYS.meta, "run", "another")


# Each role's work -------------------------------------------------------------------------------


async def dialogs(cast: Cast) -> None:
    """A question, its race, follow-ups, a close with a reason, a decline; and a new epoch."""
    source, listener = await cast.of("source"), await cast.of("listener")
    late = await cast.another("listener")
    first = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    second = await late.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
    await channel.send(LARGE)
    (offer,), (other,) = [await one.fetch_offers(PATIENCE) for one in (first, second)]
    assert offer.notification.data == LARGE
    await other.decline()
    await offer.respond(LARGE)
    assert (await channel.response(PATIENCE)).data == LARGE
    another_epoch(cast.server)
    await channel.send(b"sure?")
    assert (await offer.follow_up(PATIENCE)).data == b"sure?"
    await cast.look()
    await offer.close(b"quite")
    assert (await channel.response(PATIENCE)).is_final
    async with await source.open_channel(
        PRINTER, TYPE, user="desk", style=BIDIRECTIONAL
    ) as withdrawn:
        await withdrawn.send(b"never mind")
        (offer,) = await first.fetch_offers(PATIENCE)
    assert await offer.wait_closed(PATIENCE)
    await first.unregister()
    await second.unregister()


async def notifications(cast: Cast) -> None:
    """Small and large, to one who reads and one who does not."""
    source, listener = await cast.of("source"), await cast.of("listener")
    alerts = await listener.register(PRINTER, TYPE)
    async with await source.open_channel(PRINTER, TYPE, user="desk") as channel:
        assert await channel.send(b"page") == S_OK
        assert await channel.send(LARGE, lossless=True) == S_OK
        assert [await heard(alerts) for _ in range(2)] == [b"page", LARGE]
        await cast.look()


async def pools(cast: Cast) -> None:
    """Finish, hand back, bury; a dialog that changes hands; and what comes to a pool of alerts."""
    source, worker = await cast.of("source"), await cast.of("worker")
    another = await cast.another("worker")
    member = await Member.of(worker, ALERTS)
    channel = await source.open_channel(PRINTER, TYPE, user="desk")
    for body in (b"small", LARGE, b"poison", b"venom"):
        await channel.send(body)
    first, second, third, fourth = await member.take(4)
    await first.done()
    await second.hand_back()
    await (await member.delivery()).done()
    letter = await third.bury("it burns")
    await worker.dead_letters.replay(PRINTER, letter)
    again = await member.delivery()
    assert again.notification.data == b"poison"
    await again.bury("it burns again")
    assert await worker.dead_letters.drop(PRINTER, await fourth.bury("it burns, too"))
    await channel.close()

    one, other = await Member.of(worker, QUESTIONS), await Member.of(another, QUESTIONS)
    channel = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
    await channel.send(b"continue?")
    await (await one.offer()).respond(b"yes")
    await one.replica.leave()
    dialog = await other.offer()
    await channel.send(b"sure?")
    await cast.look()
    await dialog.respond(b"yes")  # once more from the beginning of the turn
    assert (await dialog.follow_up(PATIENCE)).data == b"sure?"
    another_epoch(cast.server)
    await dialog.close(LARGE)
    await other.replica.leave()
    await member.replica.leave()


async def run_down(cast: Cast) -> None:
    """What dead processes of each kind held is ended by a reaper."""
    reaper = await cast.of("reaper")
    source = await cast.another("source")
    listener, worker = await cast.another("listener"), await cast.another("worker")
    alerts = await listener.register(PRINTER, TYPE)
    questions = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    asked = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
    await asked.send(b"continue?")
    (offer,) = await questions.fetch_offers(PATIENCE)
    await offer.respond(b"yes")
    member, answering = await Member.of(worker, ALERTS), await Member.of(worker, QUESTIONS)
    told = await source.open_channel(PRINTER, TYPE, user="desk")
    await told.send(b"page")
    await member.delivery()
    pooled = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
    await pooled.send(b"continue?")
    await (await answering.offer()).respond(b"yes")
    await cast.watch.know()
    living = await Member.of(await cast.of("worker"), QUESTIONS)
    await cast.die(listener, worker)
    await reaper.run_down(PRINTER)
    (of_questions, facts) = sorted(await reaper.pools.on_server(PRINTER), key=lambda one: one.style)
    assert (facts.waiting, facts.in_hand) == (1, 0)
    assert (of_questions.waiting, of_questions.in_hand) == (1, 0)
    assert living.replica.server.session in of_questions.replicas
    await cast.die(source)
    await reaper.run_down(PRINTER)
    look = await cast.of("observer")
    assert alerts.id not in {one.id for one in await look.registrations(PRINTER)}
    assert await look.channels(PRINTER) == []
    assert not await reaper.pools.create("helpdesk", ALERTS)
    await living.replica.leave()


async def succession(cast: Cast) -> None:
    """Without a reaper, processes of each role end what they may of what the dead held."""
    for role in ("source", "listener", "worker", "operator"):
        source, worker = await cast.another("source"), await cast.another("worker")
        left = await source.open_channel(PRINTER, TYPE)
        await Member.of(worker, ALERTS)
        await cast.watch.know()
        await cast.die(source, worker)
        await (await cast.of(role)).run_down(PRINTER)
        await (await cast.of("worker")).run_down(PRINTER)
        look = await cast.of("observer")
        assert left.id not in {one.id for one in await look.channels(PRINTER)}


async def operations(cast: Cast) -> None:
    """Rights, printers, names, pools, dead letters."""
    operator, chief = await cast.of("operator"), await cast.of(CHIEF)
    source, listener = await cast.of("source"), await cast.of("listener")
    await operator.grant(PRINTER, "desk", "administer")
    everybodys = await chief.register(PRINTER, TYPE, user_filter=ALL_USERS)
    await operator.revoke(PRINTER, "desk", "administer")
    with pytest.raises(RegistrationEnded):
        await everybodys.fetch(PATIENCE)
    alerts = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
    await channel.send(b"continue?")
    assert str(PRINTER) in {str(one.name) for one in await operator.registrations(PRINTER)}
    deletion = await operator.delete_printer(PRINTER)
    assert (deletion.channels, deletion.told) == (1, 2)
    assert getattr(await alerts.fetch(PATIENCE), "is_release", False)
    member = await Member.of(await cast.of("worker"), ALERTS)
    told = await source.open_channel(PRINTER, TYPE, user="desk")
    await told.send(LARGE)
    letter = await (await member.take(2))[1].bury("it burns")
    await operator.dead_letters.replay(PRINTER, letter)
    letter = await (await member.delivery()).bury("it burns again")
    assert await operator.dead_letters.drop(PRINTER, letter)
    await member.replica.leave()
    answering = await Member.of(await cast.of("worker"), QUESTIONS)
    asked = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
    await asked.send(b"continue?")
    await (await answering.offer()).respond(b"yes")
    await answering.replica.leave()
    assert len(await operator.pools.delete("helpdesk", PRINTER)) == 2
    assert await asked.wait_closed(PATIENCE), "no replica is there for it"
    assert await operator.pools.create("helpdesk", ALERTS)
    serving = await Member.of(await cast.another("worker"), ALERTS)
    await serving.replica.refused(AccessDenied("the right that the pool stood on is gone"))
    await serving.replica.leave()
    assert await operator.pools.on_server(PRINTER) == []
    await told.close()
    assert await operator.add_alias(r"\\10.1.2.3", r"\\print01") == "print01"
    assert await operator.remove_alias(r"\\10.1.2.3") == "print01"
    await (await cast.of(OTHER)).open_channel(OTHER_PRINTER, TYPE)
    with pytest.raises(ServerInUse):
        await operator.forget_server("print01")


async def looking(cast: Cast) -> None:
    """Everything that can be listed."""
    source, listener = await cast.of("source"), await cast.of("listener")
    look, worker = await cast.of("observer"), await cast.of("worker")
    await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    asked = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
    await asked.send(LARGE)
    member, answering = await Member.of(worker, ALERTS), await Member.of(worker, QUESTIONS)
    told = await source.open_channel(PRINTER, TYPE, user="desk")
    for _ in range(2):
        await told.send(LARGE)
    letter = await (await member.delivery()).bury("it burns")
    await member.delivery()
    await answering.offer()
    for eye in (look, await cast.of("operator")):
        assert {one.id for one in await eye.channels(PRINTER)} >= {asked.id, told.id}
        assert await eye.registrations(PRINTER)
        await eye.grants(PRINTER)
        shown = await eye.show(asked.id)
        assert shown is not None
        assert shown[1][0].data == LARGE
        assert await eye.aliases() == {}
        (survey,) = await eye.survey(PRINTER)
        assert survey.unread is None
        assert survey.letters == 2
        alerts = next(one for one in survey.pools if one.style is not BIDIRECTIONAL)
        assert alerts.in_hand == 1
        assert member.replica.server.session in alerts.replicas, "beside one that is back"
        assert (await eye.dead_letters.get(PRINTER, letter)).data == LARGE
    assert await look.servers() == ["print01", OTHER]
    assert {str(one.name): one.pools for one in await look.overview()}[r"\\print01"] == 2


ASKED_SELDOM = {
    "HGET",  # the last number of a stream, where a bell named none
    "SREM",  # a share in a pool that is gone
    "STRLEN",  # the size of a body that is read in several pieces
    *("EXISTS", "XLEN", "ZADD", "ZREM"),  # where somebody deleted a lease, or the room of a pool
    *("XREVRANGE", "UNLINK", "SELECT", "EVAL", "ACL|WHOAMI", "PUBSUB|NUMSUB"),
}


def refusals(server: RedisServer) -> list[tuple[str, str, str]]:
    """Whom Redis refused what: user, kind and key, channel or command."""
    log = server.cli("ACL", "LOG")
    return [(one["username"], one["reason"], one["object"]) for one in log]


def missed(watch: Watch) -> dict[str, set[str]]:
    """By role, the scripts and commands of its duties that it has not sent."""
    duties = {
        role: {name for duty in DUTIES[role] for name in duty.scripts}
        | {ask.split()[0] for duty in DUTIES[role] for ask in duty.asks} - ASKED_SELDOM
        for role in Role
    }
    return {role.value: some - watch.sent(role.value) for role, some in duties.items()}


async def test_each_role_does_its_whole_work(cast: Cast) -> None:
    """And nothing is refused to it on the way, not even what it would get over."""
    for act in (dialogs, notifications, pools, run_down, operations, looking):
        await act(cast)
        await cast.watch.know()
    assert refusals(cast.server) == []
    await succession(cast)

    async def is_only_to_end() -> bool:
        return all(some <= {"bury", "UNSUBSCRIBE"} for some in missed(cast.watch).values())

    with contextlib.suppress(TimeoutError):  # then it is said below
        await until(is_only_to_end)
    for user in users():
        await (await cast.of(user)).close()
    left = missed(cast.watch)
    assert not any(left.values()), left


# The work of others -----------------------------------------------------------------------------

LETTER = "1-1"
TRIES: dict[str, Callable[[Broker], Awaitable[Any]]] = {
    "open": lambda broker: broker.open_channel(PRINTER, TYPE),
    "register": lambda broker: broker.register(PRINTER, TYPE),
    "create a pool": lambda broker: broker.pools.create("other", ALERTS),
    "serve a pool": lambda broker: Member.of(broker, ALERTS),
    "delete a pool": lambda broker: broker.pools.delete("helpdesk", PRINTER),
    "replay": lambda broker: broker.dead_letters.replay(PRINTER, LETTER),
    "drop": lambda broker: broker.dead_letters.drop(PRINTER, LETTER),
    "grant": lambda broker: broker.grant(PRINTER, "desk", "administer"),
    "revoke": lambda broker: broker.revoke(PRINTER, "bob", "use"),
    "delete a printer": lambda broker: broker.delete_printer(PRINTER),
    "unalias": lambda broker: broker.remove_alias(r"\\10.1.2.3"),
    "forget": lambda broker: broker.forget_server("print09"),
}
MAY: dict[Role, set[str]] = {
    Role.SOURCE: {"open"},
    Role.LISTENER: {"register"},
    Role.WORKER: {"create a pool", "serve a pool", "replay", "drop"},
    Role.REAPER: {"register", "create a pool", "serve a pool", "delete a pool"},
    Role.OPERATOR: set(TRIES) - {"open"},
    Role.OBSERVER: set(),
}
"""A reaper ends what anybody held, so it has the keys to hold the same."""


@pytest.fixture(scope="module")
def stage() -> Iterator[RedisServer]:
    """A pool, a dead letter, a grant, an alias, another server; and a user for each role."""

    async def set_it() -> None:
        async with Broker.connect(server.url, user="root") as root:
            member = await Member.of(root, ALERTS)
            channel = await root.open_channel(PRINTER, TYPE, user="desk")
            await channel.send(b"page")
            await (await member.delivery()).bury("it burns")
            await root.grant(PRINTER, "bob", "use")
            await root.add_alias(r"\\10.1.2.3", r"\\print01")

    with confinement() as server:
        asyncio.run(set_it())
        server.cli("HSET", "tympan:servers", "print09", "print09")
        ((_, letter),) = server.cli("XRANGE", KEYS.dead, "-", "+")
        server.cli("DEL", KEYS.dead)
        server.cli("XADD", KEYS.dead, LETTER, *(each for field in letter.items() for each in field))
        yield server


@pytest.mark.parametrize(
    ("role", "what"),
    [(role, what) for role in Role for what in TRIES if what not in MAY[role]],
    ids=str,
)
async def test_what_is_anothers_work_is_refused_whole(
    stage: RedisServer, role: Role, what: str
) -> None:
    """In a typed error, and without a trace."""
    async with (
        redis.asyncio.Redis.from_url(stage.url) as client,
        Broker.connect(url(stage, role.value), user="desk", **QUIET) as broker,
    ):
        if role is not Role.OBSERVER:
            await broker.server(PRINTER)
        async with unchanged(client):
            with pytest.raises((RedisRefused, AccessDenied)) as found:
                await TRIES[what](broker)
    if isinstance(found.value, RedisRefused):
        assert f"//{role.value}:***@" in str(found.value), "it says to whom"


SAMPLE = {
    "servers": "tympan:servers",
    **{name: getattr(KEYS, name) for name in Keys.__slots__ if not name.startswith("_")},
    "channel": KEYS.channel("c"),
    "log": KEYS.log("c"),
    "inbox": KEYS.inbox("host.1.a"),
    "held": KEYS.held("host.1.a"),
    "waiting": KEYS.held("~helpdesk.0"),
    "idle": KEYS.idle("~helpdesk.0"),
    "returned": f"{KEYS.idle('~').replace('idle', 'returned')}helpdesk.0|laser-3|guid|uni|=a",
    "stream": f"{KEYS.meta.removesuffix('meta')}stream:laser-3|guid|uni|=a",
    "room": f"{KEYS.meta.removesuffix('meta')}room:laser-3|guid|uni|=a",
    "body": KEYS.body("b"),
    "receipt": KEYS.receipt("1-1"),
}
"""A key of each kind."""


@every_role
def test_redis_lets_begin_what_the_rules_say(stage: RedisServer, role: Role) -> None:
    """Each script, by Redis's own word: those whose keys the role has, and no other."""
    whole = reach_of(users()[role.value]).whole
    expected = {script.name for script in runnable(whole)} if whole else set()
    begins = set()
    for script in SCRIPTS:
        keys = [SAMPLE[kind] for kind in needed_by(script)]
        answer = stage.cli(
            *("ACL", "DRYRUN", role.value, "EVALSHA", script.sha, len(keys), *sorted(keys))
        )
        if answer == "OK":
            begins.add(script.name)
    assert begins == expected


def test_what_is_taken_for_reading_reads(stage: RedisServer) -> None:
    """By Redis's own list of commands, of which each other one writes, or is given no key."""
    asks = {ask for duties in DUTIES.values() for duty in duties for ask in duty.asks}
    for ask in asks:
        command, _, key = ask.partition(" ")
        (facts,) = stage.cli("COMMAND", "INFO", command.lower()).values()
        kind = {True: "readonly", False: "write"}[command in READING]
        assert kind in facts["flags"] or not key, ask


# Another's print server -------------------------------------------------------------------------


async def test_a_print_hosts_credential_stays_on_its_server(confined: RedisServer) -> None:
    async with Broker.connect(url(confined, "source"), user="spooler") as source:
        await source.open_channel(PRINTER, TYPE)
        with pytest.raises(RedisRefused):
            await source.open_channel(OTHER_PRINTER, TYPE)
    assert not [key for key in confined.cli("KEYS", "*") if OTHER in key]


def touching(server: RedisServer, key: str) -> dict[str, str]:
    """By command of a print host's credential that is given a key or a channel: Redis's verdict."""
    verdicts = {}
    for command in sorted(reach_of(users()["source"]).commands):
        (facts,) = server.cli("COMMAND", "INFO", command.lower()).values()
        words, arity = command.split("|"), facts["arity"]
        more = arity - len(words) if arity > 0 else max(-arity - len(words), 4)
        if command in ("EVAL", "EVALSHA"):
            words += ["x", "1", key]
        elif facts["first_key_pos"] or command in ("PUBLISH", "SUBSCRIBE"):
            words += [key] * more
        else:
            continue
        verdicts[command] = str(server.cli("ACL", "DRYRUN", "source", *words))
    return verdicts


@pytest.mark.parametrize("fact", CATALOGUE[1:], ids=lambda fact: fact.pattern)
def test_a_print_hosts_credential_touches_no_key_of_another(
    stage: RedisServer, fact: KeyFact
) -> None:
    """By no command that it has, plain, in a script or given to one."""
    key = re.sub(r"<\w+>", "~x.0", fact.pattern.replace("{s}", f"tympan:{{{OTHER}}}"))
    verdicts = touching(stage, key)
    assert len(verdicts) > 40
    assert {command for command, verdict in verdicts.items() if verdict == "OK"} == set()


def test_a_print_hosts_credential_touches_its_own(stage: RedisServer) -> None:
    """The control of the test above."""
    verdicts = touching(stage, KEYS.inbox("host.1.a"))
    assert {command for command, verdict in verdicts.items() if verdict != "OK"} == set()


async def test_a_print_host_changes_no_name_that_is_known(stage: RedisServer) -> None:
    """It may add its own; what stands in the directory stays."""
    async with redis.asyncio.Redis.from_url(url(stage, "source")) as client:
        assert not await client.hsetnx("tympan:servers", "print09", "print01")
        for change in (
            client.hset("tympan:servers", "print09", "print01"),
            client.hdel("tympan:servers", "print09"),
            client.delete("tympan:servers"),
            client.flushall(),
            client.keys("*"),
            client.config_get("*"),
            client.acl_list(),
        ):
            with pytest.raises(NoPermissionError):
                await change
        bells = client.pubsub()
        await bells.psubscribe("*")
        with pytest.raises(NoPermissionError):
            await bells.get_message(timeout=PATIENCE)
        await bells.aclose()
    assert stage.cli("HGET", "tympan:servers", "print09") == "print09"


async def test_a_print_host_whose_server_is_known_needs_to_add_nothing(
    confined: RedisServer,
) -> None:
    known = Wish(roles=[Role.SOURCE], servers=("print01",), claims=False)
    confined.cli("ACL", "SETUSER", "source", *rules(known))
    async with Broker.connect(url(confined, "source"), user="spooler") as source:
        with pytest.raises(RedisRefused, match="tympan:servers"):
            await source.open_channel(PRINTER, TYPE)
        confined.cli("HSET", "tympan:servers", "*", "identity", "print01", "print01")
        assert (await (await source.open_channel(PRINTER, TYPE)).send(b"page")).succeeded


# What a role leaves to others -------------------------------------------------------------------


async def test_a_print_host_leaves_dead_listeners_to_others(cast: Cast) -> None:
    """They are no obstacle to what else the dead held, and a reaper ends them."""
    source, listener = await cast.of("source"), await cast.another("listener")
    gone = await cast.another("source")
    alerts = await listener.register(PRINTER, TYPE)
    left = await gone.open_channel(PRINTER, TYPE)
    await cast.die(listener, gone)
    assert await source.run_down(PRINTER) == 1
    look = await cast.of("observer")
    assert left.id not in {one.id for one in await look.channels(PRINTER)}
    assert [one.id for one in await look.registrations(PRINTER)] == [alerts.id]
    assert await (await cast.of("reaper")).run_down(PRINTER) == 1
    assert await look.registrations(PRINTER) == []


async def test_all_users_are_heard_by_who_may_read_the_grants(cast: Cast) -> None:
    operator, listener = await cast.of("operator"), await cast.of("listener")
    await operator.grant(PRINTER, "desk", "administer")
    with pytest.raises(RedisRefused):
        await listener.register(PRINTER, TYPE, user_filter=ALL_USERS)
    everybodys = await (await cast.of(CHIEF)).register(PRINTER, TYPE, user_filter=ALL_USERS)
    channel = await (await cast.of("source")).open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"page")
    assert await heard(everybodys) == b"page"


# Other forms of Redis ---------------------------------------------------------------------------


async def dialog(source: Broker, listener: Broker) -> None:
    """A question, its answer, and a notification."""
    questions = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    alerts = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
    assert await channel.send(LARGE) == S_OK
    (offer,) = await questions.fetch_offers(PATIENCE)
    assert await offer.respond(b"yes") == S_OK
    assert (await channel.response(PATIENCE)).data == b"yes"
    assert await (await source.open_channel(PRINTER, TYPE, user="desk")).send(b"page") == S_OK
    assert await heard(alerts) == b"page"


async def test_on_a_cluster() -> None:
    """The same user at each node, replicas too; and what is there is listed."""
    roles = (Role.SOURCE, Role.LISTENER, Role.OBSERVER)
    with RedisCluster() as cluster:
        for node in cluster.nodes:
            for role in roles:
                wish = Wish(roles=[role], servers=("print01",), cluster=True)
                node.cli("ACL", "SETUSER", role.value, *rules(wish), ">secret")
        url = {role: cluster.url.replace("://", f"://{role.value}:secret@") for role in roles}
        async with (
            Broker.connect(url[Role.SOURCE], user="spooler", **QUIET) as source,
            Broker.connect(url[Role.LISTENER], user="desk", **QUIET) as listener,
            Broker.connect(url[Role.OBSERVER], user="desk", **QUIET) as look,
        ):
            await dialog(source, listener)
            assert len(await look.channels(PRINTER)) == 2
        assert [refusals(node) for node in cluster.nodes] == [[] for _ in cluster.nodes]


async def test_at_sentinels_with_users_of_their_own() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"`redis-cli -p 26379 (ACL SETUSER tympan .*)`", page)
    with Sentinels(replicas=0, sentinels=1, quorum=1, sentinel_password="other") as watched:
        (sentinel,) = watched.sentinels
        sentinel.cli(*shlex.split(command))
        watched.master.cli("ACL", "SETUSER", "source", *rules(users()["source"]), ">secret")
        named = watched.url.replace("sentinel_password=other", "sentinel_username=tympan&")
        url = f"{named}sentinel_password=secret".replace("://", "://source:secret@")
        async with Broker.connect(url, user="spooler") as source:
            assert (await (await source.open_channel(PRINTER, TYPE)).send(b"page")).succeeded
        assert refusals(watched.master) == []
        assert refusals(sentinel) == []


async def test_before_redis_7_the_rules_do_as_well(confined: RedisServer) -> None:
    """As far as can be seen on this one: they hold nothing that it brought."""
    for role in (Role.SOURCE, Role.LISTENER):
        wish = Wish(roles=[role], servers=("print01",), before_7=True)
        confined.cli("ACL", "SETUSER", role.value, "reset", *rules(wish), ">secret")
    async with (
        Broker.connect(url(confined, "source"), user="spooler") as source,
        Broker.connect(url(confined, "listener"), user="desk") as listener,
    ):
        await dialog(source, listener)
        with pytest.raises(RedisRefused):
            await source.open_channel(OTHER_PRINTER, TYPE)
        with pytest.raises(AccessDenied):
            await listener.open_channel(PRINTER, TYPE)
    assert {user for user, *_ in refusals(confined)} == {"source", "listener"}


async def test_who_waits_for_replicas_may(confined: RedisServer) -> None:
    lasting: dict[str, Any] = {"durability": Durability.REPLICA, "user": "spooler"}
    with confined.replica():
        async with Broker.connect(url(confined, "source"), **lasting) as source:
            channel = await source.open_channel(PRINTER, TYPE)
            with pytest.raises(DurabilityUnavailable, match="wait"):
                await channel.send(b"page")
        wish = Wish(roles=[Role.SOURCE], servers=("print01",), durability=Durability.REPLICA)
        confined.cli("ACL", "SETUSER", "source", *rules(wish))
        async with Broker.connect(url(confined, "source"), **lasting) as source:
            channel = await source.open_channel(PRINTER, TYPE)
            assert (await channel.send(b"page")).succeeded


async def refused_again_and_again(server: RedisServer) -> None:
    """Whatever it was, of few who look: each has looked twice at the least."""

    async def is_refused() -> bool:
        refused: int = sum(one["count"] for one in server.cli("ACL", "LOG"))
        return refused > 20

    await until(is_refused)


async def test_what_an_earlier_acl_forbids_to_the_clock_is_told_once(
    confined: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its calls succeed; what it no longer looks for, nobody else would tell."""
    confined.cli("ACL", "SETUSER", OTHER, "reset", "on", ">secret", "~*", "&*", "+@all", "-zmscore")
    async with (
        Broker.connect(url(confined, OTHER), user="spooler", resync=0.05) as source,
        Broker.connect(url(confined, "listener"), user="desk") as listener,
    ):
        registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        channel = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
        await channel.send(b"on A3?")
        offer = await registration.fetch(PATIENCE)
        assert isinstance(offer, Offer)
        await offer.respond(b"yes")
        await channel.response(PATIENCE)

        await refused_again_and_again(confined)
    said = [record.getMessage() for record in caplog.records]
    (told,) = [line for line in said if "is not possible" in line]
    assert told.startswith("server print01: looking at what is held is not possible")
    assert "zmscore" in told.lower()


async def test_a_stream_that_may_not_be_read_is_told_once(
    confined: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody listens in vain without a word; what was sent is heard when it may be."""
    user = ("ACL", "SETUSER", OTHER)
    confined.cli(*user, "reset", "on", ">secret", "~*", "&*", "+@all", "-xrange")
    async with (
        Broker.connect(url(confined, OTHER), user="desk", resync=0.05) as listener,
        Broker.connect(url(confined, "source"), user="spooler") as source,
    ):
        registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)

        await refused_again_and_again(confined)
        channel = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
        await channel.send(LARGE)
        confined.cli(*user, "+xrange")
        offer = await registration.fetch(PATIENCE)
        assert isinstance(offer, Offer)
    said = [record.getMessage() for record in caplog.records]
    told = [line for line in said if "cannot be read" in line]
    assert 0 < len(told) == len(set(told)) < 10
    assert all("xrange" in line.lower() for line in told)


# What documents say -----------------------------------------------------------------------------


@pytest.fixture
def documented() -> Iterator[RedisServer]:
    """A redis-server with the users of the README."""
    with RedisServer() as server:
        for command in acl_commands():
            type_at(server, command)
        yield server


async def test_the_readmes_users_meet(documented: RedisServer) -> None:
    async with (
        Broker.connect(url(documented, "print01"), user="spooler") as source,
        Broker.connect(url(documented, "helpdesk"), user="desk") as listener,
    ):
        questions = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
        member = await Member.of(listener, ALERTS)
        channel = await source.open_channel(PRINTER, TYPE, user="desk", style=BIDIRECTIONAL)
        await channel.send(b"continue?")
        (offer,) = await questions.fetch_offers(PATIENCE)
        await offer.respond(b"yes")
        assert (await channel.response(PATIENCE)).data == b"yes"
        await (await source.open_channel(PRINTER, TYPE, user="desk")).send(b"page")
        await (await member.delivery()).done()
        with pytest.raises(AccessDenied):
            await listener.open_channel(PRINTER, TYPE)
        with pytest.raises(RedisRefused):
            await source.open_channel(OTHER_PRINTER, TYPE)


@pytest.mark.parametrize(
    ("part", "more"),
    [("to:", ()), ("meta", ("&tympan:{print02}:*",)), ("channels", ())],
    ids=["bells", "scripts", "reading"],
)
async def test_a_refusal_names_the_key_and_who_tells_more(
    confined: RedisServer, part: str, more: tuple[str, ...]
) -> None:
    """Redis itself says only that it was one of the keys, or of the channels."""
    at_home = Wish(roles=[Role.OPERATOR], servers=("print01",))
    confined.cli("ACL", "SETUSER", "operator", *rules(at_home), *more)
    confined.cli("HSET", "tympan:servers", OTHER, OTHER)
    async with Broker.connect(url(confined, "operator"), user="spooler") as operator:
        call: Callable[[str], Awaitable[Any]] = partial(operator.grant, user="alice", right="use")
        if part == "channels":
            call = operator.channels
        with pytest.raises(RedisRefused) as found:
            await call(OTHER_PRINTER)
    assert f"(tympan:{{print02}}:{part}" in str(found.value)
    assert r"`tympan doctor '\\print02'` says what it may do there" in str(found.value)
