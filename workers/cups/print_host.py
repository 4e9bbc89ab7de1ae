"""A print host's side of the farm: all that runs in its bridge, and how it is held together."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import click

from broker import Broker, Name
from broker.errors import BrokerClosed, TympanError
from workers.cups.claim import Claim, Claimed, identity
from workers.cups.cupsd.client import Client
from workers.cups.cupsd.event import Event
from workers.cups.dialogs.answers import Answers
from workers.cups.dialogs.asking import Asking
from workers.cups.dialogs.counter import Counter
from workers.cups.events.bell import Bell
from workers.cups.events.journal import Fact, Journal, JournalFault
from workers.cups.events.keeping import Keeping
from workers.cups.events.levels import Levels, Told
from workers.cups.events.owners import Owners
from workers.cups.events.poller import Poller
from workers.cups.events.pump import Pump
from workers.cups.events.sending import Sending
from workers.cups.file import Place
from workers.cups.settings import HostSettings
from workers.cups.types import ServerStatus

log = logging.getLogger("tympan.cups")

BEAT_EVERY = 5.0


class SpoolFault(click.ClickException):
    """The spool folder cannot be used, or another bridge uses it."""


@dataclass
class PrintHost:
    """The parts of one print host, as they share them."""

    broker: Broker
    server: Name
    settings: HostSettings
    heard: list[Callable[[Event], None]] = field(default_factory=list)
    """Who is called with each event of cupsd, before it is told."""

    def __post_init__(self) -> None:
        self.name = self.server.server
        """The ServerName, as payloads have it."""
        self.place: Place = self.settings.place
        self.keeping = Keeping(self.place)
        self.cups = Client(self.settings.cups, user=self.settings.user)
        self.sending = Sending(self.broker, self.server)
        self.owners = Owners(self.cups)
        self.levels = Levels(self.name)
        self.pump = Pump(
            self.keeping, self.cups, self.sending, self.levels, self.owners, heard=self._hear
        )
        self.asking: Asking | None = None
        self.poller = Poller(
            *(self.cups, self.sending, self.name),
            every=self.settings.poll,
            heard=self._hear_printer,
        )
        self.claim = Claim(self.broker, self.server, identity(self.place.spool))

    def _hear(self, event: Event) -> None:
        for each in self.heard:
            each(event)

    def _hear_printer(self, queue: str, reasons: Sequence[str], at: float) -> None:
        if self.asking is not None:
            self.asking.printer_changed(queue, reasons, at)

    async def serve(self) -> None:
        """Until it is cancelled. Raises SpoolFault, Claimed, AccessDenied."""
        for doubt in self.settings.doubts:
            log.warning("%s", doubt)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(_locked(self.place))
            stack.push_async_callback(self.keeping.close)
            await stack.enter_async_context(self.cups)
            await self.claim.make()
            stack.push_async_callback(self.claim.end)
            stack.push_async_callback(self.sending.close)
            await self.sending.begin()
            await self.sending.send([self._started()])
            self.asking = await stack.enter_async_context(self._make_asking())
            self.heard.append(self.asking.hear)
            bell = Bell(self.place.bell)
            try:
                await stack.enter_async_context(Counter(self.place, self.asking))
                await stack.enter_async_context(bell)
            except OSError as error:
                raise SpoolFault(f"{self.place.spool}: {error}") from error
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.pump.run(bell))
                tasks.create_task(self.poller.run())
                tasks.create_task(self._live())

    def _make_asking(self) -> Asking:
        """Raises SpoolFault."""
        try:
            answers = Answers(self.place.answers, self.name)
        except (sqlite3.Error, OSError) as error:
            raise SpoolFault(f"{self.place.answers} cannot be used: {error}") from error
        questions = self.settings.question
        return Asking(self.broker, self.server, self.name, answers, questions, self.cups)

    def _started(self) -> Told:
        now = time.time()
        said = ServerStatus.model_validate(
            {
                "host": self.name,
                "event": f"{self.name}/bridge/{now:.3f}",
                "at": now,
                "what": "bridge-started",
            }
        )
        return Told("", None, said)

    async def _live(self) -> None:
        """Say so in the journal, keep the claim, and close what is not used. Raises Claimed."""
        while True:
            facts: dict[str, Fact] = {
                "heartbeat": time.time(),
                "pid": os.getpid(),
                "trouble": self.sending.trouble or self.pump.trouble,
            }
            try:
                await self.keeping.do(partial(_keep, facts))
                await self.claim.renew()
            except JournalFault as fault:
                log.warning("%s", fault)
            except (Claimed, BrokerClosed):
                raise
            except TympanError as error:
                log.info("the claim is not renewed yet: %s", error)
            await self.sending.sweep()
            await asyncio.sleep(BEAT_EVERY)


def _keep(facts: dict[str, Fact], journal: Journal) -> None:
    journal.keep(**facts)


@contextlib.contextmanager
def _locked(place: Place) -> Iterator[None]:
    """This bridge's spool, and no other's. Raises SpoolFault."""
    try:
        lock = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SpoolFault(
            f"the spool {place.spool} cannot be used: {error.strerror}; "
            "tympan cups install makes it, and says whose it is"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolFault(
                f"another bridge runs on the spool {place.spool}; end that one"
            ) from None
        yield
    finally:
        os.close(lock)
