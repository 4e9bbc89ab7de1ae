"""The rows of pools and of first responses."""

from __future__ import annotations

from functools import partial

from benchmarks.contest import AHEAD, Line, Terms, at_least, hold
from benchmarks.contestants import (
    BULLMQ,
    JETSTREAM,
    PEERS_ON_REDIS,
    POOL,
    POOL_FLOOR,
    RABBITMQ,
    RACE,
    RACE_FLOOR,
)
from benchmarks.party import Contender
from benchmarks.racing import Racing
from benchmarks.sharing import Sharing
from benchmarks.stage import Stage

IN_FLIGHT = 256
CHANNELS = 64
REPLICAS = (1, 2, 4)
RESPONDERS = 16
PROCESSES = 4
RACES = 300


async def pools(stage: Stage, terms: Terms) -> list[Line]:
    """What 1, 2 and 4 replica processes handle in a second, each entry acknowledged."""
    lines = []
    peers = (JETSTREAM, RABBITMQ, *PEERS_ON_REDIS, BULLMQ)
    for replicas in REPLICAS:
        shares = [
            Sharing(stage, contender, _subject(contender, replicas), replicas=replicas)
            for contender in (POOL, POOL_FLOOR, *peers)
        ]
        outcome = await hold(
            {share.contender.name: partial(share.rate, IN_FLIGHT, CHANNELS) for share in shares},
            terms.rounds,
        )
        for share in shares:
            await share.leave()
        what = f"a pool with {replicas} {'replica' if replicas == 1 else 'replicas'}"
        lines += [
            outcome.line(what, "deliveries", "/s", AHEAD, against=peer.name) for peer in peers
        ]
        lines.append(outcome.line(what, "deliveries", "/s", None, against=POOL_FLOOR.name))
    return lines


def _subject(contender: Contender, replicas: int) -> str:
    """One of its own: several contenders name keys of one Redis by it."""
    return f"{contender.program.replace('.', '-')}-{replicas}"


async def decisions(stage: Stage, terms: Terms) -> list[Line]:
    """Questions that 16 responders hold and answer at once: how many are decided in a second."""
    racing = {
        contender.name: Racing(stage, contender, "race", responders=RESPONDERS, processes=PROCESSES)
        for contender in (RACE, RACE_FLOOR)
    }
    outcome = await hold(
        {name: partial(race.rate, RACES) for name, race in racing.items()}, terms.rounds
    )
    what = f"decisions, {RESPONDERS} responders each"
    return [outcome.line(what, "decisions", "/s", at_least(0.5), against=RACE_FLOOR.name)]
