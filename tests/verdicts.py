"""What was lost of a dialog or a feed, and what is wrong with it: judged by what both ends saw."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tests.talkers import HUNG, LEFT, Dialog, Feed

T = TypeVar("T")


def safe(successes: Mapping[T, bool]) -> set[T]:
    """Those that are as safe as the durability asks for."""
    return {what for what, is_safe in successes.items() if is_safe}


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
    heard = set(itertools.chain(*(hand.heard for hand in dialog.hands.values())))
    said = {text for _, text in dialog.heard}
    owners = [hand for hand in dialog.hands.values() if hand.responses.keys() & said]
    told = {hand.end.removeprefix("closed ") for hand in owners} or set(dialog.close)
    return +Counter(
        sends=len(safe(dialog.sends) - heard),
        responses=sum(len(safe(hand.responses) - said) for hand in dialog.hands.values()),
        closes=len(safe(dialog.close) - told),
    )


def faults(dialog: Dialog) -> Iterator[str]:
    """What is wrong with one dialog; nothing, as a rule."""
    if len({registration for registration, _ in dialog.heard}) > 1:
        yield f"two owners: the source heard {dialog.heard}"
    said = [text for _, text in dialog.heard]
    yield from disorder(said, "the source")
    heard = set(itertools.chain(*(hand.heard for hand in dialog.hands.values())))
    if dialog.end in ("", HUNG):
        yield f"the source was never told of the end; it said {dialog.sends}"
    if dialog.end == "closed" and safe(dialog.sends) - heard:
        yield f"the source closed in order; of {dialog.sends} the others heard {heard}"
    for registration, hand in dialog.hands.items():
        yield from disorder(hand.heard, registration)
        if hand.end in ("", HUNG):
            yield f"{registration} was never told of the end; it said {hand.responses}"
        if hand.end.startswith("closed ") and safe(hand.responses) - set(said):
            yield f"{registration} saw an orderly end; of {hand.responses} the source heard {said}"
    if dialog.end == LEFT and not any(hand.responses for hand in dialog.hands.values()):
        ends = {registration: hand.end for registration, hand in dialog.hands.items()}
        yield f"the question stays open, nobody answered it, and its listeners ended: {ends}"


def missed(feed: Feed, listeners: Sequence[str]) -> set[int]:
    """What a source sent, and not all listeners heard."""
    everybody = safe(feed.sends)
    for listener in listeners:
        everybody = everybody.intersection(feed.heard.get(listener, ()))
    return safe(feed.sends) - everybody


def feed_forgotten(feed: Feed) -> set[int]:
    """What a source sent, and Redis does not know in the end."""
    return {number for number in safe(feed.sends) if number >= feed.known}


def feed_faults(feed: Feed, listeners: Sequence[str]) -> Iterator[str]:
    """What is wrong with one unidirectional channel."""
    for listener, heard in feed.heard.items():
        yield from disorder(heard, listener)
    if not feed.end:
        yield "the source was never told of the end"
    if feed.end == "closed" and missed(feed, listeners):
        yield f"the source closed in order, and {missed(feed, listeners)} was lost"


def disorder(heard: Sequence[Any], who: str) -> Iterator[str]:
    """Each text ends in a number, and the next one's is higher."""
    numbers = [int(str(text).rpartition(" ")[2]) for text in heard]
    if numbers != sorted(set(numbers)):
        yield f"{who} heard twice or out of order: {heard}"
