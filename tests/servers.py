"""Real redis-servers for tests: started, killed, paused, replicated and promoted at will."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from workers.embedded import HOST, EmbeddedRedis

_COMMAND_TIMEOUT_S = 10.0
_LINK_TIMEOUT_S = 30.0
_AGREEMENT_TIMEOUT_S = 30.0
_POLL_S = 0.005


class Certificate(NamedTuple):
    """Files in PEM; the same certificate serves as a server's and as a client's."""

    chain: Path
    key: Path


class Tls(NamedTuple):
    """How a server speaks TLS; ``tests.certificates`` makes one."""

    shown: Certificate
    """What the server shows to its clients, and to its peers."""
    client: Certificate
    """What a client shows that has to."""
    ca: Path
    """Whom server and clients trust."""
    clients: Literal["no", "optional", "yes"] = "no"
    """Whether clients need a certificate."""

    def settings(self, port: int) -> dict[str, str | int]:
        """Settings of a server that speaks nothing else, on this port, and to its peers."""
        return {
            "port": 0,
            "tls-port": port,
            "tls-cert-file": str(self.shown.chain),
            "tls-key-file": str(self.shown.key),
            "tls-ca-cert-file": str(self.ca),
            "tls-auth-clients": self.clients,
            "tls-replication": "yes",
        }

    @property
    def query(self) -> str:
        """What a URL needs so that its client trusts the server, and is trusted if need be."""
        words = [f"ssl_ca_certs={self.ca}"]
        if self.clients == "yes":
            words += [f"ssl_certfile={self.client.chain}", f"ssl_keyfile={self.client.key}"]
        return "&".join(words)

    def access(self) -> dict[str, Any]:
        """What redis-py needs to reach the server, whatever that shows."""
        return {
            "ssl": True,
            "ssl_certfile": str(self.client.chain),
            "ssl_keyfile": str(self.client.key),
            "ssl_cert_reqs": "none",
            "ssl_check_hostname": False,
        }


class RedisServer(EmbeddedRedis):
    """A redis-server on a free loopback port, in a temporary folder of its own.

    Use it as a context manager, or with ``start()`` and ``stop()``. ``url``, ``port``, ``pid``,
    ``data``, ``log`` and ``running`` are those of the embedded server. Everything is synchronous.

    A server without ``appendonly`` forgets its data at a restart. With it, writes are flushed
    once a second; add ``config={"appendfsync": "always"}`` where no acknowledged write may be
    lost to :meth:`kill`.

    Args:
        appendonly: whether the data survives a restart.
        maxmemory: limit in bytes, or as in ``redis.conf`` (``"64mb"``); None for no limit.
        config: further settings as they stand in ``redis.conf``, by name.
        port: TCP port on 127.0.0.1; None picks a free one.
        data: folder to keep; None uses a temporary one, deleted at stop.
        password: what clients and replicas have to say; None for nothing.
        tls: certificates of a server that speaks TLS only; None for plain TCP.

    Raises:
        EmbeddedRedisError: (on start) there is no redis-server on PATH, or it did not come up.
    """

    def __init__(
        self,
        *,
        appendonly: bool = False,
        maxmemory: int | str | None = None,
        config: Mapping[str, str | int] | None = None,
        port: int | None = None,
        data: Path | None = None,
        password: str | None = None,
        tls: Tls | None = None,
    ) -> None:
        settings: dict[str, str | int] = {
            "appendonly": "yes" if appendonly else "no",
            # A replica is served at once instead of after five seconds of waiting for others.
            "repl-diskless-sync-delay": 0,
        }
        if maxmemory is not None:
            settings["maxmemory"] = maxmemory
        if password is not None:
            settings |= {"requirepass": password, "masterauth": password}
        super().__init__(port, data, config=settings | dict(config or {}))
        self._password = password
        self._tls = tls
        self.is_paused = False
        self._client: redis.Redis | None = None

    @property
    def url(self) -> str:
        """Address for Redis clients, with the password and the CA that they need."""
        return client_url("", f"{HOST}:{self.port}/0", self._password, self._tls)

    def stop(self) -> None:
        """Stop the server, paused or not, and delete its temporary data."""
        if self.running:
            self.resume()
        super().stop()

    def discard(self) -> None:
        """Kill the server if it runs, paused or not, and delete its temporary data.

        Where several watch each other, an orderly end of one would set off what its death does.
        """
        if self.running:
            self.kill()
        super().stop()

    def kill(self) -> None:
        """Kill the server outright (SIGKILL) and wait for its end; port and data stay.

        Raises:
            EmbeddedRedisError: the server is not running.
        """
        self._running_child().end(patience=0)
        self._halt()

    def restart(self) -> Self:
        """Start the server again on its port and data, after an orderly end if it still runs.

        What :meth:`config` set is lost, as ever with Redis; the role of a replica is kept.
        """
        if self.running:
            self.resume()
        self._halt()
        return self.start()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP); it is frozen when this returns.

        Connections stay open and new ones are taken by the kernel, but nothing is answered.
        """
        child = self._running_child()
        child.send(signal.SIGSTOP)
        # WNOWAIT leaves the state to be collected by the thread that awaits the process.
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.is_paused = True

    def resume(self) -> None:
        """Let a frozen server go on (SIGCONT); harmless when it is not frozen."""
        self._running_child().send(signal.SIGCONT)
        self.is_paused = False

    def replica(self) -> RedisServer:
        """Start a replica of this server, with the same settings, and wait for its link.

        It is the caller's to stop: use it as a context manager.
        """
        settings = self._settings | {"replicaof": f"{HOST} {self.port}"}
        server = RedisServer(config=settings, password=self._password, tls=self._tls).start()
        try:
            server.await_link()
        except BaseException:
            server.stop()
            raise
        return server

    def await_link(self) -> None:
        """Wait until this replica has taken over its master's data and follows it.

        Raises:
            TimeoutError: the link was not up after 30 seconds.
        """
        deadline = time.monotonic() + _LINK_TIMEOUT_S
        while self.cli("INFO", "replication").get("master_link_status") != "up":
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"the replica on port {self.port} has no link to its master after "
                    f"{_LINK_TIMEOUT_S:g} s: see {self.log}"
                )
            time.sleep(_POLL_S)

    def follow(self, master: RedisServer) -> None:
        """Make this server a replica of ``master``, drop its own data, and wait for the link."""
        self.cli("REPLICAOF", HOST, master.port)
        self._settings["replicaof"] = f"{HOST} {master.port}"
        self.await_link()

    def promote(self) -> None:
        """Make this replica a master of its own, writable when this returns."""
        self.cli("REPLICAOF", "NO", "ONE")
        self._settings.pop("replicaof", None)

    def config(self, name: str, value: str | int) -> None:
        """Set a configuration parameter of the running server, until it ends."""
        self.cli("CONFIG", "SET", name, value)

    def cli(self, *args: str | bytes | int | float) -> Any:
        """Run one command, never twice, and return its reply as redis-py's parser shapes it.

        Strings are decoded; bytes outside UTF-8 survive as surrogate escapes.

        Raises:
            redis.RedisError: the server said no, is not there, or was silent for ten seconds.
        """
        if self._client is None:
            self._client = redis.Redis(
                HOST,
                self.port,
                socket_timeout=_COMMAND_TIMEOUT_S,
                decode_responses=True,
                encoding_errors="surrogateescape",
                retry=Retry(NoBackoff(), 0),
                **self._access(),
            )
        return self._client.execute_command(*args)

    def _configuration(self, port: int) -> str:
        if self._tls is not None:
            self._settings |= {name: str(v) for name, v in self._tls.settings(port).items()}
        return super()._configuration(port)

    def _access(self) -> dict[str, Any]:
        return {"password": self._password} | (self._tls.access() if self._tls else {})

    def _halt(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        self.is_paused = False
        super()._halt()


def client_url(form: str, rest: str, password: str | None, tls: Tls | None, *query: str) -> str:
    """A URL with what clients need: TLS or not, the form (``+cluster``), password, CA."""
    scheme = "redis" if tls is None else "rediss"
    credentials = "" if password is None else f":{password}@"
    options = "&".join([*(() if tls is None else (tls.query,)), *query])
    return f"{scheme}{form}://{credentials}{rest}{'?' if options else ''}{options}"


_Server = TypeVar("_Server", bound=RedisServer)


def all_at_once(servers: Iterable[_Server], action: Callable[[_Server], object]) -> None:
    """Do the same to all servers; raises the first error when it was done to all."""
    listed = list(servers)
    with ThreadPoolExecutor(max(1, len(listed))) as pool:
        for done in [pool.submit(action, server) for server in listed]:
            done.result()


def await_agreement(condition: Callable[[], bool], what: str) -> None:
    """Wait until servers that watch each other have come to agree.

    Raises:
        TimeoutError: they had not after 30 seconds.
    """
    deadline = time.monotonic() + _AGREEMENT_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"awaited {what} for {_AGREEMENT_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)
