"""What is said when toner runs low, and what may be answered."""

from typing import Literal

from pydantic import Field

from broker import Payload

TYPE = "aa25e746-3f6c-4a19-b33c-689d9adbc9b8"
"""A GUID of its own: this is what travels; the alias is this host's word for it."""


class Reply(Payload, type=TYPE):
    """The answer, where the alert was a question (``--style bi``)."""

    order: bool
    """Whether to order a new cartridge."""


class TonerLow(Payload, type=TYPE, response=Reply):
    """Toner runs low."""

    colour: Literal["black", "cyan", "magenta", "yellow"]
    level: int = Field(default=0, ge=0, le=100)
    """What is left, in per cent."""
