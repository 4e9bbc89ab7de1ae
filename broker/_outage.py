"""Outages: that a Redis does not answer is told once, and once that it answers again."""

from __future__ import annotations

import logging
import time

log = logging.getLogger("tympan")

_since: dict[str, float] = {}
"""Who does not answer this process, by the monotonic clock; brokers with one URL share a word."""


def began(where: str) -> None:
    """It does not answer, and did before."""
    if where not in _since:
        _since[where] = time.monotonic()
        log.warning("Redis does not answer; trying again (%s)", where)


def ended(where: str) -> None:
    """It answers."""
    since = _since.pop(where, None)
    if since is not None:
        log.warning("Redis answers again, after %.0f s (%s)", time.monotonic() - since, where)


def left(where: str) -> None:
    """Another one answers in its place."""
    if _since.pop(where, None) is not None:
        log.warning("the slots of %s have other owners now", where)


def is_told(where: str) -> bool:
    """Whether it is known not to answer."""
    return where in _since
