"""An operation whose reply is lost is done once, and its first answer is the one that counts.

While nobody knows whether it was done, that is what the caller is told; calling the same method
again settles it. Nothing happens twice, and nothing that was given up goes on by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Broker,
    Channel,
    Registration,
    Right,
    Style,
)
from broker import _scripts as scripts
from broker._keys import Audience
from broker._scripts import SCRIPTS, Script
from broker.errors import (
    ChannelAlreadyClosed,
    ContractViolation,
    OutcomeUnknown,
    RedisUnreachable,
    RegistrationEnded,
    ResponseTimeout,
    WaitingForResponse,
)
from broker.results import LOST_THE_RACE, S_OK
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.proxy import Proxy
from tests.redis.scenes import BehindProxy, Scene, heard, is_released, until
from tests.servers import RedisServer
from workers.embedded import HOST

LARGE = b"x" * 30_000
IMPATIENT: dict[str, Any] = {"operation_timeout": 0.2}
SOON = 2.0
"""Seconds within which what a call left behind, if anything, is cleared away."""
Use = Callable[[Scene], Awaitable[Any]]


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[Proxy]:
    """The scripts are loaded, so that no reply is lost to a NOSCRIPT."""
    for script in SCRIPTS:
        redis_server.cli("SCRIPT", "LOAD", script.source)
    async with Proxy(HOST, redis_server.port) as opened:
        yield opened


@pytest.fixture
async def farm(redis_server: RedisServer, proxy: Proxy) -> AsyncIterator[Farm]:
    async with Farm(BehindProxy(redis_server, proxy)) as made:
        yield made


@pytest.fixture
async def onlooker(redis_server: RedisServer, farm: Farm) -> AsyncIterator[Broker]:
    """Looks at the farm without the proxy."""
    async with Broker.connect(redis_server.url, user="bob", namespace=farm.namespace) as broker:
        yield broker


@dataclass(frozen=True)
class Operation:
    """What is done, by which script, and how it looks when it was done once."""

    script: Script
    use: Use
    answer: object
    check: Callable[[Scene, Broker], Awaitable[None]]


# How each looks when it was done once ----------------------------------------------------------


async def one_page(scene: Scene, _: Broker) -> None:
    await scene.used.send(b"last")
    assert await heard(scene.one_way) in (b"page", LARGE)
    assert await heard(scene.one_way) == b"last", "it came once"


async def one_question(scene: Scene, onlooker: Broker) -> None:
    (offer,) = await scene.two_way.fetch_offers(PATIENCE)
    assert offer.notification.data in (b"continue?", LARGE)
    await offer.respond(b"yes")
    assert (await scene.fresh.response(PATIENCE)).data == b"yes"
    shown = await onlooker.show(scene.fresh.id)
    assert shown is not None
    assert [said.event for said in shown[1]] == ["notification", "response"]


async def one_follow_up(scene: Scene, _: Broker) -> None:
    assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
    with pytest.raises(WaitingForResponse):
        await scene.answered.send(b"sure?")
    with pytest.raises(ResponseTimeout):
        await scene.owned.follow_up(0)
    await scene.owned.respond(b"quite")
    assert (await scene.answered.response(PATIENCE)).data == b"quite"


async def one_answer(scene: Scene, _: Broker) -> None:
    assert scene.question.is_mine
    assert (await scene.asked.response(PATIENCE)).data in (b"yes", LARGE)
    with pytest.raises(ResponseTimeout):
        await scene.asked.response(0)
    await scene.asked.send(b"sure?")
    assert (await scene.question.follow_up(PATIENCE)).data == b"sure?"


async def one_final_answer(scene: Scene, _: Broker) -> None:
    final = await scene.asked.response(PATIENCE)
    assert (final.data, final.is_final) == (b"yes", True)
    with pytest.raises(ChannelAlreadyClosed):
        await scene.asked.response(0)


async def closed_by_its_owner(scene: Scene, onlooker: Broker) -> None:
    closing = await scene.answered.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == b"bye"
    await _is_closed_once(scene.answered, onlooker)


async def closed_by_its_source(scene: Scene, onlooker: Broker) -> None:
    closing = await scene.owned.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == b"bye"
    await _is_closed_once(scene.answered, onlooker)


async def question_withdrawn(scene: Scene, onlooker: Broker) -> None:
    closing = await scene.question.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == b"never mind"
    await _is_closed_once(scene.asked, onlooker)


async def _is_closed_once(channel: Channel, onlooker: Broker) -> None:
    shown = await onlooker.show(channel.id)
    assert shown is not None
    facts, said = shown
    assert facts.state == "closed"
    assert [each.event for each in said].count("closed") == 1


async def declined(scene: Scene, onlooker: Broker) -> None:
    with pytest.raises(ChannelAlreadyClosed):
        await scene.question.respond(b"after all")
    assert scene.asked.is_open
    shown = await onlooker.show(scene.asked.id)
    assert shown is not None
    assert shown[0].state == "offered", "the others still compete for it"


async def let_go(scene: Scene, onlooker: Broker) -> None:
    assert scene.fresh.id not in [facts.id for facts in await onlooker.channels()]
    with pytest.raises(ContractViolation):
        await scene.fresh.release()


async def one_channel_more(scene: Scene, onlooker: Broker) -> None:
    known = {scene.used.id, scene.fresh.id, scene.asked.id, scene.answered.id}

    async def is_one() -> bool:
        return len({facts.id for facts in await onlooker.channels()} - known) == 1

    await until(is_one, within=SOON)


async def one_registration_more(scene: Scene, onlooker: Broker) -> None:
    known = {scene.one_way.id, scene.two_way.id}

    async def is_one() -> bool:
        more = [facts for facts in await onlooker.registrations() if facts.id not in known]
        groups = [group for style in Style for group in await _groups(onlooker, style)]
        return len(more) == 1 and more[0].group in groups and len(groups) == 3

    await until(is_one, within=SOON)


async def no_registration_any_more(scene: Scene, onlooker: Broker) -> None:
    assert [facts.id for facts in await onlooker.registrations()] == [scene.two_way.id]
    assert await _groups(onlooker, UNIDIRECTIONAL) == []


async def _groups(onlooker: Broker, style: Style) -> list[str]:
    """Consumer groups of all that listen to alice's channels in this style."""
    server = await onlooker.server(PRINTER)
    room = server.keys.room(Audience("laser-3", TYPE, style, "=alice"))
    return [group.decode() for group in await server.command("ZRANGE", room, 0, -1)]


async def right_given(_: Scene, onlooker: Broker) -> None:
    (grant,) = [each for each in await onlooker.grants() if each.user == "carol"]
    assert grant.right == Right.PRINTER_ACCESS_USE


async def right_taken(_: Scene, onlooker: Broker) -> None:
    assert await onlooker.grants() == []


# The operations ---------------------------------------------------------------------------------


async def open_object(scene: Scene) -> None:
    """The same channel object is asked to open, however often."""
    scene.made = scene.made or await scene.source.channel(PRINTER, TYPE)
    await scene.made.open()


async def register_object(scene: Scene) -> None:
    """The same registration object is asked to register, however often."""
    scene.made = scene.made or await scene.listener.registration(PRINTER)
    await scene.made.register(TYPE, user="alice", user_filter=PER_USER, style=UNIDIRECTIONAL)


async def open_channel(scene: Scene) -> None:
    await scene.source.open_channel(PRINTER, TYPE)


async def register(scene: Scene) -> None:
    await scene.listener.register(PRINTER, TYPE)


async def register_for_questions(scene: Scene) -> None:
    await scene.listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)


OPERATIONS = {
    "open a channel": Operation(scripts.OPEN, open_channel, None, one_channel_more),
    "open a channel object": Operation(scripts.OPEN, open_object, None, one_channel_more),
    "send": Operation(scripts.UNI_SEND, lambda s: s.used.send(b"page"), S_OK, one_page),
    "send, lossless": Operation(
        scripts.UNI_SEND, lambda s: s.used.send(b"page", lossless=True), S_OK, one_page
    ),
    "send a large body": Operation(scripts.UNI_SEND, lambda s: s.used.send(LARGE), S_OK, one_page),
    "ask": Operation(scripts.OFFER, lambda s: s.fresh.send(b"continue?"), S_OK, one_question),
    "ask at length": Operation(scripts.OFFER, lambda s: s.fresh.send(LARGE), S_OK, one_question),
    "follow up": Operation(
        scripts.FOLLOW_UP, lambda s: s.answered.send(b"sure?"), S_OK, one_follow_up
    ),
    "answer": Operation(scripts.RESPOND, lambda s: s.question.respond(b"yes"), S_OK, one_answer),
    "answer at length": Operation(
        scripts.RESPOND, lambda s: s.question.respond(LARGE), S_OK, one_answer
    ),
    "answer and close": Operation(
        scripts.LISTENER_CLOSE, lambda s: s.question.close(b"yes"), S_OK, one_final_answer
    ),
    "close as the owner": Operation(
        scripts.LISTENER_CLOSE, lambda s: s.owned.close(b"bye"), S_OK, closed_by_its_owner
    ),
    "close as the source": Operation(
        scripts.SOURCE_CLOSE, lambda s: s.answered.close(b"bye"), S_OK, closed_by_its_source
    ),
    "withdraw a question": Operation(
        scripts.SOURCE_CLOSE, lambda s: s.asked.close(b"never mind"), S_OK, question_withdrawn
    ),
    "decline": Operation(scripts.LISTENER_CLOSE, lambda s: s.question.decline(), S_OK, declined),
    "let go of an offer": Operation(
        scripts.LISTENER_CLOSE, lambda s: s.question.release(), S_OK, declined
    ),
    "let go of a channel": Operation(
        scripts.SOURCE_CLOSE, lambda s: s.fresh.release(), S_OK, let_go
    ),
    "register": Operation(scripts.REGISTER, register, None, one_registration_more),
    "register for questions": Operation(
        scripts.REGISTER, register_for_questions, None, one_registration_more
    ),
    "register an object": Operation(scripts.REGISTER, register_object, None, one_registration_more),
    "unregister": Operation(
        scripts.UNREGISTER, lambda s: s.one_way.unregister(), S_OK, no_registration_any_more
    ),
    "grant": Operation(
        scripts.GRANT,
        lambda s: s.source.grant(PRINTER, "carol", "use"),
        Right.PRINTER_ACCESS_USE,
        right_given,
    ),
    "revoke": Operation(
        scripts.GRANT, lambda s: s.source.revoke(PRINTER, "bob", "use"), Right(0), right_taken
    ),
}
every_operation = pytest.mark.parametrize("what", OPERATIONS)
every_operation_without_a_large_body = pytest.mark.parametrize(
    "what", [what for what in OPERATIONS if "large" not in what and "length" not in what]
)


@every_operation
async def test_a_lost_reply_is_asked_for_again(
    farm: Farm, proxy: Proxy, onlooker: Broker, what: str
) -> None:
    operation = OPERATIONS[what]
    scene = await Scene.set(farm)
    proxy.lose_reply_to(operation.script.sha.encode())
    assert await operation.use(scene) == operation.answer
    assert proxy.dropped == 1, "a reply was lost on the way"
    await operation.check(scene, onlooker)


@every_operation_without_a_large_body
async def test_an_unknown_outcome_is_settled_by_the_same_call(
    farm: Farm, proxy: Proxy, onlooker: Broker, what: str
) -> None:
    operation = OPERATIONS[what]
    scene = await Scene.set(farm, **IMPATIENT)
    proxy.drop_replies(1)
    with pytest.raises(OutcomeUnknown, match="call the same method again") as unknown:
        await operation.use(scene)
    assert unknown.value.retryable
    proxy.drop_replies(0)
    assert await operation.use(scene) == operation.answer
    await operation.check(scene, onlooker)


@pytest.mark.parametrize("what", ["send a large body", "ask at length", "answer at length"])
async def test_a_body_that_could_not_be_stored_was_not_sent(
    farm: Farm, proxy: Proxy, onlooker: Broker, what: str
) -> None:
    operation = OPERATIONS[what]
    scene = await Scene.set(farm, **IMPATIENT)
    proxy.drop_replies(1)
    with pytest.raises(RedisUnreachable):
        await operation.use(scene)
    proxy.drop_replies(0)
    assert await operation.use(scene) == operation.answer
    await operation.check(scene, onlooker)


@every_operation
async def test_a_cancelled_call_is_settled_by_the_same_call(
    farm: Farm, proxy: Proxy, onlooker: Broker, what: str
) -> None:
    operation = OPERATIONS[what]
    scene = await Scene.set(farm)
    proxy.drop_replies(1)
    call = asyncio.ensure_future(operation.use(scene))
    await until(lambda: _has_dropped(proxy))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    proxy.drop_replies(0)
    assert await operation.use(scene) == operation.answer
    await operation.check(scene, onlooker)


@pytest.mark.parametrize("what", ["send", "ask", "answer", "close as the source", "unregister"])
async def test_a_request_that_arrives_late_is_done_once(
    farm: Farm, proxy: Proxy, onlooker: Broker, what: str
) -> None:
    """The first request was held up on its way, and arrives beside the one that settles it."""
    operation = OPERATIONS[what]
    scene = await Scene.set(farm, **IMPATIENT, reply_timeout=0.1, connect_timeout=0.1)
    proxy.stall(True)
    with pytest.raises(OutcomeUnknown):
        await operation.use(scene)
    proxy.stall(False)
    assert await operation.use(scene) == operation.answer
    await operation.check(scene, onlooker)


@pytest.mark.parametrize("what", ["send", "answer", "close as the source", "unregister", "grant"])
async def test_what_was_never_sent_is_told_as_such_and_can_be_done(
    farm: Farm, proxy: Proxy, onlooker: Broker, what: str
) -> None:
    operation = OPERATIONS[what]
    scene = await Scene.set(farm, **IMPATIENT)
    proxy.refuse(True)
    proxy.cut()
    await until(lambda: _is_cut(proxy))
    with pytest.raises((RedisUnreachable, OutcomeUnknown)):
        await operation.use(scene)
    proxy.refuse(False)
    assert await operation.use(scene) == operation.answer
    await operation.check(scene, onlooker)


async def _has_dropped(proxy: Proxy) -> bool:
    return proxy.dropped > 0


async def _is_cut(proxy: Proxy) -> bool:
    return proxy.connections == 0


# Deletions --------------------------------------------------------------------------------------


async def with_an_administrator(scene: Scene) -> Registration[Any]:
    """A registration that stands on a grant of the printer."""
    await scene.source.grant(PRINTER, "carol", "administer")
    return await scene.listener.register(PRINTER, TYPE, user="carol", user_filter=ALL_USERS)


async def all_was_told_once(scene: Scene, everyones: Registration[Any]) -> None:
    for registration in (scene.one_way, everyones):
        found = await registration.fetch(PATIENCE)
        assert getattr(found, "is_release", False)
        assert registration.unread == 0, "it came once"
    with pytest.raises(RegistrationEnded, match="printer deleted"):
        await everyones.fetch(PATIENCE)
    assert scene.one_way.is_registered
    for end in (scene.used, scene.fresh, scene.asked, scene.answered, scene.question, scene.owned):
        await is_released(end)


@pytest.mark.parametrize(
    "script",
    [scripts.SERVER_CLOSE, scripts.DELETE_PRINTER, scripts.GRANT, scripts.UNREGISTER],
    ids=lambda script: script.name,
)
async def test_a_deletion_one_of_whose_replies_is_lost_is_one_deletion(
    farm: Farm, proxy: Proxy, onlooker: Broker, script: Script
) -> None:
    scene = await Scene.set(farm)
    everyones = await with_an_administrator(scene)
    proxy.lose_reply_to(script.sha.encode())
    deletion = await scene.source.delete_printer(PRINTER)
    assert proxy.dropped == 1, "a reply was lost on the way"
    assert (deletion.channels, deletion.told, deletion.ended, deletion.grants) == (4, 2, 1, 2)
    await all_was_told_once(scene, everyones)
    for channel in (scene.fresh, scene.asked, scene.answered):
        await _is_closed_once(channel, onlooker)


# What is left over ------------------------------------------------------------------------------


async def test_a_cancelled_send_is_settled_before_the_next_one(farm: Farm, proxy: Proxy) -> None:
    scene = await Scene.set(farm)
    proxy.drop_replies(1)
    call = asyncio.create_task(scene.used.send(b"page"))
    await until(lambda: _has_dropped(proxy))
    call.cancel()
    proxy.drop_replies(0)
    assert await scene.used.send(b"another") == S_OK
    assert [await heard(scene.one_way) for _ in range(2)] == [b"page", b"another"]
    assert scene.one_way.unread == 0


async def test_sends_of_one_channel_stay_in_order_while_replies_are_lost(
    farm: Farm, proxy: Proxy
) -> None:
    """Sends that were called side by side leave in that order, each once."""
    scene = await Scene.set(farm, resync=0.2)
    proxy.drop_replies(0.5, random.Random(17))
    pages = [b"%d" % n for n in range(90)]
    results = await asyncio.gather(*(scene.used.send(page) for page in pages))
    assert proxy.dropped > 0, "replies were lost on the way"
    proxy.drop_replies(0)
    assert set(results) == {S_OK}
    assert [await heard(scene.one_way) for _ in pages] == pages
    assert scene.one_way.unread == 0


async def test_a_loser_is_told_so_though_the_reply_was_lost(farm: Farm, proxy: Proxy) -> None:
    scene = await Scene.set(farm)
    other = await farm.broker("alice")
    registration = await other.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    late = await farm.offered(registration)
    assert late.id == scene.asked.id
    await scene.question.respond(b"first")
    proxy.lose_reply_to(scripts.LISTENER_CLOSE.sha.encode())
    assert await late.close(b"second") == LOST_THE_RACE
    assert proxy.dropped == 1
    assert (await scene.asked.response(PATIENCE)).data == b"first"


@pytest.mark.parametrize("what", ["open a channel", "register", "register for questions"])
async def test_what_a_cancelled_call_made_does_not_stay(
    farm: Farm, proxy: Proxy, onlooker: Broker, what: str
) -> None:
    """Nobody has the object that it would have returned: nobody could ever end it."""
    scene = await Scene.set(farm)
    proxy.drop_replies(1)
    call = asyncio.ensure_future(OPERATIONS[what].use(scene))
    await until(lambda: _has_dropped(proxy))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    proxy.drop_replies(0)
    known = {scene.used.id, scene.fresh.id, scene.asked.id, scene.answered.id}
    known |= {scene.one_way.id, scene.two_way.id}

    async def is_gone() -> bool:
        channels = {facts.id for facts in await onlooker.channels()}
        return channels | {facts.id for facts in await onlooker.registrations()} == known

    await until(is_gone, within=SOON)


async def test_a_cancelled_fetch_loses_nothing(farm: Farm) -> None:
    scene = await Scene.set(farm)
    waiting = asyncio.create_task(scene.one_way.fetch())
    await asyncio.sleep(0)
    await scene.used.send(b"page")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await heard(scene.one_way) == b"page"


async def test_a_cancelled_fetch_that_had_to_write_its_take_loses_nothing(
    farm: Farm, proxy: Proxy
) -> None:
    """The take is asked for before the notification is handed out, and counts once."""
    source, listener = await farm.broker(), await farm.broker(resync=60.0, lease=60.0)
    registration = await listener.register(PRINTER, TYPE, buffer=2)
    channel = await source.open_channel(PRINTER, TYPE)
    await channel.send(b"one")
    await channel.send(b"two")
    await until(lambda: _has_unread(registration, 2))
    proxy.stall(True)
    waiting = asyncio.create_task(registration.fetch())
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done, "the take is being written"
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    proxy.stall(False)
    assert [await heard(registration) for _ in range(2)] == [b"one", b"two"]
    assert await channel.send(b"three") == S_OK, "both are counted as taken"
    assert await heard(registration) == b"three"


async def _has_unread(registration: Any, many: int) -> bool:
    return bool(registration.unread == many)
