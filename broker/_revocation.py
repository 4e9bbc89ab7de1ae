"""Revocation: what stood on grants that are not there any more ends (D4)."""

from __future__ import annotations

from broker._rundown import end_registration
from broker._server import Server
from broker._standing import granted
from broker.inventory import read_registrations
from broker.names import Name


async def end_ungranted(server: Server, name: Name, kind: str, user: str | None = None) -> int:
    """End the registrations for a name, of one user or of all, that have lost their grant.

    ``kind`` is the script's word for why: ``revoke`` or ``delete``. What stands on somebody's own
    rights source is that source's matter. Returns how many ended.
    """
    standing = [
        facts
        for facts in await read_registrations(server)
        if facts.name == name and facts.needed and not facts.source and user in (None, facts.user)
    ]
    has = await granted(server, {(facts.user, name) for facts in standing})
    ended = 0
    for facts in standing:
        if facts.needed & ~has[facts.user, name]:
            word = await end_registration(server, facts.id, kind, facts.session)
            ended += word in ("OK", "GONE")
    return ended
