"""``tympan cups status``: one screen that says whether events flow, and what to do if not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click
from rich.text import Text

from workers.cli.cups_host import host_from, host_options
from workers.cli.failures import DONE
from workers.cli.line import farm_options, verbatim
from workers.cli.output import Output, age, clock, counted, span, wrapped
from workers.cups.installation.health import Finding, Health, Severity, examine
from workers.cups.installation.install import Installation
from workers.cups.installation.placing import Standing

STOPPED = 1
INDENT = 14
STYLES = {Severity.STOPS: "bold red", Severity.WARNS: "bold yellow"}


@click.command(
    short_help="Say whether events flow on this CUPS host.",
    epilog=verbatim(
        r"""
Exit status: 0 events flow, 1 they do not; otherwise as of every command.
"""
    ),
)
@host_options
@farm_options
@click.pass_context
def status(ctx: click.Context, /, **options: Any) -> int:
    """Say in one screen whether events flow from this CUPS host to the farm, and if not, why.

    Run it as root: others may not read all that it looks at. It changes nothing.
    """
    output = Output.of(ctx)
    health = asyncio.run(examine(Installation.found(host_from(options))))
    output.tell({"flows": health.flows, **asdict(health)}, *shown(health))
    return DONE if health.flows else STOPPED


def shown(health: Health) -> Iterator[Text]:
    """For people."""
    name = health.host or "this host"
    if health.flows and health.findings:
        yield Text(f"{name}: events flow, but not all is well:", "bold yellow")
    elif health.flows:
        yield Text(f"{name}: events flow.", "bold green")
    else:
        yield Text(f"{name}: events do not flow.", "bold red")
    for severity in Severity:
        for finding in health.findings:
            if finding.severity is severity:
                yield _finding(finding)
    yield Text()
    yield _line("cupsd", _cupsd(health))
    yield _line("subscription", _subscription(health))
    for number, said in enumerate(_events(health)):
        yield _line("" if number else "events", said)
    yield _line("bridge", _bridge(health))
    yield _line("Redis", _redis(health))
    yield _line("placed", _placed(health))
    yield _line("questions", counted(len(health.questions), "open question"))
    for asked in health.questions:
        left = span(max(0.0, asked["until"] - time.time()))
        yield _line(
            "",
            f"job {asked['job']} on {asked['printer']} ({asked['owner']}): {asked['text']} - "
            f"{left} left, then {asked['otherwise']}",
        )


def _finding(finding: Finding) -> Text:
    said = finding.what + (f" -> {finding.advice}" if finding.advice else "")
    return wrapped(f"  {said}", "    ", STYLES[finding.severity])


def _line(label: str, said: str) -> Text:
    text = wrapped(f"{label:{INDENT}}{said}", " " * INDENT)
    text.stylize("bold", 0, len(label))
    return text


def _cupsd(health: Health) -> str:
    where = health.cupsd["address"]
    if not health.cupsd["answers"]:
        return f"does not answer at {where}"
    said = f"answers at {where}, {counted(health.cupsd['queues'], 'queue')}"
    wrapped = f": {', '.join(health.wrapped)}" if health.wrapped else ""
    return f"{said}, {len(health.wrapped)} through Tympan's backend{wrapped}"


def _subscription(health: Health) -> str:
    facts = health.subscription
    if facts is None:
        return "none"
    lease = f"a lease of {span(facts['lease'])}" if facts["lease"] else "no end"
    return (
        f"number {facts['id']}, with {lease}; "
        f"cupsd is at event {facts['last']:,}, the farm at {facts['told']:,}"
    )


def _events(health: Health) -> Iterator[str]:
    counts = health.events
    if "read" not in counts:
        yield "nothing is known of them"
        return
    yield (
        f"{counts['read']:,} read, {counts['sent']:,} notifications sent ({counts['unheard']:,} "
        f"without a listener, {counts['missed']:,} missed by one); {counts['waiting']:,} waiting"
    )
    yield (
        f"{counts['torn']:,} torn, {counts['oversized']:,} oversized, {counts['dropped']:,} "
        f"dropped, {counts['lost']:,} lost, {counts['refused']:,} refused"
    )
    times = [
        f"the last one {word} at {clock(counts[key])}, {age(time.time() - counts[key])}"
        for word, key in (("read", "read_at"), ("sent", "sent_at"))
        if counts[key]
    ]
    if times:
        yield "; ".join(times)


def _bridge(health: Health) -> str:
    facts = health.bridge
    if not facts or facts["silent_for"] is None:
        return "has never run"
    beat = age(facts["silent_for"])
    return f"runs as process {facts['pid']}" if facts["alive"] else f"was last seen {beat}"


def _redis(health: Health) -> str:
    if not health.redis:
        return "was not asked: the settings cannot be read"
    return "answers" if health.redis["answers"] else "does not answer"


def _placed(health: Health) -> str:
    right = [one["what"] for one in health.placed if one["standing"] == Standing.RIGHT]
    other = [one["what"] for one in health.placed if one["standing"] != Standing.RIGHT]
    said = f"{', '.join(right)}: as they have to be" if right else ""
    return "; ".join(filter(None, (said, f"{', '.join(other)}: not" if other else "")))
