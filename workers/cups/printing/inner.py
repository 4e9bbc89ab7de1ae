"""The inner backend: the child that prints, its document, its messages, and its end.

Nothing but the standard library: cupsd starts what uses it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from workers.cups.installation.launchers import SCHEME

SERVER_BIN = "/usr/lib/cups"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_AT_ONCE = 65_536
_LONGEST_LINE = 65_536
_CHANNELS = (3, 4)
"""What cupsd gives a backend beside its standard streams: the back channel and the side channel."""


class Unfit(ValueError):
    """There is no inner backend that could be run; says which, and what to do."""


def channels() -> list[int]:
    """Those of cupsd's channels that are open. To be asked before anything else is opened."""
    found = []
    for number in _CHANNELS:
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return found


def inner_uri(uri: str) -> str:
    """The device URI inside one of ours. Raises Unfit."""
    scheme, colon, inner = uri.partition(":")
    if scheme.lower() != SCHEME or not colon:
        raise Unfit(f"{uri!r} is no device of this backend: write {SCHEME}:ipp://printer/ipp/print")
    name = inner.partition(":")[0]
    if ":" not in inner or not _SCHEME.fullmatch(name) or name == SCHEME:
        raise Unfit(
            f"{uri!r} names no device to print on: write {SCHEME}: before the device's own URI, "
            f"as in {SCHEME}:ipp://printer/ipp/print"
        )
    return inner


def shown(uri: str) -> str:
    """A URI without the user and the password in it: what ``ps`` may show."""
    return re.sub(r"^([^:/]+://)[^/@]*@", r"\1", uri)


def program(server_bin: Path, uri: str) -> Path:
    """The backend of a device URI. Raises Unfit where this process cannot run it."""
    scheme = uri.partition(":")[0]
    path = server_bin / "backend" / scheme
    try:
        facts = path.stat()
    except OSError as error:
        raise Unfit(f"there is no backend for {scheme}: {path}: {error.strerror}") from None
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and facts.st_uid != os.getuid():
        raise Unfit(f"{path} may be written by anybody: chmod go-w {path}")
    if not os.access(path, os.X_OK, effective_ids=True) and os.getuid() != 0:
        raise Unfit(
            f"the backend {path} is for root only: let cupsd run this one as root, too "
            f"(chmod 0744 {server_bin / 'backend' / SCHEME})"
        )
    return path


def wants_root(path: Path) -> bool:
    """Whether cupsd would run it as root: only its owner may execute it."""
    return not path.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH)


class Inner:
    """One run of it.

    Args:
        path: of the program.
        argv: as cupsd would give it.
        environ: the same.
        pass_fds: what it inherits beside the standard streams.
        account: user and group that it is to be, where this process was started by root.
        feeds: whether its document comes from standard input; it goes through this process, which
            can end it. A backend that reads one ignores SIGTERM, and counts on the filters' end.
    """

    def __init__(
        self,
        path: Path,
        argv: Sequence[str],
        environ: Mapping[str, str],
        pass_fds: Sequence[int],
        account: tuple[int, int] | None,
        *,
        feeds: bool,
    ) -> None:
        as_root = account is not None and wants_root(path)
        extra: dict[str, object] = {}
        if account is not None:
            os.seteuid(0)
            os.setegid(0)
            if not as_root:
                extra = {"user": account[0], "group": account[1], "extra_groups": []}
        try:
            self._child = subprocess.Popen(
                argv,
                executable=path,
                env=environ,
                stdin=subprocess.PIPE if feeds else None,
                stderr=subprocess.PIPE,
                pass_fds=pass_fds,
                bufsize=0,
                **extra,  # type: ignore[call-overload]
            )
        finally:
            if account is not None:
                os.setegid(account[1])
                os.seteuid(account[0])
        self.messages = self._child.stderr.fileno()
        """Where its standard error is to be read."""
        os.set_blocking(self.messages, False)
        self.intake = self._child.stdin.fileno() if feeds else -1
        """Where the document goes; -1 where it takes none (any more)."""
        if feeds:
            os.set_blocking(self.intake, False)
        self._document = b""
        self._line = b""
        self.is_whole = not feeds
        """Whether the whole document is in its hands."""
        self.was_ended = False

    @property
    def wants_more(self) -> bool:
        """Whether it has taken what there was of the document."""
        return self.intake >= 0 and not self._document

    def take(self, is_sound: bool) -> None:
        """Read some of the document; at its end, ``is_sound`` says that the filters ended it."""
        data = os.read(0, _AT_ONCE)
        if data:
            self._document = data
            self.give()
        elif is_sound:
            self.is_whole = True
            self.cut_off()

    def give(self) -> None:
        """Hand over what there is of the document."""
        try:
            written = os.write(self.intake, self._document)
        except BlockingIOError:
            return
        except OSError:  # it reads no more, as it may
            self.cut_off()
            return
        self._document = self._document[written:]

    def cut_off(self) -> None:
        """Let it have no more of the document."""
        if self.intake >= 0:
            self._document, self.intake = b"", -1
            self._child.stdin.close()

    def lines(self) -> list[bytes]:
        """Its messages, whole lines as far as it goes."""
        said = []
        while True:
            try:
                data = os.read(self.messages, _AT_ONCE)
            except BlockingIOError:
                break
            if not data:
                said += [self._line] if self._line else []
                self._line, self.messages = b"", -1
                break
            *lines, self._line = (self._line + data).split(b"\n")
            said += lines
            if len(self._line) > _LONGEST_LINE:
                said.append(self._line)
                self._line = b""
        return said

    def end(self, *, cut_off: bool) -> None:
        """Have it end: SIGTERM, and no more of the document where it is to be cut off."""
        self.was_ended = True
        self._signal(signal.SIGTERM)
        if cut_off:
            self.cut_off()

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._child.poll() is None:
            self._child.send_signal(number)

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        status: int | None = self._child.poll()
        return status


class Reasons:
    """The printer's state reasons, as ``STATE:`` messages change them."""

    def __init__(self, text: str) -> None:
        self.all = _words(text)

    def hear(self, line: bytes) -> bool:
        """Whether this message changed them."""
        if not line.startswith(b"STATE:"):
            return False
        text = line[6:].decode(errors="replace").strip()
        before = self.all
        named = _words(text[1:] if text[:1] in "+-" else text)
        if text.startswith("-"):
            self.all = [reason for reason in before if reason not in named]
        else:
            kept = before if text.startswith("+") else []
            self.all = list(dict.fromkeys([*kept, *named]))
        return self.all != before


def _words(text: str) -> list[str]:
    words = (word.strip("\"'") for word in re.split(r"[\s,]+", text))
    return list(dict.fromkeys(word for word in words if word and word != "none"))


def is_read(descriptor: int) -> bool:
    """Whether anybody reads what is written there."""
    asked = select.poll()
    asked.register(descriptor, 0)
    return not asked.poll(0)
