"""A flood of events, lossless to a pool, through the journal on disk."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cups.farm.case import Cases
from tests.cups.farm.pace import EVENTS, QUEUE, rows
from tests.cups.farm.stage import CHECKOUT, Stage, until
from tests.cups.host import CupsHost
from tests.cups.switch import Switch
from workers.cups.events.journal import Journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

flood = Cases()
SHORT = 1_000
REPLICAS = 2
HERE = r"\\print01"


@flood.add(
    "f", f"a flood of {EVENTS:,} events reaches a pool without loss", hosts=1, saves_after=30
)
async def lossless(stage: Stage) -> str:
    tell, (host,) = stage.tell, stage.hosts
    many = SHORT if stage.is_short else EVENTS
    await asyncio.to_thread(host.add_queue, QUEUE, "file:///dev/null")
    await stage.listener("spooler")  # whoever may grant
    await stage.listener("console", administers=[HERE])
    with tempfile.TemporaryDirectory() as notes:
        async with _replicas(stage.redis.url, Path(notes)):
            deepest = 0
            journal = Journal(host.spool / "journal")

            def depth() -> int:
                nonlocal deepest
                deepest = max(deepest, journal.length)
                return deepest

            began = time.perf_counter()
            flooding = asyncio.create_task(asyncio.to_thread(_turn, host, many))
            while not flooding.done():
                depth()
                await asyncio.sleep(0.05)
            told = time.perf_counter() - began
            tell(host.name, f"{many:,} events in {told:.1f} s; {deepest:,} waited on disk")
            await until(lambda: len(_noted(Path(notes))) >= many, "the pool", stage.said)
            took = time.perf_counter() - began
            counts = journal.counts()
            journal.close()
        noted = [line for line in _noted(Path(notes)) if line.split()[1] == QUEUE]
    events = Counter(line.split()[0] for line in noted)
    doubled = [event for event, times in events.items() if times > 1]
    assert len(events) >= many, f"{many - len(events)} of {many} did not arrive: {counts}"
    assert not doubled, f"{len(doubled)} events were handled twice: {doubled[:3]}"
    assert not counts.get("lost"), counts
    assert not counts.get("dropped"), counts
    rows.append(("lossless to a pool", f"{many:,}", f"{many / took:,.0f}", "", ""))
    torn = counts.get("torn", 0)
    return (
        f"{len(noted):,} handled once each by {REPLICAS} replicas in {took:.1f} s; {torn} torn by "
        f"cupsd and fetched again, 0 lost"
    )


def _turn(host: CupsHost, many: int) -> None:
    with Switch(host, QUEUE) as switch:
        for _ in range(many):
            switch.turn()


def _noted(folder: Path) -> list[str]:
    return [line for file in folder.iterdir() for line in file.read_text("ascii").splitlines()]


@asynccontextmanager
async def _replicas(url: str, notes: Path) -> AsyncIterator[None]:
    processes = [await _replica(url, notes) for _ in range(REPLICAS)]
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            await process.wait()


async def _replica(url: str, notes: Path) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "workers.cli", "worker", "tests.cups.farm.console:worker",
        "--url", url, "--concurrency", "64",
        cwd=CHECKOUT,
        stdout=DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"CONSOLE_NOTES": str(notes), "CONSOLE_WHERE": HERE},
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    async for line in process.stderr:
        said.append(line.decode())
        if b"is served" in line:
            process.drained = asyncio.create_task(process.stderr.read())  # type: ignore[attr-defined]
            return process
    raise AssertionError(f"a replica did not start: {''.join(said)}")
