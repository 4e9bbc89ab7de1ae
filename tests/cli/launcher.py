"""Starts commands by forking a process that has imported the program already.

Nine tenths of what a short command costs is the imports. Each is a process of its own all the same,
with streams, an environment and signals of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

LARGEST_ORDER = 2**20
_LARGEST_WORD = 64


class Launched:
    """A command that was forked: what ``asyncio.subprocess.Process`` is to others."""

    def __init__(self, life: socket.socket, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._life = life
        self._end = asyncio.create_task(self._await_end())

    async def _await_end(self) -> int:
        told = await asyncio.get_running_loop().sock_recv(self._life, _LARGEST_WORD)
        self._life.close()
        self.returncode = int(told)
        return self.returncode

    async def wait(self) -> int:
        """Its exit status; negative for a signal."""
        return await asyncio.shield(self._end)

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class Launcher:
    """The process that is forked for each command; it imports what one folder has."""

    def __init__(self, folder: Path) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            (sys.executable, "-m", __name__, str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            cwd=folder,
        )
        theirs.close()
        atexit.register(self.close)

    @classmethod
    @functools.cache
    def of(cls, folder: Path) -> Launcher:
        """The one for this folder; it runs from now to this process's end."""
        return cls(folder)

    async def start(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        streams: tuple[int, int, int],
    ) -> Launched:
        """Start ``tympan WORDS`` in a folder, with these descriptors as its standard streams."""
        life, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        life.setblocking(False)
        order = json.dumps([list(words), dict(environment), str(folder)]).encode()
        with theirs:
            socket.send_fds(self._control, [order], [*streams, theirs.fileno()])
        told = await asyncio.get_running_loop().sock_recv(life, _LARGEST_WORD)
        return Launched(life, int(told))

    def close(self) -> None:
        """End the process that is forked; the commands go on."""
        self._control.close()
        self._process.wait()


# In the process that is forked --------------------------------------------------------------------


def import_all() -> None:
    """Import what commands import when they are run."""
    from workers.cli import COMMANDS
    from workers.cli import __name__ as package

    for known in COMMANDS.values():
        importlib.import_module(f"{package}.{known.module}")


def serve(control: socket.socket) -> list[str] | None:
    """Fork for each order, and tell how each ended. In the child: its words; at the end None."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not control:
                _report(selector, key)
                continue
            data, descriptors, *_ = socket.recv_fds(control, LARGEST_ORDER, 4)
            if not data:
                return None
            end, lives = os.pipe()  # whose other end the child keeps as long as it lives
            pid = os.fork()
            if not pid:
                words: list[str]
                words, environment, folder = json.loads(data)
                _forget_others(selector)
                control.close()
                os.close(end)
                _become(environment, folder, descriptors)
                return words
            for descriptor in (*descriptors[:3], lives):
                os.close(descriptor)
            life = socket.socket(fileno=descriptors[3])
            life.send(str(pid).encode())
            selector.register(end, selectors.EVENT_READ, (pid, life))


def _report(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    selector.unregister(key.fileobj)
    os.close(key.fd)
    pid, life = key.data
    _, status = os.waitpid(pid, 0)
    with life, contextlib.suppress(OSError):  # nobody wants to know
        life.send(str(os.waitstatus_to_exitcode(status)).encode())


def _forget_others(selector: selectors.BaseSelector) -> None:
    """Close what is the other process's, by the objects that would close it again later."""
    for key in list(selector.get_map().values()):
        if key.data is not None:
            _, life = key.data
            life.close()
            os.close(key.fd)
    selector.close()


def _become(environment: Mapping[str, str], folder: str, descriptors: Sequence[int]) -> None:
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]


def main() -> None:
    """Serve; in a child, be the command."""
    import_all()
    gc.freeze()  # so that no collection touches, and thereby copies, what all of them share
    words = serve(socket.socket(fileno=int(sys.argv[1])))
    if words is None:
        return
    from workers.cli import main as tympan

    sys.argv = ["tympan", *words]
    status = 1
    try:
        status = tympan(words)
    except Exception:  # noqa: BLE001 - told as the interpreter tells it
        traceback.print_exc()
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End as an interpreter does, but for taking its modules to pieces, which lasts."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # as it does, too
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
