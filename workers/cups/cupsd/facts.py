"""Facts: what a cupsd, or a printer, says of subscriptions, printers and jobs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from workers.cups.cupsd.ipp import Group
from workers.cups.cupsd.state import JOB_STATES, PRINTER_STATES
from workers.cups.types import JobState, PrinterState

OF_JOBS = (
    *("job-id", "job-originating-user-name", "job-name", "job-state", "job-hold-until"),
    *("job-state-reasons", "job-impressions-completed", "job-printer-uri", "job-k-octets"),
    "job-uuid",
)
"""Attributes that are asked for."""


@dataclass(frozen=True, slots=True)
class SubscriptionFacts:
    """One subscription for events."""

    id: int
    recipient: str
    user_data: bytes
    user: str
    printer_uri: str
    """Empty for one on all printers."""
    lease: int
    """Seconds; 0 for one that does not end."""


@dataclass(frozen=True, slots=True)
class PrinterFacts:
    """A queue of cupsd, or a printer that was asked itself. Names are as CUPS has them."""

    name: str
    device_uri: str
    state: PrinterState
    reasons: tuple[str, ...]
    is_accepting: bool
    text: str
    attributes: Group


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A job of cupsd. What a policy keeps from this client is empty."""

    id: int
    printer: str
    owner: str
    title: str
    state: JobState
    reasons: tuple[str, ...]
    hold_until: str
    pages: int
    """Impressions completed."""
    kilobytes: int
    """Size of its documents, rounded up."""
    uuid: str
    """``urn:uuid:…``: of two jobs with one number it is different."""


def subscription_in(group: Group) -> SubscriptionFacts:
    """From its attributes."""
    uri = group.one("notify-printer-uri", str) or ""
    return SubscriptionFacts(
        group.one("notify-subscription-id", int) or 0,
        group.one("notify-recipient-uri", str) or "",
        group.one("notify-user-data", bytes) or b"",
        group.one("notify-subscriber-user-name", str) or "",
        "" if urlsplit(uri).path in ("", "/") else uri,
        group.one("notify-lease-duration", int) or 0,
    )


def printer_in(group: Group) -> PrinterFacts:
    """From its attributes."""
    accepting = group.flag("printer-is-accepting-jobs")
    return PrinterFacts(
        group.one("printer-name", str) or "",
        group.one("device-uri", str) or "",
        PRINTER_STATES.get(group.one("printer-state", int) or 0, "idle"),
        tuple(group.all("printer-state-reasons", str)),
        accepting is not False,
        group.one("printer-state-message", str) or "",
        group,
    )


def job_in(group: Group, job: int = 0) -> JobFacts:
    """From its attributes; ``job``: its number, where these do not say."""
    return JobFacts(
        group.one("job-id", int) or job,
        unquote((group.one("job-printer-uri", str) or "").rpartition("/")[2]),
        group.one("job-originating-user-name", str) or "",
        group.one("job-name", str) or "",
        JOB_STATES.get(group.one("job-state", int) or 0, "pending"),
        tuple(group.all("job-state-reasons", str)),
        group.one("job-hold-until", str) or "",
        group.one("job-impressions-completed", int) or 0,
        group.one("job-k-octets", int) or 0,
        group.one("job-uuid", str) or "",
    )
