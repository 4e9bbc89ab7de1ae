"""Notification types: opaque 128-bit GUIDs that name the schema of a payload (S4; section 3.3)."""

from __future__ import annotations

from functools import lru_cache
from uuid import UUID

from broker.conversation import UNIDIRECTIONAL, Style
from broker.errors import InvalidStyle, InvalidType

NOTIFICATION_RELEASE = UUID("ba9a5027-a70e-4ae7-9b7d-eb3e06ad4157")
"""Reserved: this end takes no further communication. It never names a channel."""
ASYNC_UI = UUID("f6853f92-eb31-4e23-b6e7-fd69056153f0")
PRINTER_CONFIGURATION = UUID("2abad223-b994-4aca-82fc-4571b1b585ac")
PORT_MONITOR = UUID("25df3b0e-74a9-47f5-80ce-79b4b1eb5c58")
SAMPLE_UI = UUID("0b20806a-328a-4e1c-931c-0250308574c7")

ALIASES: dict[str, UUID] = {
    "asyncui": ASYNC_UI,
    "printer-configuration": PRINTER_CONFIGURATION,
    "port-monitor": PORT_MONITOR,
    "sample-ui": SAMPLE_UI,
}
"""Short names of known types, for the command line and for people."""


def parse_type(text: str | UUID) -> UUID:
    """A channel's or registration's type: a GUID in any usual spelling, or a known alias.

    Aliases that other packages add (:mod:`broker.catalogue`) are read when a text is neither a
    GUID nor an alias of this module.

    Raises InvalidType for anything else, and for NOTIFICATION_RELEASE, which is reserved;
    ExtensionInvalid for an alias whose package is at fault.
    """
    if isinstance(text, UUID):
        guid = text
    elif not isinstance(text, str):
        raise InvalidType(f"{text!r} is no GUID and no known type")
    else:
        guid = ALIASES.get(text.strip().lower()) or as_guid(text) or _installed(text)
    if guid == NOTIFICATION_RELEASE:
        raise InvalidType("NOTIFICATION_RELEASE is reserved: it cannot name a channel's type")
    return guid


@lru_cache(maxsize=1024)
def as_guid(text: str) -> UUID | None:
    """A GUID in any usual spelling; None for any other text."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def _installed(text: str) -> UUID:
    from broker import catalogue  # it knows models, and models know this module

    model = catalogue.find(text.strip().lower())
    if model is None:
        known = ", ".join(catalogue.aliases())
        raise InvalidType(f"{text!r} is no GUID and no known type (known: {known})")
    return model.notification_type


def check_style(type_: UUID, style: Style) -> None:
    """Raises InvalidStyle where the type does not have this style: R129."""
    if type_ == PRINTER_CONFIGURATION and style != UNIDIRECTIONAL:
        raise InvalidStyle("printer-configuration is a unidirectional type: nobody answers it")


def describe_type(guid: UUID) -> str:
    """The alias of a known type, otherwise the GUID's text."""
    for alias, known in ALIASES.items():
        if known == guid:
            return alias
    from broker import catalogue  # as above

    return catalogue.alias_of(guid) or str(guid)
