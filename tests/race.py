"""The race: many listeners answer one question at once, and exactly one of them owns the dialog.

``python -m tests.race`` plays 1,000 dialogs of 64 responders, spread over four processes, on a
redis-server of its own; once on good connections, and once where every tenth reply is lost after
the command was executed. In each dialog nobody responds before all hold the question. What the
clients saw, and what Redis counted, is judged by :mod:`workers.proof.invariants`:

- exactly one response is accepted, and every other responder is told CHANNEL_ACQUIRED, by whom;
- the source hears that one response, once;
- every handle's implicit reference is dropped once: the losers' when they let go, the winner's and
  the source's by the close.

It prints what it saw, and ends with status 1 where anything else happened, naming the dialog.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from broker import Settings
from tests.columns import aligned
from tests.proxy import Proxy
from tests.servers import RedisServer
from workers.embedded import HOST
from workers.proof import race
from workers.proof.ground import Ground
from workers.proof.history import History, hands_of
from workers.proof.invariants import violations
from workers.proof.party import PATIENCE


@dataclass(frozen=True)
class Race:
    """One form of the race."""

    dialogs: int
    responders: int
    processes: int
    drop: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.drop:.0%} of replies lost" if self.drop else "good connections"


@dataclass
class Outcome:
    """One race, run."""

    race: Race
    history: History
    seconds: float
    lost: int
    """Replies that the proxies swallowed."""

    @property
    def violations(self) -> list[str]:
        """Whatever is not as it must be."""
        found = [str(one) for one in violations(self.history)]
        for channel, dialog in self.history.dialogs.items():
            if dialog.known is None or dialog.known.state != "closed":
                found.append(f"dialog {channel}: Redis says that it is {dialog.known}")
        if len(self.history.dialogs) != self.race.dialogs:
            found.append(f"{len(self.history.dialogs)} dialogs instead of {self.race.dialogs}")
        return found

    @property
    def winners(self) -> int:
        """Responses that were accepted."""
        return sum(len(hand.responses) for _, _, _, hand in hands_of(self.history))

    @property
    def losers_told(self) -> int:
        """Responders that were told by whom they lost."""
        return sum(hand.end == "lost" for _, _, _, hand in hands_of(self.history))

    @property
    def drops(self) -> int:
        """References that Redis counted as dropped."""
        return sum(each.known.drops for each in self.history.dialogs.values() if each.known)

    @property
    def row(self) -> tuple[str, ...]:
        """For the table."""
        dialogs = len(self.history.dialogs)
        return (
            self.race.name,
            f"{dialogs:,}",
            f"{self.race.responders} in {self.race.processes}",
            f"{self.seconds:.1f}",
            f"{dialogs / self.seconds:.1f}",
            f"{self.winners:,}",
            f"{self.losers_told:,}",
            f"{self.drops:,}",
            f"{self.lost:,}",
        )


HEADINGS = (
    "form", "dialogs", "responders", "seconds", "dialogs/s", "winners", "losers told", "drops",
    "replies lost",
)  # fmt: skip


async def run(form: Race, url: str) -> Outcome:
    """Run one form on the Redis at ``url``."""
    namespace = f"race{secrets.token_hex(4)}"
    settings: dict[str, Any] = {
        "lease": 60.0,
        "resync": 0.5 if form.drop else 5.0,
        "operation_timeout": PATIENCE,
    }
    made = race.Race(form.dialogs, form.responders, form.processes, form.seed, settings)
    turns: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(Proxy(HOST, urlsplit(url).port or 0))
            for _ in range(form.processes + 1 if form.drop else 0)
        ]

        def weather(is_bad: bool) -> None:
            turns.append(time.monotonic())
            for number, proxy in enumerate(proxies):
                chance = random.Random(f"{form.seed}:proxy:{number}")
                proxy.drop_replies(form.drop if is_bad else 0.0, chance)

        urls = [proxy.url for proxy in proxies] or [url] * (form.processes + 1)
        history = await race.run(made, urls, namespace, weather=weather)
    async with Ground(url, Settings.of(namespace=namespace)) as ground:
        await ground.look(history)
    return Outcome(form, history, turns[-1] - turns[0], sum(proxy.dropped for proxy in proxies))


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes, one a line."""
    rows = [HEADINGS, *(outcome.row for outcome in outcomes)]
    return aligned(rows, range(1, len(HEADINGS)))


def parse(arguments: Sequence[str] | None) -> list[Race]:
    """The forms that the command line asks for: both, unless --drop names one."""
    parser = argparse.ArgumentParser(prog="python -m tests.race", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dialogs", type=int, default=1000, metavar="N")
    parser.add_argument("--responders", type=int, default=64, metavar="N", help="in each dialog")
    parser.add_argument("--processes", type=int, default=4, metavar="N", help="with responders")
    parser.add_argument(
        "--drop", type=float, metavar="P",
        help="probability that a reply is lost; default: one race with 0 and one with 0.1",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=None, metavar="N")
    given = parser.parse_args(arguments)
    if not 1 <= given.processes <= given.responders:
        parser.error("--processes must be between 1 and --responders")
    if given.dialogs < 1 or (given.drop is not None and not 0 <= given.drop < 0.5):
        parser.error("--dialogs must be at least 1, and --drop between 0 and 0.5")
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    return [
        Race(given.dialogs, given.responders, given.processes, drop, seed)
        for drop in ((0.0, 0.1) if given.drop is None else (given.drop,))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the races; the exit status."""
    outcomes = []
    for form in parse(arguments):
        with RedisServer() as server:
            outcomes.append(asyncio.run(run(form, server.url)))
    print(table(outcomes))
    found = [fault for outcome in outcomes for fault in outcome.violations]
    for fault in found[:50]:
        print(fault)
    print(f"seed {outcomes[0].race.seed}: {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
