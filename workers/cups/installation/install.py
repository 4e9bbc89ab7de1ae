"""Tympan on a CUPS host: what is placed there, put there and taken away again.

Nothing is overwritten that is not Tympan's, and all of it may be done again.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workers.cups import damaged
from workers.cups.file import SPOOL, Place
from workers.cups.installation import unit
from workers.cups.installation.host import PROFILE, UNITS, Host, NotInstalled, owner
from workers.cups.installation.launchers import (
    MARK,
    MODE,
    MODE_AS_ROOT,
    SCHEME,
    Kind,
    Launcher,
    Unlaunchable,
)
from workers.cups.installation.placing import (
    Block,
    File,
    Folder,
    Ownership,
    Settings,
    Standing,
    Step,
    Thing,
)
from workers.cups.printing import held_note, run_file
from workers.cups.printing.inner import wants_root

_TIMEOUT_S = 60.0
_PURPOSES: dict[Kind, str] = {
    "notifier": "cupsd hands it the events; it keeps them in the journal",
    "backend": "queues whose device URI begins with tympan: ask before and while they print",
}
_SYSTEM = frozenset(
    {
        *("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32"),
        *("proc", "root", "run", "sbin", "sys", "usr", "var"),
    }
)
"""Below these a folder that is there is the system's, or a package's."""
_IMPORTS = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "import workers.cups.notifier, workers.cups.backend; "
    "import workers.cups.events.journal, workers.cups.events.torn"
)

SETTINGS_TEXT = """\
# Tympan on this CUPS host: docs/cups.md explains it, and `tympan cups status` checks it.
# Root writes this file, and the group that cupsd's programs run as reads it.

server = {server}
cups = {cups}
spool = {spool}
# user = "root"              # who the bridge says it is to cupsd
# max_events = 100000        # events kept on disk while Redis is away; then the oldest are dropped
# poll = 60                  # seconds between two looks at printers that are idle; 0: never
# without_bridge = "print"   # or "hold": jobs to be asked about, while the bridge is away

[redis]
url = {url}
# username = "print01"
# password_file = "/etc/tympan/redis-password"   # root's, readable for this file's group
# ca = "/etc/tympan/ca.pem"

# [[question]]               # asked of whoever prints through a queue with a tympan: device URI
# name = "paper"
# when = "media-empty"       # a state reason of the printer, or "before"
# text = "{{printer}} is out of paper. Continue “{{title}}”?"
# choices = ["continue", "cancel", "hold"]
# otherwise = "hold"         # where nobody answers within time_out seconds
"""


@dataclass(frozen=True)
class Choices:
    """What whoever installs may say."""

    server: str = ""
    redis_url: str = ""
    backend_as_root: bool | None = None
    """None leaves a backend that is there as it is."""


class Installation:
    """Tympan on one host.

    Raises:
        NotInstalled: the interpreter cannot be named in a program's first line.
    """

    def __init__(
        self,
        host: Host,
        choices: Choices | None = None,
        interpreter: Path | None = None,
    ) -> None:
        self.host = host
        self._choices = choices or Choices()
        self._interpreter = interpreter or Path(sys.executable)

    @classmethod
    def found(cls, host: Host) -> Installation:
        """As it was installed: by the interpreter that a program of it names."""
        for kind in _PURPOSES:
            with contextlib.suppress(OSError, ValueError):  # none is there that could be read
                path = host.at(host.server_bin / kind / SCHEME)
                first, *others = path.read_text("utf-8", errors="replace").splitlines()
                if MARK in others:
                    return cls(host, None, Path(first.removeprefix("#!").rpartition(" ")[0]))
        return cls(host)

    def launcher(self, kind: Kind) -> Launcher:
        """The program for one of cupsd's places."""
        return Launcher(kind, self.host.settings, self._interpreter)

    @property
    def again(self) -> str:
        """The command that installs it with what it has now."""
        if self._interpreter == Path(sys.executable):
            return self.host.command("install")
        return self.host.command("install", f"--python {shlex.quote(str(self._interpreter))}")

    @cached_property
    def things(self) -> list[Thing]:
        """All that is placed, in order."""
        host, root = self.host, owner()
        things: list[Thing] = [
            Settings(
                host.at(host.settings),
                "where Redis is, and what is asked; only root may write it",
                text=self._settings_text(),
                owned=Ownership(root, host.account.gid, 0o640),
            ),
            Folder(
                "spool",
                host.at(host.spool),
                "the journal of events that wait, and the bridge's sockets",
                owned=Ownership(host.account.uid, host.account.gid, 0o750),
                files=_spool_files(),
                folders=(run_file.FOLDER, held_note.FOLDER),
                may_adopt=not self._is_systems(host.spool),
            ),
        ]
        things += [self._program(kind) for kind in _PURPOSES]
        if host.has_profile:
            things.append(
                Block(
                    "AppArmor",
                    host.at(PROFILE),
                    "lets the notifier, which cupsd's profile confines, reach these files",
                    text=unit.profile(host, self.launcher("notifier")),
                    owned=Ownership(root, os.getegid(), 0o644),
                )
            )
        if host.has_systemd:
            things.append(
                File(
                    "service",
                    host.at(UNITS / unit.NAME),
                    "runs the bridge",
                    text=unit.unit(host),
                    mark=unit.MARK,
                    owned=Ownership(root, os.getegid(), 0o644),
                )
            )
        return things

    def _is_systems(self, folder: Path) -> bool:
        """Whether a folder of the host, links followed, is one that Tympan may not take."""
        seen, root = self.host.at(folder).resolve(), self.host.root.resolve()
        own = Path("/") / seen.relative_to(root) if seen.is_relative_to(root) else seen
        _, *parts = own.parts
        return own != SPOOL and (len(parts) < 2 or parts[0] in _SYSTEM)

    def _program(self, kind: Kind) -> File:
        launcher = self.launcher(kind)
        try:
            text = launcher.text
        except Unlaunchable as error:
            raise NotInstalled(str(error)) from None
        return File(
            kind,
            self.host.at(launcher.place(self.host.server_bin)),
            _PURPOSES[kind],
            text=text,
            mark=MARK,
            owned=self._owned(kind),
        )

    def _owned(self, kind: Kind) -> Ownership:
        if kind == "notifier" or self._choices.backend_as_root is False:
            return Ownership(owner(), os.getegid(), MODE)
        if self._choices.backend_as_root:
            return Ownership(owner(), os.getegid(), MODE_AS_ROOT)
        path = self.host.at(self.launcher(kind).place(self.host.server_bin))
        is_as_root = path.exists() and wants_root(path)
        return Ownership(owner(), os.getegid(), MODE_AS_ROOT if is_as_root else MODE)

    def _settings_text(self) -> str:
        server = self._choices.server or self.host.server_name or socket.gethostname()
        return SETTINGS_TEXT.format(
            server=_toml(server),
            cups=_toml(self.host.cups),
            spool=_toml(str(self.host.spool)),
            url=_toml(self._choices.redis_url or "redis://127.0.0.1:6379/0"),
        )

    # Looking ---------------------------------------------------------------------------------

    def fault_of_programs(self) -> str:
        """Why cupsd's account cannot run them; empty where it can, or nobody can tell."""
        launcher = self.launcher("notifier")
        path = launcher.interpreter
        for kind in _PURPOSES:
            words = ["-IS", "-c", _IMPORTS.format(kind=kind), str(launcher.packages)]
            fault = self._refusal([str(path), *words])
            if fault:
                return (
                    f"cannot run them by {path} with the packages in {launcher.packages}: {fault}"
                )
        if self.host.has_systemd and self.host.is_this_one:
            fault = self._refusal([str(unit.command()), "--version"])
            if fault:
                return f"cannot run the bridge, {unit.command()}: {fault}"
        return ""

    def _refusal(self, command: list[str]) -> str:
        """What happens when cupsd's account runs a command; empty where that goes well."""
        me, account = os.geteuid(), self.host.account
        if me not in (0, account.uid):
            return ""
        become: dict[str, Any] = {}
        if me == 0:
            become = {"user": account.uid, "group": account.gid, "extra_groups": []}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
                cwd="/",
                **become,
            )
        except PermissionError as error:
            closed = self._closed(Path(command[0]))
            return f"{error.strerror}{f' at {closed}' if closed else ''}"
        except OSError as error:
            return error.strerror or str(error)
        except subprocess.TimeoutExpired:
            return f"nothing came of it within {_TIMEOUT_S:g} s"
        if done.returncode:
            said: list[str] = done.stderr.strip().splitlines()
            return said[-1] if said else f"status {done.returncode}"
        return ""

    def _closed(self, program: Path) -> Path | None:
        """What keeps cupsd's account from a program: the first folder, or the file itself."""
        account = self.host.account
        with contextlib.suppress(OSError):  # what cannot be looked at is not named
            for leaf in (program, program.resolve()):
                for path in (*reversed(leaf.parents), leaf):
                    found = path.stat()
                    shift = 3 if found.st_gid == account.gid else 0
                    shift = 6 if found.st_uid == account.uid else shift
                    if not found.st_mode >> shift & stat.S_IXOTH:
                        return path.resolve() if path == program else path
        return None

    def writable_by_others(self) -> Path | None:
        """A part of the way to the programs that others than root may write; None: none is."""
        launcher = self.launcher("notifier")
        trusted = {0, owner()}
        package = launcher.packages / "workers/cups"
        inner = (path for path in package.rglob("*") if path.is_dir())
        for leaf in (launcher.interpreter.resolve(), package, *inner):
            for path in (leaf, *leaf.parents):
                with contextlib.suppress(OSError):
                    found = path.stat()
                    is_sticky = bool(found.st_mode & stat.S_ISVTX)
                    loose = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_sticky
                    if found.st_uid not in trusted or loose:
                        return path
        return None

    # Doing -----------------------------------------------------------------------------------

    def install(self, *, is_dry: bool = False) -> Iterator[Step]:
        """Have all of it there.

        Nothing is placed where something cannot be.

        Raises:
            NotInstalled: what is there is somebody else's, cupsd's account cannot run the programs,
                or the system refuses.
        """
        fault = self.fault_of_programs()
        if fault:
            name = self.host.account.name
            raise NotInstalled(
                f"{name}, whom cupsd runs its programs as, {fault}; make Tympan's environment "
                f"where {name} can read it, in /opt/tympan say, or name an interpreter that {name} "
                "can run by --python; nothing was placed"
            )
        loose = self.writable_by_others()
        if loose is not None and self._owned("backend").mode == MODE_AS_ROOT:
            raise NotInstalled(
                f"the backend is to run as root, and others than root may write {loose}: give it "
                "to root, take away the right to write, and try again; nothing was placed"
            )
        looks = [(thing, thing.look()) for thing in self.things]
        for thing, look in looks:
            if look.standing is Standing.FOREIGN:
                raise NotInstalled(f"{thing.path} {look.says}; nothing was placed")
        for thing, look in looks:
            says = thing.purpose
            if look.standing is Standing.RIGHT:
                yield Step(thing.what, str(thing.path), "there", says)
                continue
            did = "placed"
            if look.standing is not Standing.MISSING:
                did = "mended" if isinstance(thing, Settings | Folder) else "replaced"
                says = f"it {look.says}" if look.says else says
            if not is_dry:
                thing.place()
            yield Step(thing.what, str(thing.path), did, says)

    def uninstall(self, *, is_dry: bool = False, is_purge: bool = False) -> Iterator[Step]:
        """Take back what was placed; settings and spool only with ``is_purge``.

        Raises:
            NotInstalled: the system refuses.
        """
        for thing in reversed(self.things):
            look = thing.look()
            path = str(thing.path)
            if look.standing is Standing.MISSING:
                yield Step(thing.what, path, "absent")
            elif look.standing in (Standing.FOREIGN, Standing.UNSEEN):
                yield Step(thing.what, path, "kept", look.says)
            elif isinstance(thing, Settings | Folder) and not is_purge:
                yield Step(thing.what, path, "kept", "--purge deletes it")
            else:
                others = thing.others() if isinstance(thing, Folder) else []
                if not is_dry:
                    thing.remove()
                says = f"but for what is not Tympan's: {', '.join(others)}" if others else ""
                yield Step(thing.what, path, "removed", says)


def _spool_files() -> list[str]:
    """Patterns of the files that are made in a spool."""
    place = Place()
    journal, answers = place.journal.name, place.answers.name
    stems = (journal, journal + damaged.PATTERN, answers, answers + damaged.PATTERN)
    endings = (*damaged.ENDINGS, "-journal")
    files = [f"{stem}{ending}" for stem in stems for ending in endings]
    return [*files, place.bell.name, place.counter.name, place.lock.name]


def _toml(text: str) -> str:
    """A string of TOML; backslashes stay as they are where they can."""
    if "'" in text or not text.isprintable():
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04X}" for c in escaped) + '"'
    return f"'{text}'"
