"""Load: farms that talk while something is broken, and what became of what they said."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from tests.conformance.actors import eventually
from tests.failovers import BETWEEN, LISTENERS, SOURCES, clean, look
from tests.faults.case import RECOVERED_WITHIN, Report, chance
from tests.servers import RedisServer
from workers.proof import invariants
from workers.proof.history import Dialog, Feed, safe
from workers.proof.losses import feed_forgotten, forgotten, lost
from workers.proof.talk import Talk, Weather

CALM_WITHIN = 60.0
"""Seconds in which farms on which nothing is broken finish some dialogs."""


class Loss(Enum):
    """What Redis may have forgotten of what was said."""

    NOTHING = "nothing"
    SOME = "some"
    """It is counted."""
    ALL = "all"
    """At a fault it begins anew, empty."""


@dataclass
class Load:
    """Farms on one Redis, one for each durability, under the same faults."""

    talks: Sequence[Talk]
    weather: Weather
    report: Report

    async def calm(self, between: int = BETWEEN) -> None:
        """Each farm finishes so many dialogs."""
        aims = [(talk, talk.finished + between) for talk in self.talks]
        await eventually(
            lambda: all(talk.finished >= aim for talk, aim in aims), "dialogs", CALM_WITHIN
        )

    async def recovers(self, what: str) -> None:
        """The fault is over: note when all have heard a question that is asked from now on."""
        self.weather.strikes()
        begun = asyncio.get_running_loop().time()
        listeners = {name for talk in self.talks for name in talk.listeners}
        with contextlib.suppress(AssertionError):  # who does not hear again is told below
            await eventually(
                lambda: listeners <= self.weather.heard.keys(), "all", 4 * RECOVERED_WITHIN
            )
        heard = [self.weather.heard.get(name, math.inf) for name in listeners]
        self.report.recovers(max(heard) - begun, what)
        self.report.runs += 1
        self.weather.passes()

    @property
    def standing(self) -> dict[str, Dialog]:
        """The dialogs that are answered and not over, by channel."""
        return {
            channel: dialog
            for talk in self.talks
            for channel, dialog in talk.dialogs.items()
            if dialog.heard and not dialog.close and not dialog.end
        }

    async def settle(
        self, primary: Callable[[], RedisServer], losses: Mapping[str, Loss] = MappingProxyType({})
    ) -> None:
        """Judge all that was said; what may be forgotten by durability, some of it by default."""
        for talk in self.talks:
            left = await clean(talk, primary)
            self.report.violations += [f"{talk.durability}: {fault}" for fault in left]
            await asyncio.to_thread(look, primary(), talk)
            judge(talk, self.report, losses.get(talk.durability, Loss.SOME))


@contextlib.asynccontextmanager
async def talking(url: str, durabilities: Sequence[str], report: Report) -> AsyncIterator[Load]:
    """Farms that talk in the block; at its end each dialog is brought to its own."""
    weather, namespace = Weather(), f"fault{secrets.token_hex(4)}"
    seed = chance("talk").randrange(2**32)
    talks = [Talk(namespace + each, url, each, weather, seed) for each in durabilities]
    async with contextlib.AsyncExitStack() as stack:
        for talk in talks:
            await stack.enter_async_context(talk.goes_on(SOURCES, LISTENERS))
        load = Load(talks, weather, report)
        yield load
        await load.calm()


def judge(talk: Talk, report: Report, loss: Loss) -> None:
    """Count what was said, and what of it was lost; note whatever is not as it must be."""
    dialogs, feeds = talk.dialogs, talk.feeds
    found = list(talk.faults)
    for channel, dialog in dialogs.items():
        found += [f"dialog {channel}: {fault}; {dialog}" for fault in faults(dialog)]
        if loss is Loss.NOTHING and forgotten(dialog):
            found.append(f"dialog {channel}: {forgotten(dialog)} forgotten: {dialog}")
    # Where all is lost, a source may be there again sooner than those who listened.
    there = [] if loss is Loss.ALL else talk.listeners
    for channel, feed in feeds.items():
        found += [f"feed {channel}: {fault}" for fault in feed_faults(feed, there)]
        if loss is Loss.NOTHING and feed_forgotten(feed):
            found.append(f"feed {channel}: {feed_forgotten(feed)} forgotten: {feed}")
    report.violations += [f"{talk.durability}: {fault}" for fault in found]
    report.checked["dialogs"] += len(dialogs)
    report.checked["answers"] += sum(
        len(safe(hand.responses)) for each in dialogs.values() for hand in each.hands.values()
    )
    report.checked["notifications"] += sum(len(safe(feed.sends)) for feed in feeds.values())
    if loss is not Loss.ALL:
        for how, kinds in lost(talk.history, talk.listeners).items():
            report.lost.update(
                {f"{kind} {how} ({talk.durability})": n for kind, n in kinds.items()}
            )


def faults(dialog: Dialog) -> Iterator[str]:
    """What is wrong with a dialog of which Redis may have lost what it acknowledged."""
    yield from invariants.two_owners(dialog, may_forget=True)
    yield from invariants.out_of_turn(dialog)
    yield from invariants.left_waiting(dialog)
    yield from invariants.lost_in_order(dialog)
    yield from invariants.after_the_close(dialog, may_forget=True)


def feed_faults(feed: Feed, listeners: Sequence[str]) -> Iterator[str]:
    """What is wrong with such a unidirectional channel."""
    yield from invariants.feed_disorder(feed)
    yield from invariants.sent_after_the_close(feed)
    yield from invariants.never_told(feed)
    yield from invariants.missed_in_order(feed, listeners)


def released(dialogs: dict[str, Dialog]) -> list[str]:
    """Channels of those whose source was told NOTIFICATION_RELEASE, or whose owner was."""
    return [
        channel
        for channel, dialog in dialogs.items()
        if dialog.end == "released"
        or any(hand.end == "released" and hand.responses for hand in dialog.hands.values())
    ]
