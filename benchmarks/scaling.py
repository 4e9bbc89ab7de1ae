"""Scaling: the curves of the page, one stage for each point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from benchmarks.chart import Chart
from benchmarks.contest import Figures, Outcome, Terms, hold
from benchmarks.contestants import DEEP, FLOOR, NATS, TYMPAN
from benchmarks.party import Contender
from benchmarks.stage import Stage
from benchmarks.telling import Telling

REGISTRATIONS = (1, 10, 100, 1_000)
CHANNELS = (1, 10, 100, 1_000, 5_000)
_IN_FLIGHT = 16

Make = Callable[[Stage, Contender, int], Callable[[], Awaitable[Figures]]]


async def charts(terms: Terms) -> list[Chart]:
    """All of them; a few minutes."""
    listeners = {"Tympan": TYMPAN, "a blocked connection each": FLOOR, "NATS core": NATS}
    deep = {"Tympan": DEEP, "a blocked connection each": FLOOR, "NATS core": NATS}
    channels = {"Tympan": TYMPAN}
    return [
        Chart(
            "latency",
            "Send to handler",
            "registrations, in two processes",
            "median, µs",
            await _curves(terms, listeners, REGISTRATIONS, _heard_by, "median"),
        ),
        Chart(
            "fan-out",
            "Deliveries, as many as go",
            "registrations, in two processes",
            "deliveries a second",
            await _curves(terms, deep, REGISTRATIONS, _fanned_out_to, "deliveries"),
        ),
        Chart(
            "channels",
            "Send to handler, sends take turns on all channels",
            "open channels",
            "median, µs",
            await _curves(terms, channels, CHANNELS, _spoken_on, "median"),
        ),
    ]


async def _curves(
    terms: Terms,
    contenders: Mapping[str, Contender],
    points: tuple[int, ...],
    make: Make,
    figure: str,
) -> dict[str, list[tuple[float, float]]]:
    """Medians over the rounds, by contender; without those who are absent."""
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for point in points:
        async with Stage() as stage:
            bouts = {name: make(stage, who, point) for name, who in contenders.items()}
            outcome: Outcome = await hold(bouts, terms.rounds)
        for name, curve in curves.items():
            value = outcome.median(name, figure)
            if value is not None:
                curve.append((point, value))
    return {name: curve for name, curve in curves.items() if curve}


def _heard_by(stage: Stage, who: Contender, count: int) -> Callable[[], Awaitable[Figures]]:
    # Those with a connection each need pauses that grow with their number.
    pause_us = max(2_000, 60 * count)
    telling = Telling(stage, who, "subject", listeners=count, processes=min(count, 2))
    return partial(telling.latency, max(20, min(200, 400_000 // pause_us)), pause_us)


def _fanned_out_to(stage: Stage, who: Contender, count: int) -> Callable[[], Awaitable[Figures]]:
    telling = Telling(
        stage, who, "subject", channels=_IN_FLIGHT, listeners=count, processes=min(count, 2)
    )
    return partial(telling.rate, _IN_FLIGHT)


def _spoken_on(stage: Stage, who: Contender, count: int) -> Callable[[], Awaitable[Figures]]:
    return partial(Telling(stage, who, "subject", channels=count).latency, 400, 500)
