"""What an operator, or a program that shares the Redis, does to it while all talk."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import Any

from broker import Notification
from broker._keys import Keys, directory
from broker.names import Name
from broker.results import S_OK
from tests.farm import PATIENCE, SERVER, TYPE
from tests.faults.case import Extent, Report, case, chance
from tests.faults.load import Loss
from tests.faults.stage import Stage, broker_of, stage, struck
from workers.proof.talk import SETTINGS

SILENCE = 1.5 * SETTINGS["reply_timeout"]
"""Seconds without an answer after which every client has given its connections up."""
SHORT_LEASE = 2.0
CAREFUL: dict[str, Any] = {"resync": 2.0}
"""What was taken away is missed by the clock, where nothing else tells of it."""
WATCHFUL: dict[str, Any] = {"resync": 0.25}
"""The same for what is looked for at every twelfth look only."""
QUIET_PRINTER = r"\\print01\quiet"
NORMAL, PUBSUB = ("TYPE", "normal", "SKIPME", "yes"), ("TYPE", "pubsub")


# Nothing is taken away --------------------------------------------------------------------------


@case("SCRIPT FLUSH", "scripts are loaded again; nobody notices", is_short=True)
async def script_flush(extent: Extent) -> Report:
    async def flush(on: Stage, _: int) -> None:
        for _ in range(5):
            on.server.cli("SCRIPT", "FLUSH")
            await asyncio.sleep(0.05)

    return await struck(Report(), "SCRIPT FLUSH", extent.of(1, 4, 40), flush)


@case("CLIENT KILL of every connection", "all connect again, and nothing is lost", is_short=True)
async def client_kill(extent: Extent) -> Report:
    kinds = itertools.cycle([(NORMAL,), (PUBSUB,), (NORMAL, PUBSUB)])
    rng = chance("kill")

    async def kill(on: Stage, _: int) -> None:
        some = next(kinds)
        for _ in range(5):
            for kind in some:
                on.report.checked["connections killed"] += on.server.cli("CLIENT", "KILL", *kind)
            await asyncio.sleep(rng.uniform(0.02, 0.2))

    return await struck(Report(), "CLIENT KILL", extent.of(2, 6, 60), kill)


@case("CLIENT PAUSE beyond the reply timeout", "calls are asked again, and done once")
async def client_pause(extent: Extent) -> Report:
    modes = itertools.cycle(["ALL", "WRITE"])

    async def pause(on: Stage, _: int) -> None:
        on.server.cli("CLIENT", "PAUSE", round(SILENCE * 1000), next(modes))
        await asyncio.sleep(SILENCE)

    return await struck(Report(), "CLIENT PAUSE", extent.of(1, 2, 20), pause)


@case("Redis frozen for less than a lease", "nobody is taken for dead, nothing is lost")
async def frozen_shortly(extent: Extent) -> Report:
    async def freeze(on: Stage, number: int) -> None:
        await _frozen(on, SILENCE if number % 2 else 0.4)

    return await struck(Report(), "SIGSTOP", extent.of(1, 4, 40), freeze)


@case("Redis frozen for longer than a lease", "every end is told; all begin again by themselves")
async def frozen_long(extent: Extent) -> Report:
    async def freeze(on: Stage, _: int) -> None:
        await _frozen(on, SHORT_LEASE + 1)

    times = extent.of(1, 2, 20)
    return await struck(
        Report(), "SIGSTOP", times, freeze, loss=Loss.ALL, lease=SHORT_LEASE, **CAREFUL
    )


async def _frozen(on: Stage, seconds: float) -> None:
    on.server.pause()
    await asyncio.sleep(seconds)
    on.server.resume()


@case("idle connections closed by Redis", "who was silent for long is heard, and hears")
async def idle_connections(extent: Extent) -> Report:
    async def idle(on: Stage, number: int) -> None:
        """Every call's connection is closed between two calls of quiet processes."""
        server = on.server
        server.config("timeout", 1)
        async with (
            broker_of(on.farm, "quiet") as source,
            broker_of(on.farm, "quiet") as listener,
        ):
            registration = await listener.register(QUIET_PRINTER, TYPE)
            channel = await source.open_channel(QUIET_PRINTER, TYPE)
            await asyncio.sleep(2.5)
            assert await channel.send(str(number)) == S_OK
            found = await registration.fetch(PATIENCE)
            assert isinstance(found, Notification)
            assert found.text == str(number)
            on.report.checked["quiet notifications"] += 1
        server.config("timeout", 0)

    return await struck(Report(), "CONFIG SET timeout", extent.of(1, 2, 20), idle)


@case("XGROUP DESTROY", "groups are made anew; nothing is lost", is_short=True)
async def groups_destroyed(extent: Extent) -> Report:
    async def destroy(on: Stage, _: int) -> None:
        streams = [key for kind in STREAMS for key in keys_of(on, kind)]
        for stream in streams:
            for group in on.server.cli("XINFO", "GROUPS", stream):
                on.report.checked["groups destroyed"] += on.server.cli(
                    "XGROUP", "DESTROY", stream, group["name"]
                )

    return await struck(Report(), "XGROUP DESTROY", extent.of(1, 3, 30), destroy, **CAREFUL)


STREAMS = ("streams of notifications", "boards", "streams of pools")

# Something is taken away ------------------------------------------------------------------------


@case("FLUSHALL", "every end is told, nobody waits for ever, listeners stand again", is_short=True)
async def flushall(extent: Extent) -> Report:
    async def flush(on: Stage, _: int) -> None:
        on.server.cli("FLUSHALL")

    return await struck(Report(), "FLUSHALL", extent.of(1, 4, 40), flush, loss=Loss.ALL)


KINDS = {
    "states of channels": r"channel:\w+",
    "conversations": r"channel:\w+:log",
    "streams of notifications": r"stream:.*\|uni\|[^~]*",
    "boards": r"stream:.*\|bi\|.*",
    "streams of pools": r"stream:.*~.*",
    "rooms": r"room:.*\|uni\|[^~]*",
    "rooms of boards": r"room:.*\|bi\|.*",
    "rooms of pools": r"room:.*~.*",
    "inboxes": r"to:.*",
    "what sessions hold": r"held:[^~].*",
    "what pools hold": r"held:~.*",
    "replicas that wait": r"idle:.*",
    "what was handed back": r"returned:.*",
} | {
    kind: kind
    for kind in (
        *("streams", "registrations", "channels", "counts", "opened", "pools", "meta", "leases"),
    )
}
"""Every kind of key that this load writes, and what follows the server in its name."""


@case("deletion of one kind of key", "both ends are told, or go on; nobody waits for ever")
async def keys_deleted(extent: Extent) -> Report:
    report = Report()
    rest = [kind for kind in [*KINDS, DIRECTORY] if kind not in OWNERS]
    for kinds in [*([kind] for kind in OWNERS), rest] * extent.of(1, 1, 10):
        async with stage(report, loss=Loss.ALL, **WATCHFUL) as made:
            for kind in kinds:
                async with made.broken(f"DEL {kind}"):
                    found = keys_of(made, kind)
                    if found:
                        report.checked["keys deleted"] += made.server.cli("DEL", *found)
    return report


OWNERS = ("what sessions hold", "registrations", "streams", "leases", "meta")
"""Those that say whose the others are: nobody knows that any more where two of them are gone."""
DIRECTORY = "the directory"


def keys_of(on: Stage, kind: str) -> list[str]:
    """All keys of one kind."""
    if kind == DIRECTORY:
        return [directory(on.farm.namespace)]
    keys = Keys(on.farm.namespace, Name.parse(SERVER).server)
    head = keys.meta.removesuffix("meta")
    found: list[str] = on.server.cli("KEYS", head + "*")
    return [key for key in found if re.fullmatch(KINDS[kind], key.removeprefix(head))]
