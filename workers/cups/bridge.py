"""``tympan bridge run cups``: the bridge of a CUPS print host.

What it needs beside the command line (the extra ``cups``) is imported when it runs: it is listed
without.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker import Broker, Name
from workers.bridge import Bridge
from workers.cli.settings import settings_of
from workers.cups import file
from workers.extras import needed

if TYPE_CHECKING:
    from workers.cups.settings import HostSettings


class CupsBridge(Bridge):
    """``tympan bridge run cups``."""

    description = "Tell the farm what happens on a CUPS print host, and ask about its jobs."
    options = (
        click.Option(
            ["--settings"],
            type=click.Path(dir_okay=False, path_type=Path),
            default=file.DEFAULT,
            show_default=True,
            help="The settings of this print host.",
        ),
    )

    def server(self, /, *_: Any, settings: Path) -> Name | None:
        """The one that the settings name. Raises InvalidSettings."""
        named = _read(settings).server
        return Name(named) if named else None

    def connect(
        self, url: str | None, user: str | None, server: Name, /, *_: Any, settings: Path
    ) -> Broker:
        """As the settings say; ``--url`` goes before them, and they before ``TYMPAN_URL``.

        Raises InvalidSettings, InvalidUrl.
        """
        redis = _read(settings).redis
        if url is None and "url" in redis.model_fields_set:
            url = redis.address()
        chosen = settings_of(redis.settings)
        return Broker.connect(url, user=user, server=str(server), settings=chosen)

    async def run(self, broker: Broker, server: Name, *_: Any, settings: Path) -> None:
        """Until it is cancelled.

        Raises InvalidSettings, SpoolFault, Claimed, AccessDenied, ExtraMissing.
        """
        with needed("cups", "bridge run cups"):
            from workers.cups.print_host import PrintHost
        await PrintHost(broker, server.of_server, _read(settings)).serve()


def _read(path: Path) -> HostSettings:
    from workers.cups.settings import HostSettings

    return HostSettings.read(path)
