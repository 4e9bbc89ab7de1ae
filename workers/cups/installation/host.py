"""A CUPS host as its files describe it: where its programs, settings and queues are, and whose."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from broker import results
from broker.errors import TympanError
from broker.results import Result
from workers.cups.file import DEFAULT as SETTINGS
from workers.cups.file import SPOOL

SERVER_ROOT = Path("/etc/cups")
SERVER_BIN = Path("/usr/lib/cups")
SOCKET = Path("/run/cups/cups.sock")
USER = "lp"
UNITS = Path("/etc/systemd/system")
PROFILE = Path("/etc/apparmor.d/local/usr.sbin.cupsd")


class NotInstalled(TympanError):
    """Something could not be placed on this host, or taken away; the message says what to do."""

    result = Result("NOT_INSTALLED", results.UNEXPECTED.hresult)


@dataclass(frozen=True)
class Account:
    """A user of this host and his group."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, user: str, group: str = "") -> Account:
        """By name or number. Raises NotInstalled where there is none."""
        try:
            found = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
            gid = found.pw_gid
            if group:
                gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        except (KeyError, OverflowError):
            raise NotInstalled(
                f"cupsd is to run its programs as {user}{':' if group else ''}{group}, and this "
                "host has no such account: name the right one by --user"
            ) from None
        return cls(found.pw_name, found.pw_uid, gid)

    @property
    def group(self) -> str:
        """The group's name, or its number where it has none."""
        try:
            return grp.getgrgid(self.gid).gr_name
        except KeyError:
            return str(self.gid)


@dataclass(frozen=True)
class Host:
    """Where things are. All paths are those of the host itself; :meth:`at` puts its root before."""

    root: Path
    server_root: Path
    server_bin: Path
    account: Account
    """Whom cupsd runs notifiers and backends as."""
    cups: str
    """Where cupsd answers: a UNIX socket's path, or ``host:port``."""
    server_name: str
    """ServerName; empty where the files do not say."""
    settings: Path
    spool: Path
    options: tuple[str, ...] = ()
    """What `tympan cups` has to be told to mean it, as words of a shell."""

    @classmethod
    def read(
        cls,
        *,
        root: Path = Path("/"),
        server_root: Path = SERVER_ROOT,
        server_bin: Path | None = None,
        user: str | None = None,
        cups: str | None = None,
        settings: Path = SETTINGS,
        spool: Path = SPOOL,
    ) -> Host:
        """The host below ``root``, by what cupsd's files say where nothing else is given.

        Raises:
            NotInstalled: no CUPS is there, or it names an account that does not exist.
        """
        root = root.absolute()
        if server_root != SERVER_ROOT:
            wanted = ("cupsd.conf",) if server_bin else ("cupsd.conf", "cups-files.conf")
            _check_config(_below(root, server_root), wanted)
        files = dict(_directives(_below(root, server_root / "cups-files.conf")))
        found_bin = server_bin or Path(files.get("serverbin", SERVER_BIN))
        for kind in ("notifier", "backend"):
            if not _below(root, found_bin / kind).is_dir():
                raise NotInstalled(
                    f"there is no folder {_below(root, found_bin / kind)}: install CUPS (on "
                    "Debian and Ubuntu: apt-get install cups), or say by --server-bin where "
                    "its programs are"
                )
        listens = list(_directives(_below(root, server_root / "cupsd.conf")))
        account = Account.of(
            user or files.get("user", USER), "" if user else files.get("group", "")
        )
        return cls(
            root=root,
            server_root=server_root,
            server_bin=found_bin,
            account=account,
            cups=cups or _address(listens),
            server_name=dict(listens).get("servername", ""),
            settings=settings,
            spool=spool,
            options=tuple(
                f"{name} {shlex.quote(str(value))}"
                for name, value, usual in (
                    ("--root", root, Path("/")),
                    ("--config", server_root, SERVER_ROOT),
                    ("--settings", settings, SETTINGS),
                    ("--spool", spool, SPOOL),
                    ("--server-bin", server_bin, None),
                    ("--user", user, None),
                    ("--cups", cups, None),
                )
                if value != usual
            ),
        )

    def command(self, *words: str) -> str:
        """A command of `tympan cups` that means this host."""
        return " ".join(("tympan cups", *words, *self.options))

    @property
    def bridging(self) -> str:
        """The command that runs its bridge where no service does."""
        return f"tympan bridge run cups --settings {shlex.quote(str(self.at(self.settings)))}"

    def at(self, path: Path) -> Path:
        """Where a path of the host is seen from here."""
        return _below(self.root, path)

    @property
    def address(self) -> str:
        """Where its cupsd is asked from here; a host in a folder has none but by a socket there."""
        if self.is_this_one:
            return self.cups
        return str(self.at(Path(self.cups) if self.cups.startswith("/") else SOCKET))

    @property
    def is_this_one(self) -> bool:
        """Whether it is the host that this runs on, and no folder that will become one."""
        return self.root == Path("/")

    @property
    def is_its_own(self) -> bool:
        """Whether cupsd is the host's own, and none with files of its own beside that."""
        return self.server_root == SERVER_ROOT

    @property
    def has_systemd(self) -> bool:
        """Whether services are units there, and the bridge is to be one."""
        return self.is_its_own and self.at(UNITS).is_dir()

    @property
    def has_profile(self) -> bool:
        """Whether a profile of AppArmor confines cupsd, and with it what it runs."""
        return self.is_its_own and self.at(PROFILE.parent.parent / PROFILE.name).is_file()


def owner() -> int:
    """Who is to own what cupsd runs: root, or who runs this for a cupsd of his own."""
    return os.geteuid()


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/") if path.is_absolute() else root / path


def _check_config(folder: Path, names: Iterable[str]) -> None:
    """Whether a folder has the files of a cupsd. Raises NotInstalled."""
    for path in (folder / name for name in names):
        try:
            path.stat()
        except PermissionError as error:
            raise NotInstalled(
                f"{path} cannot be read ({error.strerror}): run this as root"
            ) from error
        except OSError as error:
            raise NotInstalled(
                f"{path}: {error.strerror}: name by --config the folder that has the cupsd.conf "
                "and the cups-files.conf of the cupsd that is meant"
            ) from error


def _directives(path: Path) -> Iterator[tuple[str, str]]:
    """What a file of cupsd says outside its sections: names in small letters, and the rest."""
    depth = 0
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise NotInstalled(f"{path} cannot be read ({error.strerror}): run this as root") from error
    for line in map(str.strip, lines):
        if line.startswith("<"):
            depth += -1 if line.startswith("</") else 1
        elif line and not line.startswith("#") and not depth:
            name, _, value = line.partition(" ")
            yield name.lower(), value.strip().strip('"')


def _address(listens: list[tuple[str, str]]) -> str:
    """Where cupsd answers: its socket, by which it knows who asks; otherwise a local port."""
    said = [value for name, value in listens if name in ("listen", "port")]
    sockets = [value for value in said if value.startswith("/")]
    if sockets or not said:
        return sockets[0] if sockets else str(SOCKET)
    host, _, port = said[0].rpartition(":")
    return f"{host if host not in ('', '*', '0.0.0.0', '[::]') else 'localhost'}:{port}"
