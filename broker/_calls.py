"""Calls: what each script is given, from the nouns of this field. Pure: no I/O.

Each function binds one Lua file's keys and arguments, in the order of its header.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from broker import _scripts
from broker._keys import LAYOUT, Audience, Keys, channel_audiences, inbox_field
from broker._plan import PoolPlan, RegistrationPlan
from broker._room import Take
from broker._scripts import Arg, Call
from broker.conversation import BIDIRECTIONAL
from broker.names import Name


class Stowed(NamedTuple):
    """Where a body travels: in the script's argument, or under a key of its own."""

    kept: str
    """``body``, ``ref``, ``bodies``, or ``none`` for a close without a reason."""
    arg: bytes | str
    key: str | None


NO_BODY = Stowed("none", "", None)


def inside(body: bytes) -> Stowed:
    """A body that travels in the call."""
    return Stowed("body", body, None)


def together(bodies: Iterable[bytes]) -> Stowed:
    """Several bodies of one call, as netstrings."""
    return Stowed("bodies", b"".join(b"%d:%s" % (len(body), body) for body in bodies), None)


def pairs(keys: Keys, audiences: Iterable[Audience]) -> tuple[list[str], list[str]]:
    """Stream and room of each audience."""
    listed = list(audiences)
    return [keys.stream(audience) for audience in listed], [keys.room(a) for a in listed]


def _fields(audiences: Iterable[Audience]) -> tuple[list[str]]:
    return ([audience.field for audience in audiences],)


# Sessions --------------------------------------------------------------------------------------


def hello(keys: Keys, session: str, lease: int, bell: str) -> Call:
    """A session begins; ``lease`` in ms, ``bell`` the command that this client would ring by."""
    return _scripts.HELLO.call(
        (keys.meta, keys.leases, keys.streams),
        (session, lease, LAYOUT, inbox_field(session), bell),
    )


def renew(keys: Keys, session: str, lease: int, unread: str) -> Call:
    """A session lives; ``unread`` is the first id of its inbox that it may still need."""
    return _scripts.RENEW.call((keys.meta, keys.leases, keys.inbox(session)), (lease, unread))


def sweep(keys: Keys, most: int) -> Call:
    """Mark and name the dead."""
    return _scripts.SWEEP.call((keys.meta, keys.leases), (most,))


def bury(keys: Keys, session: str) -> Call:
    """Forget a session that holds nothing."""
    return _scripts.BURY.call(
        (keys.meta, keys.leases, keys.streams, keys.held(session), keys.inbox(session)),
        (session, inbox_field(session)),
    )


def grant(keys: Keys, field: str, mask: int, *, give: bool) -> Call:
    """Change a mask of rights."""
    return _scripts.GRANT.call((keys.meta, keys.leases, keys.grants), (field, mask, int(give)))


def confirm(keys: Keys, channel: str, handle: str, op: int, token: str) -> Call:
    """Ask whether Redis still knows what this end knows."""
    return _scripts.CONFIRM.call(
        (keys.meta, keys.leases, keys.channel(channel)), (handle, op, token)
    )


# Channels --------------------------------------------------------------------------------------


def open_channel(
    keys: Keys,
    session: str,
    channel: str,
    subject: str,
    style: str,
    by: str,
    right: str,
    needed: int,
    limit: int,
) -> Call:
    """Open a channel; ``right`` is empty where none is asked for."""
    return _scripts.OPEN.call(
        (
            keys.meta,
            keys.leases,
            keys.opened,
            keys.channels,
            keys.grants if right else keys.meta,
            keys.held(session),
            keys.channel(channel),
        ),
        (channel, subject, style, by, right, needed, limit),
    )


@dataclass(frozen=True, slots=True)
class Route:
    """Where a channel's notifications go: what the scripts need of it, made once."""

    channel: str
    printer: str
    target: str
    streams: list[str]
    rooms: list[str]
    fields: list[str]
    idles: list[str]
    pools: list[str]
    """The pool behind each stream; empty where it is an audience's."""
    listed: str
    """Which list of pools it was made by."""

    @classmethod
    def of(
        cls,
        keys: Keys,
        channel: str,
        printer: str,
        target: str,
        audiences: Sequence[Audience],
        pools: Sequence[PoolPlan] = (),
        listed: str = "0",
    ) -> Route:
        """The route to these audiences, and to the streams of these pools."""
        own = [pool.audiences[0] for pool in pools]
        streams, rooms = pairs(keys, [*audiences, *own])
        return cls(
            channel,
            printer,
            target,
            streams,
            rooms,
            *_fields([*audiences, *own]),
            [*rooms[: len(audiences)], *(keys.idle(pool.id) for pool in pools)],
            [*("" for _ in audiences), *(pool.id for pool in pools)],
            listed,
        )

    @classmethod
    def to_boards(cls, keys: Keys, channel: str, name: Name, type_: UUID, user: str) -> Route:
        """Where a question goes, and where it is taken away again."""
        boards, rooms, fields, no_pools = _boards(keys, name, type_, user)
        return cls(channel, name.printer, user, boards, rooms, fields, rooms, no_pools, "0")


@lru_cache(maxsize=1024)
def _boards(
    keys: Keys, name: Name, type_: UUID, user: str
) -> tuple[list[str], list[str], list[str], list[str]]:
    """Boards, their rooms and fields, and the pools behind them: the same for many questions."""
    audiences = channel_audiences(name, type_, BIDIRECTIONAL, user)
    return *pairs(keys, audiences), *_fields(audiences), [""] * len(audiences)


def uni_send(
    keys: Keys, route: Route, op: int, body: Stowed, trace: str, keep: int, *, lossless: bool
) -> Call:
    """Unidirectional notifications; ``keep`` in ms is how long a body waits for a pool."""
    channel = keys.channel(route.channel)
    return _scripts.UNI_SEND.call(
        (keys.meta, keys.leases, channel, keys.streams, body.key or channel),
        (
            op,
            route.channel,
            route.printer,
            route.target,
            body.arg,
            body.kept,
            int(lossless),
            trace,
            route.listed,
            keep,
        ),
        key_lists=(route.streams, route.rooms, route.idles),
        arg_lists=(route.fields, route.pools),
    )


def offer(keys: Keys, route: Route, op: int, body: Stowed, trace: str) -> Call:
    """The initial notification of a bidirectional channel."""
    channel = keys.channel(route.channel)
    return _scripts.OFFER.call(
        (
            keys.meta,
            keys.leases,
            channel,
            keys.log(route.channel),
            keys.streams,
            body.key or channel,
        ),
        (op, route.channel, route.printer, route.target, body.arg, body.kept, trace),
        key_lists=(route.streams, route.rooms),
        arg_lists=(route.fields,),
    )


def offer_again(keys: Keys, route: Route) -> Call:
    """Put an open question back on the boards that lost it."""
    return _scripts.OFFER_AGAIN.call(
        (
            keys.meta,
            keys.leases,
            keys.channel(route.channel),
            keys.log(route.channel),
            keys.streams,
        ),
        (route.channel, route.printer, route.target),
        key_lists=(route.streams, route.rooms),
        arg_lists=(route.fields,),
    )


def follow_up(
    keys: Keys, channel: str, op: int, token: str, listening: str, body: Stowed, trace: str
) -> Call:
    """The source speaks to the owner, whose session is ``listening``."""
    return _scripts.FOLLOW_UP.call(
        (
            keys.meta,
            keys.leases,
            keys.channel(channel),
            keys.log(channel),
            keys.streams,
            keys.inbox(listening),
            body.key or keys.channel(channel),
        ),
        (op, channel, token, listening, inbox_field(listening), body.arg, body.kept, trace),
    )


@dataclass(frozen=True, slots=True)
class Handle:
    """A listener's end: who answers, on what, to whom."""

    registration: str
    user: str
    session: str
    source: str
    """The source's session."""
    route: Route
    asked: str | None
    """Key of the initial notification's body, where it is kept by reference."""


def respond(
    keys: Keys,
    handle: Handle,
    op: int,
    keep: int,
    body: Stowed,
    trace: str = "",
    *,
    ends_turn: bool = False,
) -> Call:
    """A listener answers; ``keep`` in ms is how long the question's body stays."""
    channel = keys.channel(handle.route.channel)
    return _scripts.RESPOND.call(
        (
            keys.meta,
            keys.leases,
            channel,
            keys.log(handle.route.channel),
            keys.streams,
            keys.inbox(handle.source),
            keys.held(handle.session),
            handle.asked or channel,
            body.key or channel,
        ),
        (
            op,
            handle.route.channel,
            handle.registration,
            handle.user,
            inbox_field(handle.source),
            keep,
            body.arg,
            body.kept,
            "ends" if ends_turn else "",
            trace,
        ),
        key_lists=(handle.route.streams, handle.route.rooms),
        arg_lists=(handle.route.fields,),
    )


def source_close(
    keys: Keys,
    route: Route,
    op: int,
    kind: str,
    holder: str,
    listening: str,
    keep: int,
    asked: str | None,
    reason: Stowed,
) -> Call:
    """The source's end closes, lets go, or is run down. A unidirectional route has no boards."""
    other = listening or holder
    channel = keys.channel(route.channel)
    return _scripts.SOURCE_CLOSE.call(
        (
            keys.meta,
            keys.leases,
            keys.channels,
            channel,
            keys.log(route.channel),
            keys.streams,
            keys.held(holder),
            keys.inbox(other),
            keys.held(other),
            asked or channel,
        ),
        (
            op,
            route.channel,
            holder,
            kind,
            listening,
            inbox_field(other),
            keep,
            reason.arg,
            reason.kept,
        ),
        key_lists=(route.streams, route.rooms),
        arg_lists=(route.fields,),
    )


def listener_close(
    keys: Keys, handle: Handle, op: int, kind: str, keep: int, reason: Stowed
) -> Call:
    """A listener's end declines, closes, lets go, or is run down."""
    channel = keys.channel(handle.route.channel)
    return _scripts.LISTENER_CLOSE.call(
        (
            keys.meta,
            keys.leases,
            keys.channels,
            channel,
            keys.log(handle.route.channel),
            keys.streams,
            keys.held(handle.session),
            keys.inbox(handle.source),
            keys.held(handle.source),
            handle.asked or channel,
            reason.key or channel,
        ),
        (
            op,
            handle.route.channel,
            handle.registration,
            handle.session,
            kind,
            handle.user,
            inbox_field(handle.source),
            keep,
            reason.arg,
            reason.kept,
        ),
        key_lists=(handle.route.streams, handle.route.rooms),
        arg_lists=(handle.route.fields,),
    )


def server_close(
    keys: Keys, route: Route, holder: str, listening: str, keep: int, asked: str | None
) -> Call:
    """The print server closes a channel of session ``holder``; ``listening`` owns it, if any."""
    other = listening or holder
    channel = keys.channel(route.channel)
    return _scripts.SERVER_CLOSE.call(
        (
            keys.meta,
            keys.leases,
            keys.grants,
            keys.channels,
            channel,
            keys.log(route.channel),
            keys.streams,
            keys.held(holder),
            keys.inbox(holder),
            keys.held(other),
            keys.inbox(other),
            asked or channel,
        ),
        (route.channel, holder, inbox_field(holder), listening, inbox_field(other), keep),
        key_lists=(route.streams, route.rooms),
        arg_lists=(route.fields,),
    )


# Printers --------------------------------------------------------------------------------------


def delete_printer(
    keys: Keys, deletion: str, part: int, printer: str, audiences: Sequence[Audience]
) -> Call:
    """Tell these audiences that their printer is gone; one part of those of a deletion."""
    return _scripts.DELETE_PRINTER.call(
        (keys.meta, keys.leases, keys.grants, keys.streams),
        (deletion, part, printer),
        key_lists=pairs(keys, audiences),
        arg_lists=_fields(audiences),
    )


# Registrations ---------------------------------------------------------------------------------


def register(
    keys: Keys,
    session: str,
    registration: str,
    plan: RegistrationPlan,
    record: Mapping[str, Any],
    limit: int,
    buffer: int | str,
) -> Call:
    """A listener registers; ``buffer`` is empty for a bidirectional one."""
    return _scripts.REGISTER.call(
        (
            keys.meta,
            keys.leases,
            keys.grants if plan.right else keys.meta,
            keys.counts,
            keys.registrations,
            keys.streams,
            keys.held(session),
        ),
        (
            registration,
            json.dumps(record),
            plan.group(registration),
            plan.right,
            plan.needed,
            plan.count,
            limit,
            buffer,
        ),
        key_lists=pairs(keys, plan.audiences),
        arg_lists=_fields(plan.audiences),
    )


def unregister(
    keys: Keys, registration: str, plan: RegistrationPlan | None, kind: str, holder: str
) -> Call:
    """A registration ends; without a plan only what its holder's set says of it."""
    audiences = plan.audiences if plan else ()
    return _scripts.UNREGISTER.call(
        (
            keys.meta,
            keys.leases,
            keys.counts,
            keys.registrations,
            keys.streams,
            keys.held(holder),
            keys.inbox(holder),
        ),
        (
            registration,
            holder,
            kind,
            plan.group(registration) if plan else "",
            plan.count if plan else "",
            inbox_field(holder),
        ),
        key_lists=pairs(keys, audiences),
        arg_lists=_fields(audiences),
    )


def take(keys: Keys, takes: Sequence[tuple[Audience, str, Take]]) -> Call:
    """Rooms grow by what was taken: audience, consumer group and take of each."""
    audiences = [audience for audience, _, _ in takes]
    return _scripts.TAKE.call(
        (keys.meta, keys.leases, keys.streams),
        (),
        key_lists=pairs(keys, audiences),
        arg_lists=(
            *_fields(audiences),
            [group for _, group, _ in takes],
            [one.room for _, _, one in takes],
            [one.taken for _, _, one in takes],
            [str(one.received) for _, _, one in takes],
        ),
    )


# Pools -----------------------------------------------------------------------------------------


def create_pool(keys: Keys, pool: PoolPlan, limit: int, made: str = "") -> Call:
    """A pool begins to collect; ``made`` tells its making from another's."""
    plan = pool.plan
    return _scripts.CREATE_POOL.call(
        (
            keys.meta,
            keys.leases,
            keys.grants if plan.right else keys.meta,
            keys.counts,
            keys.pools,
            keys.streams,
        ),
        (
            pool.id,
            json.dumps(pool.record() | ({"made": made} if made else {})),
            pool.group,
            plan.right,
            plan.needed,
            plan.count,
            limit,
            "" if plan.style is BIDIRECTIONAL else pool.buffer,
        ),
        key_lists=pairs(keys, pool.audiences),
        arg_lists=_fields(pool.audiences),
    )


def _returned(keys: Keys, pool: PoolPlan) -> list[str]:
    return [keys.returned(pool.id, audience) for audience in pool.audiences]


def delete_pool(keys: Keys, pool: PoolPlan) -> Call:
    """A pool ends."""
    return _scripts.DELETE_POOL.call(
        (
            keys.meta,
            keys.leases,
            keys.counts,
            keys.pools,
            keys.streams,
            keys.held(pool.id),
            keys.idle(pool.id),
        ),
        (pool.id, pool.group, pool.plan.count),
        key_lists=(*pairs(keys, pool.audiences), _returned(keys, pool)),
        arg_lists=_fields(pool.audiences),
    )


def join(keys: Keys, session: str, pool: str) -> Call:
    """A session becomes a replica of a pool."""
    return _scripts.JOIN.call((keys.meta, keys.leases, keys.pools, keys.held(session)), (pool,))


def fetch(keys: Keys, session: str, pool: PoolPlan, most: int, load: int) -> Call:
    """A replica with room for ``most`` takes work in hand; ``load`` it has already."""
    streams, _ = pairs(keys, pool.audiences)
    return _scripts.FETCH.call(
        (
            keys.meta,
            keys.leases,
            keys.pools,
            keys.held(session),
            keys.inbox(session),
            keys.idle(pool.id),
            keys.held(pool.id),
            keys.streams,
        ),
        (pool.id, pool.group, most, load),
        key_lists=(streams, _returned(keys, pool)),
        arg_lists=_fields(pool.audiences),
    )


class Place(NamedTuple):
    """Where an entry that a replica has in hand lies."""

    pool: PoolPlan
    audience: Audience
    entry: str
    times: int = 0
    """By which delivery it came in hand, as Redis counted; 0 where that is all the same."""


class _Row:
    """Entries of one stream whose numbers follow each other, delivered equally often."""

    __slots__ = ("_epoch", "_next", "first", "many")

    def __init__(self, first: Place) -> None:
        self.first = first
        self.many = 1
        self._epoch, _, number = first.entry.partition("-")
        self._next = int(number) + 1

    def goes_on_with(self, place: Place) -> bool:
        """Whether this is the next one; then it is in."""
        first = self.first
        if (
            place.entry != f"{self._epoch}-{self._next}"
            or place.audience != first.audience
            or place.pool != first.pool
            or place.times != first.times
        ):
            return False
        self.many += 1
        self._next += 1
        return True


def _rows(places: Iterable[Place]) -> list[_Row]:
    rows: list[_Row] = []
    for place in places:
        if not rows or not rows[-1].goes_on_with(place):
            rows.append(_Row(place))
    return rows


def finish(keys: Keys, places: Sequence[Place]) -> Call:
    """A replica is done with these."""
    rows = _rows(places)
    return _scripts.FINISH.call(
        (keys.meta, keys.leases),
        (),
        key_lists=pairs(keys, [row.first.audience for row in rows]),
        arg_lists=(
            [row.first.pool.group for row in rows],
            [row.first.entry for row in rows],
            [row.many for row in rows],
            [row.first.times for row in rows],
        ),
    )


def hand_back(keys: Keys, delays: Sequence[tuple[Place, int]]) -> Call:
    """A replica gives these up; each is due after so many ms."""
    return _scripts.HAND_BACK.call(
        (keys.meta, keys.leases),
        (),
        key_lists=(
            [keys.stream(place.audience) for place, _ in delays],
            [keys.returned(place.pool.id, place.audience) for place, _ in delays],
            [keys.idle(place.pool.id) for place, _ in delays],
        ),
        arg_lists=(
            [place.pool.id for place, _ in delays],
            [place.pool.group for place, _ in delays],
            [place.entry for place, _ in delays],
            [place.times for place, _ in delays],
            [delay for _, delay in delays],
        ),
    )


def disown(keys: Keys, pool: PoolPlan, holder: str, most: int) -> Call:
    """What a session has in hand of a pool goes back to it."""
    streams, _ = pairs(keys, pool.audiences)
    return _scripts.DISOWN.call(
        (keys.meta, keys.leases, keys.held(holder), keys.inbox(holder), keys.idle(pool.id)),
        (pool.id, pool.group, holder, most),
        key_lists=(streams, _returned(keys, pool)),
    )


def orphan(keys: Keys, channel: str, pool: str, holder: str) -> Call:
    """A pool's dialog waits for another replica than session ``holder``."""
    return _scripts.ORPHAN.call(
        (
            keys.meta,
            keys.leases,
            keys.pools,
            keys.channel(channel),
            keys.held(holder),
            keys.held(pool),
            keys.idle(pool),
        ),
        (channel, pool, holder),
    )


def adopt(keys: Keys, session: str, channel: str, pool: str, source: str) -> Call:
    """A session carries a pool's dialog on; ``source`` is the source's session."""
    return _scripts.ADOPT.call(
        (
            keys.meta,
            keys.leases,
            keys.channel(channel),
            keys.log(channel),
            keys.streams,
            keys.held(pool),
            keys.held(session),
            keys.inbox(source),
        ),
        (channel, pool, inbox_field(source)),
    )


def dead_letter(
    keys: Keys,
    place: Place | None,
    body: str | None,
    most: int,
    keep: int,
    letter: Mapping[str, Arg],
    after: str = "+",
) -> Call:
    """Put aside what a replica has in hand, or where there is no place a dialog, as a letter.

    ``after``: where letters begin that were made since the caller looked, this one perhaps.
    """
    return _scripts.DEAD_LETTER.call(
        (
            keys.meta,
            keys.leases,
            keys.dead,
            keys.stream(place.audience) if place else keys.dead,
            keys.room(place.audience) if place else keys.dead,
            body or keys.dead,
        ),
        (
            place.pool.group if place else "",
            place.entry if place else "",
            most,
            keep,
            place.times if place else 0,
            after,
        ),
        arg_lists=(list(letter), list(letter.values())),
    )


def replay(
    keys: Keys, letter: str, place: Place, fields: Mapping[str, Arg], call: str, keep: int
) -> Call:
    """A dead letter goes back to its pool; ``fields`` are those of the notification.

    ``call`` tells this call from another's, for ``keep`` ms.
    """
    return _scripts.REPLAY.call(
        (
            keys.meta,
            keys.leases,
            keys.pools,
            keys.streams,
            keys.dead,
            keys.receipt(letter),
            keys.stream(place.audience),
            keys.room(place.audience),
            keys.returned(place.pool.id, place.audience),
            keys.idle(place.pool.id),
        ),
        (
            letter,
            call,
            keep,
            place.pool.id,
            place.pool.group,
            place.audience.field,
            place.entry,
        ),
        arg_lists=(list(fields), list(fields.values())),
    )


def drop(keys: Keys, letter: str, call: str, keep: int) -> Call:
    """A dead letter is forgotten; ``call`` tells this call from another's, for ``keep`` ms."""
    return _scripts.DROP.call((keys.dead, keys.receipt(letter)), (letter, call, keep))
