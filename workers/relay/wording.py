"""Wording: what a message says to people. Pure."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

from workers.relay.pile import Batch, Waiting

NAMESPACE = UUID("3a4f8c52-6f4e-4a3b-9d55-1c0e8f7ab1ff")
"""Of the ids that messages and threads are given."""
MOST_LINES = 100
"""Alerts that a digest lists; of the others it says how many they are."""
LONGEST = 200
"""Characters of a title."""


def id_of(batch: Batch[Any]) -> UUID:
    """The same for the same alerts, so whoever gets a message twice can see it."""
    return uuid5(NAMESPACE, "\n".join(sorted(item.alert.id for item in batch.items)))


def thread_of(batch: Batch[Any]) -> UUID | None:
    """The thread that a message belongs to; None for a digest of several printers."""
    threads = {item.alert.thread for item in batch.items}
    return uuid5(NAMESPACE, threads.pop()) if len(threads) == 1 else None


def title_of(batch: Batch[Any]) -> str:
    """One line."""
    if not batch.is_digest:
        alert = batch.items[0].alert
        return _cut(f"{alert.name}: {alert.headline}")
    names = {item.alert.name for item in batch.items}
    count = sum(item.count for item in batch.items)
    where = str(*names) if len(names) == 1 else f"{len(names):,} printers and servers"
    return _cut(f"{count:,} alerts of {where}")


def text_of(batch: Batch[Any], most: int = MOST_LINES) -> str:
    """All of it: paragraphs for one alert, a line for each of several."""
    if not batch.is_digest:
        return "\n".join(_paragraphs(batch.items[0]))
    lines = [_line(item) for item in batch.items[:most]]
    more = sum(item.count for item in batch.items[most:])
    if more:
        lines.append(f"… and {more:,} more alerts")
    return "\n".join(lines)


def history_of(item: Waiting[Any]) -> list[str]:
    """What went before: how often it was said, and since when it stands."""
    said, before = [], item.before
    if before is not None and before.condition:
        if item.alert.is_clear or before.condition == item.alert.condition:
            said.append(f"since {before.since:%Y-%m-%d %H:%M:%S} UTC")
        if before.repeats:
            times = "once" if before.repeats == 1 else f"{before.repeats:,} times"
            said.append(f"was said {times} more meanwhile")
    if item.count > 1:
        said.append(f"the last of {item.count:,} changes")
    return said


def _paragraphs(item: Waiting[Any]) -> list[str]:
    alert = item.alert
    lines = [f"{alert.name}: {alert.headline}", *alert.lines, *history_of(item)]
    return [*lines, f"at {alert.at:%Y-%m-%d %H:%M:%S} UTC ({alert.kind}, {alert.severity.word})"]


def _line(item: Waiting[Any]) -> str:
    alert = item.alert
    more = f" ({'; '.join(history)})" if (history := history_of(item)) else ""
    return f"{alert.at:%H:%M:%S}  {alert.severity.word:<7}  {alert.name}: {alert.headline}{more}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
