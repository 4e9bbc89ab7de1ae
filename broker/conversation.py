"""Conversation style and user filter, with the numbers of the interface definition (R5, R6)."""

from __future__ import annotations

from enum import IntEnum


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


BIDIRECTIONAL = Style.BIDIRECTIONAL
UNIDIRECTIONAL = Style.UNIDIRECTIONAL
PER_USER = UserFilter.PER_USER
ALL_USERS = UserFilter.ALL_USERS
