"""Whether events flow on a CUPS host: what is looked at, and what is wrong where they do not."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from broker import Broker, Settings
from broker.errors import InvalidSettings, TympanError
from workers.cups.cupsd.client import Client, IppError, NotFound, SubscriptionFacts
from workers.cups.events.journal import Fact
from workers.cups.events.sequence import Position
from workers.cups.installation import queues, service
from workers.cups.installation.host import Host, NotInstalled
from workers.cups.installation.install import Installation
from workers.cups.installation.placing import Folder, Standing
from workers.cups.installation.reader import Unreadable, read_journal, read_questions
from workers.cups.notifier import RECIPIENT
from workers.cups.settings import HostSettings

PATIENCE = 5.0
"""Seconds for one answer of cupsd, or of Redis: a person waits."""
SILENT = 20.0
"""A bridge that lives says so every 5 seconds."""
BEHIND = 30.0
"""Events that wait for longer are stuck."""
COUNTS = ("read", "sent", "unheard", "missed", "dropped", "torn", "oversized", "lost", "refused")


class Severity(StrEnum):
    """What a finding does to the verdict."""

    STOPS = "stops"
    """Events do not flow, or questions are not asked."""
    WARNS = "warns"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    severity: Severity
    what: str
    advice: str = ""


@dataclass
class Health:
    """All that was seen, for programs; what is wrong of it in :attr:`findings`."""

    host: str = ""
    cupsd: dict[str, Any] = field(default_factory=dict)
    placed: list[dict[str, str]] = field(default_factory=list)
    subscription: dict[str, Any] | None = None
    events: dict[str, Any] = field(default_factory=dict)
    bridge: dict[str, Any] = field(default_factory=dict)
    redis: dict[str, Any] = field(default_factory=dict)
    questions: list[dict[str, Any]] = field(default_factory=list)
    wrapped: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def flows(self) -> bool:
        """Whether nothing keeps events from the farm."""
        return not any(one.severity is Severity.STOPS for one in self.findings)

    def stops(self, what: str, advice: str = "") -> None:
        """Add something that keeps events from the farm."""
        self.findings.append(Finding(Severity.STOPS, what, advice))

    def warns(self, what: str, advice: str = "") -> None:
        """Add something that is worth a look."""
        self.findings.append(Finding(Severity.WARNS, what, advice))


async def examine(made: Installation) -> Health:
    """Look at everything; changes nothing."""
    health = Health(host=made.host.server_name)
    settings = _placed(health, made)
    position = _journal(health, made.host, settings) if settings else None
    is_here = settings is not None and made.host.is_this_one
    address = settings.cups if settings is not None and is_here else made.host.address
    async with Client(address, user=queues.ROOT, timeout=PATIENCE) as cups:
        await _cupsd(health, made.host, cups, position)
        await _queues(health, made, cups)
    if settings is not None:
        _questions(health, settings)
        await _redis(health, settings)
    return health


# Disk ----------------------------------------------------------------------------------------


def _placed(health: Health, made: Installation) -> HostSettings | None:
    """What `install` placed; returns the settings where they can be used."""
    again = made.again
    looks = [(thing, thing.look()) for thing in made.things]
    files = [look for thing, look in looks if not isinstance(thing, Folder)]
    is_there = any(look.standing is not Standing.MISSING for look in files)
    if not is_there:
        health.stops("Tympan is not installed here", again)
    for thing, look in looks:
        told = {"what": thing.what, "path": str(thing.path), "standing": str(look.standing)}
        health.placed.append({**told, "says": look.says})
        said = f"{thing.what}: {thing.path} {look.says}"
        # A spool that somebody else made serves the bridge as well.
        is_used = isinstance(thing, Folder) and look.standing is Standing.FOREIGN
        if look.standing in (Standing.MISSING, Standing.FOREIGN) and not is_used:
            if is_there:
                health.stops(said, again)
        elif look.standing is not Standing.RIGHT:
            is_mended = look.standing is Standing.WRONG
            health.warns(said, again if is_mended else "")
    fault = made.fault_of_programs()
    if fault:
        name = made.host.account.name
        health.stops(
            f"{name}, whom cupsd runs its programs as, {fault}",
            f"make Tympan's environment where {name} can read it and install again from there, or "
            f"name an interpreter that {name} can run: "
            f"{made.host.command('install', '--python FILE')}",
        )
    path = made.host.at(made.host.settings)
    try:
        settings = HostSettings.read(path)
    except InvalidSettings as error:
        if path.exists():
            health.stops(str(error), f"mend {path}")
        return None
    for doubt in settings.doubts:
        health.warns(doubt, f"mend {path}")
    health.host = settings.server or health.host
    return settings


def _journal(health: Health, host: Host, settings: HostSettings) -> Position | None:
    """What waits, what was counted, and whether the bridge lives."""
    path = settings.place.journal
    try:
        seen = read_journal(path)
    except Unreadable as error:
        health.stops(f"the journal {error}", "run this as root, or as whom the journal belongs to")
        return None
    if seen is None:
        health.events = {"waiting": 0}
        health.stops(f"there is no journal {path}: no bridge has run here", _start(host))
        return None
    facts, counts, waiting = seen.facts, seen.counts, seen.waiting
    now = time.time()
    health.events = {name: counts.get(name, 0) for name in COUNTS}
    health.events |= {
        "waiting": waiting,
        "read_at": _number(facts.get("read-at")),
        "sent_at": _number(facts.get("sent-at")),
    }
    _bridge(health, host, settings, facts, now)
    age = 0.0 if seen.oldest is None else now - seen.oldest
    if age > BEHIND:
        health.stops(f"the oldest of {waiting:,} events that wait is {age:.0f} s old", "")
    if counts.get("dropped"):
        at = _number(facts.get("dropped-at"))
        when = "" if at is None else f", the last time {now - at:.0f} s ago"
        health.warns(
            f"{counts['dropped']:,} events were dropped because more than {settings.max_events:,} "
            f"waited{when}",
            "let Redis be away for less long, or raise max_events",
        )
    return Position.load(facts.get("position"), None)


def _bridge(
    health: Health, host: Host, settings: HostSettings, facts: dict[str, Fact], now: float
) -> None:
    beat, trouble = _number(facts.get("heartbeat")), facts.get("trouble")
    age = None if beat is None else max(0.0, now - beat)
    pid = facts.get("pid")
    is_heard = age is not None and age <= SILENT
    is_alive = is_heard and not _has_ended(settings, pid)
    health.bridge = {"alive": is_alive, "silent_for": age, "pid": pid, "trouble": trouble}
    if is_heard and not is_alive:
        health.stops(f"the bridge, process {pid}, has ended", _start(host))
    elif not is_alive:
        since = "has never run" if age is None else f"said nothing for {age:.0f} s"
        health.stops(f"the bridge {since}", _start(host))
    elif trouble:
        health.stops(f"the bridge: {trouble}")


def _has_ended(settings: HostSettings, pid: Fact) -> bool:
    """Whether no bridge lives: none has its lock, or, where that cannot be seen, its process."""
    is_held = service.is_held(settings.place.lock)
    if is_held is not None or not isinstance(pid, int):
        return is_held is False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False


def _start(host: Host) -> str:
    if host.has_systemd:
        return "systemctl start tympan-cups, and journalctl -u tympan-cups"
    return host.bridging


def _number(value: Fact) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _questions(health: Health, settings: HostSettings) -> None:
    try:
        asked = read_questions(settings.place.answers, health.host)
    except Unreadable as error:
        health.warns(f"the answers {error}")
        return
    health.questions = [one._asdict() for one in asked]


async def _queues(health: Health, made: Installation, cups: Client) -> None:
    try:
        found = await queues.queues(made.host, cups)
    except NotInstalled as error:
        health.warns(str(error))
        return
    health.wrapped = [queue.name for queue in found if queue.is_wrapped]


# cupsd and Redis -----------------------------------------------------------------------------


async def _cupsd(health: Health, host: Host, cups: Client, position: Position | None) -> None:
    health.cupsd = {"address": cups.address, "answers": False}
    try:
        health.cupsd["queues"] = len(await cups.printers())
        health.cupsd["answers"] = True
        await _subscription(health, cups, position)
    except IppError as error:
        start = "systemctl start cups" if host.has_systemd else "start it"
        health.stops(f"cupsd: {error}", "" if health.cupsd["answers"] else start)


async def _subscription(health: Health, cups: Client, position: Position | None) -> None:
    found = [
        facts
        for facts in await cups.subscriptions()
        if facts.recipient in (RECIPIENT, "") and not facts.printer_uri
    ]
    own = [facts for facts in found if position and facts.id == position.subscription]
    if not own:
        health.stops("cupsd has no subscription of this host's bridge", "the bridge makes it")
        return
    number, last = own[0].id, position.last if position else 0
    try:
        newer = await cups.notifications(number, last + 1)
    except (NotFound, IppError) as error:
        health.warns(f"cupsd does not say how far subscription {number} is: {error}")
        newer = []
    latest = max((g.one("notify-sequence-number", int) or 0 for g in newer), default=last)
    health.subscription = _told(own[0]) | {"last": max(latest, last), "told": last}


def _told(facts: SubscriptionFacts) -> dict[str, Any]:
    return {"id": facts.id, "lease": facts.lease, "user": facts.user}


async def _redis(health: Health, settings: HostSettings) -> None:
    try:
        url = settings.redis.address()
        chosen = {"connect_timeout": PATIENCE, "reply_timeout": PATIENCE}
        given = Settings.of(**{**settings.redis.settings, **chosen, "operation_timeout": PATIENCE})
        async with Broker.connect(url, user="tympan", settings=given) as broker:
            await broker.servers()
    except TympanError as error:
        health.redis = {"answers": False, "says": str(error)}
        health.stops(f"Redis: {error}", "mend [redis] in the settings, or Redis; events wait")
    else:
        health.redis = {"answers": True, "says": ""}
