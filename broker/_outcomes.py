"""Outcomes: the one place where a script's word becomes a result or an error. Pure."""

from __future__ import annotations

from collections.abc import Callable

from broker import errors, results
from broker.errors import TympanError
from broker.results import Code, Result

SENT = {
    "OK": results.S_OK,
    "LOST": results.NOTIFICATION_LOST,
    "NO_LISTENERS": results.NO_LISTENERS,
}
"""Words of a send that succeeded."""

CLOSED = {"OK": results.S_OK, "RELEASED": results.S_OK, "ACQUIRED": results.LOST_THE_RACE}
"""Words of a close or release that succeeded."""

NUMBERED = frozenset({"OK", "LOST", "FAILURE", "NO_LISTENERS", "MANY", "RELEASED"})
"""Words after which the operation's number is used up; other refusals changed nothing."""


def words_of(runs: str) -> list[str]:
    """What MANY says of each notification of a call: ``62 OK 2 LOST``."""
    parts = runs.split()
    return [
        word for many, word in zip(parts[::2], parts[1::2], strict=True) for _ in range(int(many))
    ]


SOURCE = "source"
SERVER = "server"
"""The closer of a channel whose printer was deleted."""
PRINTER_DELETED = "printer deleted"
"""Why a registration ended whose right went with its printer."""


def closer_detail(closer: str, me: str) -> Result:
    """Who closed, as the documents' detail codes (D7)."""
    if closer in (SOURCE, SERVER):
        return Result.error(Code.CHANNEL_CLOSED_BY_SERVER)
    if closer == me:
        return Result.error(Code.CHANNEL_CLOSED_BY_SAME_LISTENER)
    return Result.error(Code.CHANNEL_CLOSED_BY_ANOTHER_LISTENER)


def _closed(channel: str, detail: str, me: str) -> TympanError:
    who = {me: "this end", SOURCE: "its source", SERVER: "the print server"}
    return errors.ChannelAlreadyClosed(
        f"channel {channel} was closed by {who.get(detail, 'its listener')}",
        channel,
        closer_detail(detail, me),
    )


def _acquired(channel: str, detail: str, _me: str) -> TympanError:
    return errors.ChannelAcquired(
        f"channel {channel} was acquired by {detail}, who answered first", channel, detail
    )


def _simple(kind: type[errors.ChannelError], text: str) -> Callable[[str, str, str], TympanError]:
    return lambda channel, _detail, _me: kind(f"channel {channel}: {text}", channel)


_REFUSALS: dict[str, Callable[[str, str, str], TympanError]] = {
    "CLOSED": _closed,
    "ACQUIRED": _acquired,
    "GONE": _simple(errors.ChannelAlreadyClosed, "it was closed long ago, or Redis lost it"),
    "GAP": _simple(errors.ChannelAlreadyClosed, "Redis forgot what was done on it; it is over"),
    "DECLINED": lambda channel, _detail, me: errors.ChannelAlreadyClosed(
        f"channel {channel} was declined here before", channel, closer_detail(me, me)
    ),
    "WAITING": _simple(
        errors.WaitingForResponse, "the last notification is unanswered; await the response first"
    ),
    "IN_PROGRESS": _simple(
        errors.CallInProgress, "the last response is with the source; await its next notification"
    ),
    "NOT_OPENED": _simple(
        errors.ChannelNotOpened, "nothing was sent on it; release it instead of closing it"
    ),
    "NOT_OFFERED": _simple(
        errors.ChannelAlreadyClosed, "Redis forgot the question; it is offered anew if asked again"
    ),
    "VIOLATION": _simple(
        errors.ContractViolation, "its reference is not this end's to release; nothing was done"
    ),
    "NOT_YOURS": _simple(errors.NotYours, "it belongs to another process or owner"),
    "TAKEN": _simple(errors.ChannelAlreadyOpened, "another source opened a channel of this id"),
    "FAILURE": lambda channel, _detail, _me: errors.NotificationFailure(
        f"channel {channel}: listeners exist and none of them had room"
    ),
    "FULL": lambda channel, _detail, _me: errors.QueueFull(
        f"channel {channel}: a listener has no room; nothing was sent"
    ),
}


def refusal(word: str, *, channel: str, detail: str = "", me: str = SOURCE) -> TympanError:
    """The error for a word that is no success. ``me`` is the end that asked."""
    make = _REFUSALS.get(word)
    if make is None:
        return errors.TympanError(f"channel {channel}: Redis answered {word!r} {detail!r}")
    return make(channel, detail, me)
