"""Real redis-servers for tests: started, killed, paused, replicated and promoted at will."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from workers.embedded import HOST, EmbeddedRedis

_COMMAND_TIMEOUT_S = 10.0
_LINK_TIMEOUT_S = 30.0
_POLL_S = 0.005


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
    ) -> None:
        settings: dict[str, str | int] = {
            "appendonly": "yes" if appendonly else "no",
            # A replica is served at once instead of after five seconds of waiting for others.
            "repl-diskless-sync-delay": 0,
        }
        if maxmemory is not None:
            settings["maxmemory"] = maxmemory
        super().__init__(port, data, config=settings | dict(config or {}))
        self._client: redis.Redis | None = None

    def stop(self) -> None:
        """Stop the server, paused or not, and delete its temporary data."""
        if self.running:
            self.resume()
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

    def resume(self) -> None:
        """Let a frozen server go on (SIGCONT); harmless when it is not frozen."""
        self._running_child().send(signal.SIGCONT)

    def replica(self) -> RedisServer:
        """Start a replica of this server, with the same settings, and wait for its link.

        It is the caller's to stop: use it as a context manager.
        """
        settings = self._settings | {"replicaof": f"{HOST} {self.port}"}
        server = RedisServer(config=settings).start()
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
            )
        return self._client.execute_command(*args)

    def _halt(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        super()._halt()
