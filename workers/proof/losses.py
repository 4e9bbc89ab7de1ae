"""Losses: successes that Redis forgot, or that the other end never heard of. Counted, not judged.

Whether a loss breaks a promise depends on the durability that was asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from workers.proof.history import Dialog, Feed, History, safe, texts_heard


def forgotten(dialog: Dialog) -> Counter[str]:
    """Successes that Redis does not know in the end."""
    answers = [hand.responses for hand in dialog.hands.values()]
    return +Counter(
        sends=len(safe(dialog.sends) - dialog.log),
        responses=sum(len(safe(each) - dialog.log) for each in answers),
        closes=len(safe(dialog.close) - dialog.log),
    )


def unheard(dialog: Dialog) -> Counter[str]:
    """Successes that the other end never heard of: it was told that the dialog is over instead."""
    heard = texts_heard(dialog)
    said = {text for _, text in dialog.heard}
    owners = [hand for hand in dialog.hands.values() if hand.responses.keys() & said]
    told = {hand.end.removeprefix("closed ") for hand in owners} or set(dialog.close)
    return +Counter(
        sends=len(safe(dialog.sends) - heard),
        responses=sum(len(safe(hand.responses) - said) for hand in dialog.hands.values()),
        closes=len(safe(dialog.close) - told),
    )


def missed(feed: Feed, listeners: Collection[str]) -> set[int]:
    """What a source sent, and not all of these listeners heard."""
    everybody = safe(feed.sends)
    for listener in listeners:
        everybody = everybody.intersection(feed.heard.get(listener, ()))
    return safe(feed.sends) - everybody


def feed_forgotten(feed: Feed) -> set[int]:
    """What a source sent, and Redis does not know in the end."""
    return {number for number in safe(feed.sends) if number >= feed.known}


def lost(history: History, listeners: Collection[str]) -> dict[str, Counter[str]]:
    """All that was ``forgotten``, and ``unheard`` by these listeners, by kind."""
    dialogs, feeds = history.dialogs.values(), history.feeds.values()
    return {
        "forgotten": sum(map(forgotten, dialogs), Counter[str]())
        + Counter(notifications=sum(len(feed_forgotten(feed)) for feed in feeds)),
        "unheard": sum(map(unheard, dialogs), Counter[str]())
        + Counter(notifications=sum(len(missed(feed, listeners)) for feed in feeds)),
    }
