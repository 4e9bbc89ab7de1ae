"""Revocation: what stood on grants that are not there any more ends (D4)."""

from __future__ import annotations

from broker import _pools
from broker._rundown import end_registration
from broker._server import Server
from broker._standing import granted
from broker.inventory import read_registrations
from broker.names import Name


async def end_ungranted(server: Server, name: Name, kind: str, user: str | None = None) -> int:
    """End the registrations and pools for a name, of one user or of all, that lost their grant.

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
    return ended + await _end_pools(server, name, user)


async def _end_pools(server: Server, name: Name, user: str | None) -> int:
    """Whoever serves them finds out with his next look."""
    pools = await _pools.read(server)
    standing = [
        pool
        for pool in pools
        if pool.plan.name == name and pool.plan.right and user in (None, pool.plan.user)
    ]
    has = await granted(server, {(pool.plan.user, name) for pool in standing})
    ended = [pool for pool in standing if pool.plan.needed & ~has[pool.plan.user, name]]
    return sum([await _pools.delete(server, pool) for pool in ended])
