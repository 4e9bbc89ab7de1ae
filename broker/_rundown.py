"""Run-down: ends what dead processes held. Any process may do it, and any number at once.

No leader, no lock: each step is a script that compares first, and finds its work done where
another process was quicker.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from broker import _calls, _pools
from broker._calls import NO_BODY, Route
from broker._channel_facts import boards_of, read_facts
from broker._keys import POOL
from broker._plan import RegistrationPlan
from broker._stored import read_record
from broker.errors import ForeignLayout, RedisRefused

if TYPE_CHECKING:
    from broker._server import Server

log = logging.getLogger("tympan")

AT_ONCE = 256


async def run_down(server: Server) -> int:
    """End what the dead held on a server; how many sessions were buried."""
    _, *dead = await server.ask_anew(lambda: _calls.sweep(server.keys, AT_ONCE))
    return sum([await _run_down(server, session.decode()) for session in dead])


async def _run_down(server: Server, session: str) -> bool:
    async for held in _held(server, session):
        try:
            await _end(server, held, session)
        except (RedisRefused, ForeignLayout) as error:
            # Not by this credential, or nobody understands it; what else the dead held is ended.
            log.info("server %s: %s of %s stays: %s", server.name, held, session, error)
    word, *_ = await server.ask(lambda: _calls.bury(server.keys, session))
    return bool(word == "OK")


async def _end(server: Server, held: str, session: str) -> None:
    """End one thing that a dead session held."""
    kind, _, what = held.partition(":")
    if kind == "registration":
        await end_registration(server, what, "run-down", session)
    elif kind == "channel":
        await end_channel(server, what, "run-down", session)
    elif kind == "replica":
        await _pools.give_up_share(server, what, session)
    elif kind == "dialog":
        channel, _, registration = what.partition(":")
        word = "NO_POOL"
        if registration.startswith(POOL):
            word = await _pools.let_wait(server, channel, registration, session)
        if word == "NO_POOL":
            await _pools.end_dialog(server, channel, registration, session, "run-down")


async def give_up_forgotten(server: Server) -> None:
    """End anew what this process ended before, where a failover forgot that.

    Redis has it as held by a session that lives, and others would wait for it.
    """
    session = server.session
    async for held in _held(server, session):
        kind, _, what = held.partition(":")
        if what in server.beginning:
            continue
        if kind == "channel" and what not in server.channels:
            await end_channel(server, what, "abandon", session)
        elif kind == "registration" and what not in server.listening.registrations:
            await end_registration(server, what, "unregister", session)
        elif kind == "dialog":
            channel, _, registration = what.partition(":")
            # A pool's is its replicas' to see to.
            if not registration.startswith(POOL) and (channel, registration) not in server.dialogs:
                await _pools.end_dialog(server, channel, registration, session, "abandon")


async def _held(server: Server, session: str) -> AsyncIterator[str]:
    cursor = b"0"
    while True:
        cursor, names = await server.command(
            "SSCAN", server.keys.held(session), cursor, "COUNT", AT_ONCE
        )
        for name in names:
            yield name.decode()
        if cursor == b"0":
            return


async def end_registration(server: Server, registration: str, kind: str, holder: str) -> str:
    """End a registration by its record (``revoke``, ``run-down``); the word that Redis answered."""
    text = await server.command("HGET", server.keys.registrations, registration)
    plan = (
        RegistrationPlan.of_record(server.name, read_record(text, f"registration {registration}"))
        if text
        else None
    )
    reply = await server.ask(
        lambda: _calls.unregister(server.keys, registration, plan, kind, holder)
    )
    return str(reply[0])


async def end_channel(
    server: Server, channel: str, kind: str, holder: str, *, boards: Route | None = None
) -> str:
    """Close a channel in the name of its source: ``run-down``, or ``abandon`` after a loss.

    ``boards``: where it is offered, should Redis not know that any more.
    """
    word, listening = "MOVED", ""
    while word == "MOVED":
        facts = await read_facts(server, channel, "subject", "owner_session", "held", "op")
        listening = facts.get("owner_session", "")
        route = boards_of(server, channel, facts.get("subject"))
        if not facts and boards is not None:
            route = boards
        op = int(facts.get("op", "0")) + 1
        call = _calls.source_close(
            server.keys,
            route,
            op,
            kind,
            holder,
            listening,
            server.keep,
            facts.get("held"),
            NO_BODY,
        )
        word = str((await server.ask(lambda: call))[0])  # noqa: B023 (asked in the same turn)
    return word


async def close_channel(server: Server, channel: str) -> str:
    """Close a channel in the name of the print server; the word that Redis answered."""
    word = "MOVED"
    while word == "MOVED":
        facts = await read_facts(server, channel, "subject", "session", "owner_session", "held")
        call = _calls.server_close(
            server.keys,
            boards_of(server, channel, facts.get("subject")),
            facts.get("session", ""),
            facts.get("owner_session", ""),
            server.keep,
            facts.get("held"),
        )
        word = str((await server.ask_anew(lambda: call))[0])  # noqa: B023 (asked in the same turn)
    return word
