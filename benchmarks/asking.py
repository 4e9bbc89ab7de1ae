"""Asking: a source's process and a responder's, of one contender, on one stage."""

from __future__ import annotations

from statistics import median

from benchmarks.contest import Figures, percentile
from benchmarks.party import Contender, Party
from benchmarks.stage import Stage
from benchmarks.telling import SIZE


class Asking:
    """Made when it is first asked, so that a contender that is absent leaves the others alone."""

    def __init__(self, stage: Stage, contender: Contender, subject: str) -> None:
        self._stage = stage
        self._contender = contender
        self._subject = f"{subject}-{contender.program.rpartition('.')[2]}"
        self._source: Party | None = None

    async def round_trip(self, count: int) -> Figures:
        """Whole dialogs, one after another: microseconds until the source has the response."""
        if self._source is None:
            responder = await self._stage.party(self._contender, "listener")
            await responder.ask("answer", subjects=[self._subject])
            self._source = await self._stage.party(self._contender, "source")
        answer = await self._source.ask("ask", subject=self._subject, count=count, size=SIZE)
        took = answer["round_trip_us"]
        return {"median": median(took), "p99": percentile(took, 0.99)}
