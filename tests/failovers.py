"""Failovers: the primary dies again and again while sources and listeners talk.

``python -m tests.failovers`` has a replica take over ten times under three Sentinels, and ten
times in a Redis Cluster of three masters and three replicas, where the master with the tests' print
server is struck. Two farms live there at the same time: one takes the word of the primary alone
(``memory``), the other waits until a replica has it, too (``replica``). The primary is in turn

- killed while its replica lags, and misses what was acknowledged last,
- frozen, and thawed when another one is the primary: it takes itself for one a little longer,
- killed.

From what the two ends of each channel saw, and what Redis knows in the end, it follows
(:mod:`workers.proof.invariants`) that

- no dialog has two owners: no source hears two registrations, and nobody hears anything twice or
  out of order;
- every listener hears again, by its bells, within five seconds after the new primary takes writes;
- what was lost is counted: successes that one end saw, and that Redis forgot, at ``replica`` none;
  or that the other end never heard of, as it was told that the dialog is over instead;
- all ends are told of the end, and nobody waits for ever;
- nothing stays in Redis afterwards.

It prints what it saw, and ends with status 1 where anything else happened, naming the channel.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

import redis

from broker._keys import Keys
from broker.names import Name
from tests.cluster import ClusterNode, RedisCluster
from tests.columns import aligned
from tests.conformance.actors import eventually
from tests.farm import PERMANENT, SERVER
from tests.sentinels import Sentinels
from tests.servers import RedisServer
from workers.proof.history import LEFT, safe
from workers.proof.invariants import violations
from workers.proof.losses import feed_forgotten, forgotten, lost
from workers.proof.talk import SETTINGS, Talk, Weather

DURABILITIES = ("memory", "replica")
MANNERS = ("killed ahead", "frozen", "killed")
HEARD_WITHIN = 5.0
"""Seconds after the new primary takes writes until every listener has heard a new question."""
BETWEEN = 12
"""Dialogs that each farm finishes between two failovers."""
MISSED = 20_000
"""Bytes of the replication stream that the replica misses which lags."""
SOURCES, LISTENERS = 2, 3
PROBE = "{print01}:probe"
SUCCESSES = ("sends", "responses", "closes", "notifications")


# Where it is played -----------------------------------------------------------------------------


class Ground(Protocol):
    """A primary of the tests' print server, and a replica that takes over."""

    name: str

    @property
    def url(self) -> str: ...

    @property
    def primary(self) -> RedisServer: ...

    @property
    def successor(self) -> RedisServer:
        """The replica."""

    def rejoin(self, former: RedisServer) -> None:
        """The former primary follows the new one, and all agree, when this returns."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: Any) -> None: ...


class SentinelGround:
    """A primary, its replica and three Sentinels."""

    name = "Sentinel"

    def __init__(self) -> None:
        self._watched = Sentinels()

    @property
    def url(self) -> str:
        return self._watched.url

    @property
    def primary(self) -> RedisServer:
        return self._watched.master

    @property
    def successor(self) -> RedisServer:
        (replica,) = self._watched.replicas
        return replica

    def rejoin(self, former: RedisServer) -> None:
        if former.is_paused:
            former.resume()
        self._watched.await_failover()
        self._watched.rejoin()

    def __enter__(self) -> SentinelGround:
        self._watched.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watched.stop()


class ClusterGround:
    """Three masters, each with a replica."""

    name = "Cluster"

    def __init__(self) -> None:
        self._cluster = RedisCluster(replicas=1)

    @property
    def url(self) -> str:
        return self._cluster.url

    @property
    def primary(self) -> ClusterNode:
        return self._cluster.node_of(PROBE)

    @property
    def successor(self) -> ClusterNode:
        (replica,) = self._cluster.replicas_of(self.primary)
        return replica

    def rejoin(self, former: RedisServer) -> None:
        assert isinstance(former, ClusterNode)
        self._cluster.await_master(PROBE)
        if former.is_paused:
            former.resume()
            self._cluster.await_agreement()
        else:
            self._cluster.restart(former)

    def __enter__(self) -> ClusterGround:
        self._cluster.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()


GROUNDS: dict[str, Callable[[], Ground]] = {"sentinel": SentinelGround, "cluster": ClusterGround}


def strike(primary: RedisServer, successor: RedisServer, manner: str) -> None:
    """Have the primary die, or freeze."""
    if manner == "frozen":
        primary.pause()
        return
    if manner == "killed ahead":
        successor.pause()
        primary.cli("CLIENT", "KILL", "TYPE", "replica")
        start = offset(primary)
        while offset(primary) < start + MISSED:
            time.sleep(0.002)
    primary.kill()
    successor.resume()


def offset(primary: RedisServer) -> int:
    return int(primary.cli("INFO", "replication")["master_repl_offset"])


def writable_at(successor: RedisServer) -> float:
    """When it took its first write."""
    due = time.monotonic() + 30
    while time.monotonic() < due:
        with contextlib.suppress(redis.RedisError):
            successor.cli("SET", PROBE, 1)
            found = time.monotonic()
            successor.cli("DEL", PROBE)
            return found
        time.sleep(0.002)
    raise TimeoutError("the replica did not take over within 30 s")


def look(primary: RedisServer, talk: Talk) -> None:
    """What Redis still knows of each channel."""
    known = Keys(talk.namespace, Name.parse(SERVER).server)
    for channel, dialog in talk.dialogs.items():
        entries = primary.cli("XRANGE", known.log(channel), "-", "+")
        dialog.log = {fields["body"] for _, fields in entries if "body" in fields}
    for channel, feed in talk.feeds.items():
        op = int(primary.cli("HGET", known.channel(channel), "op") or 0)
        feed.known = max(0, op - 1)  # the last one ended it


# Playing ----------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What was seen on one ground at one durability."""

    ground: str
    durability: str
    failovers: int
    talk: Talk
    heard_after: list[float] = field(default_factory=list)
    """For each listener and failover the seconds until it heard again."""
    faults: list[str] = field(default_factory=list)

    @property
    def lost(self) -> dict[str, Counter[str]]:
        """What Redis forgot, and what the other end never heard of, by kind."""
        return lost(self.talk.history, self.talk.listeners)

    @property
    def violations(self) -> list[str]:
        """Whatever is not as it must be."""
        history = self.talk.history
        found = [*self.faults, *map(str, violations(history))]
        if self.durability == "replica":
            for channel, dialog in history.dialogs.items():
                if forgotten(dialog):
                    found.append(f"dialog {channel}: forgotten although a replica had it: {dialog}")
            for channel, feed in history.feeds.items():
                if feed_forgotten(feed):
                    found.append(f"feed {channel}: forgotten although a replica had it: {feed}")
        return [f"{self.ground}, {self.durability}: {fault}" for fault in found]

    @property
    def column(self) -> tuple[str, ...]:
        """For the table."""
        dialogs, feeds = self.talk.dialogs.values(), self.talk.feeds.values()
        seen = {
            "sends": [dialog.sends for dialog in dialogs],
            "responses": [hand.responses for each in dialogs for hand in each.hands.values()],
            "closes": [dialog.close for dialog in dialogs],
        }
        successes = Counter({kind: sum(len(safe(each)) for each in seen[kind]) for kind in seen})
        successes["notifications"] = sum(len(safe(feed.sends)) for feed in feeds)
        unsafe = sum(list(each.values()).count(False) for kind in seen for each in seen[kind])
        unsafe += sum(list(feed.sends.values()).count(False) for feed in feeds)
        lost = self.lost
        return (
            self.ground, self.durability, f"{self.failovers}", f"{len(dialogs):,}",
            f"{sum(dialog.end == 'released' for dialog in dialogs):,}",
            f"{sum(dialog.end == LEFT for dialog in dialogs):,}", f"{unsafe:,}",
            *(
                f"{successes[kind]:,} / {lost['forgotten'][kind]:,} / {lost['unheard'][kind]:,}"
                for kind in SUCCESSES
            ),
            f"{median(self.heard_after or [0]):.2f}", f"{max(self.heard_after or [0]):.2f}",
        )  # fmt: skip


HEADINGS = (
    "ground", "durability", "failovers", "dialogs", "released", "left open", "done, not safe",
    *(f"{kind} / forgotten / unheard" for kind in SUCCESSES), "heard again after s: median", "most",
)  # fmt: skip


async def play(ground: Ground, failovers: int, seed: int) -> list[Outcome]:
    """Fail over so often; one outcome for each durability."""
    weather = Weather()
    namespace = f"failover{secrets.token_hex(4)}"
    outcomes = []
    for durability in DURABILITIES:
        talk = Talk(namespace + durability, ground.url, durability, weather, seed)
        talk.history.may_forget = True  # what a replica had is counted beside it
        outcomes.append(Outcome(ground.name, durability, failovers, talk))
    async with contextlib.AsyncExitStack() as stack:
        for outcome in outcomes:
            await stack.enter_async_context(outcome.talk.goes_on(SOURCES, LISTENERS))
        for number in range(failovers):
            await calm(outcomes)
            await fail_over(ground, MANNERS[number % len(MANNERS)], weather, outcomes)
        await calm(outcomes)
    for outcome in outcomes:
        outcome.faults += await clean(outcome.talk, lambda: ground.primary)
        await asyncio.to_thread(look, ground.primary, outcome.talk)
    return outcomes


async def calm(outcomes: Sequence[Outcome]) -> None:
    """Each farm finishes some dialogs."""
    aims = [(outcome.talk, outcome.talk.finished + BETWEEN) for outcome in outcomes]
    await eventually(lambda: all(talk.finished >= aim for talk, aim in aims), "dialogs", 60)


async def fail_over(
    ground: Ground, manner: str, weather: Weather, outcomes: Sequence[Outcome]
) -> None:
    """Strike the primary, and see when all listeners hear again."""
    primary, successor = await asyncio.to_thread(lambda: (ground.primary, ground.successor))
    await asyncio.to_thread(strike, primary, successor, manner)
    weather.strikes()
    writable = await asyncio.to_thread(writable_at, successor)
    listeners = {name for outcome in outcomes for name in outcome.talk.listeners}
    with contextlib.suppress(AssertionError):  # who does not hear again is told apart below
        await eventually(lambda: listeners <= weather.heard.keys(), "all", 4 * HEARD_WITHIN)
    for outcome in outcomes:
        for name in outcome.talk.listeners:
            after = max(0.0, weather.heard.get(name, float("inf")) - writable)
            outcome.heard_after.append(after)
            if after > HEARD_WITHIN:
                outcome.faults.append(f"{manner}: {name} heard again after {after:.1f} s")
    weather.passes()
    await asyncio.to_thread(ground.rejoin, primary)


async def clean(talk: Talk, primary: Callable[[], RedisServer]) -> list[str]:
    """What faults left behind ends with the leases of those who held it; faults where not."""
    async with talk.broker() as caretaker:
        due = time.monotonic() + 4 * SETTINGS["lease"]
        while left := await asyncio.to_thread(lambda: kept(primary(), talk.namespace)):
            if time.monotonic() > due:
                return [f"keys without an owner and a time to live: {left}"]
            await caretaker.run_down(SERVER)
            await asyncio.sleep(0.2)
    return []


def kept(primary: RedisServer, namespace: str) -> list[str]:
    """Keys of what somebody holds, or held."""
    found: list[str] = primary.cli("KEYS", f"{namespace}:*")
    stay = (*PERMANENT, "leases", "streams")  # the caretaker has a session
    held = [key for key in found if key.rsplit(":", 1)[-1] not in stay]
    return [key for key in held if primary.cli("TTL", key) == -1]


# The command ------------------------------------------------------------------------------------


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes side by side, one a column."""
    columns = [HEADINGS, *(outcome.column for outcome in outcomes)]
    return aligned(list(zip(*columns, strict=True)), range(1, len(columns)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.failovers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--failovers", type=int, default=10, metavar="N", help="on each ground")
    parser.add_argument("--ground", choices=GROUNDS, default=None, help="default: both")
    parser.add_argument("--seed", type=int, default=None, metavar="N")
    given = parser.parse_args(arguments)
    if given.failovers < 1:
        parser.error("--failovers must be at least 1")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Fail over; the exit status."""
    given = parse(arguments)
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    logging.disable(logging.WARNING)  # that Redis is another process now is the point here
    outcomes: list[Outcome] = []
    for name in [given.ground] if given.ground else GROUNDS:
        with GROUNDS[name]() as ground:
            outcomes += asyncio.run(play(ground, given.failovers, seed))
    print(table(outcomes))
    found = [fault for outcome in outcomes for fault in outcome.violations]
    for fault in found[:50]:
        print(fault)
    print(f"seed {seed}: {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
