"""``python -m benchmarks.profile``: where the microseconds of a source and of a listener go.

The load runs twice in both processes: for the CPU that an operation takes, and under cProfile for
who takes it. A profiler slows every call down, so its shares are spread over the CPU of the first
run; short functions still look longer than they are.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.contestants import DEEP, FLOOR
from benchmarks.party import CHECKOUT, Contender, Party
from benchmarks.stage import Stage
from benchmarks.telling import SIZE, TIMEOUT_S

CONTENDERS = {"tympan": DEEP, "floor": FLOOR}
LOADS = {
    "many": "acknowledged sends on 16 channels, 64 in flight",
    "one": "sends one after another",
    "dialog": "questions, answered at once, one after another",
}
SUBJECT, CHANNELS, IN_FLIGHT = "profiled", 16, 64

LAYERS = {
    "the benchmark": r"benchmarks/",
    "nouns, values": r"broker/[a-z]",
    "protocol, pure": r"broker/_(address|keys|scripts|calls|outcomes|entries|room|backlog|plan)\.",
    "connections": r"broker/_(topology|sentinel|cluster|cluster_bells|link|bells|wire|connect)\.",
    "client": r"broker/_",
    "redis-py": r"redis/",
    "asyncio": r"lib/python[^/]*/asyncio/",
}
"""Where a file is, below the checkout or where libraries are; the first that fits."""
IN_C = {"system calls": r"_socket\.socket|posix\.", "hiredis": r"hiredis"}
"""What is written in C, by its name; anything else belongs to who calls it."""
WAITING = r"select\.epoll"
REST = "Python"


@dataclass
class Function:
    """One function, without those that it calls."""

    layer: str
    name: str
    calls: int
    seconds: float


@dataclass
class Profile:
    """What one process did for so many operations."""

    operations: int
    cpu_us: float
    """Of an operation, when nobody looked."""
    functions: list[Function] = field(default_factory=list)
    layers: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds under the profiler."""

    @classmethod
    def of(cls, operations: int, cpu_us: float, found: Sequence[Sequence[Any]]) -> Profile:
        """From what a party answers."""
        profile = cls(operations, cpu_us)
        for file, name, calls, seconds, callers in found:
            if re.search(WAITING, name):
                continue
            layer = layer_in_c(name) if file == "~" else layer_of(file)
            shown = name.strip("<>") if file == "~" else f"{Path(file).stem}: {name.strip('<>')}"
            profile.functions.append(Function(layer or "in C", shown, calls, seconds))
            shares = [(layer, seconds)] if layer else [(layer_of(one), own) for one, own in callers]
            for one, own in shares:
                profile.layers[one] += own
        return profile

    def __str__(self) -> str:
        """Microseconds of an operation by layer."""
        ranked = sorted(self.layers.items(), key=lambda layer: -layer[1])
        return table(
            ("layer", "µs", "share"),
            [
                (layer, f"{self._us(took):.1f}", f"{took / self._whole:.0%}")
                for layer, took in ranked
            ],
        )

    def longest(self, most: int) -> str:
        """The functions that take most by themselves."""
        ranked = sorted(self.functions, key=lambda function: -function.seconds)[:most]
        return table(
            ("function", "calls", "µs", "share", "layer"),
            [
                (
                    f"`{one.name}`",
                    f"{one.calls / self.operations:.2f}",
                    f"{self._us(one.seconds):.2f}",
                    f"{one.seconds / self._whole:.0%}",
                    one.layer,
                )
                for one in ranked
            ],
        )

    @property
    def _whole(self) -> float:
        return sum(self.layers.values())

    def _us(self, seconds: float) -> float:
        return self.cpu_us * seconds / self._whole


def layer_of(file: str) -> str:
    """The layer of a file in Python."""
    path = file.removeprefix(f"{CHECKOUT}/").rpartition("site-packages/")[2]
    path = path[max(0, path.find("lib/python")) :]
    return next((layer for layer, is_in in LAYERS.items() if re.match(is_in, path)), REST)


def layer_in_c(name: str) -> str | None:
    """The layer of a function in C; None where it is its caller's."""
    return next((layer for layer, is_in in IN_C.items() if re.search(is_in, name)), None)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned, and fit for a page; figures are in the columns between the first and ``layer``."""
    left = [i == 0 or heading == "layer" for i, heading in enumerate(headings)]
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    columns = list(zip(left, widths, strict=True))
    rule = [
        f":{'-' * (width - 1)}" if is_left else f"{'-' * (width - 1)}:"
        for is_left, width in columns
    ]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, (is_left, width) in zip(row, columns, strict=True)
        ]
        return f"| {' | '.join(cells)} |"

    return "\n".join([line(headings), line(rule), *map(line, rows)])


class Loaded:
    """A source and a listener, and what they are to do."""

    def __init__(self, load: str, source: Party, listener: Party) -> None:
        self._load = load
        self._source = source
        self._listener = listener

    @classmethod
    async def on(cls, stage: Stage, contender: Contender, load: str, registrations: int) -> Loaded:
        """Both processes, ready and warm."""
        listener = await stage.party(contender, "listener")
        source = await stage.party(contender, "source")
        if load == "dialog":
            await listener.ask("answer", subjects=[SUBJECT])
        else:
            await listener.ask("listen", subjects=[SUBJECT], each=registrations, handler="plain")
            await source.ask("open", subjects=[SUBJECT], per_subject=CHANNELS)
        return cls(load, source, listener)

    async def run(self, count: int, registrations: int) -> tuple[float, float]:
        """So many operations; CPU of each in the source and in the listener, µs."""
        await self._listener.ask("collect", count=0)
        match self._load:
            case "many":
                did = await self._source.ask("many", count=count, size=SIZE, in_flight=IN_FLIGHT)
            case "one":
                did = await self._source.ask("one_by_one", count=count, size=SIZE, pause_us=0)
            case _:
                did = await self._source.ask("ask", subject=SUBJECT, count=count, size=SIZE)
        deliveries = 0 if self._load == "dialog" else count * registrations
        heard = await self._listener.ask("collect", count=deliveries, timeout=TIMEOUT_S)
        return did["cpu_us"] / count, heard["cpu_us"] / max(count, deliveries)

    async def profiles(self, count: int, registrations: int) -> tuple[Profile, Profile]:
        """The source's, of a send or a dialog, and the listener's, of a delivery or an answer."""
        await self.run(count // 10, registrations)
        cpu = await self.run(count, registrations)
        parties = (self._source, self._listener)
        for party in parties:
            await party.ask("profile")
        await self.run(count, registrations)
        found = [(await party.ask("profiled"))["functions"] for party in parties]
        return (
            Profile.of(count, cpu[0], found[0]),
            Profile.of(count * registrations, cpu[1], found[1]),
        )


async def run(chosen: argparse.Namespace) -> None:
    """Profile both processes, and print what they came to."""
    async with Stage() as stage:
        contender = CONTENDERS[chosen.contender]
        loaded = await Loaded.on(stage, contender, chosen.load, chosen.registrations)
        profiles = await loaded.profiles(chosen.count, chosen.registrations)
    print(f"{contender.name}: {chosen.count:,} {LOADS[chosen.load]}")
    for who, profile in zip(("source", "listener"), profiles, strict=True):
        print(f"\n{who}: {profile.cpu_us:.1f} µs of CPU for each\n\n{profile}")
        print(f"\n{profile.longest(chosen.functions)}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument(
        "load", nargs="?", default="many", choices=LOADS,
        help="; ".join(f"{load}: {what}" for load, what in LOADS.items()),
    )  # fmt: skip
    parser.add_argument("--contender", default="tympan", choices=CONTENDERS)
    parser.add_argument("--count", type=int, default=20_000, help="operations (20,000)")
    parser.add_argument("--registrations", type=int, default=1, help="that hear each send (1)")
    parser.add_argument("--functions", type=int, default=15, help="how many are shown (15)")
    chosen = parser.parse_args()
    if chosen.load == "dialog":
        chosen.registrations = 1
    asyncio.run(run(chosen))


if __name__ == "__main__":
    main()
