"""Worth: what a success means on the Redis at hand, for each durability. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from broker import Durability, Settings
from workers.doctor.facts import FarmFacts
from workers.doctor.findings import Command, setting
from workers.doctor.node import NodeFacts

WAITS_FOR_DISK = (7, 2)
"""Since then there is WAITAOF."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """One durability: whether this Redis can give it, and what a success survives then."""

    durability: Durability
    is_possible: bool
    says: str
    """One sentence."""
    mend: tuple[Command, ...] = ()
    """What makes it possible."""


def worth(farm: FarmFacts, settings: Settings) -> list[Worth]:
    """Each durability; of several primaries the weakest counts. Nothing where no Redis tells."""
    nodes = farm.primaries or farm.reached
    if not nodes or any(node.mode == "sentinel" or "INFO" in node.refused for node in nodes):
        return []
    is_watched = farm.cluster is not None or farm.sentinel is not None
    fails_over = is_watched or any(node.replicas for node in nodes)
    return [
        _of_memory(min(nodes, key=_keeps), fails_over=fails_over),
        _of_replica(min(nodes, key=lambda node: node.online), settings),
        min((_of_disk(node) for node in nodes), key=lambda one: one.is_possible),
    ]


def _keeps(node: NodeFacts) -> int:
    """How much a process keeps by itself: more is better."""
    if not node.aof:
        return 1 if node.save else 0
    return {"no": 2, "always": 4}.get(node.appendfsync or "", 3)


def _of_memory(node: NodeFacts, *, fails_over: bool) -> Worth:
    if node.aof is None:
        says = "Survives crashes of sources and listeners; what Redis keeps could not be looked at."
    elif not node.aof:
        gone = "what came after its last snapshot" if node.save else "everything"
        says = f"Survives crashes of sources and listeners; a crash of Redis forgets {gone}."
    else:
        says = {
            "always": "Survives crashes of Redis, and power loss.",
            "everysec": "Survives crashes of Redis; power loss forgets about the last second.",
            "no": "Survives crashes of Redis; power loss forgets some 30 s.",
        }.get(node.appendfsync or "", "Survives crashes of Redis; power loss: not looked at.")
    if fails_over:
        says += " A failover forgets what the promoted replica had not received."
    return Worth(durability=Durability.MEMORY, is_possible=True, says=says)


def _of_replica(node: NodeFacts, settings: Settings) -> Worth:
    there, needed = node.online, settings.replicas
    if there >= needed:
        many = "replica has" if needed == 1 else "replicas have"
        says = (
            f"Survives the loss of {node.address}, when one that has it is promoted "
            f"({needed} {many} to have it, {there} online)."
        )
        return Worth(durability=Durability.REPLICA, is_possible=True, says=says)
    return Worth(
        durability=Durability.REPLICA,
        is_possible=False,
        says=f"{node.address} has {there} replicas online and {needed} are needed: every call "
        "would be done, and raise NotDurable.",
    )


def _of_disk(node: NodeFacts) -> Worth:
    def no(says: str, *mend: Command) -> Worth:
        return Worth(durability=Durability.FSYNC, is_possible=False, says=says, mend=mend)

    if "CONFIG GET" in node.refused:
        return no(
            f"Brokers ask {node.address} by CONFIG GET whether it writes an append-only file, "
            "and it refuses to tell."
        )
    if not node.aof:
        return no(f"{node.address} writes no append-only file.", setting("appendonly", "yes"))
    if node.appendfsync != "always" and node.speaks < WAITS_FOR_DISK:
        return no(
            f"{node.address} is {node.product} {node.version}: before 7.2 it takes appendfsync "
            "always.",
            setting("appendfsync", "always"),
        )
    how = "flushes each write" if node.appendfsync == "always" else "answers WAITAOF"
    return Worth(
        durability=Durability.FSYNC,
        is_possible=True,
        says=f"Survives power loss of its host ({node.address} {how}), not loss of that disk.",
    )
