"""Services: processes that run until they are told to stop, with a health port beside them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import click

from broker import Settings
from broker.errors import InvalidSettings
from workers.cli.line import farm_options
from workers.cli.output import counted, on_one_line
from workers.cli.settings import settings_of
from workers.health import Address
from workers.logs import LogFormat, logging_as
from workers.loop import Loop, factory

log = logging.getLogger("tympan")

C = TypeVar("C", bound=Callable[..., Any])
Tell = Callable[[str], None]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
MOMENT = 0.2
"""Seconds that idle threads have to end."""


def _settings(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> Settings:
    values: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.BadParameter(f"{one!r} is no setting: write name=value, as in lease=5")
        values[name] = value
    try:
        return settings_of(values)
    except InvalidSettings as error:
        raise click.BadParameter(str(error)) from None


def service_options(command: C) -> C:
    """``--health``, ``--log-format``, ``--loop`` and ``--set``, and those of every command."""
    for option in (
        click.option(
            "--loop",
            type=click.Choice([each.value for each in Loop]),
            default=Loop.AUTO.value,
            help="The event loop: auto takes uvloop where it is installed.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            callback=_settings,
            metavar="NAME=VALUE",
            help="One of the broker's settings, such as lease=5 or buffer=500; may be repeated. It "
            "goes before TYMPAN_SET_LEASE=5 in the environment.",
        ),
        click.option(
            "--log-format",
            type=click.Choice([each.value for each in LogFormat]),
            default=LogFormat.TEXT.value,
            help="How log records are written to standard error.",
        ),
        click.option(
            "--health",
            type=Address.parse,
            metavar="HOST:PORT",
            help="Answer /livez, /readyz, /startupz and /metrics there; port 0 takes a free one.",
        ),
    ):
        command = option(command)
    return farm_options(command)


def teller(log_format: str) -> Tell:
    """What says something on standard error: a line, or a record where these are JSON."""
    if LogFormat(log_format) is LogFormat.JSON:
        return log.info
    return lambda text: click.echo(f"tympan: {on_one_line(text)}", err=True)


def run_service(
    work: Callable[[asyncio.Event], Coroutine[Any, Any, int]],
    log_format: str,
    loop: str,
    *,
    unfinished: Callable[[], str] = str,
    left: Callable[[], Iterable[str]] = tuple,
) -> int:
    """Run until done; SIGINT or SIGTERM sets the event that ``work`` is given.

    ``loop``: a :class:`workers.loop.Loop`, as it was typed. Raises ExtraMissing.

    A signal is answered at once, with what ``unfinished`` says of what the end waits for. A second
    one ends the process at once; what ``left`` names is said before.
    """
    tell = teller(log_format)
    make_loop = factory(Loop(loop))

    async def until_done() -> int:
        running = asyncio.get_running_loop()
        stop = asyncio.Event()

        def interrupt(number: int) -> None:
            if not stop.is_set():
                stop.set()
                tell(": ".join(filter(None, ("stopping", unfinished()))))
                return
            for line in left():
                tell(f"left: {line}")
            sys.stderr.flush()
            os._exit(128 + number)

        for number in SIGNALS:
            running.add_signal_handler(number, interrupt, number)
        return await work(stop)

    with logging_as(LogFormat(log_format)):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            status = runner.run(until_done())
        _leave_threads_behind(status, tell)
        return status


def _leave_threads_behind(status: int, tell: Tell) -> None:
    """A function in a thread that does not end must not keep the process from ending."""
    stuck = [each for each in threading.enumerate() if each.name.startswith("tympan-handler")]
    until = time.monotonic() + MOMENT
    for thread in stuck:
        thread.join(max(0.0, until - time.monotonic()))
    stuck = [thread for thread in stuck if thread.is_alive()]
    if stuck:
        one = len(stuck) == 1
        what = (
            "that still runs in a thread; what it"
            if one
            else "that still run in threads; what they"
        )
        tell(f"left: {counted(len(stuck), 'function')} {what} had in hand is handed out again")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
