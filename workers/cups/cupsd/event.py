"""One event of cupsd. What it does not know it ignores; bad values are as if they were missing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from workers.cups.cupsd import ipp
from workers.cups.cupsd.ipp import Fault, Group, Tag

LONGEST_TEXT = 1024
"""Characters of a text, a title or a name that are kept; IPP has up to 1023 bytes."""
MOST_REASONS = 64


@dataclass(frozen=True, slots=True)
class Event:
    """What one says. Numbers of states are IPP's; 0 and empty texts: it does not say."""

    subscription: int
    sequence: int
    name: str
    """``printer-state-changed``, ``job-completed``, ``server-started``…"""
    seconds: int
    """When, in seconds since 1970; 0 where it does not say."""
    text: str
    user_data: bytes
    printer: str
    printer_state: int
    printer_reasons: tuple[str, ...]
    is_accepting: bool | None
    job: int
    job_state: int
    job_reasons: tuple[str, ...]
    title: str
    pages: int

    @property
    def at(self) -> datetime:
        """When it happened; now where it does not say."""
        if not self.seconds:
            return datetime.now(UTC).replace(microsecond=0)
        return datetime.fromtimestamp(self.seconds, UTC)

    @property
    def mark(self) -> str:
        """What tells it from another one of the same number, after cupsd lost count."""
        said = (self.name, self.seconds, self.text, self.printer, self.job, self.job_state)
        return hashlib.blake2b(repr(said).encode(), digest_size=8).hexdigest()

    @classmethod
    def decode(cls, data: bytes) -> Event:
        """From a whole message. Raises Fault."""
        return cls.of(ipp.decode(data).first(Tag.EVENT))

    @classmethod
    def of(cls, group: Group) -> Event:
        """From its group of attributes. Raises Fault where it cannot be numbered or named."""

        def number(name: str) -> int:
            return max(0, group.one(name, int) or 0)

        def text(name: str) -> str:
            return (group.one(name, str) or "")[:LONGEST_TEXT]

        def reasons(name: str) -> tuple[str, ...]:
            found = group.all(name, str)[:MOST_REASONS]
            return tuple(reason[:LONGEST_TEXT] for reason in found)

        subscription, sequence = number("notify-subscription-id"), number("notify-sequence-number")
        name = text("notify-subscribed-event")
        if not (subscription and sequence and name):
            raise Fault("the event has no subscription, no number or no name")
        return cls(
            subscription,
            sequence,
            name,
            number("printer-up-time"),
            text("notify-text"),
            group.one("notify-user-data", bytes) or b"",
            text("printer-name") or _printer_in(text("notify-printer-uri")),
            number("printer-state"),
            reasons("printer-state-reasons"),
            group.flag("printer-is-accepting-jobs"),
            # CUPS 3 names the job's number otherwise, except on a job's own subscription.
            number("notify-job-id") or number("job-id"),
            number("job-state"),
            reasons("job-state-reasons"),
            text("job-name"),
            number("job-impressions-completed"),
        )


def _printer_in(uri: str) -> str:
    """The queue's name in ``ipp://host/printers/name``; empty where there is none."""
    try:
        path = urlsplit(uri).path
    except ValueError:
        return ""
    folder, _, name = path.rpartition("/")
    return unquote(name) if folder in ("/printers", "/classes") else ""
