"""Observers: told where something happens in a broker that is worth counting.

Each method is called in the broker's event loop, between two steps of the work: it has to return
at once. What it raises is logged once and harms nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, ParamSpec, Protocol

from broker.conversation import Style

log = logging.getLogger("tympan")

A = ParamSpec("A")


class Observer(Protocol):
    """Who counts: given to ``Broker.connect(observer=...)``.

    Whoever is interested in a part of it inherits from :class:`Silent`.
    """

    def script_ended(self, script: str, seconds: float, word: str) -> None:
        """A script was called. ``word``: what Redis answered, or the name of the error's class.

        The time is the caller's: it holds the way to Redis, and asking again.
        """

    def sent(self, style: Style, word: str) -> None:
        """A notification was sent, or refused. ``word``: what Redis answered to the send."""

    def responded(self) -> None:
        """A response arrived at a channel of this process."""

    def acquisition_ended(self, *, won: bool) -> None:
        """An offer here was answered: first, or too late."""

    def lease_lost(self, server: str) -> None:
        """This process was declared dead on a print server; it begins again there."""

    def resynced(self, server: str) -> None:
        """Bells were missed, and what they announced is read from the streams instead."""


class Silent:
    """Counts nothing; a base for observers that count something."""

    def script_ended(self, script: str, seconds: float, word: str) -> None:
        """See :class:`Observer`, as for the others."""

    def sent(self, style: Style, word: str) -> None:
        """Not counted."""

    def responded(self) -> None:
        """Not counted."""

    def acquisition_ended(self, *, won: bool) -> None:
        """Not counted."""

    def lease_lost(self, server: str) -> None:
        """Not counted."""

    def resynced(self, server: str) -> None:
        """Not counted."""


SILENT: Final[Observer] = Silent()


class _Guarded:
    """An observer whose faults stay its own."""

    def __init__(self, observer: Observer) -> None:
        self._has_failed = False
        self.script_ended = self._guarded(observer.script_ended)
        self.sent = self._guarded(observer.sent)
        self.responded = self._guarded(observer.responded)
        self.acquisition_ended = self._guarded(observer.acquisition_ended)
        self.lease_lost = self._guarded(observer.lease_lost)
        self.resynced = self._guarded(observer.resynced)

    def _guarded(self, tell: Callable[A, None]) -> Callable[A, None]:
        def safely(*args: A.args, **kwargs: A.kwargs) -> None:
            try:
                tell(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - somebody else's code may raise anything
                self._failed(error)

        return safely

    def _failed(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            log.error("the observer failed; its further faults are not logged", exc_info=error)


def guarded(observer: Observer | None) -> Observer:
    """The observer as the core calls it; None counts nothing."""
    return SILENT if observer is None else _Guarded(observer)
