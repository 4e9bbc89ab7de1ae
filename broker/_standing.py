"""Standing: who says that a user has a right, asked before, and again while something stands on it.

The grants in Redis are asked by the scripts themselves, in the step that needs them. A source of
the user's own (:class:`broker.rights.RightsSource`) is asked by the client before that step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from broker._keys import grant_field
from broker._plan import RegistrationPlan
from broker.errors import (
    AccessDenied,
    InvalidArgument,
    OutcomeUnknown,
    RedisError,
    RightsUnavailable,
    SessionLapsed,
)
from broker.names import Name
from broker.rights import Right, RightsSource, short_name

if TYPE_CHECKING:
    from broker._server import Server
    from broker.registration import Registration

log = logging.getLogger("tympan")

AT_ONCE = 16
"""Questions that a source is asked at the same time."""
FIELDS = 256
"""Grants that are read at a time."""
Holder = tuple[str, Name]
"""A user, and the printer or server that the right is for."""


class Standing:
    """Whom one client asks for rights."""

    def __init__(self, source: RightsSource | None = None) -> None:
        if source is not None and not callable(getattr(source, "rights", None)):
            raise InvalidArgument(
                f"{source!r} is no rights source: it has no `async def rights(user, name)`"
            )
        self._source = source

    @property
    def source(self) -> str:
        """The name of the source; empty for the grants in Redis, which the scripts ask."""
        if self._source is None:
            return ""
        return str(getattr(self._source, "__name__", type(self._source).__name__))

    async def require(self, server: Server, user: str, name: Name, needed: int) -> None:
        """Ask the source, if there is one, whether the user has this right.

        Raises AccessDenied, and RightsUnavailable where the source fails, or is silent for the
        reply timeout.
        """
        if self._source is None or not needed:
            return
        if needed & ~await self._ask(server, user, name):
            raise denied(user, name, needed, self.source)

    async def _ask(self, server: Server, user: str, name: Name) -> Right:
        assert self._source is not None
        patience = server.settings.reply_timeout
        try:
            async with asyncio.timeout(patience):
                return Right(await self._source.rights(user, name))
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, TimeoutError):
                why = f"it is silent for {patience:g} s"
            raise RightsUnavailable(
                f"the rights source {self.source} does not say what {user} may do on {name} "
                f"({why}); try again when it works"
            ) from error

    async def rights(
        self, server: Server, holders: Collection[Holder]
    ) -> dict[Holder, Right | RightsUnavailable]:
        """What each has now, of those on one server. Raises RedisError where Redis is asked."""
        if self._source is None:
            return dict(await granted(server, holders))
        found: dict[Holder, Right | RightsUnavailable] = {}
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(user: str, name: Name) -> None:
            async with gate:
                try:
                    found[user, name] = await self._ask(server, user, name)
                except RightsUnavailable as error:
                    found[user, name] = error

        await asyncio.gather(*(ask(*holder) for holder in holders))
        return found


def denied(user: str, name: Name, needed: int, source: str = "") -> AccessDenied:
    """The error for a right that somebody lacks, and who says so."""
    mask = Right(needed)
    right = short_name(mask, name)
    says = f"the rights source {source} says so"
    if not source:
        says = f"it takes a grant there (tympan grant '{name}' {user} {right})"
    return AccessDenied(f"{user} lacks the right {right!r} ({mask.name}) on {name}: {says}")


async def granted(server: Server, holders: Collection[Holder]) -> dict[Holder, Right]:
    """What the grants of one server say of each."""
    found: dict[Holder, Right] = {}
    listed = list(holders)
    for i in range(0, len(listed), FIELDS):
        part = listed[i : i + FIELDS]
        fields = [grant_field(name.printer, user) for user, name in part]
        masks = await server.command("HMGET", server.keys.grants, *fields)
        found |= {holder: Right(int(mask or 0)) for holder, mask in zip(part, masks, strict=True)}
    return found


async def watch(server: Server) -> None:
    """Each lease, ask again for what stands here on a right, and end what lost it.

    So it counts when a source takes a right back, and a revocation is finished whose author died.
    """
    while True:
        await asyncio.sleep(server.settings.lease)
        with contextlib.suppress(RedisError, OutcomeUnknown, SessionLapsed):  # next time, then
            await server.listening.settle_doubts()
            await check(server)


async def check(server: Server) -> None:
    """Ask once. A source that fails ends nothing."""
    here = [
        (registration, registration.plan)
        for registration in server.listening.registrations.values()
        if registration.is_registered and registration.plan.needed
    ]
    served = [
        (replica, replica.plan)
        for replica in server.replicas.values()
        if replica.is_joined and replica.plan.needed
    ]
    standing = server.listening.standing
    holders = {(plan.user, plan.name) for _, plan in [*here, *served]}
    rights = await standing.rights(server, holders)
    failed = [has for has in rights.values() if isinstance(has, RightsUnavailable)]
    if failed:
        log.warning(
            "server %s: registrations of %d users go on although nobody knows their rights: %s",
            server.name,
            len(failed),
            failed[0],
        )
    for registration, plan in here:
        has = rights[plan.user, plan.name]
        if isinstance(has, Right) and plan.needed & ~has and registration.plan is plan:
            await _end(server, registration, plan)
    for replica, plan in served:
        has = rights[plan.user, plan.name]
        if isinstance(has, Right) and plan.needed & ~has:
            await replica.refused(denied(plan.user, plan.name, plan.needed, plan.source))


async def _end(server: Server, registration: Registration[Any], plan: RegistrationPlan) -> None:
    if not registration.is_registered:  # its listener, or whoever revoked the right, was first
        return
    cause = denied(plan.user, plan.name, plan.needed, plan.source)
    log.warning("server %s: registration %s ends: %s", server.name, registration.id, cause)
    server.listening.doubtful[registration.id] = plan
    await server.listening.part(registration, str(cause), cause)
    await server.listening.settle_doubts()
