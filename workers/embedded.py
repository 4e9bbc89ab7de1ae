"""A private, real ``redis-server`` that lives and dies with this process."""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import IO, Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

HOST = "127.0.0.1"
MINIMUM_VERSION = (6, 2)

_EMPTY = '""'
_POLL_S = 0.01
_STOP_PATIENCE_S = 5.0
_ASK_AGAIN_S = 0.2
_PORT_ATTEMPTS = 5
_LOG_LINES = 15
_LOWEST_PORT = 10_000
_HIGHEST_PORT = 65_535

# Runs between fork and redis-server, in an interpreter of its own: asking for the death signal in
# a `preexec_fn` would run Python in the forked copy of a process that may have many threads.
# The parent is looked at after the request because it may have died just before it.
_TIE_TO_PARENT = """
import ctypes, os, signal, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG): " + os.strerror(ctypes.get_errno()))
if os.getppid() != parent:
    sys.exit("the starting process is gone")
os.execv(command[0], command)
"""


class EmbeddedRedisError(RuntimeError):
    """A private redis-server could not be started or used; the message says what to do."""


def free_port() -> int:
    """Return a TCP port of the loopback interface on which nothing listens.

    The port lies outside the kernel's ephemeral range where there is room: a client that keeps
    reconnecting to an ephemeral port whose server is down can end up connected to itself, and
    then holds the port the server needs to come back.
    """
    try:
        bounds = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
        first_ephemeral = int(bounds.split()[0])
    except (OSError, ValueError, IndexError):
        first_ephemeral = 32_768
    # Python's shared generator is no use here: test tools seed it, and parallel runs would agree.
    choose = SystemRandom().randrange
    for _ in range(100 if first_ephemeral > _LOWEST_PORT + 1000 else 0):
        port = choose(_LOWEST_PORT, first_ephemeral)
        if _bind_error(port) is None:
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class EmbeddedRedis:
    """A private redis-server on the loopback interface, with append-only persistence.

    The server keeps its data, its configuration (``redis.conf``) and its log (``redis.log``) in
    one folder. Use it as a context manager, or call :meth:`start` and :meth:`stop`; both block
    (tens of milliseconds as a rule), so call them through ``asyncio.to_thread`` from a coroutine.

    On Linux the kernel kills the server as soon as this process is gone, however it went. A
    server killed like that keeps what it had written: with ``appendfsync everysec`` and a slow
    disk up to two seconds of writes may be missing. Elsewhere only an orderly exit stops it.

    Args:
        port: TCP port on 127.0.0.1; None picks a free one.
        data: folder to keep, created when missing; None uses a temporary one, deleted at stop.
        config: further settings as they stand in ``redis.conf``, by name; they win over the
            built-in ones.
        ready_within: seconds the server may take until it answers, loading its data included.
    """

    _arguments: tuple[str, ...] = ()
    """What follows the configuration file on the command line."""

    def __init__(
        self,
        port: int | None = None,
        data: Path | None = None,
        *,
        config: Mapping[str, str | int] | None = None,
        ready_within: float = 30.0,
    ) -> None:
        if port is not None and not 0 < port <= _HIGHEST_PORT:
            raise ValueError(f"port must be between 1 and {_HIGHEST_PORT}, not {port}")
        self._wanted_port = port
        self._wanted_data = data
        self._settings = {name: str(value) for name, value in (config or {}).items()}
        self._ready_within = ready_within
        self._port: int | None = None
        self._data: Path | None = None
        self._lock: IO[bytes] | None = None
        self._child: _Child | None = None
        self._owner = os.getpid()

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1.

        Raises:
            EmbeddedRedisError: the server was not started.
        """
        if self._port is None:
            raise EmbeddedRedisError("the embedded redis-server has no port yet: call start()")
        return self._port

    @property
    def url(self) -> str:
        """Address for Redis clients: ``redis://127.0.0.1:<port>/0``.

        Raises:
            EmbeddedRedisError: the server was not started.
        """
        return f"redis://{HOST}:{self.port}/0"

    @property
    def data(self) -> Path:
        """Folder of data, configuration and log.

        Raises:
            EmbeddedRedisError: the server was not started.
        """
        if self._data is None:
            raise EmbeddedRedisError("the embedded redis-server has no data yet: call start()")
        return self._data

    @property
    def log(self) -> Path:
        """File with all the server's output, appended to at each start."""
        return self.data / "redis.log"

    @property
    def running(self) -> bool:
        """Whether the server process lives; it may have died on its own."""
        return self._child is not None and not self._child.exited.is_set()

    @property
    def pid(self) -> int:
        """Process id of the server.

        Raises:
            EmbeddedRedisError: no server is running.
        """
        return self._running_child().pid

    def start(self) -> Self:
        """Start the server and wait until it answers; does nothing when it runs already.

        Raises:
            EmbeddedRedisError: redis-server is missing or too old, the port is taken, the data
                folder is in use or not writable, or the server died or stayed silent.
        """
        if self.running:
            return self
        self._halt()
        self._owner = os.getpid()
        try:
            server = _find_server()
            self._claim_data()
            self._child = self._launch(server)
        except BaseException:
            self.stop()
            raise
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Stop the server: politely, and by force after five seconds; harmless when stopped.

        A temporary data folder is deleted, a given one stays. A forked child of this process
        that calls this, be it at its exit, changes nothing: the server is not its own.
        """
        if os.getpid() != self._owner:
            return
        self._halt()
        self._port = None
        if self._lock is not None:
            # Unlocked by name: a forked child of this process may still hold the open file.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            self._lock.close()
            self._lock = None
        if self._data is not None and self._wanted_data is None:
            shutil.rmtree(self._data, ignore_errors=True)
        self._data = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _running_child(self) -> _Child:
        if self._child is None or self._child.exited.is_set():
            raise EmbeddedRedisError("the embedded redis-server is not running: call start()")
        return self._child

    def _halt(self) -> None:
        """End the process, keeping port and data for another start."""
        atexit.unregister(self.stop)
        if self._child is not None:
            self._child.end(_STOP_PATIENCE_S)
            self._child = None

    def _claim_data(self) -> None:
        """Make the data folder and lock it against other embedded servers."""
        if self._lock is not None:
            return
        folder = self._wanted_data
        try:
            if folder is None:
                folder = Path(tempfile.mkdtemp(prefix="tympan-redis-"))
            self._data = folder.absolute()
            self._data.mkdir(parents=True, exist_ok=True)
            lock = (self._data / "tympan.lock").open("ab")
        except OSError as exc:
            raise EmbeddedRedisError(
                f"the data folder {folder or tempfile.gettempdir()} cannot be written "
                f"({exc.strerror}): give a folder this user may create files in"
            ) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            lock.close()
            reason = (
                "is in use by another embedded redis-server: stop that one"
                if isinstance(exc, BlockingIOError)
                else f"cannot be locked ({exc.strerror}): mend that"
            )
            raise EmbeddedRedisError(
                f"the data folder {self._data} {reason} or give another folder"
            ) from exc
        self._lock = lock

    def _launch(self, server: Path) -> _Child:
        """Start the process on its port, or on the first of several that is still free."""
        port = self._port or self._wanted_port
        if port is not None:
            self._check_port(port)
            return self._launch_at(server, port)
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                return self._launch_at(server, self._choose_port())
            except _PortTakenError:
                # Someone took the port between the look and the use of it.
                if attempt == _PORT_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _choose_port(self) -> int:
        """A port that is free, for a server that was given none."""
        return free_port()

    def _check_port(self, port: int) -> None:
        error = _bind_error(port)
        if error is None:
            return
        if error.errno == errno.EADDRINUSE:
            raise _PortTakenError(_taken(port)) from error
        raise EmbeddedRedisError(
            f"redis-server cannot listen on {HOST}:{port} ({error.strerror}): give another port"
        ) from error

    def _launch_at(self, server: Path, port: int) -> _Child:
        self._port = port
        conf = self.data / "redis.conf"
        command = [str(server), str(conf), *self._arguments]
        if sys.platform == "linux":
            tie = [sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid())]
            command = tie + command
        try:
            conf.write_bytes(os.fsencode(self._configuration(port)))
            log_start = self.log.stat().st_size if self.log.exists() else 0
            child = _Child(command, self.log)
        except OSError as exc:
            raise EmbeddedRedisError(
                f"{server} could not be run in {self.data} ({exc}): "
                "check that the folder can be written and the program be run"
            ) from exc
        try:
            self._await_ready(child, port, log_start)
        except BaseException:
            child.end(patience=0)
            raise
        return child

    def _configuration(self, port: int) -> str:
        """The text of ``redis.conf`` for a start at this port."""
        settings = {
            "bind": HOST,
            "port": str(port),
            "protected-mode": "yes",
            "daemonize": "no",
            "dir": _quoted(self.data),
            "logfile": _EMPTY,  # to standard output, which goes to the log with all other output
            "save": _EMPTY,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        } | self._settings
        return "".join(f"{name} {value or _EMPTY}\n" for name, value in settings.items())

    def _access(self) -> dict[str, Any]:
        """What a client of redis-py needs besides host and port."""
        return {}

    def _await_ready(self, child: _Child, port: int, log_start: int) -> None:
        """Return once this very server (by its pid) answers PING.

        Raises:
            EmbeddedRedisError: it died, or did not answer in time.
        """
        deadline = time.monotonic() + self._ready_within
        last_error: redis.RedisError | None = None
        with redis.Redis(
            HOST,
            port,
            socket_timeout=1.0,
            socket_connect_timeout=1.0,
            retry=Retry(NoBackoff(), 0),
            **self._access(),
        ) as client:
            while not child.exited.wait(_POLL_S):
                try:
                    if client.ping() and client.info("server")["process_id"] == child.pid:
                        return
                except redis.RedisError as exc:  # not listening yet, or still loading
                    last_error = exc
                if time.monotonic() > deadline:
                    raise EmbeddedRedisError(
                        f"redis-server (pid {child.pid}, port {port}) was not ready within "
                        f"{self._ready_within:g} s (last answer: {last_error}): "
                        f"allow it more time, or see its log:\n{_tail(self.log, log_start)}"
                    )
        output = _tail(self.log, log_start)
        if "Address already in use" in output:
            raise _PortTakenError(_taken(port))
        raise EmbeddedRedisError(
            f"redis-server on port {port} died on start (status {child.status}): mend what its "
            f"last log lines name, data in {self.data}:\n{output}"
        )


class _PortTakenError(EmbeddedRedisError):
    """The port has another listener."""


class _Child:
    """A process started and awaited by a thread of its own.

    The kernel sends the parent-death signal when the starting *thread* ends, so the thread has
    to last as long as the process; it also reaps the process.

    Raises:
        OSError: the program could not be run.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self.exited = threading.Event()
        self.status: int | None = None
        started: Future[int] = Future()
        threading.Thread(
            target=self._keep, args=(command, log, started), name="tympan-redis", daemon=True
        ).start()
        self.pid = started.result()

    def _keep(self, command: list[str], log: Path, started: Future[int]) -> None:
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C is for the program, which stops its server when it is done with it.
                    start_new_session=True,
                )
        except OSError as exc:
            started.set_exception(exc)
            return
        started.set_result(process.pid)
        self.status = process.wait()
        self.exited.set()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; none is sent to a process that has ended."""
        if not self.exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, patience: float) -> None:
        """Terminate the process, kill it after ``patience`` seconds, and wait for its end."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            # Said again: redis-server refuses, and forgets, to end while it writes the first
            # append-only file after a change of masters.
            self.send(signal.SIGTERM)
            if self.exited.wait(min(_ASK_AGAIN_S, patience)):
                return
        self.send(signal.SIGKILL)
        self.exited.wait()


def _find_server() -> Path:
    """Return the redis-server on PATH.

    Raises:
        EmbeddedRedisError: there is none, it does not run, or it is too old.
    """
    wanted = ".".join(map(str, MINIMUM_VERSION))
    found = shutil.which("redis-server")
    if found is None:
        raise EmbeddedRedisError(
            f"redis-server was not found on PATH: install Redis {wanted} or later "
            "(on Debian and Ubuntu: apt-get install redis-server)"
        )
    try:
        output = subprocess.run(
            [found, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        raise EmbeddedRedisError(
            f"{found} --version failed ({exc}): reinstall Redis {wanted} or later"
        ) from exc
    version = re.search(r"\bv=((\d+)\.(\d+)\S*)", output)
    if version is None:
        raise EmbeddedRedisError(
            f"{found} does not tell its version (it says {output.strip()!r}): "
            f"install Redis {wanted} or later"
        )
    if (int(version[2]), int(version[3])) < MINIMUM_VERSION:
        raise EmbeddedRedisError(
            f"{found} is version {version[1]}, which is too old: install Redis {wanted} or later"
        )
    return Path(found).absolute()


def _bind_error(port: int) -> OSError | None:
    """Return why a server could not listen on the loopback port; None when it could."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as exc:
            return exc
    return None


def _taken(port: int) -> str:
    return (
        f"port {port} on {HOST} is in use: stop what listens there, give another port, "
        "or give none to have a free one chosen"
    )


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _tail(log: Path, start: int) -> str:
    """Return the last lines of the log from byte ``start`` on."""
    with log.open("rb") as source:
        source.seek(start)
        lines = source.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:])
