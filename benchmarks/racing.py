"""Racing: many responders for one question, many questions; exactly one wins each."""

from __future__ import annotations

import asyncio
from collections import Counter

from benchmarks.contest import Figures
from benchmarks.party import Contender, ContenderFailed, Party
from benchmarks.stage import Stage


class Racing:
    """Made when it is first asked, so that a contender that is absent leaves the others alone."""

    def __init__(
        self, stage: Stage, contender: Contender, subject: str, *, responders: int, processes: int
    ) -> None:
        self._stage = stage
        self._contender = contender
        self._subject = subject
        self._each = responders // processes
        self._processes = processes
        self._source: Party | None = None
        self._listening: list[Party] = []

    async def rate(self, count: int) -> Figures:
        """Decisions a second, once everybody holds all questions.

        Raises ContenderFailed where a question had another number of winners than one, or its
        source was told of another number of responses.
        """
        source = await self._ready()
        prizes = (await source.ask("ask", subject=self._subject, count=count))["prizes"]
        await asyncio.gather(*(one.ask("hold", count=count) for one in self._listening))
        raced = await asyncio.gather(*(one.ask("race") for one in self._listening))
        answered = (await source.ask("answered"))["answered"]
        won = Counter(prize for one in raced for prize in one["won"])
        if won != Counter(prizes) or Counter(answered) != Counter(prizes):
            raise ContenderFailed(
                f"{self._contender.name}: of {count} races, {len(won)} were won, "
                f"{sum(won.values())} wins in all, and {len(answered)} answers arrived"
            )
        began = min(one["began_ns"] for one in raced)
        ended = max(one["ended_ns"] for one in raced)
        return {
            "decisions": count / (ended - began) * 1e9,
            "cpu": sum(one["cpu_us"] for one in raced) / count,
        }

    async def _ready(self) -> Party:
        if self._source is None:
            for _ in range(self._processes):
                listening = await self._stage.party(self._contender, "listener")
                self._listening.append(listening)
                await listening.ask("ready", subject=self._subject, each=self._each)
            self._source = await self._stage.party(self._contender, "source")
        return self._source
