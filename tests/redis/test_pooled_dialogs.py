"""A pool owns its dialogs: any replica carries one on, and nothing is said twice.

The source accepts whoever carries it on, and nobody who carried it before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from broker import BIDIRECTIONAL, Broker, Channel
from broker._entries import Entry, EntryId
from broker._pools import dialog_facts
from broker.errors import (
    ChannelAcquired,
    ChannelAlreadyClosed,
    NotYours,
    RedisUnreachable,
    ResponseTimeout,
    SessionLapsed,
    TympanError,
    WaitingForResponse,
)
from broker.pooled_offer import PooledOffer
from broker.results import LOST_THE_RACE, S_OK
from tests.conformance.actors import die, said
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.redis.pooling import (
    ALERTS,
    POOL,
    QUESTIONS,
    SPRY,
    Member,
    counted,
    keys_of,
    pending,
    pool,
    process,
)
from tests.redis.scenes import QUIET, is_released, until
from tests.redis.test_failover import held
from tests.servers import RedisServer

LARGE = b"x" * 30_000


@pytest.fixture
async def source(farm: Farm) -> AsyncIterator[Broker]:
    async with pool(farm, QUESTIONS) as made:
        yield made


async def in_dialog(
    farm: Farm, source: Broker, member: Member, body: bytes = b"continue?"
) -> tuple[Channel, PooledOffer[Any]]:
    """A question that the pool answered: the source's turn."""
    channel = await farm.question(source, body)
    offer = await member.offer()
    await offer.respond(b"yes", ends_turn=True)
    assert (await channel.response(PATIENCE)).data == b"yes"
    return channel, offer


async def handler(offer: PooledOffer[Any], upto: int = 3) -> list[bytes | None]:
    """A turn of three responses, broken off after so many; what it heard."""
    heard: list[bytes | None] = [offer.begin_turn().data]
    if upto > 0:
        heard.append((await offer.ask(b"first", PATIENCE)).data)
    if upto > 1:
        heard.append((await offer.ask(b"second", PATIENCE)).data)
    if upto > 2:
        await offer.respond(b"third", ends_turn=True)
        offer.end_turn()
    return heard


async def test_a_dialog_that_is_closed_before_its_answer_is_known_here_is_not_carried(
    real_farm: Farm,
) -> None:
    """Its source was quicker: the replica would have it in hand for ever."""
    async with pool(real_farm, QUESTIONS) as source:
        member = await Member.join(real_farm, QUESTIONS)
        channel = await real_farm.question(source)
        offer = await member.offer()
        with held(member.replica.server, "respond", before=False) as (is_held, goes_on):
            answering = asyncio.create_task(offer.respond(b"yes", ends_turn=True))
            await is_held.wait()
            assert (await channel.response(PATIENCE)).data == b"yes"
            await channel.close()
            assert await offer.wait_closed(PATIENCE) is not None
            goes_on.set()
            assert await answering == S_OK
        assert member.replica.load == 0


async def answered(channel: Channel, response: bytes, then: bytes | None = None) -> None:
    """The source hears this, and says that."""
    assert (await channel.response(PATIENCE)).data == response
    if then is not None:
        await channel.send(then)


async def said_nothing_more(channel: Channel) -> None:
    with pytest.raises(ResponseTimeout):
        await channel.response(0)


# One replica -------------------------------------------------------------------------------------


async def test_the_pool_owns_what_a_replica_answered(farm: Farm, source: Broker) -> None:
    member = await Member.join(farm, QUESTIONS)
    channel, offer = await in_dialog(farm, source, member)
    assert channel.owner == member.replica.id
    assert await pending(farm, member) == [], "the question is settled"
    assert member.replica.load == 1
    await channel.send(b"sure?")
    assert (await asyncio.wait_for(member.spoken.get(), PATIENCE)) is offer
    assert offer.waits
    assert offer.begin_turn().data == b"sure?"
    await offer.respond(b"quite", ends_turn=True)
    await answered(channel, b"quite")
    await channel.close(b"thanks")
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == b"thanks"
    assert member.overs == [offer]
    assert member.replica.load == 0


async def test_a_question_that_another_answered_is_told_at_once_and_settled(
    farm: Farm, source: Broker
) -> None:
    member = await Member.join(farm, QUESTIONS)
    channel = await farm.question(source)
    offer = await member.offer()
    listener = await farm.broker("alice", **QUIET)
    beside = await farm.offered(await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL))
    await beside.respond(b"mine")
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.acquired
    assert member.overs == [offer]
    await until(lambda: _is_settled(farm, member))
    with pytest.raises(ChannelAcquired):
        await offer.respond(b"late")
    await offer.done()
    await answered(channel, b"mine")
    await said_nothing_more(channel)


async def _is_settled(farm: Farm, member: Member) -> bool:
    return not await pending(farm, member) and not member.replica.load


async def test_a_question_that_its_source_closed_is_told_at_once_and_settled(
    farm: Farm, source: Broker
) -> None:
    member = await Member.join(farm, QUESTIONS)
    channel = await farm.question(source)
    offer = await member.offer()
    await channel.close(b"never mind")
    closing = await offer.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.data == b"never mind"
    await until(lambda: _is_settled(farm, member))
    with pytest.raises(ChannelAlreadyClosed):
        await offer.respond(b"late")


async def test_an_end_whose_bell_was_lost_is_found_by_the_clock(farm: Farm) -> None:
    """Also where the bell of the question itself was lost: it was handed out, not heard."""
    async with pool(farm, QUESTIONS, **SPRY) as source:
        member = await Member.join(farm, QUESTIONS, **SPRY)
        server = member.replica.server
        ring, server.ring = server.ring, lambda *_: None  # type: ignore[method-assign]
        channel = await farm.question(source)
        (offer,) = await member.replica.take(1)
        assert isinstance(offer, PooledOffer)
        await channel.close(b"never mind")
        closing = await offer.wait_closed(PATIENCE)
        assert closing is not None
        assert closing.reason.data == b"never mind"
        server.ring = ring  # type: ignore[method-assign]


async def test_listeners_beside_a_pool_are_told_that_it_was_first(
    farm: Farm, source: Broker
) -> None:
    listener = await source.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    member = await Member.join(farm, QUESTIONS)
    channel = await farm.question(source)
    beside = await farm.offered(listener)
    await (await member.offer()).respond(b"ours")
    closing = await beside.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.acquired
    with pytest.raises(ChannelAcquired):
        await beside.respond(b"late")
    assert await beside.close(b"late") == LOST_THE_RACE
    await answered(channel, b"ours")
    await channel.close()


async def test_a_pool_that_declines_leaves_the_question_to_others(
    farm: Farm, source: Broker
) -> None:
    members = [await Member.join(farm, QUESTIONS) for _ in range(2)]
    channel = await farm.question(source)
    offer = await members[0].offer()
    await offer.decline()
    await offer.done()
    assert await members[1].replica.take(5) == [], "the pool as a whole declined"
    assert await pending(farm, members[0]) == []
    assert channel.is_open
    listener = await source.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    await (await farm.offered(listener)).respond(b"mine")
    await answered(channel, b"mine")


async def test_a_question_goes_to_each_pool_and_the_first_answers(
    farm: Farm, source: Broker
) -> None:
    one, other = [await Member.join(farm, QUESTIONS, name) for name in ("one", "other")]
    channel = await farm.question(source)
    first, second = await one.offer(), await other.offer()
    await first.respond(b"one")
    closing = await second.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.acquired
    await answered(channel, b"one")
    await channel.close()


async def test_a_question_that_was_handed_back_is_answered_by_another(
    farm: Farm, source: Broker
) -> None:
    one, other = [await Member.join(farm, QUESTIONS) for _ in range(2)]
    channel = await farm.question(source)
    first = await one.offer()
    await first.hand_back()
    second = await other.offer()
    assert (second.id, second.times, second.redelivered) == (channel.id, 2, True)
    await second.respond(b"second")
    with pytest.raises(NotYours):
        await first.respond(b"first")
    await answered(channel, b"second")
    await said_nothing_more(channel)
    await channel.send(b"sure?")
    assert (await second.follow_up(PATIENCE)).data == b"sure?"


async def test_an_answer_of_one_replica_is_not_taken_for_anothers(
    farm: Farm, source: Broker
) -> None:
    """Both number their answers alike, for both begin with the pool's first."""
    one, other = [await Member.join(farm, QUESTIONS) for _ in range(2)]
    channel = await farm.question(source)
    first = await one.offer()
    await first.hand_back()
    second = await other.offer()
    await first.respond(b"first")
    with pytest.raises(NotYours):
        await second.respond(b"second")
    with pytest.raises(NotYours):
        await second.close(b"second")
    await answered(channel, b"first")
    await said_nothing_more(channel)
    await channel.close()


async def test_what_one_replica_declined_another_cannot_answer(farm: Farm, source: Broker) -> None:
    one, other = [await Member.join(farm, QUESTIONS) for _ in range(2)]
    channel = await farm.question(source)
    first = await one.offer()
    await first.hand_back()
    second = await other.offer()
    await first.decline()
    with pytest.raises(ChannelAlreadyClosed, match="declined"):
        await second.respond(b"second")
    await said_nothing_more(channel)
    await second.done()
    assert channel.is_open
    await channel.close()


# From one replica to another ---------------------------------------------------------------------


@pytest.mark.parametrize("upto", [0, 1, 2])
@pytest.mark.parametrize("how", ["leave", "die"])
async def test_a_turn_is_carried_on_where_it_was_broken_off(
    farm: Farm, how: str, upto: int
) -> None:
    """What was said is not said again, and what was heard is heard again."""
    async with pool(farm, QUESTIONS, **SPRY) as source:
        one = await Member.join(farm, QUESTIONS, **SPRY)
        channel = await farm.question(source, b"begin")
        offer = await one.offer()
        running = asyncio.create_task(handler(offer, upto))
        if upto > 0:
            await answered(channel, b"first", b"after the first")
        if upto > 1:
            await answered(channel, b"second", b"after the second")
        assert len(await running) == upto + 1
        await (one.replica.leave() if how == "leave" else die(farm, one.broker))
        other = await Member.join(farm, QUESTIONS, **SPRY)
        again = await other.offer()
        assert (again.id, again.redelivered) == (channel.id, True)
        assert again.is_mine == (upto > 0)
        running = asyncio.create_task(handler(again))
        if upto < 1:
            await answered(channel, b"first", b"after the first")
        if upto < 2:
            await answered(channel, b"second", b"after the second")
        assert await running == [b"begin", b"after the first", b"after the second"]
        await answered(channel, b"third")
        await said_nothing_more(channel)
        with pytest.raises(TympanError):
            await offer.respond(b"from the one before")
        responses = [data for event, data in await said(source, channel) if event == "response"]
        assert responses == [b"first", b"second", b"third"]
        await channel.close()
        await is_settled(farm, source, other)


async def is_settled(farm: Farm, source: Broker, member: Member) -> None:
    await until(lambda: _is_settled(farm, member))
    await counted(source, 0, 0, BIDIRECTIONAL)


async def test_a_killed_process_is_followed_in_the_middle_of_a_turn(
    real_farm: Farm, redis_server: RedisServer
) -> None:
    async with pool(real_farm, QUESTIONS, **SPRY) as source:
        async with process(real_farm, redis_server.url, QUESTIONS) as dying:
            channel = await real_farm.question(source, b"begin")
            await dying.take(1)
            await dying.asked("respond", "0", "first")
            await answered(channel, b"first", b"after the first")
            await dying.kill()
        other = await Member.join(real_farm, QUESTIONS, **SPRY)
        running = asyncio.create_task(handler(await other.offer()))
        await answered(channel, b"second", b"after the second")
        assert await running == [b"begin", b"after the first", b"after the second"]
        await answered(channel, b"third")
        await said_nothing_more(channel)
        await channel.close()


@pytest.mark.parametrize("how", ["leave", "die"])
async def test_a_dialog_between_turns_is_carried_on_with_the_next(farm: Farm, how: str) -> None:
    async with pool(farm, QUESTIONS, **SPRY) as source:
        one = await Member.join(farm, QUESTIONS, **SPRY)
        channel, _ = await in_dialog(farm, source, one)
        await (one.replica.leave() if how == "leave" else die(farm, one.broker))
        other = await Member.join(farm, QUESTIONS, **SPRY)
        again = await other.offer()
        assert (again.turn, again.waits) == (None, False), "it is the source's turn"
        await channel.send(b"sure?")
        assert await asyncio.wait_for(other.spoken.get(), PATIENCE) is again
        assert again.begin_turn().data == b"sure?"
        await again.respond(b"quite", ends_turn=True)
        await answered(channel, b"quite")
        await channel.close()


async def test_what_the_source_says_while_no_replica_runs_is_heard_by_the_next(
    farm: Farm, source: Broker
) -> None:
    one = await Member.join(farm, QUESTIONS)
    channel, _ = await in_dialog(farm, source, one)
    await one.replica.leave()
    await counted(source, 1, 0, BIDIRECTIONAL)
    assert await channel.send(b"sure?") == S_OK
    with pytest.raises(WaitingForResponse):
        await channel.send(b"hello?")
    other = await Member.join(farm, QUESTIONS)
    again = await other.offer()
    assert not again.waits
    assert again.begin_turn().data == b"sure?"
    await again.respond(b"quite", ends_turn=True)
    await answered(channel, b"quite")
    await counted(source, 0, 1, BIDIRECTIONAL)
    await channel.close()


async def test_a_dialog_goes_from_hand_to_hand(farm: Farm, source: Broker) -> None:
    member = await Member.join(farm, QUESTIONS)
    channel, _ = await in_dialog(farm, source, member)
    for n in range(5):
        before, member = member, await Member.join(farm, QUESTIONS)
        await before.replica.leave()
        again = await member.offer()
        assert again.times == n + 2
        await channel.send(b"%d" % n)
        assert (await again.follow_up(PATIENCE)).data == b"%d" % n
        await again.respond(b"%d" % n, ends_turn=True)
        await answered(channel, b"%d" % n)
    assert channel.owner == member.replica.id
    await channel.close()


async def test_large_bodies_are_read_again_by_the_next(farm: Farm, source: Broker) -> None:
    one, other = [await Member.join(farm, QUESTIONS) for _ in range(2)]
    channel = await farm.question(source, LARGE)
    offer = await one.offer()
    assert offer.notification.data == LARGE
    running = asyncio.create_task(offer.ask(LARGE + b"1", PATIENCE))
    await answered(channel, LARGE + b"1", LARGE + b"2")
    assert (await running).data == LARGE + b"2"
    await one.replica.leave()
    again = await other.offer()
    assert again.notification.data == LARGE
    assert again.begin_turn().data == LARGE
    assert (await again.ask(LARGE + b"1", PATIENCE)).data == LARGE + b"2"
    await again.respond(b"done", ends_turn=True)
    await answered(channel, b"done")
    await channel.close()


async def test_of_two_who_reach_for_a_dialog_one_carries_it_on(farm: Farm, source: Broker) -> None:
    one = await Member.join(farm, QUESTIONS)
    dialogs = [await in_dialog(farm, source, one) for _ in range(4)]
    others = [await Member.join(farm, QUESTIONS) for _ in range(3)]
    await one.replica.leave()
    for _ in range(10):
        taken = await asyncio.gather(*(other.replica.take(4) for other in others))
        found: list[Any] = [offer for some in taken for offer in some]
        if found:
            break
    assert sorted(offer.id for offer in found) == sorted(channel.id for channel, _ in dialogs)
    for channel, _ in dialogs:
        await channel.send(b"sure?")
    for offer in found:
        assert (await offer.follow_up(PATIENCE)).data == b"sure?"
        await offer.respond(b"quite", ends_turn=True)
    for channel, _ in dialogs:
        await answered(channel, b"quite")
        await channel.close()


async def test_who_was_too_late_for_a_dialog_looks_again(farm: Farm, source: Broker) -> None:
    """For Redis it took all it had room for, and is not idle."""
    one, quick, late = [await Member.join(farm, QUESTIONS) for _ in range(3)]
    channel, _ = await in_dialog(farm, source, one)
    await one.replica.leave()
    adopt = late.replica._adopt

    async def too_late(dialog: str) -> Any:
        assert len(await quick.replica.take(1)) == 1
        return await adopt(dialog)

    late.replica._adopt = too_late  # type: ignore[assignment, method-assign]
    late.stirred.clear()
    assert await late.replica.take(1) == []
    assert late.stirred.is_set()
    await channel.close()


async def test_the_source_refuses_who_carried_the_dialog_before(farm: Farm, source: Broker) -> None:
    """Redis refuses them already; what reached the source's inbox in another way says who."""
    one, other = [await Member.join(farm, QUESTIONS) for _ in range(2)]
    channel, offer = await in_dialog(farm, source, one)
    before = offer._token
    await one.replica.leave()
    again = await other.offer()
    assert again._token != before
    await channel.send(b"sure?")
    await again.follow_up(PATIENCE)
    facts = await dialog_facts(other.replica.server, channel.id)
    assert facts["session"] == (await source.server(PRINTER)).session

    def word(token: str, op: int) -> Entry:
        fields = {
            "event": "response", "channel": channel.id, "registration": again._me,
            "session": "nobody", "token": token, "op": str(op), "body": "forged",
        }  # fmt: skip
        told = {field: value.encode() for field, value in fields.items()}
        return Entry(EntryId(1, 1), told)

    for token in (before, before + "x", "1:~other", ""):
        channel.told(word(token, 9))
    await said_nothing_more(channel)
    assert channel._owner_session == other.replica.server.session
    await again.respond(b"quite", ends_turn=True)
    await answered(channel, b"quite")
    await channel.close()


# Ends while it waits -----------------------------------------------------------------------------


async def test_a_source_closes_a_dialog_that_waits(farm: Farm, source: Broker) -> None:
    one = await Member.join(farm, QUESTIONS)
    channel, _ = await in_dialog(farm, source, one)
    await one.replica.leave()
    assert await channel.close(b"thanks") == S_OK
    await counted(source, 0, 0, BIDIRECTIONAL)
    assert await (await Member.join(farm, QUESTIONS)).replica.take(5) == []


async def test_the_source_of_a_dialog_that_waits_dies(farm: Farm) -> None:
    async with pool(farm, QUESTIONS, **SPRY) as watching:
        one = await Member.join(farm, QUESTIONS, **SPRY)
        dying = await farm.broker("alice", **SPRY)
        channel, _ = await in_dialog(farm, dying, one)
        await one.replica.leave()
        await die(farm, dying)
        await counted(watching, 0, 0, BIDIRECTIONAL)
        shown = await watching.show(channel.id)
        assert shown is not None
        assert shown[0].state == "closed"
        assert await one.replica.take(5) == []


async def test_a_printer_is_deleted_while_its_dialog_waits(farm: Farm, source: Broker) -> None:
    one = await Member.join(farm, QUESTIONS)
    channel, _ = await in_dialog(farm, source, one)
    await one.replica.leave()
    await source.grant(PRINTER, "alice", "administer")
    await source.delete_printer(PRINTER)
    await is_released(channel)
    await counted(source, 0, 0, BIDIRECTIONAL)


async def test_who_leaves_while_he_takes_a_dialog_over_lets_it_wait(
    farm: Farm, source: Broker
) -> None:
    one, other = [await Member.join(farm, QUESTIONS) for _ in range(2)]
    channel, _ = await in_dialog(farm, source, one)
    await one.replica.leave()
    leaving: list[asyncio.Task[None]] = []
    adopt = other.replica._adopt

    async def leave_meanwhile(dialog: str) -> Any:
        leaving.append(asyncio.create_task(other.replica.leave()))
        await asyncio.sleep(0)
        return await adopt(dialog)

    other.replica._adopt = leave_meanwhile  # type: ignore[assignment, method-assign]
    assert await other.replica.take(1) == []
    await leaving[0]
    third = await Member.join(farm, QUESTIONS)
    assert (await third.offer()).id == channel.id
    await channel.close()


async def test_a_pool_ends_with_the_dialogs_that_wait(farm: Farm, source: Broker) -> None:
    one = await Member.join(farm, QUESTIONS)
    waiting, _ = await in_dialog(farm, source, one)
    await one.replica.leave()
    other = await Member.join(farm, QUESTIONS)
    await other.take(1)
    await other.replica.leave()
    third = await Member.join(farm, QUESTIONS)
    carried, _ = await in_dialog_with(farm, source, third)
    await third.replica.leave()
    fourth = await Member.join(farm, QUESTIONS)
    await source.pools.delete(POOL, PRINTER)
    for channel in (waiting, carried):
        closing = await channel.wait_closed(PATIENCE)
        assert closing is not None
        assert closing.reason.is_release
    await fourth.replica.leave()


async def in_dialog_with(
    farm: Farm, source: Broker, member: Member
) -> tuple[Channel, PooledOffer[Any]]:
    """Another dialog, for a member who has one already."""
    channel = await farm.question(source)
    taken: list[Any] = await member.take(2)
    (offer,) = (one for one in taken if one.id == channel.id)
    await offer.respond(b"yes", ends_turn=True)
    assert (await channel.response(PATIENCE)).data == b"yes"
    return channel, offer


async def test_a_dialog_that_is_carried_outlives_its_pool_and_ends_with_its_replica(
    farm: Farm, source: Broker
) -> None:
    one = await Member.join(farm, QUESTIONS)
    channel, offer = await in_dialog(farm, source, one)
    await source.pools.delete(POOL, PRINTER)
    await channel.send(b"sure?")
    assert (await offer.follow_up(PATIENCE)).data == b"sure?"
    await offer.respond(b"quite", ends_turn=True)
    await answered(channel, b"quite")
    await one.replica.leave()
    await is_released(channel)


@pytest.mark.parametrize("how", ["leave", "die"])
async def test_a_deleted_pool_leaves_no_dialog_without_an_owner(farm: Farm, how: str) -> None:
    async with pool(farm, QUESTIONS, **SPRY) as source:
        one = await Member.join(farm, QUESTIONS, **SPRY)
        channel, _ = await in_dialog(farm, source, one)
        await source.pools.delete(POOL, PRINTER)
        await (one.broker.close() if how == "leave" else die(farm, one.broker))
        await is_released(channel)
        leases = keys_of(farm).leases

        async def is_alone() -> bool:
            return bool(await farm.client.zcard(leases) == 1)

        await until(is_alone)


async def test_the_dead_leave_nothing_pending_of_a_question_that_is_over(farm: Farm) -> None:
    async with pool(farm, QUESTIONS, **SPRY) as source:
        one = await Member.join(farm, QUESTIONS, **SPRY)
        channel = await farm.question(source)
        await one.offer()
        await die(farm, one.broker)
        await channel.close()
        other = await Member.join(farm, QUESTIONS, **SPRY)
        await until(lambda: _is_settled(farm, other))
        assert await other.replica.take(5) == []
        assert not await farm.client.exists(
            keys_of(farm).returned(other.replica.id, other.replica.plan.audiences[0])
        )


# What goes wrong on the way ----------------------------------------------------------------------


@pytest.mark.parametrize("step", ["HMGET", "adopt", "XRANGE"])
async def test_a_dialog_whose_adoption_failed_halfway_is_given_back(farm: Farm, step: str) -> None:
    async with pool(farm, QUESTIONS, **SPRY) as source:
        one = await Member.join(farm, QUESTIONS, **SPRY)
        channel, _ = await in_dialog(farm, source, one)
        other = await Member.join(farm, QUESTIONS, **SPRY)
        await other.replica.take(1)
        failing = Failing(other, step)
        await one.replica.leave()
        with pytest.raises(RedisUnreachable):
            await other.replica.take(1)
        failing.stop()
        assert other.replica.load == 0
        again = await other.offer()
        assert again.id == channel.id
        await channel.send(b"sure?")
        assert (await again.follow_up(PATIENCE)).data == b"sure?"
        await channel.close()


class Failing:
    """Redis gives a process no answer to one command or script, which it does."""

    def __init__(self, member: Member, step: str) -> None:
        server = self._server = member.replica.server
        self._before = server.command, server.ask
        command, ask = self._before

        async def fail_command(*words: Any, **options: Any) -> Any:
            if words[0] == step:
                raise RedisUnreachable("it is away")
            return await command(*words, **options)

        async def fail_ask(make: Any) -> Any:
            answer = await ask(make)
            if make().script.name == step:
                raise RedisUnreachable("it is away")
            return answer

        server.command = fail_command  # type: ignore[method-assign]
        server.ask = fail_ask  # type: ignore[method-assign]

    def stop(self) -> None:
        self._server.command, self._server.ask = self._before  # type: ignore[method-assign]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_the_source_says_while_its_dialog_changes_hands_is_heard_once(
    farm: Farm, source: Broker, when: str
) -> None:
    """The new end is told of it, and finds it in the conversation, or not yet."""
    one, other = [await Member.join(farm, QUESTIONS) for _ in range(2)]
    channel, _ = await in_dialog(farm, source, one)
    await one.replica.leave()
    server = other.replica.server
    command = server.command

    async def speak() -> None:
        await channel.send(b"sure?")
        (told,) = [end for end in server.dialogs.values() if end.id == channel.id]
        await until(lambda: _has_arrived(told))

    async def spoken_to(*words: Any, **options: Any) -> Any:
        is_read = words[0] == "XRANGE" and words[1] == keys_of(farm).log(channel.id)
        if is_read and when == "before":
            await speak()
        reply = await command(*words, **options)
        if is_read and when == "after":
            await speak()
        return reply

    server.command = spoken_to  # type: ignore[method-assign]
    again = await other.offer()
    server.command = command  # type: ignore[method-assign]
    assert again.waits == (when == "after")
    assert again.begin_turn().data == b"sure?"
    assert not again.waits
    await again.respond(b"quite", ends_turn=True)
    await answered(channel, b"quite")
    assert not again.waits
    await channel.close()


async def _has_arrived(end: Any) -> bool:
    return bool(end._arrived)


async def test_all_that_could_not_be_read_is_handed_back_however_much_it_is(farm: Farm) -> None:
    async with pool(farm, ALERTS) as source:
        member = await Member.join(farm, ALERTS)
        channel = await source.open_channel(PRINTER, TYPE)
        await asyncio.gather(*(channel.send(b"%d" % n) for n in range(600)))
        await channel.send(LARGE)
        failing = Failing(member, "GETRANGE")
        with pytest.raises(RedisUnreachable):
            await member.replica.take(700)
        failing.stop()
        await member.replica.audit()
        assert {holder for _, holder, _ in await pending(farm, member)} == {"~"}
        await counted(source, 601, 0)


async def test_what_was_fetched_and_could_not_be_read_is_handed_back(farm: Farm) -> None:
    """Nobody has it then, not even the part that could be read."""
    async with pool(farm, ALERTS, **SPRY) as source:
        member = await Member.join(farm, ALERTS, **SPRY)
        channel = await source.open_channel(PRINTER, TYPE)
        for body in (b"small", LARGE):
            await channel.send(body)
        failing = Failing(member, "GETRANGE")
        with pytest.raises(RedisUnreachable):
            await member.replica.take(2)
        assert member.replica.load == 0
        failing.stop()
        again = await member.take(2)
        assert [one.notification.data for one in again] == [b"small", LARGE]
        assert all(one.redelivered for one in again)
        for one in again:
            await one.done()
        await counted(source, 0, 0)


async def test_who_lapses_while_he_takes_has_nothing(farm: Farm) -> None:
    async with pool(farm, ALERTS, QUESTIONS, **SPRY) as source:
        alerts = await Member.join(farm, ALERTS, **SPRY)
        channel = await source.open_channel(PRINTER, TYPE)
        await channel.send(LARGE)
        server = alerts.replica.server
        command = server.command

        async def lapse(*words: Any, **options: Any) -> Any:
            if words[0] == "GETRANGE":
                server.command = command  # type: ignore[method-assign]
                await farm.client.zadd(keys_of(farm).leases, {server.session: 0})
                with pytest.raises(SessionLapsed):
                    await server.ask(server._renewal)
            return await command(*words, **options)

        server.command = lapse  # type: ignore[method-assign]
        assert await alerts.replica.take(1) == []
        assert alerts.replica.load == 0
        again = await alerts.delivery()
        assert again.redelivered
        await again.done()
        await counted(source, 0, 0)


async def test_an_answer_whose_outcome_is_unknown_is_carried_on_by_another(farm: Farm) -> None:
    """It was given: the handler was broken off before it knew, and its question handed back."""
    async with pool(farm, QUESTIONS, **SPRY) as source:
        one, other = [await Member.join(farm, QUESTIONS, **SPRY) for _ in range(2)]
        channel = await farm.question(source, b"begin")
        offer = await one.offer()
        server = one.replica.server
        durably = server.ask_durably
        answering = asyncio.Event()

        async def never_answered(make: Any, **options: Any) -> Any:
            answer = await durably(make, **options)
            if make().script.name == "respond":
                answering.set()
                await asyncio.Event().wait()
            return answer

        server.ask_durably = never_answered  # type: ignore[method-assign]
        running = asyncio.create_task(handler(offer))
        await asyncio.wait_for(answering.wait(), PATIENCE)
        running.cancel()
        await asyncio.wait({running})
        server.ask_durably = durably  # type: ignore[method-assign]
        await offer.hand_back()

        again = await other.offer()
        assert again.is_mine
        running = asyncio.create_task(handler(again))
        await answered(channel, b"first", b"after the first")
        await answered(channel, b"second", b"after the second")
        assert await running == [b"begin", b"after the first", b"after the second"]
        await answered(channel, b"third")
        await channel.close()


async def test_an_answer_stands_though_its_question_could_not_be_settled(farm: Farm) -> None:
    async with pool(farm, QUESTIONS, **SPRY) as source:
        member = await Member.join(farm, QUESTIONS, **SPRY)
        channel = await farm.question(source)
        offer = await member.offer()
        failing = Failing(member, "finish")
        assert await offer.respond(b"yes", ends_turn=True) == S_OK
        failing.stop()
        await answered(channel, b"yes")
        await until(lambda: _has_nothing_pending(farm, member))
        await channel.close()


async def _has_nothing_pending(farm: Farm, member: Member) -> bool:
    return not await pending(farm, member)


async def test_a_pool_for_questions_hears_on_all_its_boards(farm: Farm) -> None:
    """Questions to alice and to all, of a printer and its server."""
    admin = await farm.administrator("alice", PRINTER, r"\\print01", **QUIET)
    wish = replace(QUESTIONS, name=r"\\print01", printers=True)
    member = await Member.join(farm, wish)
    channels = [await farm.question(admin, name=name) for name in (PRINTER, r"\\print01")]
    taken: list[Any] = await member.take(2)
    assert {one.id for one in taken} == {channel.id for channel in channels}
    for one in taken:
        await one.respond(b"yes")
    for channel in channels:
        await answered(channel, b"yes")
        await channel.close()
    assert await pending(farm, member) == []
    await admin.pools.delete(POOL, r"\\print01")
