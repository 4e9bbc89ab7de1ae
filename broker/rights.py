"""Rights: who administers which printer or server (D4; masks after MS-RPRN 2.2.3.1)."""

from __future__ import annotations

from enum import IntFlag
from typing import Protocol

from broker.errors import InvalidArgument
from broker.names import Name


class Right(IntFlag):
    """Access masks of a server or a printer."""

    SERVER_ACCESS_ADMINISTER = 0x0000_0001
    SERVER_ACCESS_ENUMERATE = 0x0000_0002
    PRINTER_ACCESS_ADMINISTER = 0x0000_0004
    PRINTER_ACCESS_USE = 0x0000_0008
    DELETE = 0x0001_0000
    READ_CONTROL = 0x0002_0000
    WRITE_DAC = 0x0004_0000
    WRITE_OWNER = 0x0008_0000
    SERVER_ALL_ACCESS = 0x000F_0003
    PRINTER_ALL_ACCESS = 0x000F_000C


class RightsSource(Protocol):
    """Who says what a user may do, in the place of the grants in Redis: a directory, a file.

    ``Broker.connect(..., rights=source)`` asks it before it registers or opens for all users, and
    wherever ``require_use`` asks; and, each lease, again for the registrations that stand on it.
    It runs in the broker's event loop and must not block it.
    """

    async def rights(self, user: str, name: Name) -> Right:
        """All that the user, in folded form, may do on this printer or server.

        ``Right(0)`` is a no. What it raises becomes RightsUnavailable, and so does its silence
        after ``reply_timeout`` seconds.
        """


ALIASES = {
    "server": {
        "administer": Right.SERVER_ACCESS_ADMINISTER,
        "enumerate": Right.SERVER_ACCESS_ENUMERATE,
        "all": Right.SERVER_ALL_ACCESS,
    },
    "printer": {
        "administer": Right.PRINTER_ACCESS_ADMINISTER,
        "use": Right.PRINTER_ACCESS_USE,
        "all": Right.PRINTER_ALL_ACCESS,
    },
}


def parse_right(text: str | Right, name: Name) -> Right:
    """A right by its full name or by a short one for this kind of name (``administer``, ``all``).

    Raises InvalidArgument where the word is unknown or does not apply to a server or a printer.
    """
    kind = "printer" if name.printer else "server"
    if isinstance(text, Right):
        right = text
    elif not isinstance(text, str):
        raise InvalidArgument(f"{text!r} is no right of a {kind}: a word, or a Right")
    else:
        found = ALIASES[kind].get(text.lower()) or Right.__members__.get(text.upper())
        if found is None:
            words = ", ".join([*ALIASES[kind], *(r for r in Right.__members__)])
            raise InvalidArgument(f"{text!r} is no right of a {kind}; known: {words}")
        right = found
    allowed = Right.PRINTER_ALL_ACCESS if name.printer else Right.SERVER_ALL_ACCESS
    if right == 0 or right & ~allowed:
        raise InvalidArgument(f"{right!r} is no right of a {kind} ({name})")
    return right


def short_name(right: Right, name: Name) -> str:
    """The word for a right on this kind of name that :func:`parse_right` reads."""
    words = ALIASES["printer" if name.printer else "server"]
    return next((word for word, known in words.items() if known == right), str(right.name))


def to_administer(name: Name, *, strict: bool) -> Right:
    """What all-users asks for on this name: administer, or the whole mask when ``strict``."""
    if name.printer:
        return Right.PRINTER_ALL_ACCESS if strict else Right.PRINTER_ACCESS_ADMINISTER
    return Right.SERVER_ALL_ACCESS if strict else Right.SERVER_ACCESS_ADMINISTER


def to_listen(name: Name) -> Right:
    """What listening for oneself asks for, where the settings ask for anything."""
    return Right.PRINTER_ACCESS_USE if name.printer else Right.SERVER_ACCESS_ENUMERATE
