"""A race: many listeners in several processes answer one question at once, over and over.

In each dialog nobody responds before all hold the question. Each process lets go of its handles in
one of the ways that the documents allow.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from workers.proof.child import Child, ChildEnded
from workers.proof.history import History
from workers.proof.party import PATIENCE, Part

TOGETHER = 4
"""Dialogs in flight."""


@dataclass(frozen=True)
class Race:
    """Its form."""

    dialogs: int
    responders: int
    processes: int
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    """Of each broker."""
    patience: float = PATIENCE
    """Seconds after which something that must come is missing."""

    def parts(self, urls: Sequence[str], namespace: str) -> list[Part]:
        """What each process does, by its own way to Redis; the sources' is the last."""
        bounds = [self.responders * i // self.processes for i in range(self.processes + 1)]
        found = [
            Part(
                "responders",
                urls[i],
                namespace,
                i,
                self.seed,
                self.settings,
                first=bounds[i],
                last=bounds[i + 1],
                patience=self.patience,
            )
            for i in range(self.processes)
        ]
        sources = Part(
            "sources",
            urls[-1],
            namespace,
            self.processes,
            self.seed,
            self.settings,
            dialogs=self.dialogs,
            responders=self.responders,
            in_flight=TOGETHER,
            patience=self.patience,
        )
        return [*found, sources]


class _Runner:
    """One process, and what it said so far."""

    def __init__(self, part: Part, holds: Callable[[str], None]) -> None:
        self._child = Child(asdict(part), self._told)
        self._holds = holds
        self._said: dict[str, asyncio.Future[Any]] = {}
        self.start, self.say, self.kill = self._child.start, self._child.say, self._child.kill
        self.ended = self._child.ended

    def _told(self, line: dict[str, Any]) -> None:
        for word, what in line.items():
            if word == "holds":
                self._holds(what)
            elif not self._answer(word).done():
                self._answer(word).set_result(what)

    def _answer(self, word: str) -> asyncio.Future[Any]:
        return self._said.setdefault(word, asyncio.get_running_loop().create_future())

    def hurry(self) -> None:
        """It is to begin nothing more."""
        if self._child.is_running:
            self.say({"over": True})

    async def said(self, word: str) -> Any:
        """What it says of this. Raises ChildEnded where it ends instead, TimeoutError."""
        ending = asyncio.ensure_future(self.ended())
        try:
            await asyncio.wait(
                {self._answer(word), ending},
                timeout=2 * PATIENCE,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._answer(word).done():
                return self._answer(word).result()
            if ending.done():
                raise ChildEnded(f"a process of the race ended with status {ending.result()}")
            raise TimeoutError(f"a process of the race did not say {word!r}")
        finally:
            ending.cancel()


@contextlib.asynccontextmanager
async def runners(parts: Sequence[Part]) -> AsyncIterator[list[_Runner]]:
    """The processes, which end with this."""
    held: Counter[str] = Counter()
    made: list[_Runner] = []

    def holds(channel: str) -> None:
        held[channel] += 1
        if held[channel] == len(made) - 1:
            for each in made[:-1]:
                each.say({"go": channel})

    made += [_Runner(part, holds) for part in parts]
    try:
        await asyncio.gather(*(each.start() for each in made))
        yield made
    finally:
        await asyncio.gather(*(each.kill() for each in made))


async def run(
    race: Race,
    urls: Sequence[str],
    namespace: str,
    *,
    seconds: float = 0.0,
    weather: Callable[[bool], None] = lambda _: None,
) -> History:
    """Run it.

    Args:
        race: its form.
        urls: each process's way to Redis, the sources' last.
        namespace: where.
        seconds: after which no further dialog is begun; 0 for as long as it takes.
        weather: called with True when all processes are connected, and with False when all have
            reported, for whoever makes it hard for them meanwhile.

    Raises ChildEnded where a process ended by itself, TimeoutError where one hangs.
    """
    history = History()
    async with runners(race.parts(urls, namespace)) as made:
        for each in made:
            await each.said("connected")
        weather(True)
        *responders, sources = made
        for each in responders:
            each.say({"start": True})
        for each in responders:
            await each.said("ready")
        sources.say({"start": True})
        if seconds:
            asyncio.get_running_loop().call_later(seconds, sources.hurry)
        history.merge(History.of_record(await sources.said("history")))
        for each in responders:
            each.say({"over": True})
        for each in responders:
            history.merge(History.of_record(await each.said("history")))
        weather(False)
        for each in made:
            each.say({"end": True})
        for each in made:
            await each.ended()
    return history
