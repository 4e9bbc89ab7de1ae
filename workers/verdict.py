"""Verdicts: what a handler raises in place of an answer."""

from __future__ import annotations

from enum import StrEnum

from broker.notification import Body


class Outcome(StrEnum):
    """What became of one run of a handler."""

    DONE = "done"
    """A notification was handled."""
    RESPONDED = "responded"
    DECLINED = "declined"
    CLOSED = "closed"
    """The handler closed the dialog."""
    LOST = "lost"
    """Somebody else answered first, or the source closed."""
    RETRIED = "retried"
    """It failed, and is handed out again later."""
    DEAD = "dead"
    """It was put aside as a dead letter."""
    CANCELLED = "cancelled"
    """The lease was lost, or the worker stopped; the pool hands it out again."""


class Verdict(Exception):
    """Raised by a handler to say what is to become of what it was given."""


class Decline(Verdict):
    """Leave the question to the other listeners; the pool is not asked again."""


class CloseDialog(Verdict):
    """Close the channel, with a reason for the source or without."""

    def __init__(self, reason: Body | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLater(Verdict):
    """Hand it out again in ``after`` seconds, up to the worker's ``max_deliveries``."""

    def __init__(self, after: float, why: str = "the handler asked for another try") -> None:
        if after < 0:
            raise ValueError(f"after={after!r}: a time in seconds is not negative")
        super().__init__(after, why)
        self.after = after
        self.why = why


class PutAside(Verdict):
    """Make a dead letter of it at once: another try would not help."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
