"""Pools: registrations that outlive the processes which serve them.

A pool listens, as any registration does, but what it hears is shared among its replicas: each
notification and each question is handled by one of them. It collects while none runs, up to its
buffer, and it ends by hand. Separate pools each get their copy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from broker import _pools
from broker._entries import EntryId, by_name
from broker._plan import PoolPlan, RegistrationPlan
from broker._server import Server
from broker._stored import read_record, stored
from broker.conversation import (
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Style,
    UserFilter,
    parse_style,
    parse_user_filter,
)
from broker.errors import InvalidArgument, RedisError
from broker.inventory import fields_of, together
from broker.names import Name, parse_pool, parse_user
from broker.notification import model_of
from broker.notification_type import check_style
from broker.registration import MAX_BUFFER, needed_by
from broker.replica import Replica, ReplicaListener
from broker.rights import Right

if TYPE_CHECKING:
    from broker.payload import Payload

At = Callable[[str | Name | None], Awaitable[tuple[Server, Name]]]
COUNTED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """One registration of a pool, and its backlog."""

    pool: str
    id: str
    name: Name
    type: UUID
    style: Style
    user: str
    user_filter: UserFilter
    printers: bool
    needed: Right
    """The right that it stands on."""
    source: str | None
    """The rights source that says so; None for the grants in Redis."""
    buffer: int
    """How many unfinished notifications it holds; no bound where it is bidirectional."""
    since: float
    """When it was made, in seconds of Redis's clock."""
    waiting: int
    """What no replica has in hand: notifications, open questions, dialogs that wait."""
    in_hand: int
    """What replicas have in hand: notifications, questions, and dialogs that they carry."""
    denied: int
    """Notifications that it missed because its buffer was full."""
    everywhere: bool
    """Whether it is one server's part of a pool that listens on the whole farm."""
    replicas: tuple[str, ...]
    """Sessions of the processes that serve it now."""

    @property
    def backlog(self) -> int:
        """What is not finished: the figure to scale by."""
        return self.waiting + self.in_hand


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a pool listens to, as a listener would say it."""

    name: str | Name | None
    r"""``\\server\\printer`` or ``\\\\server``; None for the client's own server."""
    type: str | UUID | type[Payload]
    """A GUID, a known alias, or a model, by which payloads are validated."""
    user: str | None = None
    """Who listens; None for the broker's user."""
    user_filter: UserFilter = PER_USER
    """ALL_USERS hears everybody's; the user must administer the name."""
    style: Style = UNIDIRECTIONAL
    printers: bool = False
    """With a server's name: hear all its printers too."""
    buffer: int | None = None
    """Unfinished notifications that are held; None for the setting ``pool_buffer``."""
    everywhere: bool = False
    """Whether the same is listened to on every server of the farm; a reaper sees to those that are
    added later."""


class Pools:
    """The pools of a farm, as one client sees them: ``broker.pools``."""

    def __init__(self, at: At, glance: At, user: Callable[[], str]) -> None:
        self._at = at
        self._glance = glance
        self._user = user

    async def create(self, pool: str, subscription: Subscription) -> bool:
        """Have a pool listen from now on, with or without a replica; whether it did not before.

        One that is there stays as it was made.

        Raises InvalidName, InvalidArgument, AccessDenied, RightsUnavailable,
        MaxRegistrationCountExceeded.
        """
        server, plan, _ = await self._plan(pool, subscription)
        return await _pools.create(server, plan)

    async def join(
        self,
        pool: str,
        subscription: Subscription,
        listener: ReplicaListener,
    ) -> Replica[Any]:
        """Serve a pool on one server; the first replica makes it.

        Errors as :meth:`create`. Leave it, or close the broker, to hand back what is in hand.
        """
        server, plan, model = await self._plan(pool, subscription)
        if plan.id in server.replicas:
            raise InvalidArgument(
                f"this process serves pool {plan.pool} for {plan.plan.name} twice"
            )
        replica: Replica[Any] = Replica(server, plan, model, listener)
        await replica.join()
        return replica

    async def _plan(
        self, pool: str, wish: Subscription
    ) -> tuple[Server, PoolPlan, type[Payload] | None]:
        guid, model = model_of(wish.type)
        style, user_filter = parse_style(wish.style), parse_user_filter(wish.user_filter)
        check_style(guid, style)
        folded, user = parse_pool(pool), parse_user(wish.user or self._user())
        server, name = await self._at(wish.name)
        if wish.printers and name.printer:
            raise InvalidArgument(
                f"printers=True hears all printers of a server; {name} is a printer"
            )
        buffer = server.settings.pool_buffer if wish.buffer is None else wish.buffer
        if type(buffer) is not int or not 1 <= buffer <= MAX_BUFFER:
            raise InvalidArgument(
                f"buffer={buffer!r}: a pool holds 1 to {MAX_BUFFER:,} notifications"
            )
        needed = needed_by(server.settings, name, user_filter)
        source = server.listening.standing.source if needed else ""
        plan = RegistrationPlan(name, guid, style, user, user_filter, wish.printers, needed, source)
        return server, PoolPlan(folded, plan, buffer, wish.everywhere), model

    async def on_server(self, name: str | Name | None) -> list[PoolFacts]:
        """The pools' registrations on one print server, or for one printer, by pool and name."""
        server, asked = await self._glance(name)
        return [facts for facts in await read_pools(server) if asked.covers(facts.name)]

    async def delete(self, pool: str, name: str | Name | None) -> list[PoolFacts]:
        """End a pool on a print server, or for one printer; what ended, and with which backlog.

        What it collected is dropped; dialogs that wait for a replica of it are closed; those that
        a replica carries go on.
        """
        folded, ended = parse_pool(pool), []
        for facts in await self.on_server(name):
            if facts.pool != folded:
                continue
            server, _ = await self._at(name)
            plan = await _pools.find(server, facts.id)
            if plan is not None:
                await _pools.delete(server, plan)
                ended.append(facts)
        return ended


async def read_pools(server: Server) -> list[PoolFacts]:
    """The pools' registrations on a server; it needs no session there."""
    records = (await fields_of(server, server.keys.pools)).items()
    found = [_facts(server, read_record(text, "a pool")) for _, text in records]
    return sorted(await together(*found), key=lambda facts: (facts.pool, facts.name, facts.id))


async def _facts(server: Server, record: dict[str, Any]) -> PoolFacts:
    pool = PoolPlan.of_record(server.name, record)
    with stored(f"pool {pool.pool}"):
        since = record["since"] / 1000
    plan = pool.plan
    if plan.style is BIDIRECTIONAL:
        waiting, in_hand, replicas = await _count_questions(server, pool)
        denied = 0
    else:
        waiting, in_hand, replicas = await _count_notifications(server, pool)
        field = pool.audiences[0].field
        denied = int(await server.command("HGET", server.keys.streams, f"{field} denied") or 0)
    return PoolFacts(
        pool.pool,
        pool.id,
        plan.name,
        plan.type,
        plan.style,
        plan.user,
        plan.user_filter,
        plan.printers,
        Right(plan.needed),
        plan.source or None,
        pool.buffer,
        since,
        waiting,
        in_hand,
        denied,
        pool.everywhere,
        replicas,
    )


async def _count_notifications(server: Server, pool: PoolPlan) -> tuple[int, int, tuple[str, ...]]:
    audience = pool.audiences[0]
    there = int(await server.command("XLEN", server.keys.stream(audience)))
    returned = int(await server.command("ZCARD", server.keys.returned(pool.id, audience)))
    consumers = await _consumers(server, pool)
    in_hand = max(0, sum(consumers.values()) - returned)
    return max(0, there - in_hand), in_hand, await _living(server, pool)


async def _count_questions(server: Server, pool: PoolPlan) -> tuple[int, int, tuple[str, ...]]:
    """Dialogs that a replica carries are in hand, though their questions are off the board."""
    waiting = int(await server.command("SCARD", server.keys.held(pool.id)))
    in_hand = 0
    for audience in pool.audiences:
        board = server.keys.stream(audience)
        for entry, holder in await _pending(server, board, pool.group):
            if await server.command("XRANGE", board, entry, entry):
                waiting += holder == _pools.NOBODY
                in_hand += holder != _pools.NOBODY
        waiting += await _undelivered(server, board, pool.group)
    replicas = await _living(server, pool)
    for session in replicas:
        held = await server.command("SMEMBERS", server.keys.held(session))
        mine = f":{pool.id}".encode()
        in_hand += sum(one.startswith(b"dialog:") and one.endswith(mine) for one in held)
    return waiting, in_hand, replicas


async def _living(server: Server, pool: PoolPlan) -> tuple[str, ...]:
    """The replicas: sessions that joined and were not declared dead."""
    sessions = await server.command("ZRANGEBYSCORE", server.keys.leases, "(0", "+inf")
    joined = await together(
        *(
            server.command("SISMEMBER", server.keys.held(one.decode()), f"replica:{pool.id}")
            for one in sessions
        )
    )
    return tuple(one.decode() for one, is_in in zip(sessions, joined, strict=True) if is_in)


async def _groups(server: Server, board: str, group: str) -> EntryId | None:
    """The last entry that a group was given; None where there is no such group."""
    try:
        groups = await server.command("XINFO", "GROUPS", board)
    except RedisError:
        return None
    for flat in groups:
        facts = by_name(flat)
        if facts[b"name"].decode() == group:
            return EntryId.parse(facts[b"last-delivered-id"])
    return None


async def _undelivered(server: Server, board: str, group: str) -> int:
    last = await _groups(server, board, group) or EntryId(0, 0)
    count, after = 0, f"({last}"
    while True:
        found = await server.command("XRANGE", board, after, "+", "COUNT", COUNTED_AT_ONCE)
        count += len(found)
        if len(found) < COUNTED_AT_ONCE:
            return count
        after = f"({found[-1][0].decode()}"


async def _pending(server: Server, stream: str, group: str) -> list[tuple[str, str]]:
    """The entries that somebody has in hand, and who."""
    found: list[tuple[str, str]] = []
    after = "-"
    while True:
        try:
            some = await server.command("XPENDING", stream, group, after, "+", COUNTED_AT_ONCE)
        except RedisError:
            return found
        found += [(one[0].decode(), one[1].decode()) for one in some]
        if len(some) < COUNTED_AT_ONCE:
            return found
        after = f"({found[-1][0]}"


async def _consumers(server: Server, pool: PoolPlan) -> dict[str, int]:
    """How many entries each consumer of a pool's own stream has."""
    stream = server.keys.stream(pool.audiences[0])
    try:
        found = await server.command("XINFO", "CONSUMERS", stream, pool.group)
    except RedisError:
        return {}
    facts = [by_name(flat) for flat in found]
    return {one[b"name"].decode(): int(one[b"pending"]) for one in facts}
