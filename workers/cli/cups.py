"""``tympan cups``: put Tympan on a CUPS host, say whether events flow, take it away again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from broker import Broker
from workers.cli.cups_host import host_from, host_options, settled_from, whole_path
from workers.cli.failures import DONE, FAILED
from workers.cli.line import CommandLine, farm_options, verbatim
from workers.cli.options import parse_server
from workers.cli.output import Output, counted, printable
from workers.cli.running import run
from workers.cups.installation.host import Host, NotInstalled
from workers.cups.installation.install import Choices, Installation
from workers.cups.installation.placing import Step
from workers.extras import needed

with needed("cups", "tympan cups"):
    from workers.cli.cups_status import status
    from workers.cups.installation import queues, service

STYLES = {
    "placed": "green",
    "replaced": "green",
    "mended": "green",
    "ran": "green",
    "removed": "yellow",
}


@click.group(short_help="Put Tympan on a CUPS host, and see whether events flow.")
def cups() -> None:
    """Put Tympan on a CUPS host, see whether events flow, take it away."""


# install and uninstall -----------------------------------------------------------------------


@cups.command(
    short_help="Put Tympan on this CUPS host.",
    epilog=verbatim(
        r"""
Examples:
  tympan cups install --dry-run
  tympan cups install --url rediss://redis.example:6379/0 --server '\\print01'
  tympan cups wrap laser-3             # queues that are to ask; the others only tell
  tympan cups status

It may be run again, after an upgrade say: it mends and replaces what is Tympan's, and leaves alone
what is not. The settings file is written once and never overwritten.
"""
    ),
)
@click.option("--server", type=parse_server, metavar="SERVER", default=None,
              help=r"The print server that this host is, as \\server; default cupsd's ServerName.",
              )  # fmt: skip
@click.option("--backend-as-root/--backend-not-as-root", default=None,
              help="Let cupsd run the backend as root, for devices whose own backends need that "
              "(usb, lpd); it gives root up before anything else. Default: as it is, at first "
              "not.")  # fmt: skip
@click.option("--python", type=whole_path, metavar="FILE",
              help="The interpreter that cupsd runs the programs by, 3.11 or later; default this "
              "one.")  # fmt: skip
@click.option("--start/--no-start", default=True, show_default=True,
              help="Have systemd run the bridge now and at every boot.")  # fmt: skip
@click.option("--dry-run", "is_dry", is_flag=True, help="Say what would be done, and do nothing.")
@host_options
@farm_options
@click.pass_context
def install(
    ctx: click.Context,
    /,
    *,
    server: str | None,
    backend_as_root: bool | None,
    python: Path | None,
    start: bool,
    is_dry: bool,
    **options: Any,
) -> int:
    """Put Tympan on this CUPS host: settings, spool, notifier, backend, service.

    Run it as root, by the tympan that the host is to use. What cupsd runs afterwards is this
    environment's Python.
    """
    output = Output.of(ctx)
    host = settled_from(options)
    typed = ctx.ensure_object(CommandLine).url
    redis_url = typed or os.environ.get("TYMPAN_URL", "")
    if redis_url:
        Broker.connect(redis_url)  # refuses what the bridge would
    made = Installation(host, Choices(server or "", redis_url, backend_as_root), python)
    _head(output, host, "would be placed" if is_dry else "")
    steps = _tell(output, made.install(is_dry=is_dry))
    is_changed = any(step.is_change for step in steps)
    _tell(output, service.load_profile(host, is_dry=is_dry))
    if start:
        _tell(output, service.start(host, is_changed=is_changed, is_dry=is_dry))
    loose = made.writable_by_others()
    if loose is not None:
        output.note(
            f"whoever may write {loose} decides what cupsd runs as {host.account.name}: give it "
            "to root, and take away the right to write",
            "yellow",
        )
    is_new = any(step.what == "settings" and step.did == "placed" for step in steps)
    if (typed or server) and not is_new:
        output.note(
            f"{host.at(host.settings)} was there already and stays as it is: --url and --server "
            "have no effect; write them there",
            "yellow",
        )
    if not is_dry:
        output.note(_next(host, is_new=is_new and not redis_url))
    return DONE


def _next(host: Host, *, is_new: bool) -> str:
    """What is left to be done."""
    said = [f"name your Redis in {host.settings}"] if is_new else []
    if not host.has_systemd:
        said.append(f"keep `{host.bridging}` running")
    elif is_new:
        said.append("systemctl restart tympan-cups")
    return "next: " + "; ".join([*said, f"`{host.command('status')}` says whether events flow"])


@cups.command(
    short_help="Take Tympan from this CUPS host.",
    epilog=verbatim(
        r"""
Examples:
  tympan cups unwrap --all             # queues get their own devices back
  tympan cups uninstall
  tympan cups uninstall --purge        # the settings and the journal, too
"""
    ),
)
@click.option("--purge", "is_purge", is_flag=True,
              help="Delete the settings, too, and what is Tympan's in the spool, with events that "
              "were not sent.",
              )  # fmt: skip
@click.option("--force", "is_forced", is_flag=True,
              help="Although queues print through the backend, which cupsd stops, or a bridge "
              "runs.")  # fmt: skip
@click.option("--dry-run", "is_dry", is_flag=True, help="Say what would be done, and do nothing.")
@host_options
@farm_options
@click.pass_context
def uninstall(
    ctx: click.Context, /, *, is_purge: bool, is_forced: bool, is_dry: bool, **options: Any
) -> int:
    """Take away what `tympan cups install` placed, and nothing else.

    It is refused while queues print through Tympan's backend.
    """
    output = Output.of(ctx)
    host = settled_from(options)
    wrapped = [queue for queue in asyncio.run(queues.queues(host)) if queue.is_wrapped]
    if wrapped and not is_forced:
        names = ", ".join(queue.name for queue in wrapped)
        raise NotInstalled(
            f"{names}: still printing through Tympan's backend; nothing was taken away. "
            f"`{host.command('unwrap', '--all')}` gives them their devices back; by hand: "
            + "; ".join(queue.unwrapping for queue in wrapped)
        )
    made = Installation.found(host)
    _head(output, host, "would be taken away" if is_dry else "")
    waiting = service.jobs_that_wait(host)
    _tell(output, service.stop(host, is_dry=is_dry))
    if service.is_bridge_running(host) and not is_dry and not is_forced:
        raise NotInstalled(
            f"a bridge runs on {host.spool}; nothing was taken away: end it first, or --force"
        )
    _tell(output, asyncio.run(service.end_subscriptions(host, is_dry=is_dry)))
    _tell(output, made.uninstall(is_dry=is_dry, is_purge=is_purge))
    _tell(output, service.load_profile(host, is_dry=is_dry))
    for queue in wrapped:
        output.note(f"{queue.name} does not print any more: {queue.unwrapping}", "yellow")
    for job in waiting:
        output.note(
            f"job {job} waits for an answer, and nobody hears one any more: where it is held, "
            f"`lp -i {job} -H resume` prints it, `cancel {job}` does not",
            "yellow",
        )
    return DONE


def _head(output: Output, host: Host, mood: str) -> None:
    where = "this host" if host.is_this_one else f"the host in {host.root}"
    told = f"{where}: cupsd at {host.cups}, its programs run as {host.account.name}"
    output.note(f"{told}{'; this ' + mood if mood else ''}")


def _tell(output: Output, steps: Iterable[Step]) -> list[Step]:
    """Each as it is done."""
    told = []
    for step in steps:
        told.append(step)
        line = Text(f"{step.did:9}", STYLES.get(step.did, "dim"))
        line.append(f"{step.what:9} {printable(step.path)}", "none")
        if step.says:
            line.append(f"  {printable(step.says)}", "dim")
        output.tell(
            {"what": step.what, "path": step.path, "did": step.did, "says": step.says}, line
        )
    return told


# Queues --------------------------------------------------------------------------------------


Act = Callable[[Host, str, Callable[[str], None]], Coroutine[Any, Any, str]]


def _wrapping(name: str, help_: str, act: Act, wants: bool) -> None:
    @cups.command(name=name, short_help=help_)
    @click.argument("printers", nargs=-1, metavar="PRINTER...")
    @click.option("--all", "is_all", is_flag=True, help="All queues of this host.")
    @host_options
    @farm_options
    @click.pass_context
    def command(
        ctx: click.Context, /, *, printers: tuple[str, ...], is_all: bool, **options: Any
    ) -> int:
        output = Output.of(ctx)
        host = host_from(options)
        if bool(printers) == is_all:
            raise click.UsageError("name queues, or write --all", ctx)

        async def work() -> int:
            names = printers
            if is_all:
                found = await queues.answered(host)
                names = tuple(queue.name for queue in found if queue.is_wrapped != wants)
                if not names:
                    output.note(
                        f"nothing to {name}: of {counted(len(found), 'queue')}, none prints "
                        f"{'past' if wants else 'through'} Tympan's backend"
                    )
            skipped = 0
            for printer in names:
                try:
                    uri = await act(host, printer, output.note)
                except NotInstalled as error:
                    if not is_all:
                        raise
                    skipped += 1
                    told = {"printer": printer, "skipped": str(error)}
                    output.tell(told, Text(printable(f"{printer}: skipped: {error}"), "yellow"))
                    continue
                told = {"printer": printer, "device_uri": uri}
                output.tell(told, Text(printable(f"{printer}: {uri}")))
            if skipped:
                done = counted(len(names) - skipped, "queue")
                output.note(f"{name}: {done} done, {skipped:,} skipped", "yellow")
            return FAILED if skipped else DONE

        return run(work())

    command.help = (
        f"{help_}\n\nOnly what is printed through Tympan's backend can be asked about; events come "
        "from all queues. Names, drivers and options of a queue stay as they are."
    )


_wrapping("wrap", "Put Tympan's backend before the device of queues.", queues.wrap, True)
_wrapping("unwrap", "Take Tympan's backend from queues.", queues.unwrap, False)
cups.add_command(status)
