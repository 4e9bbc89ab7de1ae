"""``tympan worker``: one replica of a worker's pool. ``tympan reaper``: ends what the dead held."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from broker import Broker, Name, Settings
from broker.names import parse_user
from workers.cli.failures import DONE, FAILED, USAGE
from workers.cli.line import CommandLine, verbatim
from workers.cli.options import login_name, parse_name, parse_seconds
from workers.cli.output import counted
from workers.cli.service import Tell, run_service, service_options, teller
from workers.extras import needed
from workers.frames import own_part, own_sentence
from workers.health import Address, HealthPort, Liveness
from workers.logs import LogFormat
from workers.reaper import Reaper
from workers.runner import Runner
from workers.telemetry import Telemetry
from workers.worker import Worker

log = logging.getLogger("tympan")

POLL = 1.0
RELOADED = "TYMPAN_RELOADED"
"""In the environment of a worker that is run by one that watches its files."""


@click.command(
    short_help="Run a worker: one replica of its pool.",
    epilog=verbatim(
        r"""
Examples:
  tympan worker help_desk:worker
  tympan worker examples/help_desk/help_desk.py:worker
  tympan worker farm.desk:worker --concurrency 32 --drain 60 --health 0.0.0.0:8080
  tympan worker help_desk:worker --reload          # while you write it

SIGTERM or Ctrl-C ends it in order: it takes nothing new, finishes what is in hand for up to --drain
seconds, hands back the rest, and exits with status 0. A second signal ends it at once.
"""
    ),
)
@click.argument("target", metavar="MODULE:OBJECT")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=8,
    show_default=True,
    metavar="N",
    help="Handlers that run at the same time; what comes beyond is left to other replicas.",
)
@click.option(
    "--drain",
    type=parse_seconds,
    default="30",
    show_default=True,
    metavar="SECONDS",
    help="How long what is in hand may take when the worker is told to stop.",
)
@click.option("--reload", is_flag=True, help="Start again whenever a Python file here changes.")
@click.option(
    "--server",
    type=parse_name,
    metavar="SERVER",
    help=r"The print server of handlers that name none, as \\server.",
)
@click.option(
    "--as",
    "user",
    type=parse_user,
    metavar="USER",
    help="Who listens, where the worker does not say.",
)
@service_options
@click.pass_context
def worker(
    ctx: click.Context,
    *,
    target: str,
    concurrency: int,
    drain: float,
    reload: bool,
    server: Name | None,
    user: str | None,
    health: Address | None,
    log_format: str,
    loop: str,
    settings: Settings,
) -> int:
    """Run the worker OBJECT of MODULE: a Python module, looked for here first, or a file."""
    if reload and RELOADED not in os.environ:
        return _watch(teller(LogFormat.TEXT))
    return run_worker(
        load(target),
        ctx.ensure_object(CommandLine).url,
        concurrency=concurrency,
        drain=drain,
        server=server,
        user=user,
        health=health,
        log_format=log_format,
        loop=loop,
        settings=settings,
    )


def run_worker(
    found: Worker,
    url: str | None,
    *,
    concurrency: int,
    drain: float,
    server: Name | None,
    user: str | None,
    health: Address | None,
    log_format: str,
    loop: str,
    settings: Settings,
) -> int:
    """Run one replica of this worker's pool until it is told to stop; returns the exit status."""
    tell = teller(log_format)
    runners: list[Runner] = []

    async def work(stop: asyncio.Event) -> int:
        telemetry = Telemetry() if health is not None else None
        liveness = Liveness(POLL)
        broker = Broker.connect(
            url,
            user=found.user or user or login_name() or "tympan",
            server=str(server) if server is not None else None,
            settings=settings,
            observer=telemetry,
        )
        runner = Runner(
            found,
            broker,
            concurrency=concurrency,
            poll=POLL,
            telemetry=telemetry,
            liveness=liveness,
        )
        runners.append(runner)
        if telemetry is not None:
            telemetry.expect(found.pool, (handler.name for handler in found.handlers))
            telemetry.read_in_hand(runner.in_hand_by_pool)
        async with contextlib.AsyncExitStack() as open_things:
            if health is not None:
                port = HealthPort(health, liveness, obstacles=runner.obstacles, metrics=telemetry)
                tell(f"health at {open_things.enter_context(port).url}")
            beating = asyncio.create_task(liveness.keep())
            try:
                await _unless_stopped(stop, open_things.enter_async_context(broker))
                if stop.is_set():
                    return DONE
                await _unless_stopped(stop, runner.start())
            except Exception as error:  # a hook may raise anything
                if not runner.failed_hook:
                    raise
                _tell_of_hook(runner.failed_hook, error, tell)
                return USAGE
            finally:
                beating.cancel()
            return await _serve(runner, stop, drain, tell)

    return run_service(
        work,
        log_format,
        loop,
        unfinished=lambda: _unfinished(runners, drain),
        left=lambda: _left(runners),
    )


def load(target: str) -> Worker:
    """The worker that MODULE:OBJECT names. Raises BadParameter, which says what is wrong."""
    module_name, colon, path = target.partition(":")
    if not colon or not module_name or not path:
        raise click.BadParameter(
            f"{target!r} is no MODULE:OBJECT: write help_desk:worker, or help_desk.py:worker"
        )
    folder = Path.cwd()
    if module_name.endswith(".py"):
        file = Path(module_name).resolve()
        if not file.is_file():
            raise click.BadParameter(f"there is no file {module_name!r}")
        folder, module_name = file.parent, file.stem
    here = str(folder)
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # somebody else's module may raise anything
        raise click.BadParameter(
            f"module {module_name!r} cannot be imported: {own_sentence(error)} "
            f"(looked in {here} first)"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise click.BadParameter(f"module {module_name!r} has no {path!r}")
        found = getattr(found, part)
    if not isinstance(found, Worker):
        raise click.BadParameter(f"{target} is a {type(found).__name__}, not a workers.Worker")
    if not found.handlers:
        raise click.BadParameter(
            f"{target} has no handlers: decorate some with @worker.listen(...)"
        )
    return found


async def _serve(runner: Runner, stop: asyncio.Event, drain: float, tell: Tell) -> int:
    """Until it is stopped, or needless; then to its end."""
    pool = runner.worker.pool
    if not stop.is_set():
        names = ", ".join(handler.name for handler in runner.worker.handlers)
        tell(f"pool {pool} is served: {names} (Ctrl-C ends)")
        await _either(stop, runner.is_needless)
    is_needless = not stop.is_set()
    try:
        broken = await runner.stop(drain)
    except Exception as error:  # a hook may raise anything
        if not runner.failed_hook:
            raise
        _tell_of_hook(runner.failed_hook, error, tell)
        return FAILED
    if broken:
        tell(_broken_off(broken))
    if not is_needless:
        return DONE
    tell(f"pool {pool} is served nowhere any more: {_why_nowhere(runner)}")
    return FAILED


def _unfinished(runners: list[Runner], drain: float) -> str:
    many = sum(sum(runner.in_hand_by_pool().values()) for runner in runners)
    if not many:
        return ""
    return f"{many:,} in hand, up to {drain:g} s to finish; once more ends at once"


def _left(runners: list[Runner]) -> list[str]:
    return [line for runner in runners for line in runner.describe()]


def _broken_off(broken: int) -> str:
    which = "was broken off; what it" if broken == 1 else "were broken off; what they"
    return f"{counted(broken, 'handler')} {which} had is handed out again"


def _why_nowhere(runner: Runner) -> str:
    causes = {str(error) for error in runner.membership.refused.values()}
    if len(causes) == 1:
        return causes.pop()
    return "it was deleted, its right was revoked, or it was refused"


def _tell_of_hook(name: str, error: Exception, tell: Tell) -> None:
    """The user's part of the traceback, and behind it one line."""
    own = own_part(error.__traceback__)
    log.error("%s failed", name, exc_info=(type(error), error, own or error.__traceback__))
    tell(f"{name} failed: {own_sentence(error)}")


def _watch(tell: Tell) -> int:
    """Run the same command again and again, each time that a Python file changes."""
    with needed("worker", "--reload"):
        from watchfiles import PythonFilter, run_process
    command = shlex.join([sys.executable, "-m", "workers.cli", *sys.argv[1:]])
    os.environ[RELOADED] = "1"
    tell(f"watching {Path.cwd()}")
    run_process(
        Path.cwd(),
        target=command,
        target_type="command",
        watch_filter=PythonFilter(),
        callback=lambda changes: tell(f"{counted(len(changes), 'file')} changed: starting again"),
    )
    return DONE


async def _unless_stopped(stop: asyncio.Event, starting: Any) -> None:
    """Run to the end, unless a signal comes before; then it is broken off."""
    task = asyncio.ensure_future(starting)
    waiting = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def _either(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


@click.command(
    short_help="End what dead processes held, and count the backlog.",
    epilog=verbatim(
        r"""
Every process of a farm looks for the dead now and then. A reaper does it several times a lease, on
every print server, and runs also where nothing else does; any number may run. With --health it
serves /backlog: what each pool has not finished, the figure to scale its replicas by.
"""
    ),
)
@click.option(
    "--every",
    type=parse_seconds,
    default="1",
    show_default=True,
    metavar="SECONDS",
    help="How often the backlog is counted.",
)
@service_options
@click.pass_context
def reaper(
    ctx: click.Context,
    *,
    every: float,
    health: Address | None,
    log_format: str,
    loop: str,
    settings: Settings,
) -> int:
    """Run a reaper for the whole farm until interrupted."""
    if not every:
        raise click.BadParameter("--every: a time above 0")
    url = ctx.ensure_object(CommandLine).url
    tell = teller(log_format)

    async def work(stop: asyncio.Event) -> int:
        telemetry = Telemetry() if health is not None else None
        liveness = Liveness(every)
        broker = Broker.connect(
            url, user=login_name() or "tympan", settings=settings, observer=telemetry
        )
        reaper = Reaper(broker, every=every, liveness=liveness)
        if telemetry is not None:
            telemetry.read_backlog(reaper.backlog.read)
        async with contextlib.AsyncExitStack() as open_things:
            if health is not None:
                port = HealthPort(
                    health,
                    liveness,
                    obstacles=reaper.obstacles,
                    metrics=telemetry,
                    backlog=reaper.backlog.read,
                )
                tell(f"health at {open_things.enter_context(port).url}")
            beating = asyncio.create_task(liveness.keep())
            try:
                await _unless_stopped(stop, open_things.enter_async_context(broker))
            finally:
                beating.cancel()
            if stop.is_set():
                return DONE
            tell("reaping (Ctrl-C ends)")
            await _unless_stopped(stop, reaper.run())
        return DONE

    return run_service(work, log_format, loop)
