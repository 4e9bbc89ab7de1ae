"""Findings: what is wrong, why it matters, and the command that mends it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

Command = tuple[str, ...]


class Severity(StrEnum):
    """How bad it is; the worst comes first."""

    LOSES = "loses data"
    """What was accepted can go, and nobody is told."""
    REFUSES = "refuses work"
    """Tympan cannot work here, and its callers are told."""
    WARNING = "warning"
    UNKNOWN = "not looked at"
    ACCEPTED = "accepted"
    """Loses data, as the operator knows."""
    GOOD = "good"


class Check(StrEnum):
    """What is looked at: each finding comes from one of these."""

    REACH = "reach"
    VERSION = "version"
    URL = "url"
    TLS = "tls"
    CREDENTIAL = "credential"
    EVICTION = "eviction"
    MEMORY = "memory"
    PERSISTENCE = "persistence"
    FSYNC = "fsync"
    SNAPSHOTS = "snapshots"
    READ_ONLY = "read-only"
    REPLICAS = "replicas"
    ISOLATION = "isolation"
    DURABILITY = "durability"
    SUBSCRIBERS = "subscribers"
    CONNECTIONS = "connections"
    CLUSTER = "cluster"
    COVERAGE = "coverage"
    SENTINELS = "sentinels"
    PRIMARY = "primary"
    FACTS = "facts"


ACCEPTABLE = (
    Check.EVICTION,
    Check.FSYNC,
    Check.ISOLATION,
    Check.PERSISTENCE,
    Check.PRIMARY,
    Check.READ_ONLY,
    Check.SNAPSHOTS,
)
"""Checks that can find that data is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found."""

    check: Check
    severity: Severity
    node: str
    """Address of the process it concerns, at which ``mend`` is to be run; empty for the farm."""
    what: str
    why: str = ""
    """One sentence."""
    mend: tuple[Command, ...] = ()
    """Redis commands, or redis-cli's own ``--cluster``, that mend it."""
    advice: str = ""
    """What to do where no command does it."""


def accept(findings: Iterable[Finding], checks: Collection[Check]) -> list[Finding]:
    """The findings, of which those of some checks may lose data."""
    return [
        replace(one, severity=Severity.ACCEPTED)
        if one.severity is Severity.LOSES and one.check in checks
        else one
        for one in findings
    ]


def worst(findings: Iterable[Finding]) -> Severity:
    """The worst severity among them."""
    order = list(Severity)
    return min((one.severity for one in findings), key=order.index, default=Severity.GOOD)


def setting(name: str, value: str | int) -> Command:
    """The command that sets it on a running Redis."""
    return ("CONFIG", "SET", name, str(value))


def size(number: float) -> str:
    """Bytes, for people."""
    unit = "bytes"
    for larger in ("KB", "MB", "GB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:,.1f}".removesuffix(".0") + f" {unit}"
