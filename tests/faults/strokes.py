"""Where a process is struck, and what is known of it then: every step of what it does.

A process is struck after a step; or in the middle of one, while a call that the step makes is on
its way to Redis, and arrives when everybody takes the process for dead; or when Redis has done
what was asked, and the process has not read so.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from broker import Broker
from broker._scripts import SCRIPTS
from tests.farm import PATIENCE, Farm
from tests.faults.case import Report
from tests.faults.gate import Gate
from tests.faults.puppets import Puppet
from tests.redis.pooling import keys_of
from tests.redis.scenes import clock, until

FENCED = (
    "SessionLapsed", "ChannelAlreadyClosed", "ChannelAcquired", "ChannelAlreadyOpened", "NotInHand",
)  # fmt: skip
"""What is said to whoever acts on what was taken from him."""
SHAS = {script.name: script.sha for script in SCRIPTS}


class Moment(StrEnum):
    """Of a step."""

    AFTER = "after it"
    LATE = "its call on the way"
    UNREAD = "its reply unread"


class Manner(StrEnum):
    """What a process is done to."""

    KILLED = "killed"
    PAUSED = "paused"


@dataclass(frozen=True)
class Step:
    """Something that a process does."""

    name: str
    words: tuple[object, ...]
    """What it is told, see :mod:`tests.faults.puppet`."""
    scripts: tuple[str, ...] = ()
    """Calls that it makes, in their order."""
    effect: int = -1
    """Which of them does what the step is for."""


@dataclass(frozen=True)
class Stroke:
    """One process is struck once."""

    manner: Manner
    step: str
    moment: Moment
    script: str = ""
    call: int = 1
    """Which call of that script in the step."""

    def __str__(self) -> str:
        nth = f" {self.call}" if self.call > 1 else ""
        where = f" ({self.script}{nth})" if self.script else ""
        return f"{self.manner} at {self.step!r}, {self.moment}{where}"


class Halted(Exception):
    """The process is where it is to be struck."""


def fenced(answer: dict[str, Any]) -> None:
    """It was refused."""
    assert answer.get("error") in FENCED, f"it acted on what was taken from it: {answer}"


class Part(ABC):
    """What one process does, and what the others make of it when it is struck.

    Everybody on its stage has the same lease, as a server reckons with the longest.
    """

    who: ClassVar[str]
    promise: ClassVar[str]
    steps: tuple[Step, ...]
    settings: ClassVar[dict[str, Any]]
    is_leased: ClassVar[bool] = True
    """Whether the others wait until its lease is over."""

    def __init__(self, farm: Farm, gate: Gate, puppet: Puppet, stroke: Stroke, report: Report):
        self.farm = farm
        self.gate = gate
        self.puppet = puppet
        self.stroke = stroke
        self.report = report
        self.ends = 0.0
        """When its lease is over, in seconds of Redis's clock."""
        self._did: set[str] = set()

    @classmethod
    def strokes(cls, manner: Manner) -> Iterator[Stroke]:
        """All of them, in the order of its steps."""
        for step in cls.steps:
            for i, script in enumerate(step.scripts):
                call = step.scripts[: i + 1].count(script)
                for moment in (Moment.LATE, Moment.UNREAD):
                    yield Stroke(manner, step.name, moment, script, call)
            yield Stroke(manner, step.name, Moment.AFTER)

    # What it does

    @abstractmethod
    async def set(self) -> None:
        """The others are there."""

    @abstractmethod
    async def play(self) -> None:
        """It does its steps, and the others what they have to. Raises Halted."""

    @abstractmethod
    async def judge(self) -> None:
        """The others are told, and go on. Raises AssertionError, TimeoutError, TympanError."""

    @abstractmethod
    async def wake(self, pending: dict[str, Any] | None) -> None:
        """It sleeps no more: it is fenced, told, and goes on; ``pending``: its broken step's."""

    async def step(self, name: str) -> dict[str, Any]:
        """It does one; what came of it. Raises Halted where it is struck in it, or after it."""
        stroke, step = self.stroke, self._step(name)
        if stroke.step == name and stroke.script:
            is_unread = stroke.moment is Moment.UNREAD
            self.gate.hold(SHAS[stroke.script], reply=is_unread, call=stroke.call)
            self.puppet.tell(*step.words)
            async with asyncio.timeout(PATIENCE):
                await self.gate.caught()
            scripts = step.scripts
            at = [i for i, one in enumerate(scripts) if one == stroke.script][stroke.call - 1]
            effect = step.effect % len(scripts)
            if at > effect or (at == effect and is_unread):
                self._did.add(name)
            raise Halted
        answer = await self.puppet.does(*step.words)
        self._did.add(name)
        if stroke.step == name:
            raise Halted
        return answer

    def _step(self, name: str) -> Step:
        return next(each for each in self.steps if each.name == name)

    @property
    def words(self) -> tuple[object, ...]:
        """What it was told last before it was struck."""
        return self._step(self.stroke.step).words

    def did(self, step: str) -> bool:
        """Whether Redis did what a step is for."""
        return step in self._did

    @property
    def is_late(self) -> bool:
        """Whether its call was held back, and arrives when it is taken for dead."""
        return self.stroke.moment is Moment.LATE

    # The stage

    async def broker(self, **options: Any) -> Broker:
        """Another process, which is not struck."""
        return await self.farm.broker(**self.settings | options)

    async def strike(self) -> None:
        """Kill it, or have it sleep."""
        if self.stroke.manner is Manner.KILLED:
            await self.puppet.kill()
        else:
            self.puppet.freeze()
        self.report.runs += 1
        meta: Any = await self.farm.client.hgetall(keys_of(self.farm).meta)
        begun = (int(meta[b"epoch"]) + int(meta[b"grace"])) / 1000
        deadlines = [deadline / 1000 for deadline in (await self._strangers()).values()]
        self.ends = max([begun, *deadlines]) if deadlines else 0.0

    async def _strangers(self) -> dict[str, float]:
        """Sessions of no process that is not struck, and their deadlines in ms."""
        mine = {s.session for broker in self.farm.brokers for s in broker._servers.values()}
        leases = keys_of(self.farm).leases
        found: Any = await self.farm.client.zrange(leases, 0, -1, withscores=True)
        return {name.decode(): until for name, until in found if name.decode() not in mine}

    async def buried(self) -> None:
        """When nothing is left of it."""

        async def is_gone() -> bool:
            return not await self._strangers()

        await until(is_gone)
        self.report.checked["burials"] += 1

    async def noted(self) -> None:
        """The others have what they wait for: seconds after its lease was over."""
        if self.ends:
            after = await clock(self.farm.client) - self.ends
            self.report.recovers(max(0.0, after), str(self.stroke))

    async def handles(self) -> None:
        """Of each channel each handle was dropped once, and no closed one stays for ever."""
        prefix = keys_of(self.farm).channel("")
        for key in await self.farm.keys():
            if key.startswith(str(prefix)) and not key.endswith(":log"):
                facts: Any = await self.farm.client.hgetall(key)
                dropped = [field for field in facts if field.startswith(b"dropped")]
                drops = int(facts.get(b"drops", 0))
                assert drops == len(dropped), f"{key}: {drops} drops of {dropped}"
                is_closed = facts[b"state"] == b"closed"
                assert (await self.farm.client.ttl(key) >= 0) == is_closed, f"{key} of {facts}"
                self.report.checked["channels"] += 1

    @property
    def is_sound(self) -> bool:
        """Whether nobody lapsed who was not struck, as a starved machine has it."""
        return not any(s.lapses for broker in self.farm.brokers for s in broker._servers.values())
