"""CUPS' own ippeveprinter: a printer that speaks IPP Everywhere, on a free loopback port.

It announces itself by DNS-SD and ends where that cannot be; a D-Bus of its own, on which nobody
listens, is enough. Nothing leaves this machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from tests.cups.account import CupsMissing, account, demoted, program
from tests.cups.ipptool import ask
from workers.embedded import _Child, free_port

PATIENCE = 15.0
"""Seconds that it may take to come up."""
FORMATS = (
    "application/pdf,text/plain,image/jpeg,image/urf,image/pwg-raster,application/octet-stream"
)
A4 = "iso_a4_210x297mm"
BYPASS = {"size3": A4, "type3": "stationery", "level3": "25"}
"""Its second tray; one that has no size at all ends the web page for good."""

_POLL_S = 0.02
_BUS_CONF = """\
<busconfig><type>system</type><listen>unix:path={root}/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>
"""
_COMMAND = """\
#!/bin/sh
# A page takes no time; the ``hold`` file makes it wait.
while [ -e {root}/hold ]; do sleep 0.05; done
echo "$IPP_JOB_NAME" >> {root}/printed
"""


class EvePrinter:
    """One printer. Use it as a context manager, or with ``start()`` and ``stop()``.

    Raises:
        CupsMissing: (on start) ippeveprinter or dbus-daemon is not installed, or does not come up.
    """

    def __init__(self, name: str = "Simulated printer") -> None:
        self.name = name
        self.port = 0
        self._root: Path | None = None
        self._bus: _Child | None = None
        self._child: _Child | None = None

    @property
    def root(self) -> Path:
        """The folder that has everything of it."""
        assert self._root is not None, "the printer was not started"
        return self._root

    @property
    def uri(self) -> str:
        """Its device URI."""
        return f"ipp://127.0.0.1:{self.port}/ipp/print"

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        bus, printer = program("dbus-daemon"), program("ippeveprinter")
        if self._root is None:
            self._make(Path(tempfile.mkdtemp(prefix="tympan-eve-")))
        self._bus = _Child(
            demoted(bus, f"--config-file={self.root}/bus.conf", "--nofork"), self.root / "log"
        )
        self._await((self.root / "bus").exists, self._bus)
        command = demoted(
            *("env", f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={self.root}/bus", f"HOME={self.root}"),
            *(printer, "-r", "off", "-n", "localhost", "-p", str(self.port), "-k"),
            *("-d", f"{self.root}/spool", "-c", f"{self.root}/command", "-f", FORMATS),
            *("-v", self.name),
        )
        self._child = _Child(command, self.root / "log")
        self._await(self._answers, self._child)
        return self

    def kill(self) -> None:
        """Kill it: it does not answer any more."""
        for child in (self._child, self._bus):
            if child is not None:
                child.end(patience=0)
        (self.root / "bus").unlink(missing_ok=True)

    def stop(self) -> None:
        """End it, and delete its folder."""
        if self._root is not None:
            self.kill()
            shutil.rmtree(self._root, ignore_errors=True)
        self._root = self._child = self._bus = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def supply(self, black: int, waste: int = 25) -> None:
        """How much black toner there is, and how full the waste box, in per cent."""
        self._press("supplies", {"supply0": str(waste), "supply1": str(black)})

    def empty(self) -> None:
        """Take the paper of its main tray."""
        self._load(0)

    def refill(self) -> None:
        """Put 250 sheets of A4 into its main tray."""
        self._load(250)

    def hold(self) -> None:
        """Let the next job wait."""
        (self.root / "hold").touch()

    def release(self) -> None:
        """Let it go on."""
        (self.root / "hold").unlink(missing_ok=True)

    @property
    def printed(self) -> list[str]:
        """Names of the jobs that it printed."""
        path = self.root / "printed"
        return path.read_text("utf-8").splitlines() if path.exists() else []

    def attributes(self) -> dict[str, Any]:
        """What it says of itself; ``printer-state`` is a word."""
        return ask("Get-Printer-Attributes", self.uri)[0]

    def _load(self, sheets: int) -> None:
        self._press("media", {"size1": A4, "type1": "stationery", "level1": str(sheets)} | BYPASS)

    def _press(self, page: str, words: dict[str, str]) -> None:
        """Send the form of one of its web pages."""
        url = f"http://127.0.0.1:{self.port}/{page}?{urlencode(words)}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            answer.read()

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/supplies", timeout=PATIENCE),
        ):
            return True
        return False

    def _make(self, root: Path) -> None:
        self._root = root
        self.port = self.port or free_port()
        root.chmod(0o755)
        (root / "spool").mkdir()
        (root / "bus.conf").write_text(_BUS_CONF.format(root=root), encoding="utf-8")
        (root / "command").write_text(_COMMAND.format(root=root), encoding="utf-8")
        (root / "command").chmod(0o755)
        if os.geteuid() == 0:
            for path in (root, *root.rglob("*")):
                os.chown(path, account().pw_uid, account().pw_gid)

    def _await(self, holds: Callable[[], bool], child: _Child) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if child.exited.is_set() or time.monotonic() > deadline:
                log = (self.root / "log").read_text("utf-8", errors="replace")
                self.stop()
                raise CupsMissing(f"ippeveprinter does not answer:\n{log}")
            time.sleep(_POLL_S)
