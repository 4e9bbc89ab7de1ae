"""Invariants: what must hold of every history, each with the rule that it follows from. No I/O.

An invariant is a function of a history, and yields its violations; each says all that is needed to
understand it. What clients cannot know is left to what Redis holds in the end, which is part of the
history (:class:`~workers.proof.history.Known`, ``keys``): that a handle's reference was dropped
once, and that no key has lost its owner.

Two promises can be judged in part only, and are stated so. Between a close and the moment when the
other end is told of it, that end may still be handed what came before: so what was handed is judged
by when that end was told, and calls by whether they began after the close had succeeded. And where
Redis may have forgotten what it had acknowledged (``may_forget``), one that was first may have been
forgotten, too: then the word of the source decides who owns a dialog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workers.proof.history import (
    DIED,
    HUNG,
    LEFT,
    SOURCE,
    Dialog,
    Feed,
    History,
    Listening,
    Work,
    hands_of,
    is_meant_for,
    safe,
    texts_heard,
)
from workers.proof.losses import feed_forgotten, missed

PERMANENT = ("meta", "opened", "grants", "dead", "servers")
"""Last parts of keys that may stay when nobody holds anything."""
Faults = Iterator[str]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise."""

    invariant: str
    rules: str
    where: str
    """A dialog, a feed, a pool or a key."""
    what: str

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{self.invariant} ({self.rules}): {where}{self.what}"


@dataclass(frozen=True)
class Invariant:
    """One promise."""

    name: str
    rules: str
    """The rules of print notification, or of this broker (D), that it follows from."""
    counted: str
    """What is checked, in the plural."""
    count: Callable[[History], int]
    """How many of these a history has."""
    judge: Callable[[History], Iterator[tuple[str, str]]]

    def violations(self, history: History) -> list[Violation]:
        """What is wrong; nothing, as a rule."""
        return [
            Violation(self.name, self.rules, where, what) for where, what in self.judge(history)
        ]


def _of_dialogs(faults: Callable[[Dialog], Faults]) -> Callable[[History], Iterator[Any]]:
    return lambda history: (
        (f"dialog {channel}", f"{fault}; {dialog}")
        for channel, dialog in history.dialogs.items()
        for fault in faults(dialog)
    )


# Each by itself -----------------------------------------------------------------------------------


def two_owners(dialog: Dialog, *, may_forget: bool = False) -> Faults:
    """Somebody else than the one who was first, by anybody's word (R76, R77, R85)."""
    heard = {registration for registration, _ in dialog.heard}
    if len(heard) > 1:
        yield f"two owners: the source heard {sorted(heard)}"
    elif not may_forget and len(dialog.owners) > 1:
        acquired = sorted(name for name, hand in dialog.hands.items() if safe(hand.responses))
        redis = dialog.known.owner if dialog.known else ""
        yield (
            f"two owners: the source heard {sorted(heard)}, {acquired} were told that they "
            f"responded, and Redis says that {redis or 'nobody'} owns it"
        )


def losers_untold(dialog: Dialog, *, may_forget: bool = False) -> Faults:
    """Who was offered a question, and not told that another was first, or by whom (R82 to R84)."""
    owners = dialog.owners
    owner = next(iter(owners)) if len(owners) == 1 else ""
    by = dialog.hands[owner].user if owner in dialog.hands else ""
    for registration, hand in dialog.hands.items():
        if owners and hand.end in ("", HUNG) and not safe(hand.responses):
            yield f"{registration} was never told that {by or 'another'} was first"
        if hand.end == "lost" and hand.lost_to and by and hand.lost_to != by and not may_forget:
            yield f"{registration} was told that it lost to {hand.lost_to}, and {by} was first"
        if hand.end == "lost" and registration == owner and registration in _heard_of(dialog):
            yield f"{registration} was told that it lost, and the source heard its response"
    if dialog.responders and len(dialog.hands) != dialog.responders:
        yield f"{len(dialog.hands)} of {dialog.responders} listeners were offered it"


def _heard_of(dialog: Dialog) -> set[str]:
    return {registration for registration, _ in dialog.heard}


def left_waiting(dialog: Dialog) -> Faults:
    """An end that nobody told of the end (R95, R121, R123, R124)."""
    if dialog.end in ("", HUNG):
        yield f"the source was never told of the end; it said {dialog.sends}"
    for registration, hand in dialog.hands.items():
        if hand.end in ("", HUNG):
            yield f"{registration} was never told of the end; it said {hand.responses}"
    if dialog.end == LEFT and not any(hand.responses for hand in dialog.hands.values()):
        ends = {registration: hand.end for registration, hand in dialog.hands.items()}
        yield f"the question stays open, nobody answered it, and its listeners ended: {ends}"


def lost_of(dialog: Dialog) -> Faults:
    """Successes that are not in the stream, and were not delivered (R106, R136; durability)."""
    heard = texts_heard(dialog)
    said = {text for _, text in dialog.heard}
    told = {hand.end.removeprefix("closed ") for hand in dialog.hands.values()}
    kinds = (
        ("sent", safe(dialog.sends), heard),
        ("closed", safe(dialog.close), told),
        *(("responded", safe(hand.responses), said) for hand in dialog.hands.values()),
    )
    for what, successes, delivered in kinds:
        if gone := successes - dialog.log - delivered:
            yield f"{what} {sorted(gone)}: neither in the stream nor delivered"


def lost_in_order(dialog: Dialog) -> Faults:
    """A dialog that was closed in order, and of which something is missing (R89, R94)."""
    heard = texts_heard(dialog)
    if dialog.end == "closed" and safe(dialog.sends) - heard:
        yield f"the source closed in order; of {dialog.sends} the others heard {heard}"
    said = {text for _, text in dialog.heard}
    for registration, hand in dialog.hands.items():
        if hand.end.startswith("closed ") and safe(hand.responses) - said:
            yield f"{registration} saw an orderly end; of {hand.responses} the source heard {said}"


def out_of_turn(dialog: Dialog) -> Faults:
    """Responses or follow-ups that came twice, or in another order (R86, R89)."""
    yield from disorder([text for _, text in dialog.heard], "the source")
    for registration, hand in dialog.hands.items():
        yield from disorder(hand.heard, registration)
    said = sum(len(hand.responses) for hand in dialog.hands.values())
    is_whole = all(hand.end != DIED for hand in dialog.hands.values())
    if is_whole and dialog.known and dialog.known.responses > said:
        yield f"{dialog.known.responses} responses are in its conversation, and {said} were given"


def disorder(heard: Sequence[Any], who: str) -> Faults:
    """Each text ends in a number, and the next one's is higher."""
    numbers = [int(str(text).rpartition(" ")[2]) for text in heard]
    if numbers != sorted(set(numbers)):
        yield f"{who} heard twice or out of order: {heard}"


def after_the_close(dialog: Dialog, *, may_forget: bool = False) -> Faults:
    """What succeeded, or was handed over, when it was over (R97, R99, R101, R104).

    A Redis that may forget may forget the close; what an end was told it is held to all the same.
    """
    ends = [each.ended for each in dialog.calls if each.what == "close" and each.ended]
    closed = float("inf") if may_forget else min(ends, default=float("inf"))
    for each in dialog.calls:
        if each.ended and each.begun > closed and each.what in ("send", "respond", "close"):
            yield (
                f"{each.end} began to {each.what} {each.begun - closed:.6f} s after a close had "
                "succeeded, and that succeeded, too"
            )
    for handing in dialog.handed:
        over = dialog.over.get(handing.end)
        if over is not None and handing.at > over:
            yield (
                f"{handing.end} was handed {handing.body!r} {handing.at - over:.6f} s after it was "
                "told of the end"
            )


def sent_after_the_close(feed: Feed) -> Faults:
    """The same of a unidirectional channel: what was sent before is still delivered (R101)."""
    for number, begun in feed.begun.items():
        if begun > feed.closed and number in feed.answered:
            yield f"{number} was sent after its close had succeeded"


def dropped_twice(dialog: Dialog) -> Faults:
    """Handles whose implicit reference was not dropped once, as Redis counted (R107 to R117)."""
    known = dialog.known
    if known is None or known.state != "closed":
        return
    if known.drops != len(known.dropped):
        yield f"{known.drops} references of {len(known.dropped)} handles were dropped"
    let_go = {registration for registration, hand in dialog.hands.items() if hand.has_let_go}
    expected = {SOURCE, *let_go} | ({known.owner} if known.owner else set())
    if missing := expected - known.dropped:
        yield f"the references of {sorted(missing)} were never dropped"
    alive = {name for name, hand in dialog.hands.items() if hand.end != DIED}
    if wrong := known.dropped & alive - expected:
        yield f"the references of {sorted(wrong)} were dropped, and nobody let go of them"


def feed_disorder(feed: Feed) -> Faults:
    """Notifications that came twice, or in another order (R50, R55)."""
    for listener, heard in feed.heard.items():
        yield from disorder(heard, listener)


def never_told(feed: Feed) -> Faults:
    """A source that nobody told of the end."""
    if not feed.end:
        yield "the source was never told of the end"


def missed_in_order(feed: Feed, listeners: Iterable[str]) -> Faults:
    """A channel that was closed in order, and of which a listener missed something (R50)."""
    listeners = list(listeners)
    if feed.end == "closed" and missed(feed, listeners):
        yield f"the source closed in order, and {missed(feed, listeners)} was lost"


def work_lost(work: Work) -> Faults:
    """What was sent, and no replica was given, though Redis holds nothing more of it."""
    gone = safe(work.sends) - work.handled.keys()
    if len(gone) > work.left:
        yield f"{len(gone)} of {len(work.sends)} were never handled: {sorted(gone)[:10]}"
    untold = {text for text, replicas in work.handled.items() if work.died & set(replicas)}
    undone = safe(work.sends) - work.finished.keys() - untold
    if len(undone) > work.left:
        yield f"{len(undone)} of {len(work.sends)} were never finished: {sorted(undone)[:10]}"


def finished_twice(work: Work) -> Faults:
    """What two replicas finished: one of them had lost it (fencing), or it was sent twice."""
    for text, replicas in work.finished.items():
        if len(replicas) > 1:
            yield f"{text} was finished by {replicas}"


# Of a whole history -------------------------------------------------------------------------------


def _two_owners(history: History) -> Iterator[tuple[str, str]]:
    for channel, dialog in history.dialogs.items():
        for fault in two_owners(dialog, may_forget=history.may_forget):
            yield f"dialog {channel}", f"{fault}; {dialog}"


def _losers_untold(history: History) -> Iterator[tuple[str, str]]:
    for channel, dialog in history.dialogs.items():
        for fault in losers_untold(dialog, may_forget=history.may_forget):
            yield f"dialog {channel}", f"{fault}; {dialog}"


def _lost(history: History) -> Iterator[tuple[str, str]]:
    for channel, dialog in history.dialogs.items():
        faults = [*lost_in_order(dialog), *([] if history.may_forget else lost_of(dialog))]
        for fault in faults:
            yield f"dialog {channel}", f"{fault}; {dialog}"
    for channel, feed in history.feeds.items():
        unknown = set() if history.may_forget else feed_forgotten(feed)
        for numbers in _numbers_heard(feed):
            unknown -= numbers
        if unknown:
            yield f"feed {channel}", f"{sorted(unknown)}: neither in the stream nor delivered"
        for listener, listening in history.listening.items():
            owed = _owed(feed, listening)
            gone = owed - set(feed.heard.get(listener, ()))
            if gone and (feed.end == "closed" or not history.may_forget):
                yield f"feed {channel}", f"{listener} ({listening.user}) never heard {sorted(gone)}"
    for pool, work in history.works.items():
        for fault in work_lost(work):
            yield f"pool {pool}", fault


def _numbers_heard(feed: Feed) -> Iterator[set[int]]:
    return (set(heard) for heard in feed.heard.values())


def _owed(feed: Feed, listening: Listening) -> set[int]:
    """What a listener must have heard: it stood from before the send until after its answer."""
    if not is_meant_for(feed, listening):
        return set()
    return {
        number
        for number in safe(feed.sends)
        if listening.since < feed.begun.get(number, 0.0)
        and feed.answered.get(number, float("inf")) < listening.until
    }


def _in_order(history: History) -> Iterator[tuple[str, str]]:
    yield from _of_dialogs(out_of_turn)(history)
    for channel, feed in history.feeds.items():
        for fault in feed_disorder(feed):
            yield f"feed {channel}", fault
    for pool, work in history.works.items():
        for fault in finished_twice(work):
            yield f"pool {pool}", fault


def _after_the_close(history: History) -> Iterator[tuple[str, str]]:
    for channel, dialog in history.dialogs.items():
        for fault in after_the_close(dialog, may_forget=history.may_forget):
            yield f"dialog {channel}", f"{fault}; {dialog}"
    for channel, feed in history.feeds.items():
        for fault in sent_after_the_close(feed):
            yield f"feed {channel}", fault


def _seen_by_others(history: History) -> Iterator[tuple[str, str]]:
    for channel, feed in history.feeds.items():
        for listener, numbers in feed.heard.items():
            listening = history.listening.get(listener)
            if listening is None:
                continue
            for number in numbers:
                if not is_meant_for(feed, listening, at=feed.begun.get(number)):
                    whose = f"{number}, for {feed.user or 'all users'} on {feed.printer}"
                    yield f"feed {channel}", f"{whose}, was heard by {listener}: {listening}"
    for channel, dialog, registration, hand in hands_of(history):
        listening = history.listening.get(registration)
        if listening is not None and not is_meant_for(dialog, listening):
            whose = f"for {dialog.user or 'all users'} on {dialog.printer}"
            yield f"dialog {channel}", f"{whose}, was offered to {registration}: {listening}"
        owners = dialog.owners
        if len(hand.heard) > 1 and len(owners) == 1 and registration not in owners:
            yield f"dialog {channel}", f"{registration} is not its owner, and heard {hand.heard}"
    for attempt in history.attempts:
        if attempt.has_right != attempt.is_admitted:
            how = "refused" if attempt.has_right else "admitted without a right"
            yield "", f"{attempt.what}: {how}"


def _seen(history: History) -> int:
    heard = sum(len(numbers) for feed in history.feeds.values() for numbers in feed.heard.values())
    offered = sum(len(dialog.hands) for dialog in history.dialogs.values())
    return heard + offered + len(history.attempts)


def _ownerless(history: History) -> Iterator[tuple[str, str]]:
    for key, left in (history.keys or {}).items():
        if left < 0 and key.rpartition(":")[2] not in PERMANENT:
            yield key, "no time to live, and nobody who holds it"


def _waiting(history: History) -> Iterator[tuple[str, str]]:
    yield from _of_dialogs(left_waiting)(history)
    for channel, feed in history.feeds.items():
        for fault in never_told(feed):
            yield f"feed {channel}", fault


def _failed(history: History) -> Iterator[tuple[str, str]]:
    return (("", fault) for fault in history.faults)


_handles_dropped = _of_dialogs(dropped_twice)


def _dialogs(history: History) -> int:
    return len(history.dialogs)


def _losers(history: History) -> int:
    return sum(hand.end == "lost" for _, _, _, hand in hands_of(history))


def _successes(history: History) -> int:
    return (
        sum(len(each.sends) + len(each.close) for each in history.dialogs.values())
        + sum(len(hand.responses) for _, _, _, hand in hands_of(history))
        + sum(len(feed.sends) for feed in history.feeds.values())
        + sum(len(work.sends) for work in history.works.values())
    )


def _received(history: History) -> int:
    return (
        sum(len(dialog.heard) for dialog in history.dialogs.values())
        + sum(len(hand.heard) for _, _, _, hand in hands_of(history))
        + sum(len(numbers) for feed in history.feeds.values() for numbers in feed.heard.values())
        + sum(len(work.finished) for work in history.works.values())
    )


def _calls(history: History) -> int:
    return sum(len(each.calls) + len(each.handed) for each in history.dialogs.values()) + sum(
        len(feed.begun) for feed in history.feeds.values()
    )


def _handles(history: History) -> int:
    known = (dialog.known for dialog in history.dialogs.values())
    return sum(len(each.dropped) for each in known if each is not None)


def _keys(history: History) -> int:
    return len(history.keys or ())


def _ends(history: History) -> int:
    hands = sum(len(dialog.hands) for dialog in history.dialogs.values())
    return hands + len(history.dialogs) + len(history.feeds)


INVARIANTS: Sequence[Invariant] = tuple(
    Invariant(*each)
    for each in (
        ("exactly one owner in each dialog", "R76, R77, R85", "dialogs", _dialogs, _two_owners),
        ("every loser is told", "R82, R83, R84", "losers", _losers, _losers_untold),
        ("every success is kept or delivered", "R50, R106", "successes", _successes, _lost),
        ("once, and in order", "R55, R86, R89", "receipts", _received, _in_order),
        ("nothing after a close succeeded", "R97, R99 to R104", "calls", _calls, _after_the_close),
        ("each handle is dropped once", "R107 to R117", "handles", _handles, _handles_dropped),
        ("nobody sees what is not theirs", "R17, R38 to R46", "views", _seen, _seen_by_others),
        ("no key without an owner", "R121 to R123", "keys", _keys, _ownerless),
        ("nobody is left waiting", "R95, R121 to R124", "ends", _ends, _waiting),
        ("no call fails without a reason", "R93, R135", "calls", _calls, _failed),
    )
)


def violations(history: History) -> list[Violation]:
    """All that is wrong with a history, by invariant."""
    return [one for invariant in INVARIANTS for one in invariant.violations(history)]
