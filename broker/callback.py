"""Callbacks: the documents' way to hear, beside iteration.

For one handle calls come one after another, in order; ChannelClosed is the last (D22).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from broker._end import End
from broker.errors import InvalidArgument
from broker.notification import Notification, type_name


class Callback(Protocol):
    """What a listener, or a source that wants its answers, implements. Plain or asynchronous.

    Plain methods run in the event loop and must not block it.
    """

    def on_event_notify(
        self, channel: End[Any] | None, notification: Notification[Any]
    ) -> Awaitable[object] | object:
        """Data arrived. ``channel`` is None for a unidirectional listener (R51)."""

    def channel_closed(
        self, channel: End[Any], reason: Notification[Any]
    ) -> Awaitable[object] | object:
        """The other end closed, or died: the reason, or NOTIFICATION_RELEASE (R95, R96).

        The handle is dead: release and close inside are refused (R111).
        """


METHODS = ("on_event_notify", "channel_closed")


def check_callback(callback: object) -> None:
    """Raises InvalidArgument where it is no object with a Callback's methods."""
    if isinstance(callback, type):
        raise InvalidArgument(f"{callback.__name__} is a class: give an object of it as callback")
    missing = [name for name in METHODS if not callable(getattr(callback, name, None))]
    if missing:
        raise InvalidArgument(
            f"a {type_name(callback)} is no callback: it has no method {' and no '.join(missing)} "
            "(see broker.Callback); to iterate instead, use register()"
        )
