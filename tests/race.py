"""The race: many listeners answer one question at once, and exactly one of them owns the dialog.

``python -m tests.race`` plays 1,000 dialogs of 64 responders, spread over four processes, on a
redis-server of its own; once on good connections, and once where every tenth reply is lost after
the command was executed. In each dialog nobody responds before all hold the question. Then

- exactly one response is accepted, and every other responder is told CHANNEL_ACQUIRED, by whom;
- the source hears that one response, once;
- every handle's implicit reference is dropped once: the losers' when they let go, the winner's and
  the source's by the close. Redis counts them.

It prints what it saw, and ends with status 1 where anything else happened, naming the dialog.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio

from broker._keys import Keys
from broker.names import Name
from tests.farm import PRINTER
from tests.racers import Dialog, Part
from tests.servers import RedisServer

CHECKOUT = Path(__file__).resolve().parents[1]
LINE = 64 * 1024 * 1024
"""Bytes of the longest report."""
TOGETHER = 4
"""Dialogs in flight."""


@dataclass(frozen=True)
class Race:
    """One form of the race."""

    dialogs: int
    responders: int
    processes: int
    drop: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.drop:.0%} of replies lost" if self.drop else "good connections"


@dataclass
class Seen:
    """One dialog: what all processes saw of it, and what Redis holds."""

    processes: Dialog = field(default_factory=Dialog)
    owner: str = ""
    """User who owns it in Redis."""
    state: str = ""
    drops: int = 0
    handles_dropped: int = 0
    responses_logged: int = 0

    def add(self, dialog: Mapping[str, list[str]]) -> None:
        """What one more process saw."""
        for name, found in dialog.items():
            getattr(self.processes, name).extend(found)


@dataclass
class Outcome:
    """One race, run."""

    race: Race
    dialogs: dict[str, Seen]
    seconds: float
    lost: int
    """Replies that the proxies swallowed."""

    @property
    def violations(self) -> list[str]:
        """Whatever is not as it must be."""
        found = [
            f"dialog {channel}: {fault}"
            for channel, seen in self.dialogs.items()
            for fault in faults(seen, self.race.responders)
        ]
        if len(self.dialogs) != self.race.dialogs:
            found.append(f"{len(self.dialogs)} dialogs instead of {self.race.dialogs}")
        return found

    @property
    def row(self) -> tuple[str, ...]:
        """For the table."""
        seen = self.dialogs.values()
        return (
            self.race.name,
            f"{len(self.dialogs):,}",
            f"{self.race.responders} in {self.race.processes}",
            f"{self.seconds:.1f}",
            f"{len(self.dialogs) / self.seconds:.1f}",
            f"{sum(len(dialog.processes.winners) for dialog in seen):,}",
            f"{sum(len(dialog.processes.told) for dialog in seen):,}",
            f"{sum(dialog.drops for dialog in seen):,}",
            f"{self.lost:,}",
        )


HEADINGS = (
    "form", "dialogs", "responders", "seconds", "dialogs/s", "winners", "losers told", "drops",
    "replies lost",
)  # fmt: skip


def faults(seen: Seen, responders: int) -> Iterator[str]:
    """What is wrong with one dialog; nothing, as a rule."""
    dialog = seen.processes
    yield from dialog.faults
    if len(dialog.winners) != 1:
        yield f"{len(dialog.winners)} winners: {dialog.winners}"
    if dialog.responses != dialog.winners:
        yield f"the source heard {dialog.responses}, the winner is {dialog.winners}"
    if [seen.owner] != dialog.winners:
        yield f"Redis says that {seen.owner!r} owns it, the winner is {dialog.winners}"
    if len(dialog.told) != responders - 1:
        yield f"{len(dialog.told)} of {responders - 1} losers were told CHANNEL_ACQUIRED"
    if set(dialog.told) - set(dialog.winners):
        yield f"losers were told that {sorted(set(dialog.told))} won, not {dialog.winners}"
    if len(dialog.closed) != 1 or not dialog.closed[0].startswith("answered "):
        yield f"the winner was told the reasons {dialog.closed}"
    if seen.state != "closed":
        yield f"its state is {seen.state!r}"
    if seen.responses_logged != 1:
        yield f"{seen.responses_logged} responses in its log"
    if seen.drops != responders + 1:
        yield f"{seen.drops} references dropped instead of {responders + 1}"
    if seen.handles_dropped != responders + 1:
        yield f"{seen.handles_dropped} handles dropped instead of {responders + 1}"


async def run(race: Race, url: str) -> Outcome:
    """Run one form on the Redis at ``url``."""
    namespace = f"race{secrets.token_hex(4)}"
    processes: list[Process] = []
    try:
        shares = [race.responders * i // race.processes for i in range(race.processes + 1)]
        for i in range(race.processes):
            part = Part(
                "responders", url, namespace, i, race.dialogs, shares[i], shares[i + 1],
                race.processes, TOGETHER, race.drop, race.seed,
            )  # fmt: skip
            processes.append(await begin(part))
        part = Part(
            "sources", url, namespace, race.processes, race.dialogs, 0, 0, race.processes, TOGETHER,
            race.drop, race.seed,
        )  # fmt: skip
        processes.append(await begin(part))
        for process in processes:
            await line_of(process)

        *responders, sources = processes
        start = time.monotonic()
        go_on(sources)
        reports = [await line_of(sources)]
        seconds = time.monotonic() - start
        for process in responders:
            go_on(process)
        reports += [await line_of(process) for process in responders]
        for process in processes:
            await process.wait()
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    dialogs: dict[str, Seen] = {}
    for report in reports:
        for channel, dialog in report["dialogs"].items():
            dialogs.setdefault(channel, Seen()).add(dialog)
    await look(url, namespace, dialogs)
    return Outcome(race, dialogs, seconds, sum(report["lost"] for report in reports))


async def look(url: str, namespace: str, dialogs: dict[str, Seen]) -> None:
    """What Redis holds of each dialog."""
    keys = Keys(namespace, Name.parse(PRINTER).server)
    async with redis.asyncio.Redis.from_url(url, decode_responses=True, protocol=2) as client:
        for channel, seen in dialogs.items():
            facts: dict[Any, Any] = await client.hgetall(keys.channel(channel))
            seen.state, seen.owner = facts.get("state", "gone"), facts.get("owner_user", "")
            seen.drops = int(facts.get("drops", 0))
            seen.handles_dropped = sum(name.partition(":")[0] == "dropped" for name in facts)
            log: Any = await client.xrange(keys.log(channel))
            seen.responses_logged = sum(entry["event"] == "response" for _, entry in log)


async def begin(part: Part) -> Process:
    """Start one process of the race."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.racers", json.dumps(asdict(part)),
        stdin=PIPE, stdout=PIPE, limit=LINE, cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip


async def line_of(process: Process) -> Any:
    """What a process says next; raises RuntimeError where it ended instead."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of the race ended with status {await process.wait()}")
    return json.loads(line)


def go_on(process: Process) -> None:
    """Let a process go on."""
    assert process.stdin is not None
    process.stdin.write(b"\n")


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes, one a line."""
    rows = [HEADINGS, *(outcome.row for outcome in outcomes)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def parse(arguments: Sequence[str] | None) -> list[Race]:
    """The forms that the command line asks for: both, unless --drop names one."""
    parser = argparse.ArgumentParser(prog="python -m tests.race", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dialogs", type=int, default=1000, metavar="N")
    parser.add_argument("--responders", type=int, default=64, metavar="N", help="in each dialog")
    parser.add_argument("--processes", type=int, default=4, metavar="N", help="with responders")
    parser.add_argument(
        "--drop", type=float, metavar="P",
        help="probability that a reply is lost; default: one race with 0 and one with 0.1",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=None, metavar="N")
    given = parser.parse_args(arguments)
    if not 1 <= given.processes <= given.responders:
        parser.error("--processes must be between 1 and --responders")
    if given.dialogs < 1 or (given.drop is not None and not 0 <= given.drop < 0.5):
        parser.error("--dialogs must be at least 1, and --drop between 0 and 0.5")
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    return [
        Race(given.dialogs, given.responders, given.processes, drop, seed)
        for drop in ((0.0, 0.1) if given.drop is None else (given.drop,))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the races; the exit status."""
    outcomes = []
    for race in parse(arguments):
        with RedisServer() as server:
            outcomes.append(asyncio.run(run(race, server.url)))
    print(table(outcomes))
    violations = [fault for outcome in outcomes for fault in outcome.violations]
    for fault in violations[:50]:
        print(fault)
    print(f"seed {outcomes[0].race.seed}: {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
