"""A process is killed, or sleeps past its lease, at every step of what it does.

It is a process of its own, struck after each step, and in each call of a step: while the call is
on its way, and arrives when everybody takes the process for dead; and when Redis has done it, and
the process has not read so. The others are told when its lease is over and somebody has looked
for the dead: the fault ends with the lease.
"""

from __future__ import annotations

import asyncio
from functools import partial
from traceback import format_exception
from typing import Any

from broker._scripts import SCRIPTS
from broker.errors import TympanError
from tests.farm import PATIENCE, Farm, RedisBackend
from tests.faults.case import Extent, Report, case
from tests.faults.ends import Listener, Owner, Source
from tests.faults.gate import Gate
from tests.faults.puppets import Puppets
from tests.faults.replicas import Heir, PoolOwner, Reaper, Replica
from tests.faults.strokes import Halted, Manner, Part, Stroke
from tests.redis.pooling import end_pools
from tests.servers import RedisServer

AT_ONCE = 8
"""Processes that are struck at the same time, each on a stage of its own."""
TRIES = 4
"""How often a stroke is tried whose others lapsed, too: the machine starved them."""
PARTS: tuple[type[Part], ...] = (Source, Listener, Owner, Replica, PoolOwner, Heir, Reaper)
TELLING = ((Source, Manner.KILLED), (Owner, Manner.PAUSED), (PoolOwner, Manner.KILLED))
"""What the test run plays."""


async def struck(part: Part) -> None:
    """One process is struck once, and everybody's end of it is judged."""
    stroke, gate, puppet = part.stroke, part.gate, part.puppet
    try:
        await part.play()
    except Halted:
        await part.strike()
    else:
        raise AssertionError("it came to no such step")
    await part.judge()
    pending: dict[str, Any] | None = None
    if stroke.manner is Manner.PAUSED:
        puppet.thaw()
    if gate.has_caught:
        async with asyncio.timeout(PATIENCE):
            answer = await gate.let_go()
        if part.is_leased and part.is_late and stroke.script != "hello":
            assert b"LAPSED" in answer, f"what arrived late was answered {answer!r}"
        if stroke.manner is Manner.PAUSED:
            pending = await puppet.said()
    if stroke.manner is Manner.PAUSED:
        await part.wake(pending)
        await puppet.leave()
    else:
        await part.buried()
    await part.handles()
    await end_pools(part.farm.brokers[0])


async def tried(kind: type[Part], stroke: Stroke, server: RedisServer, puppets: Puppets) -> Report:
    """The same on a stage of its own; another one where the machine starved those on it."""
    for _ in range(TRIES):
        report, made = Report(), []
        try:
            async with Farm(RedisBackend(server)) as farm, Gate(server.port) as gate:
                puppet = await puppets.made(gate.url, namespace=farm.namespace, **kind.settings)
                part = kind(farm, gate, puppet, stroke, report)
                made.append(part)
                try:
                    await part.set()
                    await struck(part)
                finally:
                    if not puppet.is_gone:
                        await puppet.kill()
        except (AssertionError, TimeoutError, TympanError) as error:
            report.violations.append(f"{kind.who} {stroke}:\n" + "".join(format_exception(error)))
        if all(part.is_sound for part in made):
            break
    else:
        report.violations.append(f"{kind.who} {stroke}: the others lapsed {TRIES} times")
    return report


async def play(kind: type[Part], manner: Manner, extent: Extent) -> Report:
    """A process of this kind is struck at every step; in the test run at every fifth place."""
    strokes = list(kind.strokes(manner))
    strokes = strokes[2::5] if extent is Extent.SHORT else strokes * extent.of(1, 1, 10)
    whole, gate = Report(), asyncio.Semaphore(AT_ONCE)
    with RedisServer() as server:
        for script in SCRIPTS:
            server.cli("SCRIPT", "LOAD", script.source)
        async with Puppets() as puppets:

            async def one(stroke: Stroke) -> None:
                async with gate:
                    found = await tried(kind, stroke, server, puppets)
                whole.runs += found.runs
                whole.checked += found.checked
                whole.violations += found.violations
                whole.recovered += found.recovered

            await asyncio.gather(*(one(stroke) for stroke in strokes))
    return whole


for _kind in PARTS:
    for _manner in Manner:
        case(
            f"{_kind.who} {_manner}",
            _kind.promise,
            is_short=(_kind, _manner) in TELLING,
        )(partial(play, _kind, _manner))
