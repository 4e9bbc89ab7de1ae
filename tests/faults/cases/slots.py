"""A print server's slot of a Cluster moves while its dialogs run, or is lost."""

from __future__ import annotations

import asyncio
import contextlib

from tests.cluster import ClusterNode, RedisCluster
from tests.conformance.actors import eventually
from tests.failovers import PROBE
from tests.faults.case import RECOVERED_WITHIN, Extent, Report, case
from tests.faults.load import Loss, released, talking
from workers.proof.history import Dialog

BATCH, PAUSE = 5, 0.02
"""Keys that move at a time, and seconds between two: the slot is half open for a while."""
TOLD = {"released", "SessionLapsed"}
"""What an end is told; the second one by the call that it was just about to make."""


@case(
    "a slot moves to another node of the Cluster",
    "dialogs go on: nothing is forgotten or ended, and nobody is told NOTIFICATION_RELEASE",
    is_short=True,
)
async def moved(extent: Extent) -> Report:
    report = Report()
    for _ in range(extent.of(1, 1, 10)):
        with RedisCluster(node_timeout=60.0) as cluster:
            await to_and_fro(cluster, extent.of(2, 10, 10), report)
    return report


async def to_and_fro(cluster: RedisCluster, times: int, report: Report) -> None:
    """So many moves, of a slot that has more keys each time."""
    home = cluster.node_of(PROBE)
    away = next(node for node in cluster.masters if node is not home)
    async with talking(cluster.url, ["memory"], report) as load:
        for number in range(times):
            await load.calm()
            steps = cluster.migration(PROBE, home if number % 2 else away, batch=BATCH)
            while await asyncio.to_thread(next, steps, None) is not None:
                report.checked["steps"] += 1
                await asyncio.sleep(PAUSE)
            await load.recovers("slot moved")
    await load.settle(lambda: cluster.node_of(PROBE), {"memory": Loss.NOTHING})
    for talk in load.talks:
        report.violations += [
            f"dialog {channel} was ended by the move: {talk.dialogs[channel]}"
            for channel in released(talk.dialogs)
        ]


@case(
    "a slot of the Cluster is lost with all that it held",
    "both ends of each of its dialogs are told NOTIFICATION_RELEASE; listeners register again",
)
async def lost(extent: Extent) -> Report:
    report = Report()
    with RedisCluster(replicas=1) as cluster:
        async with talking(cluster.url, ["memory"], report) as load:
            for number in range(extent.of(2, 4, 80)):
                await load.calm()
                way = Dropped(cluster) if number % 2 else Died(cluster)
                await asyncio.to_thread(way.begin)
                # What Redis had answered before has arrived by then.
                await asyncio.sleep(PAUSE)
                standing = load.standing
                await asyncio.to_thread(way.end)
                await load.recovers(f"slot lost: {type(way).__name__}")
                await ended(standing, report)
                report.lost["dialogs that stood"] += len(standing)
        await load.settle(lambda: cluster.node_of(PROBE), {"memory": Loss.ALL})
    return report


class Died:
    """Master and replica die, and come back without data."""

    def __init__(self, cluster: RedisCluster) -> None:
        self._cluster = cluster
        self._gone: list[ClusterNode] = []

    def begin(self) -> None:
        master = self._cluster.node_of(PROBE)
        self._gone = [master, *self._cluster.replicas_of(master)]
        for node in reversed(self._gone):
            node.kill()

    def end(self) -> None:
        for node in self._gone:
            node.restart()
        self._cluster.await_agreement()


class Dropped:
    """The slot is taken from its master, whose data is lost, and given to another one."""

    def __init__(self, cluster: RedisCluster) -> None:
        self._cluster = cluster
        self._master = cluster.node_of(PROBE)

    def begin(self) -> None:
        self._cluster.drop_slots(PROBE)
        self._master.cli("FLUSHALL")

    def end(self) -> None:
        heir = next(node for node in self._cluster.masters if node is not self._master)
        self._cluster.add_slots(heir, PROBE)
        self._cluster.await_agreement()


async def ended(standing: dict[str, Dialog], report: Report) -> None:
    """Both ends of dialogs that stood when all was lost are told so, in time."""

    def untold() -> dict[str, list[str]]:
        ends = {
            channel: [dialog.end, *(hand.end for hand in dialog.hands.values() if hand.responses)]
            for channel, dialog in standing.items()
        }
        return {channel: told for channel, told in ends.items() if not TOLD.issuperset(told)}

    with contextlib.suppress(AssertionError):  # who was not told is named below
        await eventually(lambda: not untold(), "the last end to be told", RECOVERED_WITHIN)
    report.checked["ends told"] += 2 * len(standing)
    report.violations += [
        f"dialog {channel} was lost, and its ends were told {told}: {standing[channel]}"
        for channel, told in untold().items()
    ]
