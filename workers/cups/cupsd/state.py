"""States and state reasons, of printers and jobs: IPP's numbers and keywords in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from workers.cups.types import JobState, PrinterState, Severity

PRINTER_STATES: Mapping[int, PrinterState] = {3: "idle", 4: "processing", 5: "stopped"}
JOB_STATES: Mapping[int, JobState] = {
    3: "pending",
    4: "held",
    5: "processing",
    6: "stopped",
    7: "canceled",
    8: "aborted",
    9: "completed",
}
OVER: frozenset[JobState] = frozenset({"canceled", "aborted", "completed"})
"""States of jobs of which nothing more becomes."""
SEVERITIES: tuple[Severity, ...] = ("report", "warning", "error")
"""From the least to the worst."""
NOISE = frozenset({
    "none", "connecting-to-device", "cups-waiting-for-job-completed",
    "cups-ipp-conformance-failure", "cups-remote-pending", "cups-remote-pending-held",
    "cups-remote-processing", "cups-remote-stopped", "cups-remote-canceled", "cups-remote-aborted",
    "cups-remote-completed", "resuming",
})  # fmt: skip
"""Reasons that CUPS and its backends have while all is well."""
PAUSED = "paused"
_REPORTS = frozenset({PAUSED, "moving-to-paused", "hold-new-jobs", "identify-printer-requested"})
"""Reasons that people mean, so nothing is wrong."""
_WARNING_ENDS = ("-low", "-almost-empty", "-almost-full", "-near-limit", "-near-eol")


def stem(reason: str) -> str:
    """A reason without its severity."""
    name, _, end = reason.rpartition("-")
    return name if name and end in SEVERITIES else reason


def severity(reason: str) -> Severity:
    """Its own where it says one (RFC 8011, 5.4.12); an unqualified one is an error, mostly."""
    end = reason.removeprefix(stem(reason))
    for known in SEVERITIES:
        if end == f"-{known}":
            return known
    if reason in _REPORTS:
        return "report"
    return "warning" if reason.endswith(_WARNING_ENDS) else "error"


def worst(reasons: Iterable[str]) -> Severity:
    """The severity of the worst; ``report`` of none."""
    return max(map(severity, reasons), key=SEVERITIES.index, default="report")


def telling(state: PrinterState, reasons: Iterable[str]) -> list[str]:
    """Reasons that tell something: each once, in order, without noise.

    A printer that is not stopped is not paused: CUPS leaves that reason in its last event.
    """
    return [
        reason
        for reason in dict.fromkeys(reasons)
        if stem(reason) not in NOISE
        and not stem(reason).startswith("cups-ipp-missing-")
        and not (stem(reason) == PAUSED and state != "stopped")
    ]
