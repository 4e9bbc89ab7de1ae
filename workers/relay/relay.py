"""Relay: a worker whose handler tells a destination."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Broker,
    Name,
    Notification,
    Payload,
    Style,
)
from broker.errors import TympanError
from broker.names import parse_pool
from broker.notification import model_of
from broker.replica import Delivery
from workers.alert import Severity, alert_of, kind_of
from workers.cups.types import JobQuestion, PrinterStatus, ServerStatus
from workers.handler import Function
from workers.relay.post import Post
from workers.verdict import Decline
from workers.worker import EVERYWHERE, Worker

log = logging.getLogger("tympan")

USUAL: tuple[type[Payload], ...] = (PrinterStatus, ServerStatus)
TRIES = 300
"""Deliveries before a dead letter: with pauses of up to 5 minutes about a day."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is told.

    An empty ``names`` is the whole farm, and an empty ``types`` the usual ones.
    """

    names: Sequence[Name] = ()
    types: Sequence[Any] = ()
    """GUIDs, or models."""
    least: Severity = Severity.WARNING
    all_users: bool = False
    """Whether to hear what is for others, too; the user has to administer the names."""
    questions: bool = False
    """Whether to tell of questions that are open; they are left to others."""


def relay_of(
    wanted: Wanted, post: Post, pool: str, *, user: str | None = None, tries: int = TRIES
) -> Worker:
    """A worker that hears what is wanted, and gives it to the post.

    A run of its handler lasts until the alert is told, so there is no time-out; the post has one.
    Raises InvalidName, InvalidArgument, HandlerFault.
    """
    worker = Worker(pool, user=user, max_deliveries=tries, timeout=None)

    places: list[Name | str] = [
        name
        for name in dict.fromkeys(wanted.names)
        if not any(other != name and other.covers(name) for other in wanted.names)
    ]
    for place in places or [EVERYWHERE]:
        for style, kind in _heard(wanted):
            make = _question_handler if style is BIDIRECTIONAL else _alert_handler
            worker.listen(
                place,
                kind,
                user_filter=ALL_USERS if wanted.all_users else PER_USER,
                style=style,
                printers=not (isinstance(place, Name) and place.printer),
            )(make(post, wanted.least, kind_of(model_of(kind)[0])))

    @worker.on_startup
    async def say_where(broker: Broker) -> None:
        log.info("sends to %s", post.destination.name)
        servers = {Name(name.server) for name in wanted.names}
        await _warn_of_others(broker, pool, user or broker.user, servers)

    @worker.on_drain
    async def end_the_post() -> None:
        post.end()

    @worker.on_shutdown
    async def close_the_post() -> None:
        await post.close()

    return worker


async def _warn_of_others(broker: Broker, pool: str, user: str, servers: set[Name]) -> None:
    """Of pools of this name that somebody else left: they collect, and nobody takes it."""
    found: dict[str, set[str]] = {}
    try:
        for server in sorted(servers or {Name(name) for name in await broker.servers()}):
            for one in await broker.pools.on_server(server):
                if one.pool == parse_pool(pool) and one.user != user and not one.replicas:
                    found.setdefault(one.user, set()).add(str(one.name))
    except TympanError as error:  # the relay does without
        log.info("pools of others cannot be looked at: %s", error)
    for other, names in found.items():
        log.warning(
            "pool %s of %s collects on %s, and no replica takes it: where that is not wanted, end "
            "this relay, delete the pool (tympan pool delete %s), and start again",
            pool,
            other,
            ", ".join(sorted(names)),
            pool,
        )


def _heard(wanted: Wanted) -> list[tuple[Style, Any]]:
    """Styles and types; questions of CUPS hosts are never told, only asked."""
    kinds = {model_of(kind)[0]: kind for kind in wanted.types or USUAL}
    own = JobQuestion.notification_type
    asks: dict[UUID, Any] = {own: JobQuestion} if wanted.questions or own in kinds else {}
    if wanted.questions:
        asks |= {guid: kind for guid, kind in kinds.items() if wanted.types}
    return [
        *((UNIDIRECTIONAL, kind) for guid, kind in kinds.items() if guid != own),
        *((BIDIRECTIONAL, kind) for kind in asks.values()),
    ]


def _alert_handler(post: Post, least: Severity, name: str) -> Function:
    async def relay(told: Notification[Any], delivery: Delivery[Any]) -> None:
        id_ = f"{told.name.server}/{told.channel}/{delivery.place.entry}"
        alert = alert_of(told, id_, least)
        if alert is not None:
            await post.tell(alert)

    relay.__name__ = name
    return relay


def _question_handler(post: Post, _: Severity, name: str) -> Function:
    async def relay(told: Notification[Any]) -> None:
        id_ = f"{told.name.server}/{told.channel}"
        alert = alert_of(told, id_, Severity.REPORT, BIDIRECTIONAL)
        if alert is not None:
            await post.tell(alert)
        raise Decline

    relay.__name__ = name
    return relay
