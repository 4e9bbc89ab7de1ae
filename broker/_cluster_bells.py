"""Bells in a Cluster: each is heard at the node that has its slot, wherever that goes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from redis.crc import key_slot

from broker._address import Node, reachable, shown_node
from broker._bells import PUBLISH, Bells, Gap, Ring
from broker._connect import Redirected
from broker.errors import ClusterIncomplete, RedisError, RedisUnreachable
from broker.settings import Settings

if TYPE_CHECKING:
    from broker._cluster import Cluster

log = logging.getLogger("tympan")

PAUSE = 0.5
"""Seconds until a subscription that was refused is asked for again."""


class ClusterBells:
    """Listens at each node for the bells of the servers that live there."""

    def __init__(self, cluster: Cluster, settings: Settings, on_ring: Ring, on_gap: Gap) -> None:
        self._cluster = cluster
        self._settings = settings
        self._on_ring = on_ring
        self._on_gap = on_gap
        self._nodes: dict[Node, Bells] = {}
        self._homes: dict[str, tuple[Node, str]] = {}
        """Each channel with the node where it is heard, and the command that rings it."""
        self._moving: dict[str, asyncio.Task[None]] = {}

    async def subscribe(self, channel: str, bell: str = PUBLISH) -> None:
        """Returns once the node of the channel's slot confirmed, whichever that becomes."""
        is_new = channel not in self._homes
        try:
            await self._follow(channel, bell)
        except BaseException:
            if is_new:  # otherwise others listen to it
                await self.unsubscribe(channel)
            raise

    async def _follow(self, channel: str, bell: str) -> None:
        slot = key_slot(channel.encode())
        failure: RedisError | None = None
        pause = 0.02
        try:
            async with asyncio.timeout(self._settings.operation_timeout):
                while True:
                    node = self._cluster.owner_now(slot)
                    try:
                        node = await self._cluster.owner(slot, channel)
                        self._homes[channel] = (node, bell)
                        return await self._at(node).subscribe(channel, bell)
                    except Redirected as redirected:
                        if node is not None:
                            self._cluster.moved(slot, reachable(redirected.node, node))
                    except RedisUnreachable as error:
                        failure = error
                        self._cluster.doubt()
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 1.0)
        except TimeoutError:
            raise self._in_vain(slot, channel, failure) from None

    def _in_vain(self, slot: int, channel: str, failure: RedisError | None) -> RedisError:
        """Why a channel is not heard, as far as is known when patience is over."""
        node = self._cluster.owner_now(slot)
        if node is None or isinstance(failure, ClusterIncomplete):
            return failure or self._cluster.incomplete(f"slot {slot} of {channel} has no owner")
        why = self.trouble_of(channel) or failure or f"{shown_node(node)} does not answer"
        return self._cluster.out_of_reach(slot, channel, node, why)

    def trouble_of(self, channel: str) -> object | None:
        """See :meth:`broker._bells.Hearing.trouble_of`."""
        home = self._homes.get(channel)
        return self._nodes[home[0]].trouble if home and home[0] in self._nodes else None

    async def unsubscribe(self, channel: str) -> None:
        """Stop listening to a channel."""
        home = self._homes.pop(channel, None)
        moving = self._moving.pop(channel, None)
        if moving is not None:
            moving.cancel()
        if home is not None and home[0] in self._nodes:
            await self._nodes[home[0]].unsubscribe(channel)

    def rehome(self) -> None:
        """What is heard at a node that has its slot no more is to be heard where it went."""
        for channel, (node, bell) in list(self._homes.items()):
            owner = self._cluster.owner_now(key_slot(channel.encode()))
            if owner in (node, None) and self._nodes[node].wants(channel):
                continue
            if channel in self._moving:
                continue
            self._nodes[node].forget(channel, RedisUnreachable("the slot moved"))
            self._moving[channel] = asyncio.create_task(
                self._hear_elsewhere(channel, bell), name="tympan-rehome"
            )

    async def _hear_elsewhere(self, channel: str, bell: str) -> None:
        try:
            while True:
                try:
                    await self._follow(channel, bell)
                    break
                except RedisError as error:
                    log.warning("bells of %s are not heard: %s", channel, error)
                    await asyncio.sleep(PAUSE)
        finally:
            if self._moving.get(channel) is asyncio.current_task():
                del self._moving[channel]
        self._on_gap(channel)
        await self._leave_nodes()

    async def _leave_nodes(self) -> None:
        """Hang up where nothing is to be heard."""
        used = {node for node, _ in self._homes.values()}
        for node in [node for node in self._nodes if node not in used]:
            await self._nodes.pop(node).close()

    async def close(self) -> None:
        """End all subscriptions."""
        moving = list(self._moving.values())
        for task in moving:
            task.cancel()
        await asyncio.gather(*moving, return_exceptions=True)
        for bells in self._nodes.values():
            await bells.close()

    def _at(self, node: Node) -> Bells:
        bells = self._nodes.get(node)
        if bells is None:
            self._cluster.refuse_closed()  # nobody would ever close new ones
            bells = self._nodes[node] = Bells(
                self._cluster.connector(node),
                self._settings,
                self._on_ring,
                self._on_gap,
                self._cluster.look_around,
            )
        return bells
