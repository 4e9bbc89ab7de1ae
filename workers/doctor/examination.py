"""The examination: asks each Redis process behind a URL what it is. Changes nothing.

A command that Redis refuses, because of its ACL or because there is no such command, is a fact. So
is a process that does not answer, as long as another one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from redis.asyncio.connection import SSLConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ResponseError,
)

from broker import Settings
from broker._address import Address, Dialer, Form, Node, shown_node
from broker._connect import ask, open_connection, or_disconnected
from broker._keys import directory
from broker.errors import InvalidName, RedisError
from broker.names import parse_server
from workers.doctor.credential import (
    ANY,
    DRY_RUN,
    IDLE,
    Command,
    CredentialFacts,
    gate,
    in_json,
    keys_given,
    probes,
    read_credential,
)
from workers.doctor.ensemble import ClusterFacts, SentinelFacts, View
from workers.doctor.facts import FarmFacts, Tls, Way
from workers.doctor.node import SETTINGS, NodeFacts, read_info, read_pairs

MOST_SERVERS = 32
"""Print servers whose keys are tried with a credential, when none is named."""
WATCHED = "__sentinel__:hello"
"""The channel of Redis on which each Sentinel that watches it listens."""
UNNAMED = (
    "An ACL allows some print servers and not others, and none is known here yet: name one, as in "
    r"tympan doctor '\\server'."
)
ANSWERED_NO = (ResponseError, BusyLoadingError, AuthenticationError)


class Place(NamedTuple):
    """A process to ask: what to call it, and how. ``command`` raises what is in ANSWERED_NO."""

    address: str
    command: Callable[..., Awaitable[Any]]


async def examine(
    address: Address, settings: Settings, servers: Sequence[str] | None = None
) -> FarmFacts:
    """Ask everything.

    ``servers``: on which print servers' keys the credential is tried; by default on those that
    Redis knows, without those that its ACL keeps it from. Raises RedisUnreachable where nothing
    answers, and RedisRefused where every process refuses the credentials.
    """
    match address.form:
        case Form.SINGLE:
            return await _examine_single(address, settings, servers)
        case Form.SENTINEL:
            sentinel, nodes = await _ask_sentinels(address, settings)
            return await _examine_several(address, nodes, settings, servers, sentinel=sentinel)
        case Form.CLUSTER:
            cluster = await _find_cluster(address, settings)
            nodes = [_node(one.address) for one in cluster.members]
            return await _examine_several(address, nodes, settings, servers, cluster=cluster)


async def _examine_single(
    address: Address, settings: Settings, servers: Sequence[str] | None
) -> FarmFacts:
    where = address.nodes[0] if address.nodes else None
    async with _place(address.redis, where, settings) as place:
        node = await examine_node(place)
    facts = FarmFacts(way=way_of(address), nodes=(node,))
    if node.mode == "sentinel":
        return facts
    return await _with_credentials(facts, address, [where], settings, servers)


async def _examine_several(
    address: Address,
    nodes: Sequence[Node],
    settings: Settings,
    servers: Sequence[str] | None,
    cluster: ClusterFacts | None = None,
    sentinel: SentinelFacts | None = None,
) -> FarmFacts:
    """Each process. Raises the first one's error where none of them answers."""
    faults: list[RedisError] = []

    async def look(node: Node) -> NodeFacts:
        try:
            async with _place(address.redis, node, settings, is_alone=False) as place:
                return await examine_node(place)
        except RedisError as error:
            faults.append(error)
            return NodeFacts(address=shown_node(node), unreachable=_reason(error))

    found = await asyncio.gather(*map(look, nodes))
    if len(faults) == len(nodes):
        raise faults[0]
    primaries = [node for node, facts in zip(nodes, found, strict=True) if facts.is_primary]
    answering = [node for node, facts in zip(nodes, found, strict=True) if not facts.unreachable]
    facts = FarmFacts(
        way=way_of(address, nodes), nodes=tuple(found), cluster=cluster, sentinel=sentinel
    )
    return await _with_credentials(facts, address, primaries or answering, settings, servers)


def _reason(error: RedisError) -> str:
    """A sentence."""
    return str(error).rstrip(".") + "."


def way_of(address: Address, nodes: Sequence[Node] = ()) -> Way:
    """What the URL says of the way to Redis, and to processes that it does not name."""
    options = address.redis.options
    tls = Tls.NONE
    if issubclass(address.redis.kind, SSLConnection):
        is_verified = options.get("ssl_cert_reqs", "required") == "required" and options.get(
            "ssl_check_hostname", True
        )
        tls = Tls.VERIFIED if is_verified else Tls.UNVERIFIED
    return Way(
        form=address.form,
        tls=tls,
        is_local=all(_is_local(host) for host, _ in (*address.nodes, *nodes)),
        has_password=bool(options.get("password")),
    )


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _node(address: str) -> Node:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


# One process -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _place(
    dialer: Dialer, node: Node | None, settings: Settings, *, is_alone: bool = True
) -> AsyncIterator[Place]:
    """A connection to one process. Raises RedisUnreachable, RedisRefused.

    ``is_alone``: the URL names no other.
    """
    where = shown_node(node) if node else dialer.options["path"]
    connection = await open_connection(dialer.connection(node), where, settings, is_alone=is_alone)

    async def command(*words: str | int) -> Any:
        async with asyncio.timeout(settings.reply_timeout):
            return _text(await ask(connection, *words))

    async with or_disconnected(connection, where, is_alone=is_alone):
        yield Place(where, command)
        await connection.disconnect()


def _text(reply: Any) -> Any:
    """A reply whose strings are text."""
    if isinstance(reply, bytes):
        return reply.decode(errors="surrogateescape")
    return [_text(one) for one in reply] if isinstance(reply, list) else reply


async def examine_node(place: Place) -> NodeFacts:
    """All that one process tells of itself."""
    refused: dict[str, str] = {}

    async def told(name: str, *more: str) -> Any:
        try:
            return await place.command(*name.split(), *more)
        except ANSWERED_NO as error:
            refused[name] = str(error)
            return None

    info = read_info(await told("INFO") or "")
    config: dict[str, str] = {}
    for setting in SETTINGS:
        if "CONFIG GET" not in refused:
            config |= read_pairs(await told("CONFIG GET", setting) or ())
    if info.get("redis_mode") == "sentinel":
        return NodeFacts.of(place.address, info, config)
    user = await told("ACL WHOAMI")
    subscribers = None
    if "pubsub_clients" not in info:
        clients = await told("CLIENT LIST", "TYPE", "pubsub")
        subscribers = None if clients is None else len(clients.splitlines())
    watched = await told("PUBSUB NUMSUB", WATCHED)
    return NodeFacts.of(
        place.address,
        info,
        config,
        refused=refused,
        user=user,
        subscribers=subscribers,
        sentinels=None if watched is None else int(watched[1]),
    )


# Several -----------------------------------------------------------------------------------------


async def _find_cluster(address: Address, settings: Settings) -> ClusterFacts:
    """As the first node that answers sees it. Raises the last one's error where none does."""
    fault: RedisError | None = None
    for node in address.nodes:
        try:
            async with _place(address.redis, node, settings, is_alone=False) as place:
                said = [await place.command("CLUSTER", what) for what in ("INFO", "NODES")]
                return ClusterFacts.of(place.address, *said)
        except RedisError as error:
            fault = error
    assert fault is not None, "a URL names one node or more"
    raise fault


async def _ask_sentinels(address: Address, settings: Settings) -> tuple[SentinelFacts, list[Node]]:
    """What they say, and which processes they name, the primary first.

    Sentinels that the URL does not name are asked, too. Raises the first one's error where none
    says anything.
    """
    views: dict[Node, View] = {}
    named: dict[Node, None] = {}
    faults: list[RedisError] = []

    async def hear(sentinel: Node) -> list[Node]:
        assert address.sentinel is not None
        try:
            async with _place(address.sentinel, sentinel, settings, is_alone=False) as place:
                said = [
                    await place.command("SENTINEL", what, address.master)
                    for what in ("MASTER", "REPLICAS", "SENTINELS")
                ]
        except RedisError as error:
            faults.append(error)
            views[sentinel] = View(sentinel=shown_node(sentinel), unreachable=_reason(error))
            return []
        views[sentinel] = View.of(shown_node(sentinel), said[0])
        named.update(dict.fromkeys((_listed(said[0]), *map(_listed, said[1]))))
        return [_listed(one) for one in said[2]]

    waiting = set(address.nodes)
    while waiting:
        others = await asyncio.gather(*map(hear, waiting))
        waiting = {node for listed in others for node in listed} - views.keys()
    if not named:
        raise faults[0]
    return SentinelFacts(master=address.master, views=tuple(views.values())), list(named)


def _listed(flat: Sequence[str]) -> Node:
    """One of SENTINEL REPLICAS or SENTINELS, or SENTINEL MASTER."""
    facts = read_pairs(flat)
    return facts["ip"], int(facts["port"])


# The credential ----------------------------------------------------------------------------------


async def _with_credentials(
    facts: FarmFacts,
    address: Address,
    nodes: Sequence[Node | None],
    settings: Settings,
    servers: Sequence[str] | None,
) -> FarmFacts:
    """The facts, and what the credential may do on these print servers."""
    known = await _known_servers(address, nodes, settings)
    facts = replace(facts, servers=known, is_named=servers is not None)
    user = next((node.user for node in facts.reached if node.user), None)
    async with _place(address.redis, nodes[0], settings) as place:
        try:
            if servers is None:
                servers, outside = await _meant_for(place, settings.namespace, known or (), user)
                facts = replace(facts, outside=tuple(outside))
            found = tuple(
                [
                    await _try_on(place, settings.namespace, server, address.form)
                    for server in servers[:MOST_SERVERS] or [ANY]
                ]
            )
        except ANSWERED_NO as error:
            return replace(facts, untried=f"Redis answered: {error}.")
    if not servers and found[0].lacks:
        return replace(facts, untried=UNNAMED)
    return replace(facts, credentials=found)


async def _known_servers(
    address: Address, nodes: Sequence[Node | None], settings: Settings
) -> tuple[str, ...] | None:
    """What the directory of the namespace lists; of a Cluster, one node has it."""
    for node in nodes:
        async with _place(address.redis, node, settings) as place:
            with contextlib.suppress(*ANSWERED_NO):
                names = read_pairs(await place.command("HGETALL", directory(settings.namespace)))
                return tuple(sorted(name for name, of in names.items() if name == of))
    return None


async def _meant_for(
    place: Place, namespace: str, known: Sequence[str], user: str | None
) -> tuple[Sequence[str], Sequence[str]]:
    """On which print servers to try the credential, and which its ACL keeps it from.

    A print host is often its user's name, and perhaps not known yet. Where nothing is allowed,
    all that is known is to be tried, and found to be forbidden.
    """
    answers = await _may(place, [gate(namespace, server) for server in known])
    inside = [server for server, may in zip(known, answers, strict=True) if may]
    if inside:
        return inside, [server for server in known if server not in inside]
    with contextlib.suppress(InvalidName):
        own = parse_server(user or "")
        is_anywhere, is_own = await _may(place, [gate(namespace, one) for one in (ANY, own)])
        if is_own and not is_anywhere:
            return [own], known
    return known, []


async def _try_on(place: Place, namespace: str, server: str, form: Form) -> CredentialFacts:
    asked = probes(namespace, server, form)
    commands = list(dict.fromkeys(one for listed in asked.values() for one in listed))
    answers = await place.command("EVAL", DRY_RUN, 0, *in_json(commands))
    if answers:
        allowed = {one: bool(answer) for one, answer in zip(commands, answers, strict=True)}
    else:
        allowed = {one: await _may_be_given(place, key) for one, key in keys_given(commands)}
    return read_credential(server, asked, allowed)


async def _may(place: Place, gates: Sequence[Command]) -> list[bool]:
    """Whether each script may be given its key."""
    answers = await place.command("EVAL", DRY_RUN, 0, *in_json(gates)) if gates else ()
    if answers or not gates:
        return [bool(answer) for answer in answers]
    return [await _may_be_given(place, key) for _, key in keys_given(gates)]


async def _may_be_given(place: Place, key: str) -> bool:
    """Whether scripts may be given the key, where Redis is too old to be asked."""
    try:
        await place.command("EVAL", IDLE, 1, key)
    except NoPermissionError:
        return False
    except ResponseError:  # of a Cluster, another node has the key
        return True
    return True
