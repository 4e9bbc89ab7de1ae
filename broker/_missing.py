"""Missing: what this process holds on a server is looked for in Redis, by the clock.

Whoever takes it away there tells nobody: an operator who deletes keys, a Redis that evicts them.
Ends of a channel that is gone, or whose other end is, are told NOTIFICATION_RELEASE; registrations
are made again, and open questions are put back on their boards.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Any

from broker._batches import batches
from broker._keys import POOL, inbox_field
from broker.conversation import BIDIRECTIONAL

if TYPE_CHECKING:
    from broker._plan import PoolPlan
    from broker._server import Server
    from broker.channel import Channel
    from broker.offer import Offer
    from broker.registration import Registration

TURNS = 12
"""Looks after which each room was looked for: a process may follow very many."""


async def find(server: Server, turn: int) -> None:
    """Look for what is held, and see to what is gone. Raises RedisError, OutcomeUnknown."""
    number = await _last_told(server, server.session)
    if number is None or await server.has_missed(number):
        await server.lose()
        return
    await _find_channels(server)
    await _find_registrations(server, turn)
    await _find_rooms_of_pools(server)
    await _find_questions(server)


async def _last_told(server: Server, session: str) -> int | None:
    """Number of what Redis told a session last; without one it tells it nothing."""
    number = await server.command("HGET", server.keys.streams, inbox_field(session))
    return None if number is None else int(number)


async def _find_channels(server: Server) -> None:
    held: list[Channel | Offer[Any]] = [*server.channels.values(), *server.dialogs.values()]
    for some in batches(held):
        keys = {server.keys.channel(end.id) for end in some}
        doubtful = some
        if await server.command("EXISTS", *keys) == len(keys):
            over = await _over(server, {end.other_session for end in some})
            doubtful = [end for end in some if end.other_session in over]
        await asyncio.gather(*(end.confirm() for end in doubtful))


async def _over(server: Server, sessions: set[str]) -> set[str]:
    """Those that are over; a pool is none, nor is one that is not known."""
    asked = [session for session in sessions if session and not session.startswith(POOL)]
    if not asked:
        return set()
    deadlines = await server.command("ZMSCORE", server.keys.leases, *asked)
    return {session for session, at in zip(asked, deadlines, strict=True) if at is None}


async def _find_questions(server: Server) -> None:
    for some in batches([channel for channel in server.channels.values() if channel.is_asking]):
        await asyncio.gather(*(channel.offer_again() for channel in some))


async def _find_registrations(server: Server, turn: int) -> None:
    listening = server.listening
    rooms: dict[str, list[Registration[Any]]] = {}
    for registration in listening.registrations.values():
        for audience in registration.plan.audiences:
            rooms.setdefault(server.keys.room(audience), []).append(registration)
    missing: set[str] = set()
    for room, here in islice(rooms.items(), turn, None, TURNS):
        for some in batches([(each.id, each.plan.group(each.id)) for each in here]):
            found = await server.command("ZMSCORE", room, *(group for _, group in some))
            missing |= {id_ for (id_, _), score in zip(some, found, strict=True) if score is None}
    for id_ in missing:
        await listening.find_out(id_)


async def _find_rooms_of_pools(server: Server) -> None:
    """Give a pool its room again: without one it collects nothing."""
    keys = server.keys
    for replica in list(server.replicas.values()):
        pool = replica.pool_plan
        for audience in pool.audiences:
            room = keys.room(audience)
            if (await server.command("ZMSCORE", room, pool.group))[0] is not None:
                continue
            if not await _is_listed(server, pool):
                break
            space = "inf"
            if pool.plan.style is not BIDIRECTIONAL:
                number = int(await server.command("HGET", keys.streams, audience.field) or 0)
                unfinished = int(await server.command("XLEN", keys.stream(audience)))
                space = str(number + max(1, pool.buffer - unfinished))
            await server.command("ZADD", room, "NX", space, pool.group)
            if not await _is_listed(server, pool):  # it was deleted meanwhile
                await server.command("ZREM", room, pool.group)


async def _is_listed(server: Server, pool: PoolPlan) -> bool:
    return await server.command("HGET", server.keys.pools, pool.id) is not None


async def leave_to_others(server: Server, session: str) -> None:
    """A session of this process is over, though Redis may have lost its lease, or believe in it.

    What it held is run down.
    """
    keys = server.keys
    left = await server.command("EXISTS", keys.held(session), keys.inbox(session))
    if left or await _last_told(server, session) is not None:
        await server.command("ZADD", keys.leases, 0, session)
