"""Scale: replicas of one pool, more and more of them, killed, and rolled.

``python -m tests.scale`` starts real ``tympan worker`` processes on redis-servers of its own and
prints four tables.

- *Throughput*: one source sends 20,000 notifications, lossless, to a pool of 1, 2, 4 and 8 replicas
  whose handlers await 5 ms, 8 at a time. Each is handled once. Throughput grows at least 1.8 times
  with each doubling until the processors are full. The last row is a Cluster of three masters on
  which 300 print servers share the notifications.
- *Kills*: 10 replicas; 50 times one of them is killed and another one started. Every notification
  is handled; whatever was handled twice was marked as redelivered; what the dead had in hand is in
  other hands within lease and sweep (15 s with the default lease of 10 s).
- *Rolling restarts*: 20 times a replica is told to stop and another one started. Nothing is handled
  twice, and all end with status 0.
- *Orphans*: 100 entries of a dead replica beside 20,000 that living ones hold. All are in other
  hands within the same bound, and the scripts that see to it take no longer than without the
  20,000.

It ends with status 1 where anything else happened.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from broker import Broker, Channel, Name, Subscription
from broker.errors import QueueFull
from tests.cluster import RedisCluster
from tests.farm import SERVER, TYPE
from tests.servers import RedisServer

CHECKOUT = Path(__file__).resolve().parents[1]
CHANNELS = 64
"""On which the source sends at the same time; each waits for the answer to its last send."""
GROWTH = 1.8
FULL = 0.85
"""Share of the processors from which on they are taken for full."""
LESS = 3.0
"""Claiming may cost so many times as much beside what the living hold."""
CONCURRENCY = 8


@dataclass(frozen=True)
class Note:
    """One run of a handler."""

    number: bytes
    times: int
    at: float
    process: int


@dataclass
class Replicas:
    """Worker processes, and what they noted."""

    url: str
    notes: Path
    settings: Sequence[str] = ()
    where: str = SERVER
    seconds: float = 0.005
    concurrency: int = CONCURRENCY
    running: list[Process] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    _read: dict[str, int] = field(default_factory=dict)
    _runs: int = 0

    async def start(self, many: int) -> None:
        """Start so many; returns when they serve."""
        started = await asyncio.gather(*(self._start() for _ in range(many)))
        self.running += started

    async def _start(self) -> Process:
        settings = [word for each in self.settings for word in ("--set", each)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "workers.cli", "worker", "tests.scaled:worker",
            "--url", self.url, "--concurrency", str(self.concurrency), *settings,
            cwd=CHECKOUT,
            stdout=DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                "SCALE_NOTES": str(self.notes),
                "SCALE_WHERE": self.where,
                "SCALE_SECONDS": str(self.seconds),
            },
        )  # fmt: skip
        assert process.stderr is not None
        said: list[str] = []
        async for line in process.stderr:
            said.append(line.decode())
            if b"is served" in line:
                process.drained = asyncio.create_task(_drain(process))  # type: ignore[attr-defined]
                return process
        raise RuntimeError(f"a worker did not start: {''.join(said)}")

    async def stop(self, which: Sequence[Process] | None = None) -> None:
        """Tell them to stop, and wait until they have."""
        stopping = list(self.running if which is None else which)
        for process in stopping:
            process.send_signal(signal.SIGTERM)
        for process in stopping:
            self.statuses.append(await process.wait())
            self.running.remove(process)

    async def kill(self, process: Process) -> None:
        """Kill -9."""
        self.running.remove(process)
        process.kill()
        await process.wait()

    def read(self, *, begun: bool = False) -> list[Note]:
        """What all of them, the dead among them, noted of ended runs, or of ``begun`` ones."""
        found: list[Note] = []
        for file in self.notes.iterdir():
            for line in file.read_bytes().splitlines():
                number, times, at = line.split()
                if number.startswith(b"+") is begun:
                    found.append(Note(number.lstrip(b"+"), int(times), float(at), int(file.name)))
        return found

    def runs(self) -> int:
        """How many runs have ended so far."""
        for file in self.notes.iterdir():
            with file.open("rb") as lines:
                lines.seek(self._read.get(file.name, 0))
                new = lines.read()
            self._read[file.name] = self._read.get(file.name, 0) + len(new)
            self._runs += new.count(b"\n") - new.count(b"+")
        return self._runs

    def is_done(self, many: int) -> Callable[[], bool]:
        """Whether so many runs have ended."""
        return lambda: self.runs() >= many

    def handled(self) -> int:
        """How many different notifications were handled so far."""
        return len({note.number for note in self.read()})


async def _drain(process: Process) -> None:
    assert process.stderr is not None
    while await process.stderr.read(65536):
        pass


@contextlib.asynccontextmanager
async def replicas(url: str, **options: Any) -> AsyncIterator[Replicas]:
    """Worker processes that end with the block."""
    with tempfile.TemporaryDirectory() as folder:
        made = Replicas(url, Path(folder), **options)
        try:
            yield made
        finally:
            for process in list(made.running):
                await made.kill(process)


class Processors:
    """How busy they were since the last look, of 1."""

    def __init__(self) -> None:
        self._last = self._read()

    @staticmethod
    def _read() -> tuple[int, int]:
        numbers = [int(word) for word in Path("/proc/stat").read_text().split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]

    def share(self) -> float:
        total, idle = self._read()
        before, idle_before = self._last
        self._last = total, idle
        return 1 - (idle - idle_before) / max(1, total - before)


async def send(channels: Sequence[Channel], numbers: Iterator[int]) -> None:
    """Send what the numbers say, lossless, on all channels at the same time."""

    async def on(channel: Channel) -> None:
        for number in numbers:
            while True:
                try:
                    await channel.send(b"%d" % number, lossless=True, timeout=600)
                    break
                except QueueFull:
                    continue

    await asyncio.gather(*(on(channel) for channel in channels))


async def until(condition: Any, within: float) -> None:
    """Return when it holds; TimeoutError after so many seconds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - files ring no bell
            await asyncio.sleep(0.05)


def twice(notes: Sequence[Note]) -> int:
    """How many notifications were handled more than once."""
    return sum(count > 1 for count in Counter(note.number for note in notes).values())


def unmarked(notes: Sequence[Note]) -> int:
    """How many were handled again without being marked as redelivered."""
    firsts = Counter(note.number for note in notes if note.times == 1)
    return sum(count > 1 for count in firsts.values())


# Throughput --------------------------------------------------------------------------------------


async def throughput(
    url: str, many: int, count: int, servers: Sequence[str], options: dict[str, Any]
) -> dict[str, Any]:
    """One row."""
    where = "*" if len(servers) > 1 else servers[0]
    async with (
        replicas(url, where=where, **options) as pool,
        Broker.connect(url, user="scale") as source,
    ):
        channels = [
            await source.open_channel(servers[i % len(servers)], TYPE)
            for i in range(max(CHANNELS, len(servers)))
        ]
        await pool.start(many)
        if len(servers) > 1:
            for server in servers:
                await joined(source, server, many)
        processors, began = Processors(), time.time()
        sending = asyncio.create_task(send(channels, iter(range(count))))
        await sending
        await until(pool.is_done(count), 600)
        notes = pool.read()
        busy = processors.share()
        seconds = max(note.at for note in notes) - began
        await pool.stop()
        for server in servers:
            await source.pools.delete("scale", server)
        return {
            "replicas": many,
            "servers": len(servers),
            "seconds": seconds,
            "rate": count / seconds,
            "twice": twice(notes),
            "missing": count - len({note.number for note in notes}),
            "busy": busy,
            "bad": [status for status in pool.statuses if status],
        }


async def joined(source: Broker, server: str, many: int) -> None:
    """Return when so many replicas serve a server."""
    async with asyncio.timeout(120):
        while True:
            facts = await source.pools.on_server(server)
            if facts and len(facts[0].replicas) >= many:
                return
            await asyncio.sleep(0.05)


async def show_throughput(count: int, counts: Sequence[int], servers: int) -> list[str]:
    faults: list[str] = []
    print("replicas  servers  on        seconds     rate/s  growth  busy  twice  missing")
    last: dict[str, Any] | None = None
    with RedisServer() as server:
        for many in counts:
            row = await throughput(server.url, many, count, [SERVER], {})
            growth = row["rate"] / last["rate"] if last else 1.0
            show(row, "redis", growth)
            faults += _faults(row)
            if last is not None and growth < GROWTH and row["busy"] < FULL:
                faults.append(
                    f"{many} replicas handle {growth:.2f} times what half of them do, and the "
                    f"processors are busy to {row['busy']:.0%} only"
                )
            last = row
    with RedisCluster() as cluster:
        names = [rf"\\print{i:03}" for i in range(servers)]
        row = await throughput(cluster.url, 4, count, names, {})
        show(row, "cluster", 0.0)
        faults += _faults(row)
    return faults


def show(row: dict[str, Any], ground: str, growth: float) -> None:
    grown = f"{growth:.2f}" if growth else "-"
    print(
        f"{row['replicas']:8}  {row['servers']:7}  {ground:8}  {row['seconds']:7.2f}  "
        f"{row['rate']:9,.0f}  {grown:>6}  {row['busy']:4.0%}  {row['twice']:5}  "
        f"{row['missing']:7}",
        flush=True,
    )


def _faults(row: dict[str, Any]) -> list[str]:
    where = f"{row['replicas']} replicas"
    found = [f"{where}: {row['twice']} were handled twice"] if row["twice"] else []
    found += [f"{where}: {row['missing']} were not handled"] if row["missing"] else []
    return found + ([f"{where}: statuses {row['bad']}"] if row["bad"] else [])


# Kills and rolling restarts ----------------------------------------------------------------------


@dataclass(frozen=True)
class Killed:
    """What became of the notifications while replicas were killed."""

    replicas: int
    count: int
    times: int
    missing: int
    twice: int
    unmarked: int
    late: Sequence[float]
    """See :func:`recoveries`."""
    left: int
    """What the pool had not finished in the end."""

    @property
    def faults(self) -> list[str]:
        found = [f"kills: {self.missing} notifications are missing"] if self.missing else []
        found += [f"kills: {self.unmarked} handled again without a mark"] if self.unmarked else []
        return found + ([f"kills: {self.left} are left in hand"] if self.left else [])


async def kill(
    count: int, many: int, times: int, seed: int, lease: float, seconds: float = 0.25
) -> Killed:
    """Kill -9 at random, and another one in its place.

    ``seconds``: how long each handler awaits; long enough for the last kill to be under load, too.
    """
    chance = random.Random(seed)
    with RedisServer() as server:
        settings = (f"lease={lease}",)
        async with (
            replicas(server.url, seconds=seconds, settings=settings) as pool,
            Broker.connect(server.url, user="scale", lease=lease) as source,
        ):
            channels = [await source.open_channel(SERVER, TYPE) for _ in range(CHANNELS)]
            await pool.start(many)
            numbers = iter(range(count))
            sending = asyncio.create_task(send(channels, numbers))
            killed: dict[int, float] = {}
            for i in range(times):
                await until(pool.is_done(count * i // (times + 1)), 600)
                victim = chance.choice(pool.running)
                killed[victim.pid] = time.time()
                await pool.kill(victim)
                await pool.start(1)
            await sending
            await until(lambda: pool.handled() >= count, 600)
            await pool.stop()
            notes, late = pool.read(), recoveries(pool, killed)
            facts = await source.pools.on_server(SERVER)
    return Killed(
        many, count, times,
        missing=count - len({note.number for note in notes}),
        twice=twice(notes),
        unmarked=unmarked(notes),
        late=late,
        left=sum(each.backlog for each in facts),
    )  # fmt: skip


async def kills(
    count: int, many: int, times: int, seed: int, lease: float = 10.0, within: float = 15.0
) -> list[str]:
    """Kill, print what became of the notifications, and say what is wrong."""
    killed = await kill(count, many, times, seed, lease)
    last = max(killed.late, default=0)
    print(
        f"{many} replicas, {count:,} notifications, {times} times kill -9: "
        f"{killed.missing} missing, {killed.twice} handled twice, "
        f"{killed.unmarked} of them unmarked, {len(killed.late)} redelivered, "
        f"the last {last:.1f} s after the kill (bound {within:g} s), "
        f"{killed.left} left",
        flush=True,
    )
    return killed.faults + ([f"kills: recovery took {last:.1f} s"] if last > within else [])


def recoveries(pool: Replicas, killed: dict[int, float]) -> list[float]:
    """Seconds from a kill until what the dead one had in hand was begun elsewhere."""
    begun, ended = pool.read(begun=True), {(note.number, note.process) for note in pool.read()}
    elsewhere: dict[bytes, list[Note]] = defaultdict(list)
    for note in begun:
        elsewhere[note.number].append(note)
    found = []
    for note in begun:
        if note.process in killed and (note.number, note.process) not in ended:
            later = [other.at for other in elsewhere[note.number] if other.times > note.times]
            found.append(min(later) - killed[note.process])
    return found


async def rolls(count: int, many: int, times: int) -> list[str]:
    """SIGTERM, one after the other, and another one in its place."""
    with RedisServer() as server:
        async with replicas(server.url) as pool, Broker.connect(server.url, user="scale") as source:
            channels = [await source.open_channel(SERVER, TYPE) for _ in range(CHANNELS)]
            await pool.start(many)
            sending = asyncio.create_task(send(channels, iter(range(count))))
            for i in range(times):
                await until(pool.is_done(count * i // (times + 1)), 600)
                await pool.stop(pool.running[:1])
                await pool.start(1)
            await sending
            await until(lambda: pool.handled() >= count, 600)
            await pool.stop()
            notes = pool.read()
    bad = [status for status in pool.statuses if status]
    missing = count - len({note.number for note in notes})
    print(
        f"{many} replicas, {count:,} notifications, {times} rolling restarts: {missing} missing, "
        f"{twice(notes)} handled twice, statuses other than 0: {bad or 'none'}",
        flush=True,
    )
    faults = [f"rolling restarts: {missing} missing"] if missing else []
    faults += ["rolling restarts: handled twice"] if twice(notes) else []
    return faults + ([f"rolling restarts: statuses {bad}"] if bad else [])


# Orphans -----------------------------------------------------------------------------------------


async def orphans(held: int, orphaned: int, lease: float = 10.0, within: float = 15.0) -> list[str]:
    """A dead replica's entries, beside none and beside many that the living hold.

    The living do not compare by the clock what they hold with Redis: that is their own cost.
    """
    faults: list[str] = []
    spents: list[float] = []
    print("held by the living  orphans  claimed after s        claims  ms in all")
    for beside in (0, held):
        with RedisServer() as server:
            options: dict[str, Any] = {"settings": (f"lease={lease}",)}
            async with Broker.connect(
                server.url, user="scale", pool_buffer=100_000, lease=lease
            ) as source:
                name = Name.parse(SERVER)
                await source.pools.create("scale", Subscription(name, TYPE, "scale", printers=True))
                channels = [await source.open_channel(SERVER, TYPE) for _ in range(CHANNELS)]
                holding = max(1, beside)
                async with (
                    replicas(
                        server.url,
                        concurrency=min(10_000, holding),
                        seconds=3600.0,
                        settings=(*options["settings"], "resync=300"),
                    ) as living,
                    replicas(server.url, concurrency=orphaned, seconds=3600.0, **options) as dying,
                    replicas(server.url, concurrency=orphaned, seconds=0.0, **options) as heirs,
                ):
                    if beside:
                        await send(channels, iter(range(1_000_000, 1_000_000 + beside)))
                        await living.start(-(-beside // 10_000))
                        await _in_hand(source, beside)
                    await send(channels, iter(range(orphaned)))
                    await dying.start(1)
                    await _in_hand(source, beside + orphaned)
                    await heirs.start(1)
                    client = redis.Redis.from_url(server.url)
                    client.config_resetstat()
                    died = time.time()
                    await dying.kill(dying.running[0])
                    await until(heirs.is_done(orphaned), 60)
                    took = max(note.at for note in heirs.read()) - died
                    stats: Any = client.info("commandstats")
                    claims = stats.get("cmdstat_xclaim", {"calls": 0, "usec": 0})
                    pending = stats.get("cmdstat_xpending", {"calls": 0, "usec": 0})
                    client.close()
                    spent = (claims["usec"] + pending["usec"]) / 1000
                    row = f"{took:15.1f}  {claims['calls']:12}  {spent:9.2f}"
                    print(f"{beside:18,}  {orphaned:7}  {row}", flush=True)
                    spents.append(spent)
                    if took > within:
                        faults.append(f"orphans: claimed after {took:.1f} s")
    if spents[1] > LESS * spents[0] + 1:
        faults.append("orphans: claiming costs more beside what the living hold")
    return faults


async def _in_hand(source: Broker, many: int) -> None:
    async with asyncio.timeout(120):
        while True:
            facts = await source.pools.on_server(SERVER)
            if facts and facts[0].in_hand >= many:
                return
            await asyncio.sleep(0.05)


async def main(options: argparse.Namespace) -> int:
    """Run all parts; the exit status."""
    faults: list[str] = []
    parts: set[str] = set(options.parts)
    if "throughput" in parts:
        faults += await show_throughput(options.count, options.replicas, options.servers)
    if "kills" in parts:
        faults += await kills(options.count, 10, options.kills, options.seed)
    if "rolls" in parts:
        faults += await rolls(options.count, 10, options.rolls)
    if "orphans" in parts:
        faults += await orphans(20_000, 100)
    for fault in faults:
        print(f"FAULT {fault}")
    print(f"seed {options.seed}: {len(faults)} faults")
    return 1 if faults else 0


PARTS = ("throughput", "kills", "rolls", "orphans")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--replicas", type=int, nargs="+", default=(1, 2, 4, 8))
    parser.add_argument("--servers", type=int, default=300)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rolls", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    sys.exit(asyncio.run(main(parser.parse_args())))
