"""Sentinel: who is the primary now?

All Sentinels of the URL are asked at once. What most of them say counts as soon as they say it;
where there is no such majority, the newest configuration does. The process found must call itself
a primary, too: in the midst of a failover it does not, and the caller asks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio.connection import AbstractConnection as Connection
from redis.exceptions import ResponseError

from broker._address import Address, Node, shown_node
from broker._connect import ask, open_connection, or_disconnected
from broker._entries import by_name
from broker.errors import RedisError, RedisUnreachable, SentinelsDisagree
from broker.settings import Settings

log = logging.getLogger("tympan")

PATIENCE = 1.0
"""Seconds that a Sentinel has for its answer; a silent one must not hold up a failover."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one Sentinel says."""

    primary: Node | None
    """None where it does not know the name."""
    epoch: int
    """The configuration's number: the higher, the newer."""


class Sentinel:
    """Connects to the primary that Sentinel names."""

    is_fixed = False
    is_expected = False

    def __init__(self, address: Address, settings: Settings) -> None:
        self.url = address.url
        self.on_change: list[Callable[[], None]] = []
        self._address = address
        self._settings = settings
        self._primary: Node | None = None

    async def connect(self) -> Connection:
        primary = await self.primary()
        where = f"the primary {shown_node(primary)} of {self._address.master}"
        connection = await open_connection(
            self._address.redis.connection(primary), where, self._settings, is_alone=False
        )
        async with (
            or_disconnected(connection, where, is_alone=False),
            asyncio.timeout(PATIENCE),
        ):
            facts = (await ask(connection, "INFO", "replication")).decode()  # as ROLE needs +@admin
        role = dict(line.split(":", 1) for line in facts.splitlines() if ":" in line)["role"]
        if role != "master":
            await connection.disconnect(nowait=True)
            raise RedisUnreachable(
                f"Sentinel names {where}, and it calls itself a {role}; a failover may be under way"
            )
        if self._primary not in (None, primary):
            log.warning("%s: the primary is %s now", self.url, shown_node(primary))
            self._primary = primary
            for changed in self.on_change:
                changed()
        self._primary = primary
        return connection

    async def primary(self) -> Node:
        """Who most Sentinels, or the newest of them, say it is.

        Raises SentinelsDisagree, RedisUnreachable where none answers, and the refusal where all
        refuse.
        """
        opinions: dict[Node, Opinion | RedisError] = {}
        majority = len(self._address.nodes) // 2 + 1

        async def hear(node: Node) -> None:
            try:
                opinions[node] = await self._opinion_of(node)
            except RedisError as error:
                opinions[node] = error

        asking = {asyncio.create_task(hear(node)) for node in self._address.nodes}
        try:
            for heard in asyncio.as_completed(asking):
                await heard
                found = settled(list(opinions.values()), majority)
                if found is not None:
                    self.is_expected = True
                    return found
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return self._decide(opinions)

    def _decide(self, opinions: dict[Node, Opinion | RedisError]) -> Node:
        """No majority: the newest configuration counts, where only one is the newest."""
        said = [
            opinion
            for opinion in opinions.values()
            if isinstance(opinion, Opinion) and opinion.primary is not None
        ]
        self.is_expected = bool(said)
        newest = max((opinion.epoch for opinion in said), default=0)
        named = {opinion.primary for opinion in said if opinion.epoch == newest}
        if len(named) == 1 and (primary := named.pop()) is not None:
            return primary
        says = "; ".join(
            f"{shown_node(node)} {_shown(opinion)}" for node, opinion in sorted(opinions.items())
        )
        failures = [each for each in opinions.values() if isinstance(each, RedisError)]
        if len(failures) == len(opinions):
            if not any(isinstance(each, RedisUnreachable) for each in failures):
                raise failures[0]
            raise RedisUnreachable(f"{self.url}: no Sentinel answers: {says}")
        master = self._address.master
        advice = (
            f"compare SENTINEL MASTER {master} on each, and SENTINEL RESET {master} on those that "
            "are behind"
            if said
            else f"is {master} the name in their sentinel monitor line?"
        )
        raise SentinelsDisagree(f"{self.url}: no primary is known: {says}; {advice}")

    async def _opinion_of(self, node: Node) -> Opinion:
        assert self._address.sentinel is not None
        where = f"the Sentinel {shown_node(node)}"
        connection = self._address.sentinel.connection(node)
        master = self._address.master
        async with (
            or_disconnected(connection, where, is_alone=False),
            asyncio.timeout(PATIENCE),
        ):
            await connection.connect()
            found = await ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", master)
            epoch = 0
            if found is not None:
                try:
                    facts = await ask(connection, "SENTINEL", "MASTER", master)
                except ResponseError:  # it was told to forget the name meanwhile
                    found = None
                else:
                    epoch = int(by_name(facts)[b"config-epoch"])
        await connection.disconnect(nowait=True)
        primary = None if found is None else (found[0].decode(), int(found[1]))
        return Opinion(primary, epoch)


def settled(opinions: list[Opinion | RedisError], majority: int) -> Node | None:
    """The primary that enough Sentinels name with one and the same configuration."""
    votes = Counter(
        (opinion.primary, opinion.epoch) for opinion in opinions if isinstance(opinion, Opinion)
    )
    for (primary, _), count in votes.items():
        if count >= majority and primary is not None:
            return primary
    return None


def _shown(opinion: Opinion | RedisError) -> str:
    if isinstance(opinion, RedisError):
        return f"does not answer ({opinion})"
    if opinion.primary is None:
        return "does not know the name"
    return f"names {shown_node(opinion.primary)} (configuration {opinion.epoch})"
