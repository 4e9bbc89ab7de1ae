"""A bridge's claim to be the one of its print server: a channel that stands as long as it lives.

Two print hosts of one name would tell of two printers under one name, and each would hear answers
that are meant for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

from broker import Broker, Channel, Name
from broker.errors import RedisRefused, TympanError
from broker.names import MAX_USER, fold
from workers.cups.types import ServerStatus

log = logging.getLogger("tympan.cups")

MARK = "bridge of "
PAUSE = 0.2
LAST_MOMENT = 2.0
LEASES = 2
"""How long the claim of a bridge that died may stand, in leases."""


class Claimed(TympanError):
    """Another host's bridge speaks for this print server."""


def identity(spool: Path) -> str:
    """Which bridge this is, wherever it runs: its host, and its spool there."""
    return fold(f"{MARK}{socket.gethostname()} ({spool})".replace("|", "-"))[:MAX_USER]


class Claim:
    """Make it, look after it now and then, and end it."""

    def __init__(self, broker: Broker, server: Name, identity: str) -> None:
        self._broker = broker
        self._server = server.of_server
        self._identity = identity
        self._channel: Channel | None = None

    async def make(self) -> None:
        """Raises Claimed where an older claim of another bridge stands for longer than two leases.

        A credential that may not read the inventory goes without the check.
        """
        channel = await self._broker.open_channel(self._server, ServerStatus, user=self._identity)
        self._channel = channel
        due = asyncio.get_running_loop().time() + LEASES * self._broker.settings.lease
        try:
            while (other := await self._older(channel)) is not None:
                if asyncio.get_running_loop().time() >= due:
                    raise Claimed(
                        f"{self._server} has a bridge already: the {other}. This is the "
                        f"{self._identity}. Stop one of them, or give one of the two hosts another "
                        "name: server in its settings, ServerName in its cupsd.conf"
                    )
                await asyncio.sleep(PAUSE)
        except BaseException:
            await self.end()
            raise

    async def _older(self, channel: Channel) -> str | None:
        try:
            claims = [
                facts
                for facts in await self._broker.channels(self._server)
                if facts.type == channel.type and (facts.user or "").startswith(MARK)
            ]
        except RedisRefused as error:
            log.warning(
                "whether another bridge speaks for %s cannot be seen (%s): make the credential by "
                "tympan acl source observer --all-users --server '%s'",
                self._server,
                error,
                self._server,
            )
            return None
        own = next((facts for facts in claims if facts.id == channel.id), None)
        if own is None:
            return None
        mine = own.opened_at, own.id
        others = [f for f in claims if f.user != own.user and (f.opened_at, f.id) < mine]
        return others[0].user if others else None

    async def renew(self) -> None:
        """Make it again where Redis has lost it, or this process lapsed. Raises Claimed."""
        if self._channel is not None and self._channel.is_open:
            return
        with contextlib.suppress(TympanError):  # what is left of the former one its lease ends
            await self.end()
        await self.make()

    async def end(self) -> None:
        """Let it go."""
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open:
            try:
                async with asyncio.timeout(LAST_MOMENT):
                    await channel.release()
            except (TympanError, TimeoutError) as error:  # its lease ends it
                log.debug("the claim was not released: %s", error)
