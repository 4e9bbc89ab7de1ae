"""The rows: who is compared, what is asked of each, how the ratio is made, the goal."""

from __future__ import annotations

from functools import partial

from benchmarks.asking import Asking
from benchmarks.contest import AHEAD, BELOW, Line, Row, Terms, at_least, at_most, hold
from benchmarks.contestants import DEEP, FLOOR, JETSTREAM, NATS, PEERS_ON_REDIS, TYMPAN
from benchmarks.rows_pools import decisions, pools
from benchmarks.rows_redis import large, lifetimes, memory, scripts
from benchmarks.rows_start import start_up
from benchmarks.stage import Stage
from benchmarks.telling import Telling

IN_FLIGHT = 256
"""Sends that wait for their acknowledgements."""
CHANNELS = 64
"""Channels that share them."""
FEWER_IN_FLIGHT = 64
"""What peers are given that open a connection for each, and no more than a hundred."""


async def send(stage: Stage, terms: Terms) -> list[Line]:
    """Send to handler, one listener; and the noise, which is the floor against itself."""
    count = 1_000 if terms.quick else 2_000
    outcome = await hold(
        {
            who: partial(Telling(stage, contender, subject).latency, count, 500)
            for who, contender, subject in (
                ("Tympan", TYMPAN, "one"),
                ("floor", FLOOR, "one"),
                ("floor again", FLOOR, "another"),
            )
        },
        terms.rounds,
    )
    what, noise = "send to handler, one listener", "noise: the floor against itself"
    return [
        outcome.line(f"{what}, median", "median", "µs", at_most(1.5), against="floor"),
        outcome.line(f"{what}, p99", "p99", "µs", at_most(3), against="floor"),
        *(
            outcome.line(
                f"{noise}, {figure}", figure, "µs", None, tympan="floor again", against="floor"
            )
            for figure in ("median", "p99")
        ),
    ]


async def listeners(stage: Stage, terms: Terms) -> list[Line]:
    """A thousand registrations in two processes, and a blocked connection for each of so many.

    Those who meet have the same pauses between sends, for a process that has slept is slower. The
    blocked ones need long pauses, or each send would wait for the one before. Sends of a round are
    fewer than a listener has room for by default.
    """
    count, few = 60, 15 if terms.quick else 30
    short, long = 10_000, 60_000
    blocked = "floor, a connection each"
    thousand = partial(Telling, listeners=1_000, processes=2)
    tympan = thousand(stage, TYMPAN, "many")
    outcome = await hold(
        {
            "Tympan": partial(tympan.latency, count, short),
            "floor, one listener": partial(Telling(stage, FLOOR, "one").latency, count, short),
            "Tympan, long pauses": partial(tympan.latency, few, long),
            blocked: partial(thousand(stage, FLOOR, "many").latency, few, long),
        },
        terms.rounds,
    )
    what = "send to handler, 1,000 registrations in two processes, median"
    return [
        outcome.line(what, "median", "µs", at_most(8), against="floor, one listener"),
        outcome.line(
            what, "median", "µs", at_most(1 / 20), tympan="Tympan, long pauses", against=blocked
        ),
    ]


async def channels(stage: Stage, terms: Terms) -> list[Line]:
    """Sends that take turns on 5,000 open channels, all heard by one listener."""
    count, one = 400 if terms.quick else 1_000, "Tympan, one channel"
    outcome = await hold(
        {
            "Tympan": partial(Telling(stage, TYMPAN, "many", channels=5_000).latency, count, 500),
            one: partial(Telling(stage, TYMPAN, "one").latency, count, 500),
        },
        terms.rounds,
    )
    what = "send to handler, 5,000 open channels, median"
    return [outcome.line(what, "median", "µs", at_most(1.2), against=one)]


async def dialog(stage: Stage, terms: Terms) -> list[Line]:
    """Open, send, the listener responds, the source has it."""
    count = 200 if terms.quick else 500
    outcome = await hold(
        {
            "Tympan": partial(Asking(stage, TYMPAN, "questions").round_trip, count),
            "floor": partial(Asking(stage, FLOOR, "questions").round_trip, count),
            "NATS request": partial(Asking(stage, NATS, "questions").round_trip, count),
        },
        terms.rounds,
    )
    what = "dialog round trip, median"
    return [
        outcome.line(what, "median", "µs", at_most(2), against="floor"),
        outcome.line(what, "median", "µs", BELOW, against="NATS request"),
    ]


async def sends(stage: Stage, terms: Terms) -> list[Line]:
    """Acknowledged sends a second from one process, while one listener hears them."""
    several = f"Tympan, {CHANNELS} channels"
    outcome = await hold(
        {
            who: partial(Telling(stage, contender, subject, channels=channels).rate, IN_FLIGHT)
            for who, contender, subject, channels in (
                ("Tympan", DEEP, "one", 1),
                (several, DEEP, "several", CHANNELS),
                ("floor", FLOOR, "one", 1),
                ("NATS JetStream", JETSTREAM, "one", 1),
            )
        },
        terms.rounds,
    )
    return [
        outcome.line(f"acknowledged sends, {how}", "sends", "/s", goal, tympan=who, against=other)
        for who, how in (
            ("Tympan", f"one channel, {IN_FLIGHT} in flight"),
            (several, f"{CHANNELS} channels, {IN_FLIGHT // CHANNELS} each in flight"),
        )
        for other, goal in (("floor", at_least(0.4)), ("NATS JetStream", AHEAD))
    ]


async def deliveries(stage: Stage, terms: Terms) -> list[Line]:
    """Deliveries a second to handlers, end to end, one listener."""
    peers = [peer.name for peer in PEERS_ON_REDIS]
    several = f"Tympan, {CHANNELS} channels"
    bouts = {
        contender.name: partial(
            Telling(stage, contender, "one", channels=1).rate,
            FEWER_IN_FLIGHT if contender in PEERS_ON_REDIS else IN_FLIGHT,
        )
        for contender in (DEEP, FLOOR, JETSTREAM, *PEERS_ON_REDIS)
    }
    bouts[several] = partial(Telling(stage, DEEP, "several", channels=CHANNELS).rate, IN_FLIGHT)
    outcome = await hold(bouts, terms.rounds)
    what = "deliveries, end to end, one listener"
    best = outcome.best(peers, "deliveries")
    return [
        outcome.line(what, "deliveries", "/s", goal, against=other)
        for other, goal in (
            ("floor", at_least(0.4)),
            ("NATS JetStream", AHEAD),
            (best, at_least(8)),
        )
    ] + [
        outcome.line(
            f"{what}, {CHANNELS} channels", "deliveries", "/s", None, tympan=several, against=other
        )
        for other in ("floor", "NATS JetStream", best)
    ]


async def fan_out(stage: Stage, terms: Terms) -> list[Line]:
    """Deliveries a second to 100 and 1,000 registrations in two processes."""
    lines = []
    for registrations in (100, 1_000):
        outcome = await hold(
            {
                contender.name: partial(
                    Telling(
                        stage,
                        contender,
                        f"subject{registrations}",
                        channels=16,
                        listeners=registrations,
                        processes=2,
                    ).rate,
                    16,
                )
                for contender in (DEEP, NATS)
            },
            terms.rounds,
        )
        what = f"deliveries, fan-out to {registrations:,} registrations"
        lines.append(outcome.line(what, "deliveries", "/s", AHEAD, against=NATS.name))
    return lines


async def cpu(stage: Stage, terms: Terms) -> list[Line]:
    """CPU of the source for a send, of the listener for a delivery: one at a time, and many."""
    lines = []
    for how in ("one at a time", f"{IN_FLIGHT} in flight"):
        bouts = {}
        for contender in (DEEP, FLOOR):
            telling = Telling(stage, contender, how.split()[0], channels=CHANNELS)
            single = partial(telling.latency, 1_000, 0)
            several = partial(telling.rate, IN_FLIGHT)
            bouts[contender.name] = single if how == "one at a time" else several
        outcome = await hold(bouts, terms.rounds)
        lines += [
            outcome.line(f"{what}, {how}", figure, "µs", at_most(3), against="floor")
            for what, figure in (
                ("CPU of the source for a send", "source_cpu"),
                ("CPU of a listener for a delivery", "listener_cpu"),
            )
        ]
    return lines


_WITH_NATS = frozenset({"redis", "nats"})

ROWS: tuple[Row, ...] = (
    Row("send", send, quick=True),
    Row("listeners", listeners, quick=True),
    Row("channels", channels, quick=True),
    Row("dialog", dialog, _WITH_NATS, quick=True),
    Row("sends", sends, _WITH_NATS),
    Row("deliveries", deliveries, _WITH_NATS),
    Row("fan-out", fan_out, _WITH_NATS),
    Row("pools", pools, _WITH_NATS | {"rabbitmq"}),
    Row("decisions", decisions),
    Row("cpu", cpu),
    Row("scripts", scripts),
    Row("memory", memory),
    Row("lifetimes", lifetimes),
    Row("start-up", start_up),
    Row("large", large),
)
"""In the order of the table."""
