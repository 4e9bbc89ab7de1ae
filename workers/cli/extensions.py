"""``tympan extensions``, ``bridges`` and ``bridge run``: what other packages plug in."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import click
from rich.text import Text

from broker import Broker, Name, catalogue
from broker.errors import ExtensionInvalid, InvalidName, TympanError
from broker.extensions import Fault, Point
from broker.names import parse_user
from workers.bridge import GROUP, Bridge, bridges
from workers.cli.failures import DONE
from workers.cli.line import CommandLine, farm_options, verbatim
from workers.cli.options import login_name, parse_name
from workers.cli.output import Output, printable
from workers.cli.running import run

KINDS = {catalogue.GROUP: "type", GROUP: "bridge"}


@click.command(short_help="List what other packages plug in.")
@farm_options
@click.pass_context
def extensions(ctx: click.Context) -> int:
    """List notification types and bridges that other packages plug in, and their faults.

    An extension with a fault harms nothing else; who asks for it by its name is told the same.
    """
    output = Output.of(ctx)
    types = [
        (found.point, f"{found.loaded.notification_type} {found.loaded.__name__}")
        for found in catalogue.installed_types.sound().values()
    ]
    _tell(
        output,
        [
            (point, what)
            for point, what in types
            + [(found.point, found.loaded.description) for found in bridges.sound().values()]
            if not point.is_own
        ],
        (*catalogue.faults(), *bridges.faults()),
        "no package plugs anything in",
    )
    return DONE


@click.command(name="bridges", short_help="List bridges to print systems.")
@farm_options
@click.pass_context
def list_bridges(ctx: click.Context) -> int:
    """List bridges to print systems; `tympan bridge run NAME` runs one."""
    _tell(
        Output.of(ctx),
        [(found.point, found.loaded.description) for found in bridges.sound().values()],
        bridges.faults(),
    )
    return DONE


def _tell(
    output: Output, sound: list[tuple[Point, str]], faults: tuple[Fault, ...], none: str = ""
) -> None:
    if none and not sound and not faults:
        output.note(none)
    if sound:
        output.table(
            [_record(point, what=what, fault=None) for point, what in sound],
            ("KIND", "NAME", "WHAT", "PACKAGE"),
            [(KINDS[point.group], point.name, what, point.distribution) for point, what in sound],
        )
    for fault in faults:
        said = str(fault.error())
        output.tell(_record(fault.point, what=None, fault=said), Text(printable(said), "yellow"))


def _record(point: Point, *, what: str | None, fault: str | None) -> dict[str, Any]:
    return {
        "kind": KINDS[point.group],
        "name": point.name,
        "package": point.distribution,
        "object": point.value,
        "what": what,
        "fault": fault,
    }


# Running -------------------------------------------------------------------------------------


class _Bridges(click.Group):
    """Each bridge as a command of its own, with its own options."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(bridges.sound())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        bridge = bridges.get(cmd_name)
        if bridge is None:
            raise click.UsageError(
                f"no bridge {cmd_name!r} is installed: `tympan bridges` lists those that are", ctx
            )
        return _command(cmd_name, bridge)


@click.group(name="bridge", short_help="Run a bridge to a print system.")
def bridge_group() -> None:
    """Run a bridge to a print system."""


@bridge_group.group(
    cls=_Bridges,
    name="run",
    short_help="Run a bridge until interrupted.",
    subcommand_metavar="NAME [OPTIONS]",
    epilog=verbatim(
        r"""
Examples:
  tympan bridges                       # which there are
  tympan bridge run NAME --help        # its own options
  tympan bridge run NAME --server '\\print01' --as spooler
"""
    ),
)
def _run() -> None:
    """Run a bridge until it is done, or until Ctrl-C or SIGTERM."""


def _command(name: str, bridge: Bridge) -> click.Command:
    """A bridge as a command."""

    @click.option(
        "--server",
        type=parse_name,
        metavar="SERVER",
        help=r"The print server that the bridge speaks for, as \\server; default this host's name.",
    )
    @click.option(
        "--as", "user_as", type=parse_user, metavar="USER", help="Who it is; default who you are."
    )
    @farm_options
    @click.pass_context
    def run_it(
        ctx: click.Context, /, *, server: Name | None, user_as: str | None, **options: Any
    ) -> int:
        url = ctx.ensure_object(CommandLine).url
        with _blamed(name):
            speaks_for = server or _named(bridge, options) or _this_host()
        if speaks_for.printer:
            raise click.UsageError(
                rf"--server needs a server's name: write '{speaks_for.of_server}'"
            )
        note = Output.of(ctx).note

        async def work() -> int:
            with _blamed(name):
                made = _broker(bridge, url, user_as or login_name(), speaks_for, options)
            async with made as broker:
                note(f"the bridge {name} runs for {speaks_for} (Ctrl-C ends)")
                with _blamed(name):
                    await bridge.run(broker, speaks_for, **options)
            return DONE

        return run(work(), interrupted=DONE)

    command = click.command(name=name, help=bridge.description)(run_it)
    command.params = [*bridge.options, *command.params]
    return command


def _named(bridge: Bridge, options: dict[str, Any]) -> Name | None:
    """The print server of a bridge's own settings; bridges need not inherit from Bridge."""
    ask = getattr(bridge, "server", None)
    found: Name | None = ask(**options) if callable(ask) else None
    return found


def _broker(
    bridge: Bridge, url: str | None, user: str | None, server: Name, options: dict[str, Any]
) -> Broker:
    """As a bridge wants it that has settings of its own."""
    connect = getattr(bridge, "connect", None)
    if connect is None:
        return Bridge.connect(bridge, url, user, server)
    broker: Broker = connect(url, user, server, **options)
    return broker


@contextlib.contextmanager
def _blamed(name: str) -> Iterator[None]:
    """What is no error of Tympan's or of what was typed is the bridge's fault."""
    try:
        yield
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        reason: BaseException = error
        while isinstance(reason, BaseExceptionGroup) and len(reason.exceptions) == 1:
            reason = reason.exceptions[0]
        if isinstance(reason, TympanError | click.ClickException):
            raise reason from error
        point = bridges.sound()[name].point
        raise ExtensionInvalid(
            f"the bridge {point} ended by {type(reason).__name__}: {reason}; tell its author",
            point.distribution,
            name,
        ) from error


def _this_host() -> Name:
    host = socket.gethostname()
    try:
        return Name.parse(f"\\\\{host}")
    except InvalidName:
        raise click.UsageError(
            f"this host's name, {host!r}, is no server's: give --server"
        ) from None
