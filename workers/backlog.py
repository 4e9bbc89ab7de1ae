"""Backlog: what pools have not finished yet, as of the latest look at all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from broker.pool import PoolFacts

Read = Callable[[], Sequence[PoolFacts] | None]
"""The pools of the farm, on all its servers; None while that is unknown. Any thread may call it."""


class Backlog:
    """The latest look at the farm's pools, for other threads to read.

    It is unknown before the first look, and again when no look succeeded for ``good_for`` seconds:
    an old figure must not pass for the present one.
    """

    def __init__(self, good_for: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._good_for = good_for
        self._clock = clock
        self._seen: tuple[float, tuple[PoolFacts, ...]] | None = None

    def update(self, facts: Sequence[PoolFacts]) -> None:
        """What the pools of all servers look like now."""
        self._seen = (self._clock(), tuple(facts))

    def read(self) -> Sequence[PoolFacts] | None:
        """What they looked like; None where that is unknown."""
        seen = self._seen
        if seen is None or self._clock() - seen[0] > self._good_for:
            return None
        return seen[1]


def backlog_record(facts: Sequence[PoolFacts]) -> dict[str, Any]:
    """The figures by pool, and for each of its servers."""
    pools: dict[str, dict[str, Any]] = {}
    for each in facts:
        pool = pools.setdefault(each.pool, _nothing() | {"replicas": set(), "servers": {}})
        server = pool["servers"].setdefault(each.name.server, _nothing() | {"replicas": set()})
        for sums in (pool, server):
            sums["waiting"] += each.waiting
            sums["in_hand"] += each.in_hand
            sums["backlog"] += each.backlog
            sums["denied"] += each.denied
            sums["replicas"].update(_process_of(session) for session in each.replicas)
    for pool in pools.values():
        for sums in (pool, *pool["servers"].values()):
            sums["replicas"] = len(sums["replicas"])
    return {"pools": pools}


def _nothing() -> dict[str, Any]:
    return {"waiting": 0, "in_hand": 0, "backlog": 0, "denied": 0}


def _process_of(session: str) -> str:
    """Host and process of a session's id: a replica has a session on each server."""
    return session.rpartition(".")[0]
