"""Conversation style and user filter, with the numbers of the interface definition (R5, R6)."""

from __future__ import annotations

from enum import IntEnum

from broker.errors import InvalidArgument


class Style(IntEnum):
    """Whether listeners can answer. Values after the header, not after the WDK page (C1)."""

    BIDIRECTIONAL = 0
    UNIDIRECTIONAL = 1

    @property
    def word(self) -> str:
        """The word in keys and on the command line: ``bi`` or ``uni``."""
        return "bi" if self is Style.BIDIRECTIONAL else "uni"

    @classmethod
    def from_word(cls, word: str) -> Style:
        """The inverse of :attr:`word`."""
        return cls.BIDIRECTIONAL if word == "bi" else cls.UNIDIRECTIONAL


class UserFilter(IntEnum):
    """Whom a channel speaks to, or whom a registration hears; ALL_USERS is for administrators."""

    PER_USER = 0
    ALL_USERS = 1


def parse_style(value: object) -> Style:
    """A style, or its number; raises InvalidArgument for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value in (0, 1):
        return Style(value)
    raise InvalidArgument(f"{value!r} is no style: BIDIRECTIONAL (0) or UNIDIRECTIONAL (1)")


def parse_user_filter(value: object) -> UserFilter:
    """A user filter, or its number; raises InvalidArgument for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value in (0, 1):
        return UserFilter(value)
    raise InvalidArgument(f"{value!r} is no user filter: PER_USER (0) or ALL_USERS (1)")


BIDIRECTIONAL = Style.BIDIRECTIONAL
UNIDIRECTIONAL = Style.UNIDIRECTIONAL
PER_USER = UserFilter.PER_USER
ALL_USERS = UserFilter.ALL_USERS
