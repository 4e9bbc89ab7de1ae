"""What is known of printers and jobs, and what an event changes about it. Pure.

A printer's status is a level: it is told when it differs from the one before, whatever made it so.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from broker.names import fold
from broker.payload import Payload
from workers.cups.cupsd.client import PrinterFacts
from workers.cups.cupsd.event import Event
from workers.cups.cupsd.state import JOB_STATES, OVER, PRINTER_STATES, telling, worst
from workers.cups.types import (
    JobState,
    JobStatus,
    PrinterChanged,
    PrinterState,
    PrinterStatus,
    ServerStatus,
)

MOST_JOBS = 20_000
"""Jobs whose last status is remembered."""
HELD_AT_FIRST = "job-hold-until-specified"
"""Reason of every job that was just made, also of one that nobody holds."""

What = Literal["added", "modified", "deleted", "queue-order", "finishings", "media"]
_CHANGES: dict[str, What] = {
    "printer-added": "added",
    "printer-modified": "modified",
    "printer-config-changed": "modified",
    "printer-deleted": "deleted",
    "printer-queue-order-changed": "queue-order",
    "printer-finishings-changed": "finishings",
    "printer-media-changed": "media",
}
_SERVER: dict[str, Literal["started", "restarted", "stopped"]] = {
    "server-started": "started",
    "server-restarted": "restarted",
    "server-stopped": "stopped",
}


class Told(NamedTuple):
    """A notification, and whom it is for."""

    queue: str
    """Empty for the server."""
    user: str | None
    """None for all users."""
    payload: Payload


class State(Protocol):
    """How a printer is, whoever said so."""

    @property
    def state(self) -> PrinterState:
        """Whether it prints."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Its state reasons."""

    @property
    def is_accepting(self) -> bool:
        """Whether it takes jobs."""


@dataclass(frozen=True, slots=True)
class Level:
    """A printer's, as far as it makes a difference."""

    state: PrinterState
    reasons: tuple[str, ...]
    is_accepting: bool

    def dump(self) -> str:
        """As text."""
        return json.dumps([self.state, self.reasons, self.is_accepting])

    @classmethod
    def load(cls, text: object) -> Level | None:
        """From that; None where it is no such text."""
        try:
            state, reasons, is_accepting = json.loads(str(text))
            if state not in PRINTER_STATES.values():
                return None
            return cls(state, tuple(map(str, reasons)), bool(is_accepting))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Owned:
    """Whose a job is."""

    owner: str
    title: str = ""
    is_held: bool = False
    """Whether it was to be held when it was made."""


OwnerOf = Callable[[int], Owned]


class Levels:
    """Of one host. ``printers`` has them by the queues' folded names."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.printers: dict[str, Level] = {}
        self.changed: dict[str, Level | None] = {}
        """Those that changed since somebody cleared this; None for one that is gone."""
        self._deleted: set[str] = set()
        """Queues of which cupsd may still tell a last state."""
        self._jobs: OrderedDict[int, tuple[object, ...]] = OrderedDict()

    def tell(self, event: Event, name: str, owner_of: OwnerOf, *, repeated: bool) -> list[Told]:
        """What there is to tell of an event; nothing where it changes nothing.

        ``name``: the event's, for payloads.
        """
        if event.name in _SERVER:
            said = ServerStatus(
                what=_SERVER[event.name], text=event.text, **self._common(event, name, repeated)
            )
            return [Told("", None, said)]
        if event.job and event.name.startswith("job-"):
            return self._tell_job(event, name, owner_of(event.job), repeated)
        if event.printer and event.name.startswith("printer-"):
            return self._tell_printer(event, name, repeated)
        return []

    def _common(self, event: Event, name: str, repeated: bool) -> dict[str, object]:
        return {"host": self.host, "event": name, "at": event.at, "repeated": repeated}

    # Jobs ---------------------------------------------------------------------------------------

    def _tell_job(self, event: Event, name: str, owned: Owned, repeated: bool) -> list[Told]:
        state, reasons = self._job_state(event, owned)
        if event.name == "job-created":
            self._jobs.pop(event.job, None)
        level = (state, reasons, event.pages, event.text, owned.title or event.title)
        if self._jobs.get(event.job) == level:
            return []
        self._jobs[event.job] = level
        self._jobs.move_to_end(event.job)
        if len(self._jobs) > MOST_JOBS:
            self._jobs.popitem(last=False)
        said = JobStatus(
            printer=event.printer,
            job=event.job,
            title=event.title or owned.title,
            owner=owned.owner,
            state=state,
            reasons=list(reasons),
            pages=event.pages,
            text=event.text,
            is_over=state in OVER,
            **self._common(event, name, repeated),
        )
        return [Told(event.printer, owned.owner, said)]

    @staticmethod
    def _job_state(event: Event, owned: Owned) -> tuple[JobState, tuple[str, ...]]:
        state = JOB_STATES.get(event.job_state, "pending")
        reasons = tuple(reason for reason in event.job_reasons if reason != "none")
        if event.name == "job-created" and reasons == (HELD_AT_FIRST,) and not owned.is_held:
            return "pending", ()
        return state, reasons

    # Printers -----------------------------------------------------------------------------------

    def _tell_printer(self, event: Event, name: str, repeated: bool) -> list[Told]:
        told: list[Told] = []
        common = self._common(event, name, repeated)
        what = _CHANGES.get(event.name)
        if what is not None:
            said = PrinterChanged(printer=event.printer, what=what, text=event.text, **common)
            told.append(Told(event.printer, None, said))
        if what == "deleted":
            self._forget(event.printer)
            self._deleted.add(fold(event.printer))
        elif what == "added":
            self._deleted.discard(fold(event.printer))
        if fold(event.printer) in self._deleted:
            return told
        before = self.printers.get(fold(event.printer))
        known = PRINTER_STATES.get(event.printer_state)
        if known is None:
            return told
        accepting = event.is_accepting
        if accepting is None:
            accepting = before is None or before.is_accepting
        level = Level(known, tuple(telling(known, event.printer_reasons)), accepting)
        if level == before:
            return told
        if before is not None and accepting != before.is_accepting:
            flip = PrinterChanged(
                printer=event.printer,
                what="accepting" if accepting else "rejecting",
                text=event.text,
                **common,
            )
            told.append(Told(event.printer, None, flip))
        told.append(self._status(event.printer, level, before, event.text, common))
        return told

    def _status(
        self, queue: str, level: Level, before: Level | None, text: str, common: dict[str, object]
    ) -> Told:
        self.printers[fold(queue)] = self.changed[fold(queue)] = level
        return Told(queue, None, status_of(queue, level, before, text=text, **common))

    def _forget(self, queue: str) -> None:
        if self.printers.pop(fold(queue), None) is not None:
            self.changed[fold(queue)] = None

    # All of them --------------------------------------------------------------------------------

    def snapshot(self, printers: Iterable[PrinterFacts], at: datetime) -> list[Told]:
        """The status of each printer as it is, and the end of each that is not there any more."""
        told: list[Told] = []
        there = set()

        def common(queue: str) -> dict[str, object]:
            name = f"{self.host}/snapshot/{at.timestamp():.3f}/{queue}"
            return {"host": self.host, "event": name, "at": at}

        for facts in printers:
            queue = facts.name
            there.add(fold(queue))
            self._deleted.discard(fold(queue))
            reasons = tuple(telling(facts.state, facts.reasons))
            level = Level(facts.state, reasons, facts.is_accepting)
            before = self.printers.get(fold(queue))
            told.append(self._status(queue, level, before, facts.text, common(queue)))
        for queue in sorted(self.printers.keys() - there):
            self._forget(queue)
            said = PrinterChanged(printer=queue, what="deleted", **common(queue))
            told.append(Told(queue, None, said))
        return told


def status_of(queue: str, now: State, before: State | None, **rest: Any) -> PrinterStatus:
    """What is told of a printer that is so ``now``, and was as ``before`` when it was told last."""
    had = before.reasons if before is not None else ()
    return PrinterStatus(
        printer=queue,
        state=now.state,
        reasons=list(now.reasons),
        added=[reason for reason in now.reasons if reason not in had],
        cleared=[reason for reason in had if reason not in now.reasons],
        severity=worst(now.reasons),
        accepting=now.is_accepting,
        **rest,
    )
