"""Cluster: which node has a slot, and the way there while slots move and nodes fall.

A print server's keys share a hash tag, so a server lives in one slot and each of its calls goes to
one node. The map of slots is a hint: a node that has a slot no more says where it went (MOVED), and
a node that does not answer makes the map doubtful; then it is read again, from any node.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.crc import key_slot

from broker import _outage
from broker._address import Address, Node, reachable, shown_node
from broker._bells import PUBLISH, SPUBLISH, Gap, Ring
from broker._cluster_bells import ClusterBells
from broker._connect import Direct, Redirected
from broker._link import NOBODY, BetweenNodes, Link
from broker._scripts import Arg, Call
from broker._waiting import LinkLost, until_answered
from broker.errors import (
    BrokerClosed,
    ClusterIncomplete,
    InvalidUrl,
    RedisError,
    RedisUnreachable,
)
from broker.settings import Settings

log = logging.getLogger("tympan")

SLOTS = 16_384
REDIRECTIONS = 5
"""How often one call follows a slot that moves before it counts as unreachable for now."""
MAP_PATIENCE = 2.0
"""Seconds that a node has to tell the map of slots."""
PAUSE = 0.5
"""Seconds until the map is asked for again, beside other work."""

T = TypeVar("T")


class Cluster:
    """The farm's keys on many nodes."""

    def __init__(self, address: Address, settings: Settings, on_ring: Ring, on_gap: Gap) -> None:
        self.url = address.url
        self.bell = SPUBLISH
        self.bells = ClusterBells(self, settings, on_ring, on_gap)
        self.settings = settings
        self._address = address
        self._owners: list[Node | None] = [None] * SLOTS
        self._replicas: set[Node] = set()
        """They know the map, too, should all masters have gone unseen."""
        self._nodes: dict[Node, Link] = {}
        self._silent: set[Node] = set()
        """Masters of which it was said that they do not answer."""
        self._is_doubtful = True
        self._reading: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False

    async def start(self) -> None:
        """Read the map, and reach the masters. One that is dead has its servers fail, not all.

        Where some node answers and no master does, they are waited for, up to the operation
        timeout. Raises RedisUnreachable, ClusterIncomplete, InvalidUrl.
        """
        await until_answered(
            self._start,
            self.url,
            self.settings.operation_timeout,
            lambda: any(link.process is not NOBODY for link in self._nodes.values()),
        )

    async def _start(self) -> None:
        await self._read_map()
        versions = await asyncio.gather(*(self._reach(node) for node in self._masters))
        reached = [version for version in versions if version]
        if not reached:
            raise RedisUnreachable(f"{self.url}: no master answers")
        self.bell = SPUBLISH if min(reached) >= (7, 0) else PUBLISH

    async def _reach(self, node: Node) -> tuple[int, ...]:
        """Which version a master is; nothing where it does not answer."""
        link = self.at(node)
        try:
            await link.command("PING")
        except (LinkLost, RedisUnreachable) as error:
            if node not in self._silent:
                self._silent.add(node)
                why = str(error).rpartition(": ")[2]
                log.warning("the master %s does not answer: %s", shown_node(node), why)
            return ()
        self._silent.discard(node)
        await link.check_durability()
        return link.process.version

    def link(self, key: str) -> SlotLink:
        return SlotLink(self, key_slot(key.encode()), key)

    async def close(self) -> None:
        self._is_closed = True
        tasks = [task for task in (self._reading, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.bells.close()
        for link in self._nodes.values():
            await link.close()

    def refuse_closed(self) -> None:
        """Raises BrokerClosed."""
        if self._is_closed:
            raise BrokerClosed("the broker is closed")

    # The map ------------------------------------------------------------------------------------

    @property
    def _masters(self) -> list[Node]:
        return sorted({node for node in self._owners if node is not None})

    def at(self, node: Node) -> Link:
        """The link to a node. Raises BrokerClosed."""
        link = self._nodes.get(node)
        if link is None:
            self.refuse_closed()  # nobody would ever close a new one
            link = self._nodes[node] = Link(self.connector(node), self.settings)
        return link

    def connector(self, node: Node) -> Direct:
        """Connects to a node."""

        class Maker:
            connection = staticmethod(lambda: self._address.redis.connection(node))

        return Direct(Maker(), shown_node(node), self.settings, is_alone=False)

    async def owner(self, slot: int, key: str) -> Node:
        """The node that has a slot. Raises ClusterIncomplete, RedisUnreachable."""
        if self._is_doubtful or self._owners[slot] is None:
            await self.read_map()
        node = self._owners[slot]
        if node is None:
            raise self.incomplete(f"slot {slot}, which holds {key}, has no owner")
        return node

    def owner_now(self, slot: int) -> Node | None:
        """The same, as far as the map knows."""
        return self._owners[slot]

    @property
    def has_holes(self) -> bool:
        """Whether a slot has no owner, as far as the map knows."""
        return None in self._owners

    def incomplete(self, what: str) -> ClusterIncomplete:
        """The error for a Cluster with a hole."""
        holes = self._owners.count(None)
        return ClusterIncomplete(
            f"{self.url}: {what}; {holes} of {SLOTS} slots have none: look with "
            "redis-cli --cluster check, mend with redis-cli --cluster fix"
        )

    def out_of_reach(self, slot: int, key: str, node: Node, why: object) -> ClusterIncomplete:
        """The error for a slot whose owner does not answer."""
        return ClusterIncomplete(
            f"{why}; {shown_node(node)} has slot {slot}, which holds {key}, and "
            f"{self._owners.count(node):,} of {SLOTS:,} slots: `tympan doctor` says what is away"
        )

    def between_nodes(self, slot: int, key: str, node: Node) -> ClusterIncomplete:
        """The error for a slot that is moving, while its keys are on two nodes."""
        return ClusterIncomplete(
            f"{self.url}: slot {slot}, which holds {key}, is moving between {shown_node(node)} and "
            "another node, and its calls wait until it has moved: look with redis-cli --cluster "
            "check, mend a move that was abandoned with redis-cli --cluster fix"
        )

    def moved(self, slot: int, node: Node) -> None:
        """A node said that a slot is elsewhere; others may have moved, too."""
        self._owners[slot] = node
        self.look_around()

    def doubt(self) -> None:
        """A node did not answer: look at the map before the next call."""
        self._is_doubtful = True

    def look_around(self) -> None:
        """Read the map beside other work, until somebody tells it."""
        if not self._is_closed and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_around(), name="tympan-cluster-look")

    async def _look_around(self) -> None:
        while True:
            try:
                return await self.read_map()
            except RedisError as error:
                log.warning("%s: the map of slots is not known: %s", self.url, error)
                await asyncio.sleep(PAUSE)

    async def read_map(self) -> None:
        """Read it once for all who want it now.

        Raises RedisUnreachable, or why all refuse, and BrokerClosed.
        """
        self.refuse_closed()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_map(), name="tympan-cluster-map")
        reading = self._reading
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            if not reading.cancelled():
                raise
            raise BrokerClosed("the broker is closed") from None

    async def _read_map(self) -> None:
        known = self._masters
        random.shuffle(known)
        failures: dict[Node, RedisError | InvalidUrl] = {}
        for node in dict.fromkeys((*known, *self._replicas, *self._address.nodes)):
            try:
                owners, replicas = await self._map_of(node)
            except (RedisError, InvalidUrl) as error:
                failures[node] = error
                continue
            self._owners, self._replicas = owners, replicas
            self._is_doubtful = False
            self.bells.rehome()
            self._leave_nodes()
            return
        if not any(isinstance(error, RedisUnreachable) for error in failures.values()):
            raise next(iter(failures.values()))
        says = "; ".join(str(error) for error in failures.values())
        raise RedisUnreachable(f"no node of {self.url} tells the map of slots: {says}")

    async def _map_of(self, node: Node) -> tuple[list[Node | None], set[Node]]:
        """Who owns each slot, and who replicates them, as one node knows it."""
        link = self.at(node)
        try:
            async with asyncio.timeout(MAP_PATIENCE):
                reply = await link.command("CLUSTER", "SLOTS")
        except (LinkLost, TimeoutError) as error:
            raise RedisUnreachable(f"{shown_node(node)}: {str(error) or 'no answer'}") from None
        except RedisError as error:
            if "cluster support disabled" in str(error):
                raise InvalidUrl(
                    f"{shown_node(node)} is no node of a Cluster: write "
                    f"redis://{shown_node(node)}/0"
                ) from None
            raise
        owners: list[Node | None] = [None] * SLOTS
        replicas: set[Node] = set()
        for first, last, *named in reply:
            owner, *others = (_node(each, node) for each in named)
            owners[first : last + 1] = [owner] * (last + 1 - first)
            replicas.update(others)
        return owners, replicas

    def _leave_nodes(self) -> None:
        """Disconnect from those that have no slot any more."""
        owners = {*self._owners}
        for node, link in self._nodes.items():
            if node in owners:
                continue
            _outage.left(link.where)
            if node not in self._address.nodes:
                link.drop("the node has no slot any more")


def _node(named: Sequence[Any], teller: Node) -> Node:
    """A node in the answer to CLUSTER SLOTS."""
    return reachable((named[0].decode() if named[0] else "", int(named[1])), teller)


class SlotLink:
    """The link to a slot's owner, whoever that is at the time of the call."""

    def __init__(self, cluster: Cluster, slot: int, key: str) -> None:
        self._cluster = cluster
        self._slot = slot
        self._key = key

    @property
    def where(self) -> str:
        """The URL, without its password."""
        return self._cluster.url

    async def command(self, *command: Arg, large: bool = False) -> Any:
        """See :meth:`Link.command`."""
        return await self._at_owner(
            lambda link, asking: link.command(*command, large=large, asking=asking)
        )

    async def run(self, call: Call, lead: Sequence[Arg]) -> list[Any]:
        """See :meth:`Link.run`."""
        return await self._at_owner(lambda link, asking: link.run(call, lead, asking=asking))

    async def run_durably(self, call: Call, lead: Sequence[Arg]) -> tuple[list[Any], bool]:
        """See :meth:`Link.run_durably`."""
        return await self._at_owner(
            lambda link, asking: link.run_durably(call, lead, asking=asking)
        )

    async def _at_owner(self, ask: Callable[[Link, bool], Awaitable[T]]) -> T:
        cluster = self._cluster
        node = await cluster.owner(self._slot, self._key)
        asking = False
        for _ in range(REDIRECTIONS):
            try:
                return await ask(cluster.at(node), asking)
            except Redirected as redirected:
                node, asking = reachable(redirected.node, node), redirected.for_now
                if not asking:
                    cluster.moved(self._slot, node)
            except BetweenNodes:
                raise cluster.between_nodes(self._slot, self._key, node) from None
            except RedisUnreachable as error:
                cluster.doubt()
                if cluster.has_holes:
                    raise cluster.incomplete(str(error)) from None
                raise cluster.out_of_reach(self._slot, self._key, node, error) from None
            except LinkLost:
                cluster.doubt()
                raise
        raise RedisUnreachable(
            f"{cluster.url}: slot {self._slot}, which holds {self._key}, moved "
            f"{REDIRECTIONS} times during one call"
        )
