"""The rows of what Redis does and holds: time in scripts, memory, what is left, large bodies."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

import redis.asyncio

from benchmarks.caller import Caller
from benchmarks.contest import Figures, Line, Terms, at_most, hold, limit
from benchmarks.contestants import RAW_COPIES, TYMPAN
from benchmarks.footprint import Footprint
from benchmarks.lifetimes import Lifetimes
from benchmarks.script_time import Case, Trials, flatness
from benchmarks.stage import Stage
from benchmarks.telling import Telling

LISTENERS = (0, 10, 100, 1_000, 10_000)
LIVES = 10_000
LARGE = 10_000_000
"""Bytes of a large body."""
HEARERS = 10


async def scripts(stage: Stage, _terms: Terms) -> list[Line]:
    """Time in Redis of every script, and of a send to more and more listeners."""
    async with Caller((await stage.server()).url) as caller:
        cases = await Trials(caller).run()
        sends = await flatness(caller, LISTENERS, 1_000)
    ten = sends[10].median
    lines = [
        Line(
            f"a send in Redis, {count:,} listeners", "µs", at_most(1.2), took.median,
            "10 listeners", ten, took.median / ten,
        )
        for count, took in sends.items()
        if count != 10
    ]  # fmt: skip
    lines += [
        Line(f"{case.script}, p99", "µs", limit(1_000, "µs"), case.took.p99)
        for case in cases
        if not case.is_limit
    ]
    return [*lines, *(_at_limit(case) for case in cases if case.is_limit)]


def _at_limit(case: Case) -> Line:
    """The median, since what is longest on a busy machine is its scheduler's doing."""
    what = f"{case.script} at its limit: {case.condition}"
    return Line(what, "µs", limit(5_000, "µs"), case.took.median)


async def memory(stage: Stage, _terms: Terms) -> list[Line]:
    """Bytes of Redis for a channel and a registration, connections for a thousand of these."""
    found = await Footprint((await stage.server()).url).measure()
    return [
        Line("memory of an open channel", "bytes", limit(5_500, "bytes"), found["channel"]),
        Line(
            "memory of a channel whose notification was heard",
            "bytes", limit(5_500, "bytes"), found["channel used"],
        ),
        Line("memory of an open question", "bytes", limit(5_500, "bytes"), found["question"]),
        Line(
            "memory of a registration on a channel that has one",
            "bytes", limit(500, "bytes"), found["registration"],
        ),
        Line(
            "memory of a printer's first registration", "bytes", None, found["registration alone"]
        ),
        Line(
            "connections more for 1,000 registrations", "", limit(0, ""), found["connections"]
        ),
    ]  # fmt: skip


async def lifetimes(stage: Stage, terms: Terms) -> list[Line]:
    """Ten thousand of both; then another hundred against the first hundred of a fresh namespace."""
    url = (await stage.server()).url
    aged = Lifetimes(url, "aged")
    await aged.start()
    hundreds = [(await aged.turn())["us"] for _ in range(LIVES // 100)]
    thousands = [median(hundreds[i : i + 10]) for i in range(0, len(hundreds), 10)]

    turns = iter(range(100))

    async def first_hundred() -> Figures:
        fresh = Lifetimes(url, f"fresh{next(turns)}")
        await fresh.start()
        figures = await fresh.turn()
        await fresh.stop()
        return figures

    outcome = await hold({"Tympan": aged.turn, "first hundred": first_hundred}, terms.rounds)
    await aged.stop()
    what = "a channel and a registration, made, used once and gone"
    drift = max(thousands) / thousands[0]
    return [
        Line(f"keys left by {LIVES:,} of them", "", limit(0, ""), len(await aged.left())),
        outcome.line(f"{what}: after {LIVES:,}", "us", "µs", at_most(1.2), against="first hundred"),
        Line(
            f"{what}: the slowest thousand", "µs", None, max(thousands),
            "first thousand", thousands[0], drift,
        ),
    ]  # fmt: skip


async def large(stage: Stage, terms: Terms) -> list[Line]:
    """10 MB to ten listeners, a process each, until the last of them has it."""
    ours = Telling(stage, TYMPAN, "large", listeners=HEARERS, processes=HEARERS)
    url = (await stage.server()).url
    held: list[float] = []

    async def told(telling: Telling) -> Figures:
        figures = await telling.latency(1, 0, LARGE)
        return {"ms": figures["p99"] / 1000}

    async def told_by_us() -> Figures:
        figures = await told(ours)
        held.append(await _held(url) / LARGE)
        return figures

    raw = Telling(stage, RAW_COPIES, "large", listeners=HEARERS, processes=HEARERS)
    outcome = await hold({"Tympan": told_by_us, RAW_COPIES.name: partial(told, raw)}, terms.rounds)
    what = f"10 MB to {HEARERS} listeners"
    copies = median(held) if held else None
    return [
        outcome.line(
            f"{what}, until the last has it", "ms", "ms", at_most(1.5), against=RAW_COPIES.name
        ),
        Line(f"{what}, copies in Redis", "", limit(1.1, ""), copies, note="" if held else "none"),
    ]


async def _held(url: str) -> float:
    """Bytes of all that Tympan holds of the last send; then it is forgotten."""
    async with redis.asyncio.Redis.from_url(url) as client:
        keys: list[Any] = [key async for key in client.scan_iter("tympan:*", count=1000)]
        sizes = [await client.memory_usage(key) or 0 for key in keys]
        bodies = [key for key in keys if b":body:" in key]
        if bodies:
            await client.unlink(*bodies)
    return float(sum(sizes))
