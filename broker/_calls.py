"""Calls: what each script is given, from the nouns of this field. Pure: no I/O.

Each function binds one Lua file's keys and arguments, in the order of its header.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from broker import _scripts
from broker._keys import LAYOUT, Audience, Keys, inbox_field
from broker._plan import RegistrationPlan
from broker._room import Take
from broker._scripts import Call


class Stowed(NamedTuple):
    """Where a body travels: in the script's argument, or under a key of its own."""

    kept: str
    """``body``, ``ref``, or ``none`` for a close without a reason."""
    arg: bytes | str
    key: str | None


NO_BODY = Stowed("none", "", None)


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

    @classmethod
    def of(
        cls, keys: Keys, channel: str, printer: str, target: str, audiences: Sequence[Audience]
    ) -> Route:
        """The route to these audiences."""
        streams, rooms = pairs(keys, audiences)
        return cls(channel, printer, target, streams, rooms, *_fields(audiences))


def uni_send(keys: Keys, route: Route, op: int, body: Stowed, *, lossless: bool) -> Call:
    """One unidirectional notification."""
    channel = keys.channel(route.channel)
    return _scripts.UNI_SEND.call(
        (keys.meta, keys.leases, channel, keys.streams, body.key or channel),
        (op, route.channel, route.printer, route.target, body.arg, body.kept, int(lossless)),
        key_lists=(route.streams, route.rooms),
        arg_lists=(route.fields,),
    )


def offer(keys: Keys, route: Route, op: int, body: Stowed) -> Call:
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
        (op, route.channel, route.printer, route.target, body.arg, body.kept),
        key_lists=(route.streams, route.rooms),
        arg_lists=(route.fields,),
    )


def follow_up(keys: Keys, channel: str, op: int, token: str, listening: str, body: Stowed) -> Call:
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
        (op, channel, token, listening, inbox_field(listening), body.arg, body.kept),
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


def respond(keys: Keys, handle: Handle, op: int, keep: int, body: Stowed) -> Call:
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
