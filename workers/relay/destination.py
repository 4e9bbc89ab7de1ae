"""Destinations: where messages are handed over, and how that may fail."""

from __future__ import annotations

import ssl
from typing import Any, Protocol

from workers.relay.pile import Batch


class NotNow(Exception):
    """It was not taken, and may be later.

    Args:
        why: who answered what.
        after: seconds after which they want to be asked again; None where they did not say.
        perhaps: whether they may have taken it all the same, as when they broke off.
    """

    def __init__(self, why: str, after: float | None = None, *, perhaps: bool = False) -> None:
        super().__init__(why)
        self.after = after
        self.perhaps = perhaps


class Refused(Exception):
    """It was refused, and would be again."""


class Destination(Protocol):
    """Who takes messages."""

    @property
    def name(self) -> str:
        """For people: ``smtp.example:587``."""

    async def send(self, batch: Batch[Any]) -> None:
        """Hand it over. Raises NotNow, Refused; anything else is taken for NotNow."""

    async def close(self) -> None:
        """It is not used any more."""


def trust(ca: str | None) -> ssl.SSLContext:
    """TLS with this file of certificates, or else the system's. Raises ValueError."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"{ca} holds no certificates to trust: {error}") from None
