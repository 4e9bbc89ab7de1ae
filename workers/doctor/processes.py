"""Processes: what is judged of each Redis by itself, whatever it is part of. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from broker import Settings
from workers.doctor.findings import Check, Command, Finding, Severity, setting, size
from workers.doctor.node import SETTINGS, NodeFacts

OLDEST = (6, 2)
LIMITS_CLIENTS = (7, 0)
"""Since then ``maxmemory-clients`` bounds all buffers together."""
BELL = 4096
"""Bytes of an entry that still travel inside a bell."""
LATE = 10
"""Seconds without a word after which a replica is behind; Redis asks for one each second."""
FULL = 0.8
"""Share of maxmemory from which a warning is due."""
MB = 1024 * 1024
FREE_THE_DISK = (
    "Make room on the disk of that folder, or mend its permissions; Redis tries again by itself."
)
UNSEEN = {
    "ACL WHOAMI": "as whom we are connected",
    "CLIENT LIST": "how many subscribers there are",
    "CONFIG GET": ", ".join(SETTINGS),
    "INFO": "nearly everything; Tympan asks it of each connection",
    "PUBSUB NUMSUB": "whether Sentinels watch it",
}
"""What a refused command would have told."""

TELLING = ("CONFIG GET", "CLIENT LIST")
"""Commands that tell more than a print host should know."""

Rule = Callable[[NodeFacts, Settings], Iterator[Finding]]


def version(node: NodeFacts, _: Settings) -> Iterator[Finding]:
    """Tympan's scripts need Redis 6.2; one that still loads answers nobody."""
    at = partial(Finding, check=Check.VERSION, node=node.address)
    if node.speaks and node.speaks < OLDEST:
        yield at(
            severity=Severity.REFUSES,
            what=f"{node.product} {node.version} is too old",
            why="Tympan needs what Redis 6.2 brought, and does not connect to less.",
            advice="Install Redis 6.2 or later, or any Valkey.",
        )
    if node.is_loading:
        yield at(
            severity=Severity.REFUSES,
            what="Redis is still loading its data",
            why="Until it has, it answers nobody; calls wait for their operation_timeout.",
            advice="Wait, and look again.",
        )


def unseen(node: NodeFacts, _: Settings) -> Iterator[Finding]:
    """What Redis refuses to tell is no good news."""
    for command, reason in node.refused.items():
        advice = "Look again in a while."
        mend: tuple[Command, ...] = ()
        if "unknown command" in reason:
            advice = "Look into the console of whoever runs this Redis for you."
        elif "permission" in reason and command in TELLING:
            advice = (
                "Run this with an administrator's credential. Print hosts should not have CONFIG "
                "GET: it tells passwords, too."
            )
        elif "permission" in reason:
            advice, rule = "", f"+{command.lower().replace(' ', '|')}"
            mend = (("ACL", "SETUSER", node.user or "USER", rule),)
        yield Finding(
            check=Check.FACTS,
            severity=Severity.REFUSES if command == "INFO" else Severity.UNKNOWN,
            node=node.address,
            what=f"{command} is refused, and with it {UNSEEN[command]}",
            why=f"Redis answered: {reason}.",
            mend=mend,
            advice=advice,
        )


def eviction(node: NodeFacts, _: Settings) -> Iterator[Finding]:
    """A key that Redis evicts is gone, and nobody is told."""
    at = partial(Finding, check=Check.EVICTION, node=node.address)
    if node.policy is None:
        return
    what = f"maxmemory-policy is {node.policy}"
    mend = (setting("maxmemory-policy", "noeviction"),)
    when = "When memory is full" if node.maxmemory else "As soon as maxmemory is set and reached,"
    so_far = f" ({node.evicted:,} keys so far)" if node.evicted else ""
    if node.policy.startswith("allkeys"):
        yield at(
            severity=Severity.LOSES,
            what=what,
            why=f"{when} Redis deletes open questions, registrations and grants, and tells "
            f"nobody{so_far}.",
            mend=mend,
        )
    elif node.policy != "noeviction":
        yield at(
            severity=Severity.WARNING,
            what=what,
            why=f"{when} Redis deletes large payloads that are still unread, and what closed "
            f"channels answer{so_far}.",
            mend=mend,
        )
    elif node.evicted:
        yield at(
            severity=Severity.WARNING,
            what=f"{node.evicted:,} keys were evicted since this Redis started",
            why="Before it was noeviction, another maxmemory-policy deleted them; some may have "
            "been Tympan's.",
        )
    else:
        yield at(severity=Severity.GOOD, what=what, why="A full Redis refuses, and keeps all.")


def memory(node: NodeFacts, _: Settings) -> Iterator[Finding]:
    """A full Redis refuses sends; one without a limit is ended by the kernel."""
    at = partial(Finding, check=Check.MEMORY, node=node.address)
    used, limit, system = node.used_memory, node.maxmemory, node.system_memory
    if used is None or limit is None:
        return
    if limit == 0:
        yield at(
            severity=Severity.WARNING,
            what="maxmemory is not set",
            why="Redis grows until the kernel ends it; with a limit it refuses sends instead, and "
            "goes on.",
            mend=(setting("maxmemory", f"{system * 3 // 4 // MB}mb"),) if system else (),
            advice="Three quarters of this host's memory; less where other programs need it."
            if system
            else "Set it to what Redis may have of this host.",
        )
        return
    what = f"{size(used)} of {size(limit)} used"
    why = "From maxmemory on sends are refused (RedisFull); nothing that was accepted is lost."
    more = (setting("maxmemory", limit * 2),)
    advice = "If the host has it; docs/keys.md shows what takes the memory."
    refuses = node.policy == "noeviction"
    if refuses and used >= limit:
        yield at(severity=Severity.REFUSES, what=what, why=why, mend=more, advice=advice)
    elif refuses and used >= FULL * limit:
        yield at(severity=Severity.WARNING, what=what, why=why, mend=more, advice=advice)
    elif system and limit > system:
        yield at(
            severity=Severity.WARNING,
            what=f"maxmemory ({size(limit)}) exceeds this host's memory ({size(system)})",
            why="The kernel ends Redis before it refuses a send.",
            mend=(setting("maxmemory", f"{system * 3 // 4 // MB}mb"),),
        )
    else:
        yield at(severity=Severity.GOOD, what=what)


def persistence(node: NodeFacts, _: Settings) -> Iterator[Finding]:
    """What a restart of Redis forgets."""
    at = partial(Finding, check=Check.PERSISTENCE, node=node.address)
    if node.aof is None:
        return
    if not node.aof:
        what = "no append-only file"
        why = "A crash of Redis forgets what nobody wrote to disk, and nobody is told."
        if node.save:
            what = f"snapshots only (save {node.save})"
            why = (
                "A crash of Redis forgets what came after the last snapshot (changes so far: "
                f"{node.unsaved or 0:,}), and nobody is told."
            )
        elif node.save is not None:
            what = "no persistence at all"
            why = "A restart of Redis forgets every open question, registration and grant" + (
                ", and then empties its replicas." if node.replicas else "."
            )
        mend = (setting("appendonly", "yes"),)
        yield at(severity=Severity.LOSES, what=what, why=why, mend=mend)
        return
    if node.aof_writes not in (None, "ok"):
        yield at(
            severity=Severity.REFUSES,
            what="the append-only file cannot be written",
            why="Redis refuses every write until it can (MISCONF).",
            mend=(("CONFIG", "GET", "dir"),),
            advice=FREE_THE_DISK,
        )
    else:
        yield at(severity=Severity.GOOD, what="an append-only file is written")
    if node.aof_rewrites not in (None, "ok"):
        yield at(
            severity=Severity.WARNING,
            what="the last rewrite of the append-only file failed",
            why="The file grows until one succeeds, and fills the disk in the end.",
            mend=(("BGREWRITEAOF",),),
            advice="It needs free disk, and memory for a fork; the log of Redis names the cause.",
        )


def fsync(node: NodeFacts, _: Settings) -> Iterator[Finding]:
    """What power loss of the host costs."""
    at = partial(Finding, check=Check.FSYNC, node=node.address)
    if not node.aof or node.appendfsync is None:
        return
    what = f"appendfsync is {node.appendfsync}"
    if node.appendfsync == "no":
        yield at(
            severity=Severity.LOSES,
            what=what,
            why="Power loss or a crash of the host forgets some 30 s of what was accepted.",
            mend=(setting("appendfsync", "everysec"),),
        )
        return
    if node.pauses_fsync:
        is_always = node.appendfsync == "always"
        yield at(
            severity=Severity.LOSES if is_always else Severity.WARNING,
            what=f"{what}, but no-appendfsync-on-rewrite is yes",
            why="While the append-only file is rewritten nothing is flushed: power loss then "
            "costs all since the rewrite began.",
            mend=(setting("no-appendfsync-on-rewrite", "no"),),
        )
        return
    cost = "nothing" if node.appendfsync == "always" else "about 1 s of what was accepted"
    yield at(severity=Severity.GOOD, what=what, why=f"Power loss of the host costs {cost}.")


def snapshots(node: NodeFacts, _: Settings) -> Iterator[Finding]:
    """A snapshot that fails stops all writes, or goes unnoticed."""
    at = partial(Finding, check=Check.SNAPSHOTS, node=node.address)
    if not node.save or node.snapshots in (None, "ok"):
        return
    look = (("CONFIG", "GET", "dir"), ("BGSAVE",))
    if node.stops_writes is not False:
        yield at(
            severity=Severity.REFUSES,
            what="the last snapshot failed",
            why="Redis refuses every write until one succeeds (MISCONF).",
            mend=look,
            advice=FREE_THE_DISK,
        )
    elif node.aof:
        yield at(
            severity=Severity.WARNING,
            what="the last snapshot failed",
            why="The append-only file still holds everything.",
            mend=look,
            advice=FREE_THE_DISK,
        )
    else:
        yield at(
            severity=Severity.LOSES,
            what="the last snapshot failed, and stop-writes-on-bgsave-error is no",
            why="Redis goes on accepting what a crash will forget.",
            mend=(*look, setting("stop-writes-on-bgsave-error", "yes")),
            advice=FREE_THE_DISK,
        )


def read_only(node: NodeFacts, _: Settings) -> Iterator[Finding]:
    """What is written to a replica goes with its next synchronisation."""
    if node.is_primary is False and node.read_only is False:
        yield Finding(
            check=Check.READ_ONLY,
            severity=Severity.LOSES,
            node=node.address,
            what="this replica takes writes",
            why="What is written here goes when it synchronises with its primary.",
            mend=(setting("replica-read-only", "yes"),),
        )


def replicas(node: NodeFacts, _: Settings) -> Iterator[Finding]:
    """Replicas that are not there, or behind."""
    at = partial(Finding, check=Check.REPLICAS, node=node.address)
    good, needed = node.good_replicas, node.min_replicas or 0
    if good is not None and good < needed and node.is_primary is not False:
        yield at(
            severity=Severity.REFUSES,
            what=f"{good} replicas in time, {needed} needed (min-replicas-to-write)",
            why="Redis refuses every write until they are back (NOREPLICAS).",
            mend=(setting("min-replicas-to-write", good),),
            advice="Start its replicas again; the command goes on without them.",
        )
    for replica in node.replicas:
        what = ""
        if replica.state != "online":
            what = f"replica {replica.address} is not ready ({replica.state})"
        elif replica.lag is not None and replica.lag > max(LATE, node.max_lag or 0):
            what = f"replica {replica.address} has been silent for {replica.lag} s"
        if what:
            yield at(
                severity=Severity.WARNING,
                what=what,
                why="Until it has caught up it is no safety: promoted, it forgets what it misses.",
                advice="Wait; if that does not help, its own log names the cause.",
            )
    if node.is_primary is False and node.follows is False:
        yield at(
            severity=Severity.WARNING,
            what=f"this replica has no link to its primary {node.primary}",
            why="Promoted, it forgets all that came since.",
            advice="Its own log names the cause: network, masterauth, or a dead primary.",
        )
    if node.online:
        what = f"{node.online} of {len(node.replicas)} replicas online"
        yield at(severity=Severity.GOOD, what=what)


def subscribers(node: NodeFacts, settings: Settings) -> Iterator[Finding]:
    """Buffers of those who listen to bells."""
    at = partial(Finding, check=Check.SUBSCRIBERS, node=node.address, severity=Severity.WARNING)
    if node.cut_off:
        yield at(
            what=f"{node.cut_off:,} clients were cut off for slow reading since Redis started",
            why=f"Each cut costs a listener up to {settings.resync:g} s, never a notification.",
            advice="Find out which host hangs; `CLIENT LIST TYPE pubsub` shows omem of each.",
        )
    if node.buffer_limit is None:
        return
    hard = node.buffer_limit.hard
    usual = (setting("client-output-buffer-limit", "pubsub 33554432 8388608 60"),)
    room = node.maxmemory or node.system_memory or 0
    count = node.subscribers or 0
    burst = 2 * settings.buffer * BELL
    if hard == 0:
        yield at(
            what="output buffers of subscribers have no limit",
            why="One listener that hangs can fill the memory of Redis.",
            mend=usual,
        )
    elif hard < burst:
        yield at(
            what=f"subscribers are cut off at {size(hard)}",
            why=f"A burst that fills one buffer of {settings.buffer} notifications takes "
            f"{size(burst)}; each cut costs a healthy listener up to {settings.resync:g} s.",
            mend=usual,
        )
    elif room and hard * count > room and node.client_memory in (None, "0"):
        yield at(
            what=f"{count:,} subscribers may take {size(hard * count)} of buffers "
            f"({size(hard)} each), and Redis has {size(room)}",
            why="Listeners that hang together, as in a network cut, can fill the memory of Redis.",
            mend=(
                setting("maxmemory-clients", "25%")
                if node.speaks >= LIMITS_CLIENTS
                else setting(
                    "client-output-buffer-limit", f"pubsub {max(burst, room // 2 // count)} 0 0"
                ),
            ),
        )
    else:
        product = f"{count:,} of them take {size(hard * count)} at the worst."
        yield at(
            severity=Severity.GOOD,
            what=f"subscribers are cut off at {size(hard)} of output buffer",
            why=product if node.subscribers else "",
        )


def connections(node: NodeFacts, settings: Settings) -> Iterator[Finding]:
    """Settings that cut connections, or keep dead ones."""
    at = partial(Finding, check=Check.CONNECTIONS, node=node.address, severity=Severity.WARNING)
    if node.timeout and node.timeout < settings.lease:
        yield at(
            what=f"timeout is {node.timeout} s",
            why="Redis cuts off clients that are idle between two renewals of their lease, so "
            "calls are late.",
            mend=(setting("timeout", 0),),
        )
    if node.keepalive == 0:
        yield at(
            what="tcp-keepalive is 0",
            why="Connections of hosts that vanished stay, with their subscriptions and buffers.",
            mend=(setting("tcp-keepalive", 300),),
        )
    elif node.keepalive and node.timeout == 0:
        yield at(severity=Severity.GOOD, what=f"timeout 0, tcp-keepalive {node.keepalive} s")


RULES: tuple[Rule, ...] = (
    version, unseen, eviction, memory, persistence, fsync, snapshots, read_only, replicas,
    subscribers, connections,
)  # fmt: skip


def judge(node: NodeFacts, settings: Settings) -> Iterator[Finding]:
    """All that is to be said of one process."""
    if node.unreachable is not None:
        yield Finding(
            check=Check.REACH,
            severity=Severity.WARNING,
            node=node.address,
            what="does not answer",
            why=node.unreachable,
            advice="Start it, or mend the way to it.",
        )
        return
    for rule in RULES:
        yield from rule(node, settings)
