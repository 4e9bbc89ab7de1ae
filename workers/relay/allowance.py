"""Allowances: how many messages may go out. Pure: the time is given."""

from __future__ import annotations

import math

HOUR = 3600.0


class Allowance:
    """A bucket of tokens: at most so many in any hour, and so many of them at once.

    It begins full. One token comes back each ``3600 / (most - burst + 1)`` s: in an hour that
    begins with a full bucket these are one less than would make it too many.

    Args:
        most: messages in any hour; 0 for no limit.
        burst: messages at once; from 1 to ``most``.
    """

    def __init__(self, most: int, burst: int = 1) -> None:
        if most < 0 or (most and not 1 <= burst <= most):
            raise ValueError(f"{burst} of {most} at once: it is a number from 1 to {most}")
        self.most = most
        self._burst = burst
        self._every = HOUR / (most - burst + 1) if most else 0.0
        self._tokens = float(burst)
        self._at = -math.inf

    def count(self, now: float) -> int | None:
        """How many may go out now; None for no limit. ``now``: seconds of a clock that goes on."""
        if not self.most:
            return None
        self._fill(now)
        return int(self._tokens)

    def spend(self, now: float) -> None:
        """One goes out."""
        if self.most:
            self._fill(now)
            self._tokens = max(0.0, self._tokens - 1)

    def next_at(self, now: float) -> float:
        """When one may go out: now, or later."""
        if not self.most or self.count(now):
            return now
        return now + (1 - self._tokens) * self._every

    def _fill(self, now: float) -> None:
        if now <= self._at:
            return
        came = (now - self._at) / self._every
        # A millionth of a token is the rounding of whoever waited for exactly one.
        self._tokens = min(float(self._burst), self._tokens + came)
        if math.ceil(self._tokens) - self._tokens < 1e-6:
            self._tokens = float(math.ceil(self._tokens))
        self._at = now
