"""Primaries die under dialogs: no dialog has two owners, nobody waits for ever, losses are known.

The game of ``python -m tests.failovers``, shorter: two farms, one at each durability, on Sentinel
and in a Cluster. The judge is tried on dialogs that are wrong on purpose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests import failovers
from tests.failovers import GROUNDS
from tests.talkers import HUNG, Dialog, Feed, Hand
from tests.verdicts import faults, feed_faults, forgotten, missed, unheard


@pytest.mark.slow
@pytest.mark.parametrize("ground", GROUNDS)
def test_a_farm_goes_on_through_failovers(ground: str) -> None:
    with GROUNDS[ground]() as made:
        outcomes = asyncio.run(failovers.play(made, 2, seed=1))
    assert [outcome.durability for outcome in outcomes] == ["memory", "replica"]
    for outcome in outcomes:
        assert outcome.violations == []
        assert outcome.talk.dialogs, "it was played at all"


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


def test_the_judge_finds_no_fault_with_a_dialog_as_it_must_be() -> None:
    assert list(faults(good())) == []
    assert not forgotten(good())
    assert not unheard(good())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda dialog: dialog.heard.append(("s", "mine 1")),
        lambda dialog: dialog.heard.append(("r", "answer 0")),
        lambda dialog: setattr(dialog, "end", HUNG),
        lambda dialog: setattr(dialog.hands["r"], "end", HUNG),
        lambda dialog: dialog.hands["r"].heard.append("question 0"),
        lambda dialog: dialog.heard.clear(),
        lambda dialog: [hand.heard.clear() for hand in dialog.hands.values()],
    ],
)
def test_the_judge_finds_fault_with_anything_else(spoil: Callable[[Dialog], object]) -> None:
    dialog = good()
    spoil(dialog)
    assert list(faults(dialog))


@pytest.mark.parametrize(
    ("kind", "lost"), [("sends", "question 0"), ("responses", "answer 0"), ("closes", "enough")]
)
def test_what_redis_forgot_is_counted(kind: str, lost: str) -> None:
    dialog = good()
    dialog.log.remove(lost)
    assert forgotten(dialog) == {kind: 1}


def test_what_a_listener_did_not_hear_of_a_feed_is_counted_and_twice_is_a_fault() -> None:
    feed = Feed(sends={0: True, 1: True}, heard={"r": [0, 1], "s": [0]}, end="closed", known=2)
    assert missed(feed, ["r", "s"]) == {1}
    feed.heard["s"] = [0, 1, 1]
    assert list(feed_faults(feed, ["r", "s"]))
