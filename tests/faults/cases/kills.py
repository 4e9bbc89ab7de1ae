"""Replicas of a pool are killed under load: the kills of ``tests.scale``."""

from __future__ import annotations

from tests import scale
from tests.faults.case import Extent, Report, case, chance

LEASE = 2.0
"""Seconds; what a dead process had in hand waits for it."""


@case(
    "kill -9 of a pool's replicas under lossless notifications",
    "each notification is handled; what is handled again is marked as redelivered",
    is_short=True,
)
async def of_replicas(extent: Extent) -> Report:
    count, many = extent.of(1200, 20_000, 200_000), extent.of(3, 10, 10)
    killed = await scale.kill(
        count,
        many,
        extent.of(4, 50, 500),
        chance("kills").randrange(2**32),
        LEASE,
        seconds=0.25 if extent is not Extent.SHORT else 0.1,
    )
    report = Report(runs=killed.times)
    report.checked["notifications"] = count - killed.missing
    report.checked["redeliveries"] = len(killed.late)
    report.violations += killed.faults
    if len(killed.late) < killed.times:
        report.violations.append(
            f"{killed.times} kills, and only {len(killed.late)} runs broken off"
        )
    for seconds in killed.late:
        report.recovers(seconds, "what a dead replica had in hand")
    return report
