"""A caller of the scripts: raw calls on one connection, and what Redis says that they took.

Redis measures: its statistics are reset before the calls of one script, and read after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import redis.asyncio

from broker import _calls
from broker._keys import Keys
from broker._scripts import SCRIPTS, Arg, Call

LEASE_MS = 600_000
IN_FLIGHT = 100
"""Calls of one write."""


@dataclass(frozen=True)
class Took:
    """Time in Redis of the calls of one script, µs."""

    calls: int
    mean: float
    median: float
    p99: float
    longest: float


class Caller:
    """One session on one print server, spoken for by hand."""

    def __init__(self, url: str, *, namespace: str = "tympan", server: str = "print01") -> None:
        self.client = redis.asyncio.Redis.from_url(url)
        self.keys = Keys(namespace, server)
        self.session = "caller"
        self._run = ""
        self.epoch = ""

    async def __aenter__(self) -> Self:
        """Connect, load the scripts, begin a session."""
        facts: Any = await self.client.info("server")
        self._run = facts["run_id"]
        for script in SCRIPTS:
            await self.client.script_load(script.source)
        await self.client.config_set("latency-tracking-info-percentiles", "50 99 100")
        await self.hello()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def hello(self) -> None:
        """Begin a session, on an emptied Redis anew."""
        call = _calls.hello(self.keys, self.session, LEASE_MS, "PUBLISH")
        (answer,) = await self.ask([call], lead=())
        self.epoch = answer[1].decode()

    async def field(self, key: str, field: str) -> str:
        """A field of a hash; empty where there is none."""
        found: Any = await self.client.hget(key, field)
        return found.decode() if found else ""

    async def ask(
        self,
        calls: Sequence[Call],
        *,
        lead: tuple[Arg, ...] | None = None,
        words: str = "OK",
        in_flight: int = IN_FLIGHT,
    ) -> list[list[Any]]:
        """Run scripts, and return their answers.

        ``lead`` follows the run id; default the epoch and the session. Raises RuntimeError where
        one answers a word that is not among ``words``.
        """
        between = (self.epoch, self.session) if lead is None else lead
        answers: list[list[Any]] = []
        for i in range(0, len(calls), in_flight):
            pipe = self.client.pipeline(transaction=False)
            for call in calls[i : i + in_flight]:
                pipe.execute_command(
                    "EVALSHA", call.script.sha, len(call.keys), *call.keys,
                    self._run, *between, *call.args,
                )  # fmt: skip
            answers += await pipe.execute()
        for call, answer in zip(calls, answers, strict=True):
            if answer[0].decode() not in words.split():
                raise RuntimeError(f"script {call.script.name} answered {answer[0].decode()}")
        return answers

    async def timed(
        self,
        calls: Sequence[Call],
        *,
        lead: tuple[Arg, ...] | None = None,
        words: str = "OK",
        in_flight: int = IN_FLIGHT,
    ) -> Took:
        """Run calls of one script, and ask Redis how long they took."""
        await self.client.config_resetstat()
        await self.ask(calls, lead=lead, words=words, in_flight=in_flight)
        counted: Any = await self.client.info("commandstats")
        ranked: Any = await self.client.info("latencystats")
        counts = counted["cmdstat_evalsha"]
        if counts["calls"] != len(calls):
            raise RuntimeError(
                f"Redis ran {counts['calls']} scripts, not the {len(calls)} that were asked for: "
                "somebody else uses it"
            )
        shares = {str(k): float(v) for k, v in ranked["latency_percentiles_usec_evalsha"].items()}
        return Took(
            len(calls), counts["usec"] / len(calls), shares["p50"], shares["p99"], shares["p100"]
        )
