"""The processes of a farm: listener workers, the reaper, bridges, the command line, and more."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.handler import HandlerFault
    from workers.verdict import CloseDialog, Decline, Outcome, PutAside, RetryLater
    from workers.worker import EVERYWHERE, Worker

__all__ = [
    "EVERYWHERE",
    "CloseDialog",
    "Decline",
    "HandlerFault",
    "Outcome",
    "PutAside",
    "RetryLater",
    "Worker",
]

_HOMES = {
    "EVERYWHERE": "workers.worker",
    "CloseDialog": "workers.verdict",
    "Decline": "workers.verdict",
    "HandlerFault": "workers.handler",
    "Outcome": "workers.verdict",
    "PutAside": "workers.verdict",
    "RetryLater": "workers.verdict",
    "Worker": "workers.worker",
}

if not TYPE_CHECKING:

    def __getattr__(name):
        """Imported when asked for: the command line is in here too, and its help needs nothing."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)
