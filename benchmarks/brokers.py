"""Private servers that peers speak to, on loopback: nats-server and RabbitMQ.

Each has a temporary folder, free ports and a process of its own; ending it ends all of that.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Self

from benchmarks.party import NO_PEER, ContenderAbsent, ContenderFailed
from workers.embedded import HOST, free_port

_RABBITMQ = Path("/usr/lib/rabbitmq")
_SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", f"{_RABBITMQ}/bin")
"""Where Debian has servers that are not on everyone's PATH."""
_READY_S = 60.0
_ENDED_S = 20.0
_POLL_S = 0.05
_LOG_BYTES = 2_000


class Server(ABC):
    """A server that is started, asked until it answers, and ended."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder: Path | None = None
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it."""

    @property
    def pid(self) -> int:
        """Its process. Raises ContenderFailed where none runs."""
        if not self._processes:
            raise ContenderFailed(f"{type(self).__name__} is not running: call start()")
        return self._processes[-1].pid

    @property
    def folder(self) -> Path:
        """What it keeps. Raises ContenderFailed where it is not started."""
        if self._folder is None:
            raise ContenderFailed(f"{type(self).__name__} has no folder yet: call start()")
        return self._folder

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises ContenderAbsent where it is not installed, ContenderFailed where it dies or stays
        silent.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="tympan-bench-"))
        atexit.register(self.stop)
        try:
            self._launch()
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End its processes, by force after 20 s, and delete its folder; harmless when stopped."""
        atexit.unregister(self.stop)
        for process in reversed(self._processes):
            _end(process)
        self._processes = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @abstractmethod
    def _launch(self) -> None:
        """Run what it consists of, the server itself last."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it answers. Raises OSError where it does not listen yet."""

    def _run(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """Run one process of it; its output goes to the log."""
        # The kernel ends it when the thread that started it is gone, however that went.
        tie = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        started: Future[subprocess.Popen[bytes]] = Future()
        threading.Thread(
            target=_keep,
            args=([*tie, *command], self.folder, {**os.environ, **(environment or {})}, started),
            daemon=True,
        ).start()
        self._processes.append(started.result())

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            for process in self._processes:
                if process.poll() is not None:
                    raise ContenderFailed(f"{self._said(process)} died on start: {self._tail()}")
            with contextlib.suppress(OSError):  # it does not listen yet
                if self._answers():
                    return
            time.sleep(_POLL_S)
        raise ContenderFailed(
            f"{self._said(self._processes[-1])} was not ready within {_READY_S:g} s: {self._tail()}"
        )

    def _said(self, process: subprocess.Popen[bytes]) -> str:
        return f"{type(self).__name__}'s process {process.pid} (port {self.port})"

    def _tail(self) -> str:
        return (self.folder / "log").read_bytes()[-_LOG_BYTES:].decode(errors="replace")


class NatsServer(Server):
    """nats-server with JetStream, whose streams are in memory or in files as a stream says."""

    @property
    def url(self) -> str:
        """``nats://127.0.0.1:<port>``."""
        return f"nats://{HOST}:{self.port}"

    def _launch(self) -> None:
        server = _find("nats-server")
        configuration = self.folder / "nats.conf"
        configuration.write_text(
            f'listen: "{HOST}:{self.port}"\n'
            # A listener that is behind is waited for, not disconnected.
            "max_pending: 1GB\n"
            'write_deadline: "60s"\n'
            f'jetstream {{ store_dir: "{self.folder}", max_mem: 4GB, max_file: 16GB }}\n',
            encoding="utf-8",
        )
        self._run(server, "--config", str(configuration))

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1) as connection:
            return connection.recv(5) == b"INFO "


class RabbitServer(Server):
    """RabbitMQ, a node of its own beside an epmd of its own."""

    @property
    def url(self) -> str:
        """``amqp://guest:guest@127.0.0.1:<port>/``; the account is open to loopback only."""
        return f"amqp://guest:guest@{HOST}:{self.port}/"

    def _launch(self) -> None:
        server, epmd = _find("rabbitmq-server"), _find("epmd")
        # The script in sbin becomes another user and has folders of its own; it wraps this one.
        inner = _RABBITMQ / "bin" / "rabbitmq-server"
        mapper = {"ERL_EPMD_PORT": str(free_port()), "ERL_EPMD_ADDRESS": HOST}
        folder = self.folder
        configuration = folder / "rabbitmq.conf"
        configuration.write_text(f"listeners.tcp.1 = {HOST}:{self.port}\n", encoding="utf-8")
        self._run(epmd, environment=mapper)
        self._run(
            str(inner) if inner.exists() else server,
            environment={
                **mapper,
                "HOME": str(folder),  # of the node's cookie
                "RABBITMQ_NODENAME": f"tympan-bench-{self.port}@localhost",
                "RABBITMQ_DIST_PORT": str(free_port()),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                    "-kernel inet_dist_use_interface {127,0,0,1}"
                ),
                "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
                "RABBITMQ_CONFIG_FILE": str(configuration),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
                "RABBITMQ_LOGS": "-",
                "RABBITMQ_LOG_BASE": str(folder),
                "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
                # The script becomes the node, which ends it when told; it does not wait for it.
                "RUNNING_UNDER_SYSTEMD": "true",
            },
        )

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(connection.recv(1))


def rabbitmq_version() -> str:
    """RabbitMQ's version, by the folder that Debian keeps it in; empty where there is none.

    Asking its tools would leave Erlang's port mapper running, on all interfaces.
    """
    for folder in (_RABBITMQ / "lib").glob("rabbitmq_server-*"):
        return folder.name.partition("-")[2]
    return ""


def _find(name: str) -> str:
    """Path of a program. Raises ContenderAbsent."""
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *_SYSTEM_PATHS]))
    if found is None:
        raise ContenderAbsent(f"{name} was not found: {NO_PEER}")
    return found


def _keep(
    command: list[str],
    folder: Path,
    environment: Mapping[str, str],
    started: Future[subprocess.Popen[bytes]],
) -> None:
    """Start a process and last as long as it does."""
    try:
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                # Ctrl-C is for the benchmark, which then ends its servers.
                start_new_session=True,
            )
    except OSError as error:
        started.set_exception(error)
        return
    started.set_result(process)
    process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, by force where it takes too long."""
    process.terminate()
    try:
        process.wait(_ENDED_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
