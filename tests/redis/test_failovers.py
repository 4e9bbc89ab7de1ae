"""What was lost is counted right, where primaries die under dialogs.

The game of ``python -m tests.failovers`` is played in ``test_faults.py``; its judge is tried on
histories that are wrong on purpose in ``tests/unit/test_invariants.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from workers.proof.history import Dialog, Feed, Hand
from workers.proof.losses import feed_forgotten, forgotten, missed, unheard


def good() -> Dialog:
    """A dialog as it must be."""
    return Dialog(
        sends={"question 0": True},
        heard=[("r", "answer 0")],
        close={"enough": True},
        end="closed",
        hands={
            "r": Hand(responses={"answer 0": True}, heard=["question 0"], end="closed enough"),
            "s": Hand(heard=["question 0"], end="lost"),
        },
        log={"question 0", "answer 0", "enough"},
    )


def test_nothing_is_lost_of_a_dialog_as_it_must_be() -> None:
    assert not forgotten(good())
    assert not unheard(good())


@pytest.mark.parametrize(
    ("kind", "lost"), [("sends", "question 0"), ("responses", "answer 0"), ("closes", "enough")]
)
def test_what_redis_forgot_is_counted(kind: str, lost: str) -> None:
    dialog = good()
    dialog.log.remove(lost)
    assert forgotten(dialog) == {kind: 1}


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("sends", lambda dialog: [hand.heard.clear() for hand in dialog.hands.values()]),
        ("responses", lambda dialog: dialog.heard.clear()),
        ("closes", lambda dialog: setattr(dialog.hands["r"], "end", "released")),
    ],
)
def test_what_the_other_end_did_not_hear_of_is_counted(
    kind: str, spoil: Callable[[Dialog], object]
) -> None:
    dialog = good()
    spoil(dialog)
    assert unheard(dialog) == {kind: 1}


def test_what_a_listener_did_not_hear_of_a_feed_is_counted() -> None:
    feed = Feed(sends={0: True, 1: True}, heard={"r": [0, 1], "s": [0]}, end="closed", known=2)
    assert missed(feed, ["r", "s"]) == {1}
    assert feed_forgotten(feed) == set()
    feed.known = 1
    assert feed_forgotten(feed) == {1}
