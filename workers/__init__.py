"""The processes of a farm: listener workers, the reaper, bridges, the command line, and more."""

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
