"""Ensembles: a Cluster, or the Sentinels of a primary, as their members describe them. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workers.doctor.node import address_of, number, read_info, read_pairs

SLOTS = 16_384
Slots = tuple[int, int]
"""A range of them: its first and its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One node of a Cluster, as another one sees it."""

    id: str
    address: str
    is_primary: bool
    is_failed: bool
    follows: str
    """Of a replica: the id of its primary."""
    slots: tuple[Slots, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """A Cluster, as one of its nodes sees it."""

    seen_by: str
    state: str
    members: tuple[Member, ...]

    @classmethod
    def of(cls, seen_by: str, info: str, nodes: str) -> ClusterFacts:
        """Read CLUSTER INFO and CLUSTER NODES."""
        members = (_member(line.split(), seen_by) for line in nodes.splitlines() if line)
        return cls(
            seen_by=seen_by,
            state=read_info(info).get("cluster_state", "?"),
            members=tuple(one for one in members if one is not None),
        )

    @property
    def primaries(self) -> tuple[Member, ...]:
        """Those that own slots."""
        return tuple(one for one in self.members if one.is_primary and one.slots)

    def replicas_of(self, primary: Member) -> tuple[Member, ...]:
        """Its replicas that are not failed."""
        return tuple(one for one in self.members if one.follows == primary.id and not one.is_failed)

    @property
    def unowned(self) -> tuple[Slots, ...]:
        """Ranges of slots that nobody owns."""
        gaps, at = [], 0
        for first, last in sorted(part for one in self.members for part in one.slots):
            if first > at:
                gaps.append((at, first - 1))
            at = max(at, last + 1)
        if at < SLOTS:
            gaps.append((at, SLOTS - 1))
        return tuple(gaps)


def count(slots: Iterable[Slots]) -> int:
    """How many slots these ranges are."""
    return sum(last - first + 1 for first, last in slots)


def _member(words: Sequence[str], seen_by: str) -> Member | None:
    if len(words) < 8 or "handshake" in words[2] or "noaddr" in words[2]:
        return None
    flags = words[2].split(",")
    host, _, port = words[1].partition("@")[0].rpartition(":")
    slots = []
    for word in words[8:]:
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", word)  # not those that are on their way
        if found is not None:
            slots.append((int(found[1]), int(found[2] or found[1])))
    return Member(
        id=words[0],
        address=address_of(host.strip("[]"), port) or seen_by,
        is_primary="master" in flags,
        is_failed="fail" in flags,
        follows="" if words[3] == "-" else words[3],
        slots=tuple(slots),
    )


# Sentinel ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one Sentinel says of the primary."""

    sentinel: str
    unreachable: str | None = None
    """Why nothing else is known."""
    primary: str | None = None
    quorum: int | None = None
    others: int | None = None
    """How many other Sentinels it knows."""
    replicas: int | None = None
    flags: tuple[str, ...] = ()
    epoch: int = 0
    """The configuration's number: the higher, the newer."""

    @classmethod
    def of(cls, sentinel: str, flat: Sequence[str]) -> View:
        """Read SENTINEL MASTER."""
        facts = read_pairs(flat)
        return cls(
            sentinel=sentinel,
            primary=address_of(facts.get("ip"), facts.get("port")),
            quorum=number(facts.get("quorum")),
            others=number(facts.get("num-other-sentinels")),
            replicas=number(facts.get("num-slaves")),
            flags=tuple(facts.get("flags", "").split(",")),
            epoch=number(facts.get("config-epoch")) or 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelFacts:
    """The Sentinels of one primary."""

    master: str
    """The name by which they know it."""
    views: tuple[View, ...]

    @property
    def answering(self) -> tuple[View, ...]:
        """Those that answered."""
        return tuple(view for view in self.views if view.unreachable is None)

    @property
    def known(self) -> int:
        """How many there are, as far as anyone knows."""
        return max(len(self.views), *(1 + (view.others or 0) for view in self.answering), 0)
