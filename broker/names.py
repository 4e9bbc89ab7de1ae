r"""Names: ``\\server\printer`` or ``\\server``, canonical and case-folded (R2, R20, R21, D2)."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from broker.conversation import UserFilter
from broker.errors import InvalidName

MAX_SERVER = 255
MAX_PRINTER = 220
MAX_USER = 256
_POOL = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?")
_HOST = re.compile(r"[\w](?:[\w.-]*[\w])?", re.UNICODE)
_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def fold(text: str) -> str:
    """Compare form of a name or user: composed (NFC), case-folded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """One printer, or one server where ``printer`` is empty. Both parts are folded."""

    server: str
    printer: str = ""

    @classmethod
    def parse(cls, text: str | Name | None, default_server: str | None = None) -> Name:
        r"""Read ``\\server\printer``, ``\\server``, or None for the client's own server (R21).

        Raises InvalidName for anything else (R20).
        """
        if isinstance(text, Name):
            return text
        if text is not None and not isinstance(text, str):
            raise InvalidName(f"{text!r} is no name: write \\\\server or \\\\server\\printer")
        if text is None:
            if not default_server:
                raise InvalidName(
                    "no name was given and this client is bound to no server; "
                    r"write \\server or \\server\printer, or connect with server=..."
                )
            text = default_server if default_server.startswith("\\\\") else "\\\\" + default_server
        return _parsed(text)

    @property
    def of_server(self) -> Name:
        """The server that this name belongs to."""
        return Name(self.server)

    def covers(self, other: Name) -> bool:
        """Whether it is that name, or that printer's server."""
        return self in (other, other.of_server)

    def __str__(self) -> str:
        return f"\\\\{self.server}" + (f"\\{self.printer}" if self.printer else "")


@lru_cache(maxsize=1024)
def name_of(server: str, printer: str) -> Name:
    """The name of two folded parts; the same ones come again and again."""
    return Name(server, printer)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Name:
    """The same names come again and again."""
    if not text.startswith("\\\\"):
        raise InvalidName(f"{text!r} is no name: write \\\\server or \\\\server\\printer")
    server, slash, printer = text[2:].partition("\\")
    if slash and not printer:
        raise InvalidName(f"{text!r} ends without a printer: write \\\\server for the server")
    if "\\" in printer or "," in printer:
        raise InvalidName(f"{text!r}: a printer's name holds neither a backslash nor a comma")
    folded = fold(printer)
    if len(folded) > MAX_PRINTER or folded != folded.strip() or _bad(folded):
        raise InvalidName(
            f"{text!r}: a printer's name has up to {MAX_PRINTER} printable characters "
            "and no space at its ends"
        )
    return Name(_server(server, text), folded)


def _bad(text: str) -> bool:
    return bool(_NOT_PRINTABLE.search(text))


def _server(server: str, whole: str) -> str:
    """DNS name, NetBIOS name, IPv4 or IPv6 address; the one that decides the hash tag."""
    folded = fold(server)
    address = folded[1:-1] if folded.startswith("[") and folded.endswith("]") else folded
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        if len(folded) <= MAX_SERVER and _HOST.fullmatch(folded):
            return folded
        raise InvalidName(
            f"{whole!r}: {server!r} is no DNS name, NetBIOS name or address"
        ) from None
    if "%" in address or (address != folded and found.version == 4):
        raise InvalidName(f"{whole!r}: {server!r} is no address that means the same to all hosts")
    return str(found)


def parse_server(text: str | Name) -> str:
    r"""The folded name of a server, from ``\\server`` or ``server``. Raises InvalidName."""
    if not isinstance(text, str | Name) or not text:
        raise InvalidName(f"{text!r} is no server: write \\\\server")
    name = text if isinstance(text, Name) else Name.parse(None, text)
    if name.printer:
        raise InvalidName(f"{name} is a printer: write {name.of_server} for its server")
    return name.server


def parse_user(user: str) -> str:
    r"""The folded form of a user: any principal (name, SID, ``DOMAIN\name``).

    Raises InvalidName where it is empty, longer than 256 characters, not printable, ``*``, or
    holds a bar.
    """
    if isinstance(user, UserFilter):
        raise InvalidName(f"{user.name} is no user: write user_filter={user.name}")
    folded = fold(user.strip()) if isinstance(user, str) else ""
    if not folded or len(folded) > MAX_USER or folded == "*" or "|" in folded or _bad(folded):
        raise InvalidName(
            f"{user!r} is no user: 1 to {MAX_USER} printable characters, without '|', and not '*'"
        )
    return folded


def parse_pool(text: str) -> str:
    """A pool's name, folded. Raises InvalidName."""
    folded = fold(text) if isinstance(text, str) else ""
    if not _POOL.fullmatch(folded):
        raise InvalidName(
            f"{text!r} is no name of a pool: 1 to 64 letters, digits, dots, dashes and underscores"
        )
    return folded
