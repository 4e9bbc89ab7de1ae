"""``tympan up``: a private Redis to try things on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click
from rich.text import Text

from workers.cli.line import farm_options, verbatim
from workers.cli.output import Output
from workers.cli.running import SIGNALS
from workers.embedded import EmbeddedRedis, EmbeddedRedisError

LOOK_EVERY_S = 0.1


@click.command(
    short_help="Start a private Redis and run until interrupted.",
    epilog=verbatim(
        r"""
Examples:
  tympan up
  tympan up --port 6380 --data ~/tympan-data      # keeps its data for the next time
"""
    ),
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    metavar="P",
    help="TCP port on this host; default a free one.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder to keep the data in; default a temporary one, deleted at the end.",
)
@farm_options
@click.pass_context
def up(ctx: click.Context, port: int | None, data: Path | None) -> int:
    """Start a private redis-server and run until interrupted.

    It listens on the loopback interface only, and ends with this command (Ctrl-C).
    """
    output = Output.of(ctx)
    stopping = False

    def stop(*_: object) -> None:  # a plain flag: a handler that took a lock could wait for itself
        nonlocal stopping
        stopping = True

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        with EmbeddedRedis(port, data, config={"maxmemory": half_of_memory()}) as server:
            kept = "kept" if data else "deleted at the end"
            output.tell(
                {"url": server.url},
                Text(f"Redis runs at {server.url} (data in {server.data}, {kept})", "green"),
                Text(f"export TYMPAN_URL={server.url}", "bold"),
                Text("Type that line in other terminals; Ctrl-C here stops Redis.", "dim"),
            )
            while not stopping:
                time.sleep(LOOK_EVERY_S)
                if not server.running:
                    raise EmbeddedRedisError(
                        f"redis-server ended by itself; its log is {server.log}"
                        if data
                        else "redis-server ended by itself; with --data its log is kept"
                    )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def half_of_memory() -> int:
    """Bytes of this host's memory, halved: what a Redis to try things on may take."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
