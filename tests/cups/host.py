"""Real cupsds for tests: private ones, each a print host of its own, without root's privileges.

``tests.cups.account`` says whom they run as.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.cups import cupsd_files
from tests.cups.account import (
    CupsMissing,
    account,
    demoted,
    interpreter,
    packages,
    program,
)
from tests.cups.ipptool import ask
from tests.cups.sim import Sim
from workers.cups.installation.launchers import MODE, SCHEME, Kind, Launcher
from workers.embedded import HOST, _Child, free_port

SERVER_BIN = Path("/usr/lib/cups")
PATIENCE = 15.0
"""Seconds that a test waits for what must come."""

_POLL_S = 0.01
_LOG_LINES = 40


class CupsHost:
    """A cupsd on a free loopback port, with folders, queues and programs of its own.

    Everything is synchronous. The queues, the jobs and the subscriptions outlive :meth:`kill` and
    :meth:`restart`; :meth:`stop` deletes all of it.

    Args:
        name: its ServerName, and so the print server that it is to Tympan.
        extra: further lines for cupsd.conf.
        saves_after: seconds after which it writes what changed (queues, jobs, subscriptions with
            their sequence numbers) to its files. 30 is CUPS' own: what is younger when it is
            killed was never there, and its numbers are given again; :meth:`restart` writes all.

    Raises:
        CupsMissing: (on start) cupsd is not installed, or it did not come up.
    """

    def __init__(self, name: str = "print01", *, extra: str = "", saves_after: int = 0) -> None:
        self.name = name
        self.extra = extra
        self.saves_after = saves_after
        self.port = 0
        self._root: Path | None = None
        self._child: _Child | None = None
        self._sessions: list[int] = []

    # Where things are ------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """The folder that has everything of it; it can be entered by cupsd's account."""
        assert self._root is not None, "the cupsd was not started"
        return self._root

    @property
    def address(self) -> str:
        """``127.0.0.1:port``."""
        return f"{HOST}:{self.port}"

    @property
    def socket(self) -> Path:
        """Its UNIX socket."""
        return self.root / "run/cups.sock"

    @property
    def server_bin(self) -> Path:
        """Its ServerBin."""
        return self.root / "bin"

    @property
    def spool(self) -> Path:
        """The folder for Tympan's journal and sockets; cupsd's account owns it."""
        return self.root / "tympan"

    @property
    def settings(self) -> Path:
        """Tympan's settings file; cupsd's account can read it, and not write."""
        return self.root / "etc-tympan/cups.toml"

    def printer_uri(self, queue: str) -> str:
        """A queue, or ``""`` for the server, as ``ipp://``."""
        return f"ipp://{self.address}/{'printers/' + queue if queue else ''}"

    # Living and dying ------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether cupsd lives."""
        return self._child is not None and not self._child.exited.is_set()

    @property
    def pid(self) -> int:
        """Of cupsd."""
        assert self._child is not None, "the cupsd is not running"
        return self._child.pid

    def start(self) -> Self:
        """Start it, or start it again on its port and folders, and wait until it answers."""
        if self.running:
            return self
        cupsd = program("cupsd")
        if self._root is None:
            self._make(Path(tempfile.mkdtemp(prefix="tympan-cups-")))
        command = demoted(
            cupsd,
            "-f",
            "-c",
            f"{self.root}/etc/cupsd.conf",
            "-s",
            f"{self.root}/etc/cups-files.conf",
        )
        self._child = _Child(command, self.root / "log/output")
        self._sessions.append(self._child.pid)
        try:
            self.wait_until(self._answers, "cupsd to answer")
        except AssertionError as error:
            self.stop()
            raise CupsMissing(str(error)) from error
        return self

    def kill(self) -> None:
        """Kill cupsd outright (SIGKILL) and wait for its end; what it ran may outlive it."""
        assert self._child is not None, "the cupsd is not running"
        self._child.end(patience=0)

    def terminate(self) -> None:
        """End cupsd in order (SIGTERM); its files stay."""
        assert self._child is not None, "the cupsd is not running"
        self._child.end(patience=PATIENCE)

    def restart(self) -> Self:
        """End cupsd in order if it runs, and start it again."""
        if self.running:
            self.terminate()
        return self.start()

    def reload(self) -> None:
        """SIGHUP: cupsd reads its files again."""
        os.kill(self.pid, signal.SIGHUP)

    def stop(self) -> None:
        """End cupsd and what it ran, and delete its folders."""
        if self._child is not None:
            self._child.end(patience=PATIENCE)
        for pid in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
        self._root, self._child = None, None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def children(self, word: str = "") -> list[int]:
        """Processes that cupsd started, or those with ``word`` in their commands."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text("utf-8", errors="replace").rpartition(")")[2]
                state, _parent, _group, session, *_ = stat.split()
                words = (folder / "cmdline").read_bytes().decode(errors="replace")
                is_ours = int(session) in self._sessions and pid not in self._sessions
                if is_ours and state not in "ZX" and word in words:
                    found.append(pid)
        return found

    def _answers(self) -> bool:
        if not self.running:
            raise AssertionError(f"cupsd ended at its start:\n{self.log_tail()}")
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def _make(self, root: Path) -> None:
        self._root = root
        self.port = self.port or free_port()
        who = account()
        root.chmod(0o755)
        for name in ("etc/ppd", "jobs/tmp", "cache", "state/certs", "log", "run", "tympan", "sims"):
            (root / name).mkdir(parents=True)
        cupsd_files.write(root, self.name, self.port, self.saves_after, self.extra)
        if os.geteuid() == 0:
            for path in (root, *root.rglob("*")):
                os.chown(path, who.pw_uid, who.pw_gid)
        self._copy_server_bin()
        self.place_text("backend", "sim", self.script("tests.cups.simulated"))
        self.configure()

    def _copy_server_bin(self) -> None:
        """Folders of its own, files of the system's."""
        for folder in ("backend", "filter", "notifier", "daemon", "monitor", "driver"):
            (self.server_bin / folder).mkdir(parents=True)
            for path in (SERVER_BIN / folder).glob("*"):
                (self.server_bin / folder / path.name).symlink_to(path)

    # What Tympan puts there ------------------------------------------------------------------

    def configure(self, text: str = "", **values: str | float) -> None:
        """Write the settings file: where things are here, ``values``, then ``text`` (tables)."""
        lines = {"cups": self.address, "spool": str(self.spool), "poll": 0} | values
        said = "".join(
            f"{name} = {value!r}\n" if isinstance(value, str) else f"{name} = {value}\n"
            for name, value in lines.items()
        )
        self.settings.parent.mkdir(exist_ok=True)
        self.settings.write_text(said + text, encoding="utf-8")
        self.settings.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(self.settings, 0, account().pw_gid)

    def place(self, *kinds: Kind) -> None:
        """Put Tympan's notifier, its backend, or both there, as `tympan cups install` does."""
        for kind in kinds or ("notifier", "backend"):
            launcher = Launcher(kind, self.settings, interpreter(), packages(self.root))
            self.place_text(kind, SCHEME, launcher.text)

    def place_text(self, folder: str, name: str, text: str) -> Path:
        """Put a program there."""
        path = self.server_bin / folder / name
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(MODE)
        return path

    def script(self, module: str) -> str:
        """A program that runs ``main()`` of a module of this checkout."""
        return (
            f"#!{interpreter()} -IS\nimport sys\n"
            f"sys.path.insert(0, {str(packages(self.root))!r})\n"
            f"from {module} import main\nsys.exit(main())\n"
        )

    # Using it --------------------------------------------------------------------------------

    def run(self, *command: str, stdin: str | bytes | None = None) -> str:
        """Run a program of CUPS against this host; returns what it writes.

        Raises:
            AssertionError: it failed; with the end of cupsd's log.
        """
        done = subprocess.run(
            [program(command[0]), *command[1:]],
            input=stdin.encode() if isinstance(stdin, str) else stdin or b"",
            capture_output=True,
            check=False,
            timeout=PATIENCE,
            env=os.environ | {"CUPS_SERVER": self.address, "LC_ALL": "C.UTF-8"},
        )
        told = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, f"{' '.join(command)}: {told}\n{self.log_tail()}"
        return done.stdout.decode(errors="replace")

    def add_queue(self, name: str, uri: str, *options: str) -> None:
        """Make a queue, enabled, raw unless ``options`` say otherwise."""
        self.run("lpadmin", "-p", name, "-E", "-v", uri, *(options or ("-m", "raw")))

    def sim(self, name: str) -> Sim:
        """A simulated printer without a queue; its ``uri`` is for one."""
        folder = self.root / "sims" / name
        if not folder.exists():
            folder.mkdir()
            if os.geteuid() == 0:
                os.chown(folder, account().pw_uid, account().pw_gid)
        return Sim(folder)

    def add_sim(self, name: str, *, wrapped: bool = False) -> Sim:
        """A simulated printer with a queue of that name; ``wrapped`` in Tympan's backend."""
        sim = self.sim(name)
        self.add_queue(name, f"{SCHEME}:{sim.uri}" if wrapped else sim.uri)
        return sim

    def lp(
        self,
        queue: str,
        *,
        user: str = "alice",
        title: str = "report",
        text: str = "a page\n",
        copies: int = 1,
        options: Mapping[str, str] | None = None,
    ) -> int:
        """Print a text; returns the job's number. A form feed in it begins another page."""
        words = [f"-o{name}={value}" for name, value in (options or {}).items()]
        told = self.run(
            "lp", "-d", queue, "-U", user, "-t", title, "-n", str(copies), *words, stdin=text
        )
        return int(told.split("request id is ")[1].split()[0].rpartition("-")[2])

    def cancel(self, job: int, user: str = "alice") -> None:
        """Cancel a job, as a user."""
        self.run("cancel", "-u", user, str(job))

    def job(self, job: int) -> dict[str, Any]:
        """A job's attributes; ``job-state`` is a word."""
        (attributes,) = ask(
            "Get-Job-Attributes", self.printer_uri(""), f"ATTR integer job-id {job}"
        )
        return attributes

    def printer(self, queue: str) -> dict[str, Any]:
        """A queue's attributes; ``printer-state`` is a word."""
        (attributes,) = ask("Get-Printer-Attributes", self.printer_uri(queue))
        return attributes

    def await_job(self, job: int, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of the states; returns its attributes."""

        def reached() -> bool:
            return self.job(job)["job-state"] in states

        self.wait_until(reached, f"job {job} to be {' or '.join(states)}")
        return self.job(job)

    def subscribe(self, recipient: str = f"{SCHEME}:", lease: int = 0) -> int:
        """Subscribe to all events of the server; returns the subscription's number."""
        (made,) = ask(
            "Create-Printer-Subscription",
            self.printer_uri(""),
            "GROUP subscription-attributes-tag",
            f"ATTR uri notify-recipient-uri {recipient}",
            "ATTR keyword notify-events all",
            f"ATTR integer notify-lease-duration {lease}",
        )
        return int(made["notify-subscription-id"])

    def end_subscriptions(self) -> None:
        """End all there are."""
        for one in self.subscriptions():
            number = f"ATTR integer notify-subscription-id {one['notify-subscription-id']}"
            ask("Cancel-Subscription", self.printer_uri(""), number)

    def subscriptions(self) -> list[dict[str, Any]]:
        """All there are."""
        return ask("Get-Subscriptions", self.printer_uri(""), may_fail=True)

    def wait_until(self, holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition. Raises AssertionError, with the end of cupsd's log."""
        deadline = time.monotonic() + patience
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"awaited {what} for {patience:g} s\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def log_tail(self, lines: int = _LOG_LINES) -> str:
        """The end of cupsd's log, and what it wrote before it had one."""
        told = []
        for name in ("output", "error_log"):
            path = self.root / "log" / name
            if path.exists():
                told += path.read_text("utf-8", errors="replace").splitlines()
        return "\n".join(told[-lines:])
