"""The poller: asks printers themselves, while CUPS has no job there and so does not watch them.

A printer with an IPP address is asked for its state and supplies; what changed is told, with
``source="printer"``. One that answers no more is told as offline.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from broker.names import fold
from workers.cups.cupsd.client import Client, IppError, PrinterFacts
from workers.cups.cupsd.event import LONGEST_TEXT
from workers.cups.cupsd.ipp import Group
from workers.cups.cupsd.state import telling
from workers.cups.events.levels import Told, status_of
from workers.cups.events.sending import Sending
from workers.cups.installation.launchers import SCHEME
from workers.cups.types import PrinterState, Supply

T = TypeVar("T")
log = logging.getLogger("tympan.cups")

AT_ONCE = 8
FAILURES = 2
"""Times in a row that a printer does not answer before it is told as offline."""
OFFLINE = "offline-warning"
JITTER = 0.2
MOST_SUPPLIES = 64
ASKED = (
    *("printer-name", "printer-state", "printer-state-reasons", "printer-state-message"),
    *("printer-is-accepting-jobs", "marker-names", "marker-levels", "marker-types"),
    *("printer-supply", "printer-supply-description"),
)
_SCHEMES = ("ipp://", "ipps://", "http://", "https://")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a printer said of itself."""

    state: PrinterState
    reasons: tuple[str, ...]
    is_accepting: bool
    supplies: tuple[Supply, ...]
    text: str = ""


class Poller:
    """Of one print host.

    ``every``: seconds between looks at one printer. ``heard`` is called with each queue whose
    printer answered, its state reasons, and when, in seconds since 1970.
    """

    def __init__(
        self,
        cups: Client,
        sending: Sending,
        host: str,
        *,
        every: float,
        heard: Callable[[str, Sequence[str], float], None] = lambda *_: None,
    ) -> None:
        self._cups = cups
        self._sending = sending
        self._host = host
        self._every = every
        self._heard = heard
        self._seen: dict[str, Seen] = {}
        self._failures: dict[str, int] = {}

    async def run(self) -> None:
        """Until it is cancelled; not at all where it is never to look."""
        while self._every:
            try:
                await self.look()
            except IppError as error:
                log.info("printers are not asked now: %s", error)
            spread = 1 + random.uniform(-JITTER, JITTER)
            await asyncio.sleep(self._every * spread)

    async def look(self) -> None:
        """Ask each printer that CUPS does not watch now. Raises IppError for cupsd's own."""
        printers = await self._cups.printers()
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(queue: PrinterFacts, address: str) -> None:
            async with gate:
                await self._ask(queue, address)

        idle = [
            (queue, address)
            for queue in printers
            if queue.state != "processing" and (address := address_of(queue.device_uri))
        ]
        await asyncio.gather(*[ask(queue, address) for queue, address in idle])
        there = {fold(queue.name) for queue in printers}
        for gone in (self._seen.keys() | self._failures.keys()) - there:
            self._seen.pop(gone, None)
            self._failures.pop(gone, None)

    async def _ask(self, queue: PrinterFacts, address: str) -> None:
        name = fold(queue.name)
        before = self._seen.get(name)
        try:
            now = seen_in(await self._cups.printer_at(address, ASKED))
            self._failures.pop(name, None)
            self._heard(queue.name, now.reasons, time.time())
        except IppError as error:
            self._failures[name] = self._failures.get(name, 0) + 1
            if self._failures[name] < FAILURES:
                return
            supplies = before.supplies if before is not None else ()
            state: PrinterState = before.state if before is not None else "idle"
            now = Seen(state, (OFFLINE,), queue.is_accepting, supplies, str(error))
        if is_same(before, now):
            return
        self._seen[name] = now
        await self._sending.send([self._told(queue.name, before, now)])

    def _told(self, queue: str, before: Seen | None, now: Seen) -> Told:
        at = datetime.now(UTC)
        said = status_of(
            *(queue, now, before),
            host=self._host,
            event=f"{self._host}/poll/{at.timestamp():.6f}/{queue}",
            at=at,
            text=now.text,
            supplies=list(now.supplies),
            source="printer",
        )
        return Told(queue, None, said)


def address_of(device_uri: str) -> str | None:
    """Where a queue's printer can be asked; None where it speaks no IPP."""
    inner = device_uri.removeprefix(f"{SCHEME}:")
    return inner if inner.startswith(_SCHEMES) else None


def is_same(before: Seen | None, now: Seen) -> bool:
    """Whether there is nothing to tell; texts alone make no difference."""
    return before is not None and (
        (before.state, before.reasons, before.is_accepting, before.supplies)
        == (now.state, now.reasons, now.is_accepting, now.supplies)
    )


def seen_in(facts: PrinterFacts) -> Seen:
    """What an answer says."""
    return Seen(
        facts.state,
        tuple(telling(facts.state, facts.reasons)),
        facts.is_accepting,
        tuple(supplies_in(facts.attributes)),
        facts.text[:LONGEST_TEXT],
    )


def supplies_in(group: Group) -> list[Supply]:
    """By CUPS' markers, or else by ``printer-supply`` (PWG 5100.13)."""
    names = group.all("marker-names", str)[:MOST_SUPPLIES]
    if names:
        levels, kinds = group.all("marker-levels", int), group.all("marker-types", str)
        return [
            Supply(
                name=name[:LONGEST_TEXT], level=_percent(_at(levels, i)), kind=_at(kinds, i) or ""
            )
            for i, name in enumerate(names)
        ]
    described = group.all("printer-supply-description", str)
    found = []
    for i, octets in enumerate(group.all("printer-supply", bytes)[:MOST_SUPPLIES]):
        parts = _parts(octets)
        level, most = _number(parts.get("level")), _number(parts.get("maxcapacity"))
        if level is not None and most is not None and most > 0 and level >= 0:
            level = 100 * level // most
        name = _at(described, i) or parts.get("colorantname") or parts.get("type") or ""
        found.append(
            Supply(name=name[:LONGEST_TEXT], level=_percent(level), kind=parts.get("type", ""))
        )
    return found


def _parts(octets: bytes) -> dict[str, str]:
    """``type=toner;level=40;``."""
    pairs = (part.partition("=") for part in octets.decode("utf-8", "replace").split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name.strip()}


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _percent(level: int | None) -> int | None:
    """Negative ones say that the printer does not know."""
    return None if level is None or level < 0 else min(level, 100)


def _at(values: Sequence[T], index: int) -> T | None:
    return values[index] if index < len(values) else None
