"""Notification types: opaque 128-bit GUIDs that name the schema of a payload (S4; section 3.3)."""

from __future__ import annotations

from uuid import UUID

from broker.errors import InvalidType

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

    Raises InvalidType for anything else, and for NOTIFICATION_RELEASE, which is reserved.
    """
    if isinstance(text, UUID):
        guid = text
    elif not isinstance(text, str):
        raise InvalidType(f"{text!r} is no GUID and no known type")
    else:
        found = ALIASES.get(text.strip().lower())
        try:
            guid = found or UUID(text.strip())
        except ValueError:
            known = ", ".join(ALIASES)
            raise InvalidType(f"{text!r} is no GUID and no known type (known: {known})") from None
    if guid == NOTIFICATION_RELEASE:
        raise InvalidType("NOTIFICATION_RELEASE is reserved: it cannot name a channel's type")
    return guid


def describe_type(guid: UUID) -> str:
    """The alias of a known type, otherwise the GUID's text."""
    return next((alias for alias, known in ALIASES.items() if known == guid), str(guid))
