"""A channel as Redis knows it, to whoever ends it for another process or carries its dialog on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker._calls import Route
from broker._keys import Audience, channel_audiences, parse_subject
from broker._stored import stored
from broker.conversation import BIDIRECTIONAL
from broker.names import Name

if TYPE_CHECKING:
    from broker._server import Server


async def read_facts(server: Server, channel: str, *fields: str) -> dict[str, str]:
    """Fields of a channel's hash, those that it has. Raises ForeignLayout, RedisError."""
    values = await server.command("HMGET", server.keys.channel(channel), *fields)
    with stored(f"channel {channel}"):
        return {
            field: value.decode()
            for field, value in zip(fields, values, strict=True)
            if value is not None
        }


def boards_of(server: Server, channel: str, subject: str | None) -> Route:
    """The boards that a channel of this subject is offered on; a unidirectional one has none."""
    audiences: tuple[Audience, ...] = ()
    printer, user = "", ""
    if subject is not None:
        printer, type_, style, user = parse_subject(subject)
        if style is BIDIRECTIONAL:
            audiences = channel_audiences(Name(server.name, printer), type_, style, user)
    return Route.of(server.keys, channel, printer, user, audiences)
