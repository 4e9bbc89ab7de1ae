"""Running: an event loop that ends politely on a signal, and a broker with a person waiting."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import click

from broker import Broker
from broker._address import Form, form_of
from broker.settings import default_url
from workers.cli.line import CommandLine
from workers.cli.options import login_name
from workers.cli.output import logging_to_stderr
from workers.cli.settings import settings_of

PATIENCE = 5.0
"""Seconds that one call may take: a person waits, and a script is told 5 (Redis unreachable)."""
FAILOVER_PATIENCE = 30.0
"""The same where another process may take over: that takes longer, and the person is told."""
STOPPED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(work: Coroutine[Any, Any, int], *, interrupted: int = STOPPED) -> int:
    """Run to the end, and return its exit status.

    SIGINT or SIGTERM cancels the work, which cleans up; the status then is ``interrupted`` where
    the work does not return one of its own. A second signal ends the process at once.
    """

    async def until_done() -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(work)
        is_interrupted = False

        def interrupt() -> None:
            nonlocal is_interrupted
            is_interrupted = True
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            task.cancel()

        for number in SIGNALS:
            loop.add_signal_handler(number, interrupt)
        try:
            return await task
        except asyncio.CancelledError:
            if is_interrupted:
                return interrupted
            raise

    with logging_to_stderr():
        return asyncio.run(until_done())


def connect(ctx: click.Context, user: str | None = None, *, looks: bool = False) -> Broker:
    """A broker for one command, not entered yet.

    ``user`` is whom the command acts as; commands that act as nobody need none. ``looks``: it
    lists what is there; then a part of a Cluster that is away does not keep the rest waiting.
    """
    url = ctx.ensure_object(CommandLine).url or default_url()
    form = form_of(url)
    is_patient = form is Form.SENTINEL or (form is Form.CLUSTER and not looks)
    return Broker.connect(
        url,
        user=user or login_name() or "tympan",
        settings=settings_of(
            {},
            connect_timeout=PATIENCE,
            reply_timeout=PATIENCE,
            operation_timeout=FAILOVER_PATIENCE if is_patient else PATIENCE,
        ),
    )


def agreed(what: str, act: str) -> bool:
    """Ask the person, after the sentence ``what``, whether to ``act``.

    Raises UsageError where nobody is there to be asked.
    """
    try:
        return click.confirm(f"{what}. {act[:1].upper()}{act[1:]}?", err=True)
    except click.Abort:
        if sys.stdin is not None and sys.stdin.isatty():
            raise
        raise click.UsageError(f"{what}: say --yes to {act}") from None
