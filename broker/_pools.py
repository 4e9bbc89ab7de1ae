"""Pools in Redis: made, listed and ended, and what becomes of what their replicas held."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from broker import _calls
from broker._calls import NO_BODY, Handle, Place
from broker._channel_facts import boards_of, read_facts
from broker._entries import read_range
from broker._keys import EVERYONE, POOL
from broker._plan import PoolPlan
from broker._scripts import Arg
from broker._standing import denied
from broker._stored import read_record
from broker.errors import MaxRegistrationCountExceeded
from broker.notification import Notification

if TYPE_CHECKING:
    from broker._server import Server

AT_ONCE = 64
NOBODY = "~"
"""The consumer that holds what was handed back, as the scripts call it."""


async def create(server: Server, pool: PoolPlan) -> bool:
    """Have a pool collect from now on; whether it did not before.

    Raises AccessDenied, RightsUnavailable, MaxRegistrationCountExceeded.
    """
    plan, limit = pool.plan, server.settings.max_registrations
    await server.listening.standing.require(server, plan.user, plan.name, plan.needed)
    made = secrets.token_hex(8)
    word, *_ = await server.ask_anew(lambda: _calls.create_pool(server.keys, pool, limit, made))
    if word == "DENIED":
        raise denied(plan.user, plan.name, plan.needed)
    if word == "LIMIT":
        raise MaxRegistrationCountExceeded(
            f"{plan.name} has {limit} registrations for type {plan.type}; the limit is "
            "max_registrations"
        )
    return bool(word == "OK")


async def read(server: Server) -> tuple[PoolPlan, ...]:
    """The pools of a server."""
    flat = await server.command("HGETALL", server.keys.pools)
    plans = [PoolPlan.of_record(server.name, read_record(text, "a pool")) for text in flat[1::2]]
    return tuple(sorted(plans, key=lambda plan: plan.id))


async def find(server: Server, registration: str) -> PoolPlan | None:
    """A pool's registration, if it is there."""
    text = await server.command("HGET", server.keys.pools, registration)
    return PoolPlan.of_record(server.name, read_record(text, "a pool")) if text else None


async def delete(server: Server, pool: PoolPlan) -> bool:
    """End a pool, and the dialogs that wait for a replica of it; whether it was there."""
    word = "HOLDS"
    while word == "HOLDS":
        for channel in await waiting(server, pool.id):
            await end_waiting(server, channel, pool)
        word, *_ = await server.ask_anew(lambda: _calls.delete_pool(server.keys, pool))
    return word == "OK"


async def waiting(server: Server, registration: str) -> list[str]:
    """Channels whose dialogs wait for a replica of a pool."""
    found = await server.command("SMEMBERS", server.keys.held(registration))
    return sorted(one.decode().split(":")[1] for one in found)


async def end_waiting(server: Server, channel: str, pool: PoolPlan) -> None:
    """Close a channel in the name of a pool that has no replica for it."""
    await end_dialog(server, channel, pool.id, pool.id, "run-down", pool.plan.user)


async def end_dialog(
    server: Server, channel: str, registration: str, holder: str, kind: str, user: str = ""
) -> str:
    """Close a channel in the name of its owner: ``run-down`` of a dead one, or ``abandon``."""
    facts = await dialog_facts(server, channel)
    handle = Handle(
        registration,
        user,
        holder,
        facts.get("session", holder),
        boards_of(server, channel, facts.get("subject")),
        facts.get("held"),
    )
    word, *_ = await server.ask(
        lambda: _calls.listener_close(server.keys, handle, 0, kind, server.keep, NO_BODY)
    )
    return str(word)


def is_forgotten(known: str, now: str) -> bool:
    """Whether Redis lost a pool that a list had, and nobody deleted it: by the list of now."""
    began, _, changes = known.partition("-")
    began_now, _, changes_now = now.partition("-")
    return began != began_now or int(changes_now or 0) <= int(changes or 0)


async def let_wait(server: Server, channel: str, registration: str, holder: str) -> str:
    """A dialog that ``holder`` carried waits for another replica; the word that Redis answered."""
    word, *_ = await server.ask(lambda: _calls.orphan(server.keys, channel, registration, holder))
    return str(word)


async def give_up_dialog(server: Server, channel: str, registration: str) -> None:
    """This process carries a dialog no more: it waits, or without a pool to wait in it ends."""
    word = await let_wait(server, channel, registration, server.session)
    if word == "NO_POOL":
        await end_dialog(server, channel, registration, server.session, "abandon")


async def give_up_unknown(server: Server) -> None:
    """Give up what this session holds of pools and nothing here knows of.

    An answer that was lost, or an error halfway, leaves such a thing behind.
    """
    held = await server.command("SMEMBERS", server.keys.held(server.session))
    for kind, _, what in (one.decode().partition(":") for one in held):
        channel, _, registration = what.partition(":")
        if kind == "replica" and what not in server.replicas:
            await give_up_share(server, what, server.session)
        elif kind != "dialog" or not registration.startswith(POOL):
            continue
        elif (channel, registration) not in server.dialogs:
            await give_up_dialog(server, channel, registration)


async def give_up_share(server: Server, registration: str, holder: str) -> None:
    """What a session has in hand goes back to its pool, if that is still there."""
    pool = await find(server, registration)
    if pool is not None:
        await disown(server, pool, holder)
    else:
        await server.command("SREM", server.keys.held(holder), f"replica:{registration}")


async def disown(server: Server, pool: PoolPlan, holder: str) -> int:
    """What a session has in hand of a pool goes back to it; how much that was."""
    moved, word = 0, "MORE"
    while word == "MORE":
        word, *rest = await server.ask(lambda: _calls.disown(server.keys, pool, holder, AT_ONCE))
        moved += int(rest[0]) if rest else 0
    return moved


async def dialog_facts(server: Server, channel: str) -> dict[str, str]:
    """What a channel's hash says to whoever carries its dialog on."""
    return await read_facts(server, channel, "session", "subject", "held", "at")


# Letters ----------------------------------------------------------------------------------------

CARRIED = ("channel", "op", "printer", "user", "at", "body", "ref", "trace", "source")
"""Fields of an entry that a letter keeps, and that a replay puts back."""


async def after_letters(server: Server) -> str:
    """Where letters begin that are not there yet."""
    last = await server.command("XREVRANGE", server.keys.dead, "+", "-", "COUNT", 1)
    return f"({last[0][0].decode()}" if last else "-"


async def letter_of(server: Server, place: Place) -> dict[str, Arg]:
    """What a letter keeps of an entry; nothing where it is gone."""
    stream = server.keys.stream(place.audience)
    found = read_range(await server.command("XRANGE", stream, place.entry, place.entry))
    if not found:
        return {}
    return {field: found[0].fields[field] for field in CARRIED if field in found[0].fields}


def fields_of(notification: Notification[Any]) -> dict[str, Arg]:
    """The same, of a notification whose entry is gone."""
    body: dict[str, Arg] = {} if notification.data is None else {"body": notification.data}
    return {
        "channel": notification.channel,
        "printer": notification.name.printer,
        "user": notification.user or EVERYONE,
        "at": f"{notification.at * 1000:.0f}",
        **body,
    }
