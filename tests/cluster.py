"""A real Redis Cluster for tests: its slots are moved, its masters fail, at will."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from redis.crc import key_slot
from redis.exceptions import BusyLoadingError

from tests.servers import RedisServer, Tls, all_at_once, await_agreement, client_url
from workers.embedded import HOST, _bind_error, free_port

SLOTS = 16_384
_BUS_OFFSET = 10_000
_FIRST_EPHEMERAL = 32_768
_MIGRATION_TIMEOUT_MS = 30_000
_FORGOTTEN_WITHIN = 30.0
"""Seconds that nodes take at most to have heard all that was said before a slot was dropped."""


class Seen(NamedTuple):
    """What one node knows of one: a line of CLUSTER NODES."""

    id: str
    master: str
    """Id of the master that it replicates; empty for a master."""
    epoch: int
    slots: frozenset[int]
    is_failed: bool
    is_joining: bool


class ClusterNode(RedisServer):
    """One process of a cluster; its bus port is its port + 10000."""

    _id = ""

    @property
    def id(self) -> str:
        """The node's id; it outlives the process."""
        if not self._id:
            self._id = self.cli("CLUSTER", "MYID")
        return self._id

    def view(self) -> dict[str, Seen]:
        """What this node knows of all nodes, itself included, by id."""
        lines: list[str] = self.cli("CLUSTER", "NODES").splitlines()
        return {seen.id: seen for seen in map(_parsed, lines)}

    @property
    def slots(self) -> frozenset[int]:
        """The slots that are this node's own, by its own word."""
        return self.view()[self.id].slots

    @property
    def serves(self) -> bool:
        """Whether the cluster is up in this node's view."""
        return "cluster_state:ok" in self.cli("CLUSTER", "INFO")

    def discard(self) -> None:
        super().discard()
        self._id = ""

    def _choose_port(self) -> int:
        # Bound as free_port() bounds ports, so that no client's own end takes the bus port.
        while True:
            bus = (port := free_port()) + _BUS_OFFSET
            if bus < _FIRST_EPHEMERAL and _bind_error(bus) is None:
                return port


class RedisCluster:
    """Masters, each with so many replicas, joined to a cluster on the loopback interface.

    Use it as a context manager. The slots are dealt evenly and in order; a ``key`` below is a key
    or the number of its slot. Everything is synchronous. It takes two to three seconds to start:
    no master serves in its first two.

    Args:
        masters: how many.
        replicas: of each master.
        node_timeout: seconds of silence after which a node counts as failed, and a replica takes
            over; small for tests of failovers, large where load must not cause one.
        config: further settings as they stand in ``redis.conf``, by name.
        appendonly: whether the data survives a restart.
        password: what clients and nodes have to say; None for nothing.
        tls: certificates of nodes that speak TLS only, also to each other; None for plain TCP.

    Attributes:
        nodes: the masters, in order of their slots, then the first replica of each, and so on.
            The roles change with failovers, the list does not.
    """

    def __init__(
        self,
        masters: int = 3,
        replicas: int = 0,
        *,
        node_timeout: float = 1.0,
        config: Mapping[str, str | int] | None = None,
        appendonly: bool = False,
        password: str | None = None,
        tls: Tls | None = None,
    ) -> None:
        settings: dict[str, str | int] = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": int(node_timeout * 1000),
            # A replica takes over however long it heard nothing, and of its own master only.
            "cluster-replica-validity-factor": 0,
            "cluster-migration-barrier": 1_000_000,
        }
        if tls is not None:
            settings["tls-cluster"] = "yes"
        self.nodes = [
            ClusterNode(
                config=settings | dict(config or {}),
                appendonly=appendonly,
                password=password,
                tls=tls,
            )
            for _ in range(masters * (1 + replicas))
        ]
        self._first = masters
        self._election_limit = max(2.0, 2 * node_timeout)
        self._last_election = -self._election_limit
        self._password = password
        self._tls = tls

    @property
    def url(self) -> str:
        """Address for Redis clients: ``redis+cluster://127.0.0.1:<port>,…``, the first masters."""
        hosts = ",".join(f"{HOST}:{node.port}" for node in self.nodes[: self._first])
        return client_url("+cluster", hosts, self._password, self._tls)

    @property
    def awake(self) -> list[ClusterNode]:
        """The nodes that run and are not paused."""
        return [node for node in self.nodes if node.running and not node.is_paused]

    @property
    def masters(self) -> list[ClusterNode]:
        """The nodes that own slots, in order of these."""
        owners = {node: slots for node in self.awake if (slots := node.slots)}
        return sorted(owners, key=lambda node: min(owners[node]))

    def start(self) -> Self:
        """Start and join all nodes; each serves when this returns.

        Raises:
            EmbeddedRedisError: a node did not come up.
            TimeoutError: they did not come together within 30 seconds.
        """
        try:
            all_at_once(self.nodes, ClusterNode.start)
            self._join()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kill all nodes and delete their data."""
        all_at_once(self.nodes, ClusterNode.discard)

    def slot_of(self, key: str) -> int:
        """The slot of a key, by its hash tag if it has one."""
        return key_slot(key.encode())

    def node_of(self, key: str | int) -> ClusterNode:
        """The node that owns the key's slot.

        Raises:
            LookupError: nobody who is awake does.
        """
        found = self._owner(key)
        if found is None:
            raise LookupError(f"no node that is awake owns the slot of {key!r}")
        return found

    def replicas_of(self, master: ClusterNode) -> list[ClusterNode]:
        """The nodes that are awake and replicate this one."""
        return [node for node in self.awake if node.view()[node.id].master == master.id]

    def server_names(self, many: int) -> list[str]:
        """Names of print servers whose keys lie on so many different masters, one on each.

        Raises:
            LookupError: there are not so many masters.
        """
        names: dict[ClusterNode, str] = {}
        for number in range(1, 100):
            if len(names) == many:
                return list(names.values())
            name = f"print{number:02}"
            names.setdefault(self.node_of(f"{{{name}}}"), name)
        raise LookupError(f"there are no {many} masters that own slots")

    def migrate(self, key: str | int, to: ClusterNode) -> None:
        """Move a slot with all its keys to another master, as live resharding does."""
        for _ in self.migration(key, to):
            pass

    def migration(self, key: str | int, to: ClusterNode, batch: int = 10) -> Iterator[str]:
        """The same step by step: it goes on when the next step is asked for.

        Steps are ``importing`` and ``migrating`` (what is not there is with the target, by ASK),
        ``moved`` for each batch of keys, ``taken`` (the target owns the slot), ``left`` (the
        former owner knows). At the end all nodes know.
        """
        slot = self._slot(key)
        source = self.node_of(slot)
        to.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        yield "importing"
        source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        yield "migrating"
        access = [] if self._password is None else ["AUTH", self._password]
        while keys := source.cli("CLUSTER", "GETKEYSINSLOT", slot, batch):
            where = (HOST, to.port, "", 0, _MIGRATION_TIMEOUT_MS)
            source.cli("MIGRATE", *where, *access, "KEYS", *keys)
            yield "moved"
        to.cli("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        yield "taken"
        source.cli("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        yield "left"
        for node in self.masters:
            node.cli("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        self.await_agreement()

    def drop_slots(self, *keys: str | int) -> None:
        """Make slots nobody's. With full coverage required, as by default, no node serves then."""
        slots = {self._slot(key) for key in keys}
        # The owner first: the others would hear from it again that the slots are its own. What it
        # had said before may still arrive; each node has read it once it was asked twice.
        nodes = sorted(self.awake, key=lambda node: slots.isdisjoint(node.slots))
        quiet, due = 0, time.monotonic() + _FORGOTTEN_WITHIN
        while quiet < 2:
            assert time.monotonic() < due, f"slots {sorted(slots)} do not stay dropped"
            quiet += 1
            for node in nodes:
                known = frozenset[int]().union(*(seen.slots for seen in node.view().values()))
                if dropped := slots & known:
                    node.cli("CLUSTER", "DELSLOTS", *dropped)
                    quiet = 0

    def add_slots(self, node: ClusterNode, *keys: str | int) -> None:
        """Give slots that are nobody's to a master, and wait until all who are awake know."""
        slots = {self._slot(key) for key in keys}
        node.cli("CLUSTER", "ADDSLOTS", *slots)

        def is_known() -> bool:
            return all(slots <= each.view()[node.id].slots for each in self.awake)

        await_agreement(is_known, "all nodes to know the owner")

    def kill_master(self, key: str | int) -> ClusterNode:
        """Kill the owner of the key's slot, and return it."""
        master = self.node_of(key)
        master.kill()
        return master

    def await_master(self, key: str | int) -> ClusterNode:
        """Wait until the key's slot has an owner that is awake, known and serving; return it.

        Raises:
            TimeoutError: there was none after 30 seconds.
        """
        await_agreement(lambda: self._owner(key) is not None, f"an owner of the slot of {key!r}")
        self.await_agreement()
        self._last_election = time.monotonic()
        return self.node_of(key)

    def fail_over(self, key: str | int) -> ClusterNode:
        """Kill the owner of the key's slot, wait for its replica to take over, and return that."""
        self.kill_master(key)
        return self.await_master(key)

    def switch_over(self, key: str | int) -> ClusterNode:
        """Let a replica of the slot's owner take over from it in order, and return the replica.

        Soon after another takeover it waits first. A master that was elected and is a replica
        again counts the votes of that election for the next one, if it comes within the time
        limit of the first (seen with Redis 7.0.15): it takes over at its old epoch, which the
        others never accept.
        """
        time.sleep(max(0.0, self._last_election + self._election_limit - time.monotonic()))
        before = self.node_of(key)
        self.replicas_of(before)[0].cli("CLUSTER", "FAILOVER")
        await_agreement(lambda: self._owner(key) not in (None, before), "the replica to take over")
        self.await_agreement()
        self._last_election = time.monotonic()
        return self.node_of(key)

    def restart(self, node: ClusterNode) -> None:
        """Start a node again and wait until it serves: as a replica if one took over from it."""
        node.restart()
        self.await_agreement()

    def await_agreement(self) -> None:
        """Wait until all nodes that are awake serve and see the same roles and slots.

        Raises:
            TimeoutError: they did not after 30 seconds.
        """
        try:
            await_agreement(self._agree, "the nodes of the cluster to serve and to agree")
        except TimeoutError as error:
            for node in self.awake:
                serves = "serves" if node.serves else "does not serve"
                error.add_note(f"port {node.port} {serves}\n{node.cli('CLUSTER', 'NODES')}")
            raise
        for node in self.awake:
            if node.view()[node.id].master:
                node.await_link()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _slot(self, key: str | int) -> int:
        return key if isinstance(key, int) else self.slot_of(key)

    def _owner(self, key: str | int) -> ClusterNode | None:
        """Who claims the slot; the last to do so where the others have not heard of it yet."""
        slot = self._slot(key)
        claims = [(node.view()[node.id], node) for node in self.awake]
        owners = {seen.epoch: node for seen, node in claims if slot in seen.slots}
        return owners[max(owners)] if owners else None

    def _join(self) -> None:
        masters = self.nodes[: self._first]
        bounds = [number * SLOTS // self._first for number in range(self._first + 1)]
        for number, node in enumerate(self.nodes):
            # Nodes that join with the same epoch argue about it first.
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if node in masters:
                node.cli("CLUSTER", "ADDSLOTS", *range(*bounds[number : number + 2]))
            for other in self.nodes[:number]:
                node.cli("CLUSTER", "MEET", HOST, other.port)
        await_agreement(self._know_each_other, "the nodes of the cluster to meet")
        for number, node in enumerate(self.nodes[self._first :]):
            node.cli("CLUSTER", "REPLICATE", masters[number % self._first].id)
        self.await_agreement()

    def _know_each_other(self) -> bool:
        ids = {node.id for node in self.nodes}
        views = [node.view() for node in self.nodes]
        return all(
            view.keys() == ids and not any(seen.is_joining for seen in view.values())
            for view in views
        )

    def _agree(self) -> bool:
        if not all(node.serves for node in self.awake):
            return False
        try:
            views = [node.view() for node in self.awake]
        except BusyLoadingError:  # it has just begun to read what its new master sent
            return False
        layouts = {
            frozenset((seen.id, seen.master, seen.slots, seen.is_failed) for seen in view.values())
            for view in views
        }
        return len(layouts) == 1 and not any(views[0][node.id].is_failed for node in self.awake)


def _parsed(line: str) -> Seen:
    id_, _, flags, master, _, _, epoch, _, *ranges = line.split()
    slots: set[int] = set()
    for text in ranges:
        if not text.startswith("["):  # a slot that comes or goes
            first, _, last = text.partition("-")
            slots.update(range(int(first), int(last or first) + 1))
    words = flags.split(",")
    return Seen(
        id_,
        "" if master == "-" else master,
        int(epoch),
        frozenset(slots),
        is_failed="fail" in words,
        is_joining="handshake" in words,
    )
