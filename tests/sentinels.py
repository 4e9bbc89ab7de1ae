"""Real Redis Sentinels for tests, with the master and the replicas that they watch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import redis

from tests.servers import RedisServer, Tls, all_at_once, await_agreement, client_url
from workers.embedded import HOST

MASTER_NAME = "mymaster"
_RHYTHM = {
    # A replica whose last INFO is older than five pings is not promoted, and with the master
    # gone INFO is asked for once a second.
    "PING-PERIOD": 300,
    "ASK-PERIOD": 200,
    "INFO-PERIOD": 500,
    "PUBLISH-PERIOD": 200,
    # A machine under load is no reason to stand still for half a minute.
    "TILT-TRIGGER": 10_000,
    "TILT-PERIOD": 1000,
}
"""What Sentinel does by the clock, in milliseconds; by default it is slower."""


class SentinelServer(RedisServer):
    """One Sentinel process. What it learnt outlives :meth:`kill` and :meth:`restart`."""

    _arguments = ("--sentinel",)

    def start(self) -> Self:
        super().start()
        # Redis before 7.0 has no such command; its Sentinels take some seconds more.
        with contextlib.suppress(redis.ResponseError):
            self.cli("SENTINEL", "DEBUG", *(word for pair in _RHYTHM.items() for word in pair))
        return self

    def master_port(self) -> int:
        """The port of the master, as this Sentinel tells its clients."""
        return int(self.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1])

    def facts(self, of: str) -> Any:
        """What it knows of the MASTER (one dictionary), the REPLICAS or the SENTINELS (a list)."""
        return self.cli("SENTINEL", of, MASTER_NAME)

    def _configuration(self, port: int) -> str:
        written = self.data / "redis.conf"
        text = written.read_text(encoding="utf-8") if written.exists() else ""
        # Sentinel keeps what it knows there, once it is up.
        return text if "sentinel myid" in text else super()._configuration(port)


class Sentinels:
    """A master, its replicas, and the Sentinels that watch them, on the loopback interface.

    Use it as a context manager. Everything is synchronous. A failover takes two to three seconds,
    and there is no second one within twice the failover timeout.

    Args:
        replicas: how many.
        sentinels: how many.
        quorum: how many of these have to find the master down.
        down_after: seconds of silence after which it is.
        failover_timeout: seconds; see ``sentinel.conf``.
        config: further settings of master and replicas as they stand in ``redis.conf``, by name.
        appendonly: whether the data of master and replicas survives a restart.
        password: what clients of master and replicas have to say; None for nothing.
        sentinel_password: what clients of the Sentinels have to say; None for nothing.
        tls: certificates of servers and Sentinels that speak TLS only; None for plain TCP.

    Attributes:
        servers: the first master, then its replicas; the roles change, the list does not.
        sentinels: the Sentinels.
    """

    def __init__(
        self,
        replicas: int = 1,
        sentinels: int = 3,
        quorum: int = 2,
        *,
        down_after: float = 0.5,
        failover_timeout: float = 1.0,
        config: Mapping[str, str | int] | None = None,
        appendonly: bool = False,
        password: str | None = None,
        sentinel_password: str | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._replicas = replicas
        self._quorum = quorum
        self._times = {
            "down-after-milliseconds": int(down_after * 1000),
            "failover-timeout": int(failover_timeout * 1000),
        }
        self._password = password
        self._sentinel_password = sentinel_password
        self._tls = tls
        self.servers = [
            RedisServer(config=config, appendonly=appendonly, password=password, tls=tls)
        ]
        self.sentinels = [
            SentinelServer(password=sentinel_password, tls=tls) for _ in range(sentinels)
        ]

    @property
    def url(self) -> str:
        """Address for Redis clients: ``redis+sentinel://127.0.0.1:<port>,…/mymaster``."""
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        query = [f"sentinel_password={self._sentinel_password}"] if self._sentinel_password else []
        return client_url("+sentinel", f"{hosts}/{MASTER_NAME}", self._password, self._tls, *query)

    @property
    def master(self) -> RedisServer:
        """The server that the Sentinels name; it may be dead as long as they have not noticed."""
        port = self._watching()[0].master_port()
        return next(server for server in self.servers if server.port == port)

    @property
    def replicas(self) -> list[RedisServer]:
        """The servers that are awake and follow another."""
        return [server for server in self._awake() if server.cli("ROLE")[0] == "slave"]

    def start(self) -> Self:
        """Start everything; all know each other, and replicas follow, when this returns.

        Raises:
            EmbeddedRedisError: a server or a Sentinel did not come up.
            TimeoutError: they did not come together within 30 seconds.
        """
        try:
            master = self.servers[0].start()
            self.servers += [master.replica() for _ in range(self._replicas)]
            for sentinel in self.sentinels:
                sentinel._settings |= self._orders(master)
            all_at_once(self.sentinels, SentinelServer.start)
            await_agreement(self._is_whole, "Sentinels, master and replicas to know each other")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kill everything and delete its data."""
        all_at_once([*self.sentinels, *self.servers], RedisServer.discard)
        del self.servers[1:]

    def kill_master(self) -> RedisServer:
        """Kill the master, and return it."""
        master = self.master
        master.kill()
        return master

    def await_failover(self) -> RedisServer:
        """Wait until the Sentinels agree on a master that is awake and takes writes; return it.

        Raises:
            TimeoutError: they did not within 30 seconds.
        """
        await_agreement(self._is_led, "the Sentinels to agree on a master")
        self._remember_roles()
        return self.master

    def rejoin(self) -> None:
        """Start the servers that are dead; the Sentinels make them replicas of the master.

        For about a second each takes itself for a master, as it was when it died.

        Raises:
            TimeoutError: they were none after 30 seconds.
        """
        for server in self.servers:
            if not server.running:
                server.start()
        await_agreement(self._is_whole, "the servers that were dead to follow the master")
        self._remember_roles()

    def fail_over(self) -> RedisServer:
        """Kill the master, wait for its successor, let the dead one follow; the successor."""
        self.kill_master()
        successor = self.await_failover()
        self.rejoin()
        return successor

    def switch_over(self) -> RedisServer:
        """Let a replica take over from the living master, in order, and return the replica."""
        before = self.master
        self._watching()[0].cli("SENTINEL", "FAILOVER", MASTER_NAME)
        await_agreement(lambda: self.master is not before, "another master")
        await_agreement(self._is_whole, "the former master to follow")
        self._remember_roles()
        return self.master

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _orders(self, master: RedisServer) -> dict[str, str]:
        """What a Sentinel is told in its configuration."""
        about = {name: str(value) for name, value in self._times.items()} | {"parallel-syncs": "1"}
        if self._password is not None:
            about["auth-pass"] = self._password
        monitor = {f"sentinel monitor {MASTER_NAME}": f"{HOST} {master.port} {self._quorum}"}
        return monitor | {f"sentinel {name} {MASTER_NAME}": about[name] for name in about}

    def _awake(self) -> list[RedisServer]:
        return [each for each in self.servers if each.running and not each.is_paused]

    def _watching(self) -> list[SentinelServer]:
        return [each for each in self.sentinels if each.running and not each.is_paused]

    def _is_led(self) -> bool:
        """Whether all Sentinels name one server, no failover goes on, and it takes writes."""
        facts = [sentinel.facts("MASTER") for sentinel in self._watching()]
        ports = {int(each["port"]) for each in facts}
        masters = [server for server in self._awake() if server.port in ports]
        return (
            len(ports) == len(masters) == 1
            and all(each["flags"] == "master" for each in facts)
            and masters[0].cli("ROLE")[0] == "master"
        )

    def _is_whole(self) -> bool:
        """Whether, besides, all that is awake follows it, and every Sentinel knows all this."""
        if not self._is_led():
            return False
        master = self.master
        servers = {server.port for server in self._awake()}
        for sentinel in self._watching():
            following = {
                int(each["port"])
                for each in sentinel.facts("REPLICAS")
                if each["flags"] == "slave"
                and each["master-link-status"] == "ok"
                and int(each["master-port"]) == master.port
            }
            others = [each for each in sentinel.facts("SENTINELS") if each["flags"] == "sentinel"]
            if servers - {master.port} - following or len(others) < len(self._watching()) - 1:
                return False
        return True

    def _remember_roles(self) -> None:
        """Let a restart find the roles that Sentinel wrote to the servers' configuration."""
        for server in self._awake():
            role, *rest = server.cli("ROLE")
            if role == "master":
                server._settings.pop("replicaof", None)
            else:
                server._settings["replicaof"] = f"{HOST} {rest[1]}"
