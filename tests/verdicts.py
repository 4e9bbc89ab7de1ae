"""What is wrong with one dialog or feed through which Redis may have lost what it acknowledged.

The invariants are those of :mod:`workers.proof.invariants`, but for the ones that say that nothing
is lost: that depends on the durability, and whoever asks here counts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from workers.proof import invariants
from workers.proof.history import Dialog, Feed, safe
from workers.proof.losses import feed_forgotten, forgotten, missed, unheard

__all__ = [
    "faults",
    "feed_faults",
    "feed_forgotten",
    "forgotten",
    "missed",
    "safe",
    "unheard",
]


def faults(dialog: Dialog) -> Iterator[str]:
    """What is wrong with one dialog; nothing, as a rule."""
    yield from invariants.two_owners(dialog, may_forget=True)
    yield from invariants.out_of_turn(dialog)
    yield from invariants.left_waiting(dialog)
    yield from invariants.lost_in_order(dialog)
    yield from invariants.after_the_close(dialog, may_forget=True)


def feed_faults(feed: Feed, listeners: Sequence[str]) -> Iterator[str]:
    """What is wrong with one unidirectional channel."""
    yield from invariants.feed_disorder(feed)
    yield from invariants.sent_after_the_close(feed)
    yield from invariants.never_told(feed)
    yield from invariants.missed_in_order(feed, listeners)
