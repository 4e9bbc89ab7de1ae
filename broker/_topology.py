"""Topology: which Redis processes make up the farm, and which of them has a key.

A broker asks its topology for the link to a key, and listens for bells where it says; the rest of
the client is the same for one process, for a primary that Sentinel names, and for a Cluster.
"""

from __future__ import annotations

from typing import Protocol

from broker._address import Address, Form
from broker._bells import PUBLISH, Bells, Gap, Hearing, Ring
from broker._cluster import Cluster
from broker._connect import Connector, Direct
from broker._link import NOBODY, Asking, Link
from broker._sentinel import Sentinel
from broker._waiting import LinkLost, until_answered
from broker.errors import InvalidUrl, RedisUnreachable
from broker.settings import Settings


class Topology(Protocol):
    """Where the farm's keys live."""

    url: str
    """As it was given, without passwords."""
    bell: str
    """By which command a server's bells are rung where nobody has said so before."""

    @property
    def bells(self) -> Hearing:
        """Where to listen for them."""

    async def start(self) -> None:
        """Reach it once; a failover, or a process that loads, is waited for.

        That ends after the operation timeout, and at once where nobody answers at all. Raises
        RedisUnreachable, RedisRefused, RedisTooOld, DurabilityUnavailable, and InvalidUrl where the
        URL is of another form than what answers.
        """

    def link(self, key: str) -> Asking:
        """The way to the process that has this key, wherever it moves."""

    async def close(self) -> None:
        """Disconnect from everything."""


class Single:
    """One process at a time: always the same one, or the primary that Sentinel names."""

    bell = PUBLISH

    def __init__(
        self, connector: Connector, settings: Settings, on_ring: Ring, on_gap: Gap
    ) -> None:
        self.url = connector.url
        self._connector = connector
        self._settings = settings
        self.bells = Bells(connector, settings, on_ring, on_gap)
        self._link = Link(connector, settings)

    async def start(self) -> None:
        try:
            await until_answered(
                lambda: self._link.command("PING"),
                self.url,
                self._settings.operation_timeout,
                lambda: self._connector.is_expected or self._link.process is not NOBODY,
            )
        except LinkLost as error:
            raise RedisUnreachable(f"{self.url} does not answer: {error}") from None
        mode = self._link.process.mode
        if mode != "standalone":
            raise InvalidUrl(f"{self.url} is {_advice(mode, self.url)}")
        await self._link.check_durability()

    def link(self, key: str) -> Link:  # noqa: ARG002 (one process has every key)
        return self._link

    async def close(self) -> None:
        await self.bells.close()
        await self._link.close()


def _advice(mode: str, url: str) -> str:
    """What a process is that is no single Redis, and how its URL is written."""
    scheme, _, rest = url.partition("://")
    where = rest.rpartition("@")[2].partition("/")[0].partition("?")[0]
    if scheme == "unix":
        scheme, where = "redis", "host:port"
    if mode == "cluster":
        return f"a node of a Cluster: write {scheme}+cluster://{where}"
    return f"a Sentinel: write {scheme}+sentinel://{where}/NAME-OF-THE-PRIMARY"


def topology_at(url: str, settings: Settings, on_ring: Ring, on_gap: Gap) -> Topology:
    """What a URL names. Raises InvalidUrl."""
    return topology_of(Address.parse(url, settings), settings, on_ring, on_gap)


def topology_of(address: Address, settings: Settings, on_ring: Ring, on_gap: Gap) -> Topology:
    """What an address names."""
    match address.form:
        case Form.SENTINEL:
            return Single(Sentinel(address, settings), settings, on_ring, on_gap)
        case Form.CLUSTER:
            return Cluster(address, settings, on_ring, on_gap)
    return Single(Direct(address.redis, address.url, settings), settings, on_ring, on_gap)
