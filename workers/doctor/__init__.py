"""The doctor: what the Redis behind a farm is, and what a success is worth on it.

:mod:`~workers.doctor.examination` asks; all else is pure. Facts (:mod:`~workers.doctor.node`,
:mod:`~workers.doctor.ensemble`, :mod:`~workers.doctor.credential`, together in
:mod:`~workers.doctor.facts`) are judged by the rules in :mod:`~workers.doctor.processes` and
:mod:`~workers.doctor.farm`, which make :mod:`~workers.doctor.findings`.
"""

from __future__ import annotations

from broker import Settings
from workers.doctor import farm as together
from workers.doctor import processes
from workers.doctor.facts import FarmFacts
from workers.doctor.findings import Finding, Severity


def diagnose(farm: FarmFacts, settings: Settings) -> list[Finding]:
    """All findings, the worst first; ``settings`` are those of the farm's brokers."""
    found = [*together.judge(farm, settings)]
    for node in farm.nodes:
        found += processes.judge(node, settings)
    order = list(Severity)
    return sorted(found, key=lambda one: order.index(one.severity))
