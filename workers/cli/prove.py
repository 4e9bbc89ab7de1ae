"""``tympan prove``: play on this Redis, break what is the play's own, and judge what was seen."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from typing import Any

import click
from rich.text import Text

from broker import Durability, Settings
from broker._address import without_password
from broker.settings import default_url
from workers.cli.failures import DONE
from workers.cli.line import CommandLine, farm_options, verbatim
from workers.cli.options import at_most_one, parse_seconds
from workers.cli.output import Output, on_one_line
from workers.cli.running import run
from workers.proof.play import PATIENCE, Play, Proof
from workers.proof.verdict import HEADINGS, Verdict, recovery, recovery_record

BROKEN = 1
USUAL, QUICK, LEAST, MOST = 20.0, 5.0, 3.0, 600.0
SHOWN = 3
"""Violations of each invariant that people are shown; programs get all."""
LONGEST = 500
"""Characters of one of them."""


@click.command(
    short_help="Prove on this Redis that the promises hold.",
    epilog=verbatim(
        r"""
Examples:
  tympan prove
  tympan prove --quick
  tympan prove --url redis+sentinel://redis1,redis2,redis3/mymaster --durability replica
  tympan acl source listener worker reaper operator --server '\\print01' --all-users \
      --namespace proof --user prover                 # a credential that this needs, and no more
  tympan prove --namespace proof

What is broken is the play's own: its processes are killed, its connections cut, replicas of its
pool ended. Nothing is done to Redis itself, nor to any key outside the play's namespace, which is
cleared away in the end, also after Ctrl-C.

Exit status: 0 all invariants hold, 1 one is broken, or nothing was seen to judge it by; otherwise
as of every command.
"""
    ),
)
@click.option(
    "--seconds",
    type=parse_seconds,
    metavar="N",
    help=f"How long to play; default {USUAL:g}. Beginning, and waiting for what was killed, takes "
    "about ten more.",
)
@click.option("--quick", is_flag=True, help=f"Play for {QUICK:g} seconds.")
@click.option(
    "--patience",
    type=parse_seconds,
    metavar="N",
    default=str(PATIENCE),
    show_default=True,
    help="Seconds after which something that must come is missing; more for a slow way to Redis.",
)
@click.option(
    "--durability",
    type=click.Choice([str(one) for one in Durability]),
    default=str(Durability.MEMORY),
    show_default=True,
    help="What a success has to be held by.",
)
@click.option(
    "--namespace",
    metavar="NAME",
    help="First part of the play's keys, where nobody else works; default a new one.",
)
@farm_options
@click.pass_context
def prove(
    ctx: click.Context,
    *,
    seconds: float | None,
    quick: bool,
    patience: float,
    durability: str,
    namespace: str | None,
) -> int:
    """Play on this Redis, and judge what all clients saw.

    Many listeners in several processes answer one question at once; sources and listeners talk
    while their connections are cut; users, administrators and strangers listen; owners, sources and
    a pool's replicas are ended by kill -9. What each of them did, was handed and was told is judged
    by the invariants that the README promises.
    """
    at_most_one({"--seconds": seconds, "--quick": quick})
    length = QUICK if quick else USUAL if seconds is None else seconds
    if not LEAST <= length <= MOST:
        raise click.BadParameter(f"--seconds {length:g}: from {LEAST:g} to {MOST:g}")
    if not patience:
        raise click.BadParameter("--patience: a time above 0")
    output = Output.of(ctx)
    url = ctx.ensure_object(CommandLine).url or default_url()
    settings = Settings.of(
        namespace=namespace or f"tympan-proof-{secrets.token_hex(4)}", durability=durability
    )

    async def work() -> int:
        with _quietly():
            proof = await Play(url, settings, length, output.note, patience).run()
        verdict = Verdict.on(proof.history)
        _tell(output, url, settings, proof, verdict)
        return DONE if verdict.holds else BROKEN

    return run(work())


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """That connections break is the point here, and no news to the person who reads this."""
    log = logging.getLogger("tympan")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _tell(output: Output, url: str, settings: Settings, proof: Proof, verdict: Verdict) -> None:
    remarks = [*proof.remarks]
    if not proof.keys_listed:
        remarks.append(
            "this credential may not SCAN: keys were looked for by the names that the play knows"
        )
    if output.as_json:
        output.tell(record(url, settings, proof, verdict, remarks))
        return
    where = f"{without_password(url)}, durability {settings.durability}, {proof.seconds:.0f} s"
    output.tell({}, Text(where, "bold"), Text())
    for act in proof.acts:
        output.tell({}, Text(f"{act.name}: {act.did or 'nothing'}"))
        if act.recovered:
            output.tell({}, Text(f"  over after {recovery(act.recovered)}", "dim"))
    output.tell({}, Text())
    output.table([], HEADINGS, [line.row for line in verdict.lines])
    output.tell({}, Text())
    for line in verdict.lines:
        for violation in line.violations[:SHOWN]:
            output.tell({}, Text(on_one_line(str(violation))[:LONGEST], "red"))
        if len(line.violations) > SHOWN:
            more = len(line.violations) - SHOWN
            output.tell({}, Text(f"... and {more:,} more; --json has all", "red"))
    for remark in remarks:
        output.tell({}, Text(f"Note: {remark}.", "yellow"))
    output.tell({}, Text(verdict.sentence + ".", "bold green" if verdict.holds else "bold red"))


def record(
    url: str, settings: Settings, proof: Proof, verdict: Verdict, remarks: list[str]
) -> dict[str, Any]:
    """Everything for programs."""
    return {
        "verdict": "holds" if verdict.holds else "broken" if verdict.violations else "not proved",
        "says": verdict.sentence,
        "url": without_password(url),
        "namespace": settings.namespace,
        "durability": str(settings.durability),
        "seconds": round(proof.seconds, 1),
        "played": [
            {"name": act.name, "did": act.did, "recovered": recovery_record(act.recovered)}
            for act in proof.acts
        ],
        "invariants": [line.record() for line in verdict.lines],
        "remarks": remarks,
    }
