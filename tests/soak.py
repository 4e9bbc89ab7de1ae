"""The soak: a farm in which things begin and end all the time stays as small as it was.

``python -m tests.soak`` runs real processes on a redis-server of its own for half an hour: a source
and a listener that last, with 200 open channels and 200 registrations, a worker, a reaper; and
another source, listener and worker of which one is killed every few seconds and replaced. They
open, send, ask, withdraw, answer, lose, close, register, unregister, make and delete pools, grant
and revoke; once in each round all their connections are cut.

After each round all is calm: what was begun is over, and what ends by itself has ended. Then

- Redis holds the same keys, kind by kind, as in the first calm, and nothing that nobody owns;
- the memory of Redis, its data, and the memory of each process that lasts are within 5 % of what
  they were when it was warm: the median of the last third against that of the first; what Redis has
  of the system within 25 %;
- their file descriptors and their tasks are as many as then; so are the objects of those two that
  can be asked, within 1 %.

It prints a table, and ends with status 1 where anything grew, or a process ended by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import IO, Any

import redis

from tests.columns import aligned
from tests.faults import page
from tests.servers import RedisServer
from tests.soaked import SETTINGS, Part

CHECKOUT = Path(__file__).resolve().parents[1]
ROUND = 12.0
"""Seconds of churn between two calms."""
BETWEEN_KILLS = 3.0
CALM_WITHIN = 60.0
"""Seconds after which everything that ends by itself must have ended."""
WITHIN = 0.05
"""Share by which memory may differ."""
SOME = 0.01
"""Likewise elements of keys, as a stream is trimmed now and then, and objects of processes."""
ROUGHLY = 0.25
"""Likewise what Redis has of the system: garbage of its Lua is a tenth of it at this size; and its
clients, as those who were killed had connections for large bodies, or had not yet."""
WARM = 0.2
"""Share of the rounds that are for warming up; three of them at the least."""
FEWEST = 6
"""Rounds that say something after that."""
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
MARKS = (
    "<!-- soak: written by python -m tests.soak --page -->",
    "<!-- end of soak -->",
)


# The processes ----------------------------------------------------------------------------------


@dataclass
class Lived:
    """A process of the soak."""

    name: str
    process: Process
    said: IO[bytes]
    """What it wrote to standard error."""
    obeys: bool
    """Whether it takes orders, and answers."""
    done: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    objects: int = 0
    """Of Python's, that others may refer to; those that nobody reaches are gone."""
    lapses: int = 0
    """How often it was taken for dead."""

    def order(self, what: str) -> None:
        if self.obeys:
            assert self.process.stdin is not None
            self.process.stdin.write(f"{what}\n".encode())

    async def hears(self, event: str) -> None:
        """Its answer. Raises RuntimeError where it ended instead."""
        if not self.obeys:
            return
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.told_at_last())
        facts = json.loads(line)
        assert facts["event"] == event, facts
        self.tasks, self.objects = facts.get("tasks", 0), facts.get("objects", 0)
        self.lapses, self.done = facts.get("lapses", 0), Counter(facts.get("done", {}))

    def told_at_last(self) -> str:
        self.said.seek(0)
        text = self.said.read().decode(errors="replace")[-2000:]
        return f"{self.name} ended by itself, with status {self.process.returncode}: {text}"

    @property
    def rss(self) -> int:
        """Bytes."""
        return resident(self.process.pid)

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_SIZE


@dataclass
class Crowd:
    """All processes of the soak."""

    url: str
    chance: random.Random
    lasting: list[Lived] = field(default_factory=list)
    mortal: list[Lived] = field(default_factory=list)
    kills: int = 0
    done: Counter[str] = field(default_factory=Counter)
    """By those who were killed, as far as they said."""

    async def start(self) -> None:
        for role in ("source", "listener", "worker", "reaper"):
            self.lasting.append(await self.begin(role, is_lasting=True))
        for role in ("source", "listener", "worker"):
            self.mortal.append(await self.begin(role, is_lasting=False))

    async def begin(self, role: str, *, is_lasting: bool) -> Lived:
        """Start one; it stands when this returns."""
        obeys = role in ("source", "listener")
        if obeys:
            part = Part(role, self.url, is_lasting, self.chance.randrange(2**32))
            words = ["tests.soaked", json.dumps(asdict(part))]
        else:
            what = ["worker", "tests.soaked:worker"] if role == "worker" else ["reaper"]
            settings = [word for n, v in SETTINGS.items() for word in ("--set", f"{n}={v}")]
            words = ["workers.cli", *what, "--url", self.url, *settings]
        said = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed with the process
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *words,
            stdin=PIPE if obeys else DEVNULL, stdout=PIPE if obeys else DEVNULL, stderr=said,
            cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )  # fmt: skip
        lived = Lived(f"{role}", process, said, obeys)
        await lived.hears("ready")
        return lived

    @property
    def all(self) -> list[Lived]:
        return [*self.lasting, *self.mortal]

    def go(self) -> None:
        for lived in self.all:
            lived.order("go")

    async def calm(self) -> None:
        """What they began is over. Raises RuntimeError where one is gone, or is not calm."""
        for lived in self.all:
            lived.order("calm")
        for lived in self.all:
            try:
                async with asyncio.timeout(CALM_WITHIN):
                    await lived.hears("calm")
            except TimeoutError:
                raise RuntimeError(f"{lived.name} is not calm after {CALM_WITHIN:g} s") from None
        for lived in self.all:
            if lived.process.returncode is not None:
                raise RuntimeError(lived.told_at_last())

    async def kill_one(self) -> None:
        """Kill -9, and another one in its place."""
        victim = self.chance.choice(self.mortal)
        self.done += victim.done
        await end(victim)
        self.kills += 1
        heir = await self.begin(victim.name, is_lasting=False)
        self.mortal[self.mortal.index(victim)] = heir
        heir.order("go")

    @property
    def taken_for_dead(self) -> list[str]:
        """Who lasts, and lost all that it held."""
        return [
            f"{lived.name} was taken for dead, as it had no processor for {SETTINGS['lease']:g} s, "
            "or Redis lost its lease: what it held is gone"
            for lived in self.lasting
            if lived.lapses
        ]

    async def stop(self) -> None:
        for lived in self.all:
            await end(lived)


async def end(lived: Lived) -> None:
    """Kill it."""
    with contextlib.suppress(ProcessLookupError):
        lived.process.kill()
    await lived.process.wait()
    lived.said.close()


# What is looked at ------------------------------------------------------------------------------


Census = dict[str, tuple[int, int]]
"""Kind of key: how many, and how many elements they have together."""
OF_A_SESSION = ("to", "held")
"""Kinds of which a process has one from when it is told something."""
LEFT = "body"
"""What a source wrote for a question, and was killed before it asked: it ends in a minute."""
LENGTHS = {"hash": "HLEN", "stream": "XLEN", "set": "SCARD", "zset": "ZCARD", "string": "EXISTS"}


def census(server: RedisServer) -> Census:
    """All keys of the farm, by kind."""
    found: dict[str, list[int]] = {}
    for key in server.cli("KEYS", f"{SETTINGS['namespace']}:*"):
        length = LENGTHS.get(server.cli("TYPE", key))
        if length is not None:  # gone meanwhile
            known = found.setdefault(kind_of(key), [0, 0])
            known[0] += 1
            known[1] += int(server.cli(length, key))
    return {kind: (many, elements) for kind, (many, elements) in sorted(found.items())}


def occupied(server: RedisServer) -> int:
    """Bytes that the farm's keys take."""
    found: list[str] = server.cli("KEYS", f"{SETTINGS['namespace']}:*")
    return sum(int(server.cli("MEMORY", "USAGE", key, "SAMPLES", 0) or 0) for key in found)


def kind_of(key: str) -> str:
    """``channel`` of ``soak:{print01}:channel:77aa``, and ``channel log`` of its log."""
    _, _, rest = key.partition("}:")
    first, _, more = rest.partition(":")
    if not rest:
        return key.rpartition(":")[2]
    return f"{first} log" if more.endswith(":log") else first


def passing(server: RedisServer) -> list[str]:
    """Keys that will end by themselves, and soon."""
    found: list[str] = server.cli("KEYS", f"{SETTINGS['namespace']}:*")
    return [key for key in found if kind_of(key) != LEFT and server.cli("TTL", key) >= 0]


async def calm_census(server: RedisServer, like: Census | None) -> Census:
    """What Redis holds when what ends by itself has ended: as much as before, where it is known.

    Without that, what it holds when nothing has ended for longer than a lease. After
    :data:`CALM_WITHIN` seconds it is what it is.
    """
    due = time.monotonic() + CALM_WITHIN
    last, since = await asyncio.to_thread(census, server), time.monotonic()
    while time.monotonic() < due:
        await asyncio.sleep(0.3)
        seen = await asyncio.to_thread(census, server)
        if keys(seen) != keys(last) or await asyncio.to_thread(passing, server) != []:
            last, since = seen, time.monotonic()
        elif like is not None:
            if keys(seen) == keys(like):
                return seen
        elif time.monotonic() - since > 1.5 * SETTINGS["lease"]:
            return seen
    return await asyncio.to_thread(census, server)


def keys(of: Census) -> dict[str, int]:
    """How many of each kind of which there are always as many."""
    return {kind: many for kind, (many, _) in of.items() if kind not in (*OF_A_SESSION, LEFT)}


def of_nobody(of: Census) -> list[str]:
    """Kinds of which there are more than there are processes."""
    _, sessions = of["leases"]
    return [kind for kind in OF_A_SESSION if of.get(kind, (0, 0))[0] > sessions]


@dataclass
class Series:
    """One figure, calm by calm, when all was warm."""

    what: str
    unit: str
    within: float
    """Share by which the last may be above the first; 0: it is a count."""
    values: list[float] = field(default_factory=list)

    @property
    def thirds(self) -> tuple[float, float]:
        """Medians of the first and of the last third; of a count the most, as it comes and goes."""
        third = max(1, len(self.values) // 3)
        level = median if self.within else max
        return level(self.values[:third]), level(self.values[-third:])

    @property
    def growth(self) -> float:
        first, last = self.thirds
        return last / first - 1 if first else float(last > 0)

    @property
    def slope(self) -> float:
        """Share of the first by which it grows in all: the median of all pairs' slopes."""
        pairs = combinations(enumerate(self.values), 2)
        slopes = [(b - a) / (j - i) for (i, a), (j, b) in pairs]
        first, _ = self.thirds
        return median(slopes) * (len(self.values) - 1) / first if slopes and first else 0.0

    @property
    def is_flat(self) -> bool:
        return self.growth <= self.within

    @property
    def row(self) -> tuple[str, ...]:
        first, last = self.thirds
        digits = 0 if self.within == 0 else 2
        return (
            self.what, self.unit, f"{first:,.{digits}f}", f"{last:,.{digits}f}",
            f"{self.growth:+.1%}", f"{self.slope:+.1%}", "flat" if self.is_flat else "GREW",
        )  # fmt: skip


HEADINGS = ("what", "in", "first third", "last third", "growth", "by its slope", "")


class Record:
    """All series, and what was wrong besides."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self.first: Census | None = None
        self.faults: list[str] = []
        self.calms = 0

    def add(self, what: str, value: float, unit: str = "", within: float = 0.0) -> None:
        made = self.series.setdefault(what, Series(what, unit, within))
        made.values.append(value)

    def look(self, server: RedisServer, crowd: Crowd, seen: Census) -> None:
        """Note one calm."""
        self.calms += 1
        assert self.first is not None
        if keys(seen) != keys(self.first):
            self.faults.append(
                f"calm {self.calms}: Redis holds {keys(seen)}, and held {keys(self.first)}"
            )
        self.faults += [f"calm {self.calms}: too many keys of {k}: {seen}" for k in of_nobody(seen)]
        memory: dict[str, Any] = server.cli("INFO", "memory")
        self.add("Redis: used_memory", memory["used_memory"] / 1e6, "MB", WITHIN)
        self.add("Redis: data", memory["used_memory_dataset"] / 1e6, "MB", WITHIN)
        self.add("Redis: memory of keys", occupied(server) / 1e6, "MB", WITHIN)
        self.add("Redis: resident", resident(server.pid) / 1e6, "MB", ROUGHLY)
        self.add("Redis: keys", sum(keys(seen).values()))
        elements = sum(elements for kind, (_, elements) in seen.items() if kind != LEFT)
        self.add("Redis: elements of keys", elements, "", SOME)
        clients = len(server.cli("CLIENT", "LIST").splitlines())
        self.add("Redis: clients", clients, "", ROUGHLY)
        for lived in crowd.lasting:
            self.add(f"{lived.name}: resident", lived.rss / 1e6, "MB", WITHIN)
            self.add(f"{lived.name}: file descriptors", lived.descriptors)
            if lived.obeys:
                self.add(f"{lived.name}: tasks", lived.tasks)
                self.add(f"{lived.name}: objects", lived.objects, "", SOME)

    @property
    def violations(self) -> list[str]:
        grown = [each for each in self.series.values() if not each.is_flat]
        return [*self.faults, *(f"{each.what} grew by {each.growth:.1%}" for each in grown)]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return [HEADINGS, *(each.row for each in self.series.values())]

    def table(self) -> str:
        return aligned(self.rows, range(2, 6))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """For a page."""
    ruled = [rows[0], ["---:" if 2 <= i <= 5 else "---" for i in range(len(rows[0]))], *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in ruled)


# Running ----------------------------------------------------------------------------------------


def cut(server: RedisServer) -> int:
    """Cut all connections but this one; how many there were."""
    own: int = server.cli("CLIENT", "ID")
    many = 0
    for line in server.cli("CLIENT", "LIST").splitlines():
        number = next(word[3:] for word in line.split() if word.startswith("id="))
        if int(number) != own:
            with contextlib.suppress(redis.ResponseError):  # it has gone by itself
                server.cli("CLIENT", "KILL", "ID", number)
                many += 1
    return many


async def churn(server: RedisServer, crowd: Crowd, seconds: float) -> int:
    """One round; how many connections were cut."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    crowd.go()
    many, cuts_at = 0, loop.time() + seconds / 2
    while loop.time() < due:
        await asyncio.sleep(BETWEEN_KILLS)
        await crowd.kill_one()
        if not many and loop.time() >= cuts_at:
            many = await asyncio.to_thread(cut, server)
    return many


async def soak(minutes: float, seed: int) -> tuple[Record, Crowd, int]:
    """Run so long; what was found, by whom, and how many connections were cut."""
    record, cuts = Record(), 0
    whole = asyncio.current_task()
    assert whole is not None
    # So that all processes are ended, as they are by Ctrl-C.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, whole.cancel)
    due = time.monotonic() + 60 * minutes
    # A log of slow commands grows until it is full.
    with RedisServer(appendonly=True, config={"slowlog-max-len": 0}) as server:
        crowd = Crowd(server.url, random.Random(seed))
        try:
            await crowd.start()
            warm_at = time.monotonic() + 60 * minutes * WARM
            rounds = 0
            while time.monotonic() < due or record.calms < FEWEST:
                cuts += await churn(server, crowd, ROUND)
                await crowd.calm()
                record.faults += crowd.taken_for_dead
                if record.faults:
                    break
                seen = await calm_census(server, record.first)
                rounds += 1
                sizes = ", ".join(f"{each.name} {each.rss / 1e6:.1f}" for each in crowd.lasting)
                print(
                    f"round {rounds}: {sum(keys(seen).values())} keys; MB: {sizes}",
                    file=sys.stderr,
                    flush=True,
                )
                if record.first is not None:
                    record.look(server, crowd, seen)
                elif rounds >= 3 and time.monotonic() >= warm_at:
                    record.first = seen
        except RuntimeError as error:
            record.faults.append(str(error))
        finally:
            for lived in crowd.all:
                crowd.done += lived.done
            await crowd.stop()
    return record, crowd, cuts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=30.0, metavar="N", help="default: 30")
    parser.add_argument("--page", action="store_true", help="write it into docs/reliability.md too")
    parser.add_argument("--seed", type=int, default=None, metavar="N")
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    try:
        record, crowd, cuts = asyncio.run(soak(given.minutes, seed))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("stopped: no table, as the soak was not over", file=sys.stderr)
        return 1
    print(record.table())
    done = ", ".join(f"{many:,} {what}" for what, many in sorted(crowd.done.items()))
    print(f"\ndone, by those who were not killed since: {done}")
    found = record.violations
    for fault in found:
        print(fault)
    verdict = (
        f"{record.calms} calms, {crowd.kills} processes killed, {cuts:,} connections cut, "
        f"seed {seed}: {len(found)} violations"
    )
    print(verdict)
    if given.page:
        about = f"{given.minutes:g} minutes: {verdict}; {page.made_with()}."
        page.fill(page.PAGE, MARKS, [about, markdown(record.rows)])
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
