"""Deletion of a printer: what is open on it is over, and those who listen are told (R65).

There is no transaction around it: each step is a script that compares first. A deletion that was
broken off is finished by the next one, and two at once do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker import _calls
from broker._keys import Audience, grant_field, parse_subject, registration_audiences
from broker._revocation import end_ungranted
from broker._rundown import AT_ONCE, close_channel
from broker._server import Server, new_id
from broker.conversation import UNIDIRECTIONAL
from broker.inventory import fields_of, read_grants, read_registrations
from broker.names import Name
from broker.rights import Right


@dataclass(frozen=True, slots=True)
class Deletion:
    """What the deletion of a printer found, and ended."""

    name: Name
    channels: int
    """Channels that it closed."""
    told: int
    """Unidirectional registrations that it told, and that stay unless they are counted as ended."""
    ended: int
    """Registrations that ended with the grants that they stood on."""
    grants: int
    """Users whose grants it removed."""


async def delete_printer(server: Server, name: Name) -> Deletion:
    """Close its channels, tell its listeners, remove its grants, and end what stood on them.

    In this order, so that a release comes behind everything that was sent, and before the end of
    what ends.
    """
    channels = await _close_channels(server, name)
    told = await _tell_listeners(server, name)
    grants = await _remove_grants(server, name)
    ended = await end_ungranted(server, name, "delete")
    return Deletion(name, channels, told, ended, grants)


async def _close_channels(server: Server, name: Name) -> int:
    closed = 0
    for channel, subject in (await fields_of(server, server.keys.channels)).items():
        if parse_subject(subject)[0] == name.printer:
            closed += await close_channel(server, channel) == "OK"
    return closed


async def _tell_listeners(server: Server, name: Name) -> int:
    """One entry in each of their streams; an own id makes it one deletion to all of them."""
    listening = [
        facts
        for facts in await read_registrations(server)
        if facts.name == name and facts.style is UNIDIRECTIONAL
    ]
    audiences: dict[Audience, None] = {}
    for facts in listening:
        of_it = registration_audiences(
            name, facts.type, facts.style, facts.user, facts.user_filter, printers=False
        )
        audiences |= dict.fromkeys(of_it)
    listed, deletion = list(audiences), new_id()
    for i in range(0, max(1, len(listed)), AT_ONCE):
        part = listed[i : i + AT_ONCE]
        await server.ask_anew(
            lambda: _calls.delete_printer(server.keys, deletion, i, name.printer, part)  # noqa: B023 (asked in the same turn)
        )
    return len(listening)


async def _remove_grants(server: Server, name: Name) -> int:
    removed = 0
    for grant in await read_grants(server):
        if grant.name == name:
            field = grant_field(name.printer, grant.user)
            everything = _calls.grant(server.keys, field, int(Right.PRINTER_ALL_ACCESS), give=False)
            await server.ask_anew(lambda: everything)  # noqa: B023 (asked in the same turn)
            removed += 1
    return removed
