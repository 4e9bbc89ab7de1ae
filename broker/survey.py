"""Surveys: what stands on each print server at one time, for whoever watches a farm. Reads only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from broker._server import Server
from broker.dead_letter import DeadLetter, read_last
from broker.errors import TympanError
from broker.inventory import (
    ChannelFacts,
    RegistrationFacts,
    ServerFacts,
    read_clock,
    read_questions,
    read_registrations,
    read_server,
    together,
)
from broker.names import Name
from broker.pool import PoolFacts, read_pools


@dataclass(frozen=True, slots=True)
class Survey:
    """One print server, and what stands there."""

    server: ServerFacts
    now: float
    """When that was, in seconds of Redis's clock."""
    pools: tuple[PoolFacts, ...] = ()
    questions: tuple[ChannelFacts, ...] = ()
    """What was asked and is not closed, oldest first: questions, and their dialogs."""
    registrations: tuple[RegistrationFacts, ...] = ()
    letters: int = 0
    """Dead letters."""
    last_letter: DeadLetter | None = None
    unread: TympanError | None = None
    """Why it could not be read; then nothing else is known of it."""

    @property
    def name(self) -> Name:
        """The print server."""
        return self.server.name


async def read_surveys(servers: Sequence[tuple[Server, tuple[str, ...]]]) -> list[Survey]:
    """A survey of each of these, on which no session need have begun, with their aliases."""
    return await asyncio.gather(*(_read(*one) for one in servers))


async def _read(server: Server, aliases: tuple[str, ...]) -> Survey:
    try:
        facts, now, pools, questions, registrations, (count, last) = await together(
            read_server(server, aliases),
            read_clock(server),
            read_pools(server),
            read_questions(server),
            read_registrations(server),
            read_last(server),
        )
    except TympanError as error:
        others = tuple(Name(alias) for alias in aliases)
        return Survey(ServerFacts(Name(server.name), others, 0, 0, 0, 0), 0.0, unread=error)
    return Survey(facts, now, tuple(pools), tuple(questions), tuple(registrations), count, last)
