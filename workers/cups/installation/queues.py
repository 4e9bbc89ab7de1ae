"""Queues that print through Tympan's backend: which there are, and putting it before others."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from shlex import quote

from workers.cups.cupsd.client import Client, IppError, PrinterFacts
from workers.cups.installation.host import Host, NotInstalled
from workers.cups.installation.launchers import SCHEME
from workers.cups.printing.inner import Unfit, inner_uri, wants_root

ROOT = "root"
WRITTEN_WITHIN = 45.0
"""Seconds; cupsd's own DirtyCleanInterval is 30."""
_FILE = "file"
_PREFIX = f"{SCHEME}:"
_TIMEOUT_S = 30.0
_ANSWER_S = 10.0
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Queue:
    """A queue and its device."""

    name: str
    device_uri: str

    @property
    def is_wrapped(self) -> bool:
        """Whether it prints through Tympan's backend."""
        return self.device_uri.lower().startswith(_PREFIX)

    @property
    def has_credential(self) -> bool:
        """Whether its device URI has a user in it."""
        return "@" in _authority(self.device_uri)

    @property
    def bare_uri(self) -> str:
        """Its device URI as cupsd tells it: without a credential that stands in front."""
        authority = _authority(self.device_uri)
        if self.is_wrapped or "@" not in authority:
            return self.device_uri
        return self.device_uri.replace(authority, authority.rpartition("@")[2], 1)

    @property
    def unwrapping(self) -> str:
        """The command that takes Tympan's backend away."""
        inner = self.device_uri[len(_PREFIX) :] if self.is_wrapped else self.device_uri
        return f"lpadmin -p {quote(self.name)} -v {quote(inner)}"


def _authority(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[0]


async def queues(host: Host, cups: Client | None = None) -> list[Queue]:
    """All of them, without classes: as cupsd tells them, or where it is away as it last wrote them.

    Raises:
        NotInstalled: neither can be had.
    """
    try:
        if cups is not None:
            return _told(await cups.printers())
        async with Client(host.address, user=ROOT, timeout=_ANSWER_S) as made:
            return _told(await made.printers())
    except IppError:
        return written(host)


async def answered(host: Host) -> list[Queue]:
    """All of them, without classes, as cupsd tells them now.

    Raises:
        NotInstalled: it does not answer.
    """
    try:
        async with Client(host.address, user=ROOT, timeout=_ANSWER_S) as cups:
            return _told(await cups.printers())
    except IppError as error:
        raise NotInstalled(
            f"cupsd does not answer at {host.address} ({error}): start it, and try again; no "
            "queue was changed"
        ) from error


def _told(printers: list[PrinterFacts]) -> list[Queue]:
    """Without what stands for printers that others have."""
    return [Queue(one.name, one.device_uri) for one in printers if one.device_uri]


def written(host: Host) -> list[Queue]:
    """All of them with whole device URIs, as cupsd last wrote them: up to 30 seconds ago.

    Raises:
        NotInstalled: the file cannot be read.
    """
    path = host.at(host.server_root / "printers.conf")
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise NotInstalled(f"{path}: {error.strerror}: run this as root") from error
    return list(_parsed(lines))


def _parsed(lines: list[str]) -> Iterator[Queue]:
    name = ""
    for line in map(str.strip, lines):
        if line.startswith(("<Printer ", "<DefaultPrinter ")):
            name = line[:-1].partition(" ")[2]
        elif line.startswith("DeviceURI ") and name:
            yield Queue(name, line.partition(" ")[2].strip())
            name = ""


async def wrap(host: Host, name: str, waits: Callable[[str], None] = lambda _: None) -> str:
    """Put Tympan's backend before a queue's device; returns the device URI that it has now.

    ``waits`` is called with what is waited for.

    Raises:
        NotInstalled: there is no such queue, its device cannot be wrapped, or cupsd refuses.
    """
    queue = await _queue(host, name)
    if queue.is_wrapped:
        return queue.device_uri
    wrapped = f"{_PREFIX}{queue.device_uri}"
    try:
        inner = inner_uri(wrapped)
    except Unfit as error:
        raise NotInstalled(f"queue {name}: {error}") from None
    _check_backend(host, name, inner.partition(":")[0])
    if (await _whole(host, queue, waits)).has_credential:
        raise NotInstalled(
            f"the device URI of queue {name} has a credential in it, which cupsd keeps from "
            f"others only where it stands in front: with {_PREFIX} before it everybody could "
            "read it. Leave this queue as it is, or let the device do without"
        )
    await asyncio.to_thread(_lpadmin, host, queue.name, wrapped)
    return wrapped


def _check_backend(host: Host, name: str, scheme: str) -> None:
    """Whether ours could run the device's own. Raises NotInstalled."""
    backend = host.at(host.server_bin / "backend" / scheme)
    ours = host.at(host.server_bin / "backend" / SCHEME)
    if scheme == _FILE:
        raise NotInstalled(
            f"queue {name} has a file: device, which cupsd writes itself, without a backend that "
            "could ask: leave this queue as it is"
        )
    if not ours.exists():
        raise NotInstalled(f"{ours} is not there: run `{host.command('install')}`")
    if not backend.exists():
        raise NotInstalled(f"{backend} is not there, which queue {name} needs")
    if wants_root(backend) and not wants_root(ours):
        raise NotInstalled(
            f"{backend} runs as root only, and {ours} does not: run "
            f"`{host.command('install', '--backend-as-root')}`, with which it does, and runs the "
            f"others as {host.account.name} as before"
        )


async def _whole(host: Host, queue: Queue, waits: Callable[[str], None]) -> Queue:
    """The queue with its whole device URI, which cupsd has in its file and tells nobody.

    Raises:
        NotInstalled: cupsd has not written it in time.
    """
    due = time.monotonic() + WRITTEN_WITHIN
    is_told = False
    while True:
        for one in written(host):
            if one.name == queue.name and one.bare_uri == queue.device_uri:
                return one
        if time.monotonic() > due:
            raise NotInstalled(
                f"cupsd did not write queue {queue.name} to {host.server_root}/printers.conf: "
                "whether its device URI has a credential in it cannot be seen"
            )
        if not is_told:
            waits(f"waiting for cupsd to write queue {queue.name} down, for up to 30 s")
            is_told = True
        await asyncio.sleep(_LOOK_EVERY_S)


async def unwrap(host: Host, name: str, _: Callable[[str], None] = lambda _: None) -> str:
    """Take Tympan's backend away from a queue; returns the device URI that it has now.

    Raises:
        NotInstalled: there is no such queue, or cupsd refuses.
    """
    queue = await _queue(host, name)
    if not queue.is_wrapped:
        return queue.device_uri
    inner = queue.device_uri[len(_PREFIX) :]
    await asyncio.to_thread(_lpadmin, host, queue.name, inner)
    return inner


async def _queue(host: Host, name: str) -> Queue:
    found = await answered(host)
    for queue in found:
        if queue.name.lower() == name.lower():
            return queue
    known = ", ".join(queue.name for queue in found) or "none"
    raise NotInstalled(f"cupsd has no queue {name}; there are: {known}")


def _lpadmin(host: Host, name: str, device_uri: str) -> None:
    program = shutil.which("lpadmin", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise NotInstalled("lpadmin was not found: install CUPS' clients (Debian: cups-client)")
    try:
        done = subprocess.run(
            [program, "-p", name, "-v", device_uri],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"CUPS_SERVER": host.address, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(
            f"lpadmin -p {name} did not end within {_TIMEOUT_S:g} s, and was killed: does cupsd "
            "answer?"
        ) from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"status {done.returncode}"
        raise NotInstalled(f"lpadmin -p {name}: {said}")
