"""What somebody deletes in Redis, or an evicting Redis throws away, is missed by the clock.

Both ends of a channel that is gone are told, listeners and pools stand again by themselves, and
nothing stays in Redis without an owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Channel, Offer
from broker._keys import Keys
from broker.errors import ChannelAlreadyClosed, NoSuchPool
from broker.results import NO_LISTENERS, S_OK
from tests.conformance.actors import die
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.redis.pooling import ALERTS, QUESTIONS, Member, counted, facts, pool
from tests.redis.scenes import BRISK, QUIET, Scene, heard, is_released, until

ATTENTIVE: dict[str, Any] = QUIET | {"resync": 0.2, "retry_least": 0.05, "retry_most": 0.5}
"""Nobody is taken for dead; what is gone is missed soon."""


@pytest.fixture
def farm(real_farm: Farm) -> Farm:
    return real_farm


@pytest.fixture
async def scene(farm: Farm) -> Scene:
    return await Scene.set(farm, **ATTENTIVE)


def keys_of(farm: Farm) -> Keys:
    return Keys(farm.namespace, "print01")


async def delete(farm: Farm, *names: str) -> None:
    for name in names:
        assert await farm.client.delete(name), f"{name} was there"


async def delete_like(farm: Farm, *parts: str) -> None:
    """Every key with all of these parts in its name."""
    await delete(farm, *[key for key in await farm.keys() if all(part in key for part in parts)])


async def hears(scene: Scene, body: bytes) -> None:
    """Sent until the listener has it; then answered, from the same objects."""
    channel = await scene.source.open_channel(PRINTER, TYPE)

    async def is_heard_by_all() -> bool:
        return await channel.send(body) == S_OK

    await until(is_heard_by_all)
    assert await heard(scene.one_way) == body
    question = await scene.source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    await question.send(body)
    offers: dict[str, Any] = {}
    while question.id not in offers:
        offers |= {offer.id: offer for offer in await scene.two_way.fetch_offers(PATIENCE)}
    await offers[question.id].respond(body)
    assert (await question.response(PATIENCE)).data == body


async def test_both_ends_of_a_channel_that_is_gone_are_told(farm: Farm, scene: Scene) -> None:
    """Nobody calls: each waits for the other."""
    keys = keys_of(farm)
    await delete(farm, *(keys.channel(each.id) for each in (scene.asked, scene.answered)))
    for end in (scene.asked, scene.answered, scene.question, scene.owned):
        await is_released(end)
    assert scene.used.is_open
    assert scene.fresh.is_open
    names: Any = await farm.client.hkeys(keys.channels)
    assert {name.decode() for name in names} == {scene.used.id, scene.fresh.id}
    boards = [key for key in await farm.keys() if ":stream:" in key and "|bi|" in key]
    assert [await farm.client.xlen(board) for board in boards] == [0] * len(boards)


@pytest.mark.parametrize("who", ["source", "listener"])
async def test_an_end_is_told_whose_other_end_is_gone_with_the_list_of_what_it_held(
    farm: Farm, scene: Scene, who: str
) -> None:
    """Nobody knows what to run down."""
    keys, broker = keys_of(farm), getattr(scene, who)
    session = (await broker.server(PRINTER)).session
    held: Any = await farm.client.dump(keys.held(session))
    await die(farm, broker)
    await delete(farm, keys.held(session))
    await farm.client.zrem(keys.leases, session)
    await is_released(scene.owned if who == "source" else scene.answered)
    # For whoever clears up.
    await farm.client.restore(keys.held(session), 0, held)
    await farm.client.zadd(keys.leases, {session: 0})


@pytest.mark.parametrize("many", [1, 2], ids=["all", "those before the last"])
@pytest.mark.parametrize("who", ["source", "listener"])
async def test_an_end_is_told_although_what_it_was_told_was_deleted(
    farm: Farm, scene: Scene, who: str, many: int
) -> None:
    """Before it was read; what comes after that arrives."""
    server = await getattr(scene, who).server(PRINTER)
    inbox = server._inbox
    assert inbox is not None
    await inbox.pause()
    mine: Channel | Offer[Any] = scene.answered if who == "source" else scene.owned
    await (scene.owned if who == "source" else scene.answered).close(b"done")
    await delete(farm, inbox.key)
    if many == 2:
        await (scene.question if who == "source" else scene.asked).close(b"done")
    inbox.resume()
    await is_released(mine)
    listener = await scene.listener.server(PRINTER)

    async def stand() -> bool:
        sessions = [each.session for each in await scene.source.registrations()]
        return sessions.count(listener.session) == 2

    await until(stand)
    await hears(scene, b"again")


async def test_who_calls_first_is_told_at_once(farm: Farm) -> None:
    scene = await Scene.set(farm, **QUIET)
    await delete(farm, keys_of(farm).channel(scene.asked.id))
    with pytest.raises(ChannelAlreadyClosed):
        await scene.asked.close()
    await is_released(scene.asked)
    await is_released(scene.question)


@pytest.mark.parametrize("parts", [(":room:",), (":stream:",), (":registrations",)])
async def test_listeners_stand_again(farm: Farm, scene: Scene, parts: Iterable[str]) -> None:
    await delete_like(farm, *parts)
    await hears(scene, b"again")


async def test_dialogs_outlive_the_registration_of_their_owner(farm: Farm, scene: Scene) -> None:
    made = scene.two_way.id
    await delete_like(farm, ":room:", "|bi|")

    async def stands_anew() -> bool:
        return scene.two_way.is_registered and scene.two_way.id != made

    await until(stands_anew)
    await scene.answered.send(b"sure?")
    assert (await scene.owned.follow_up(PATIENCE)).data == b"sure?"
    await is_released(scene.question)
    offer = await farm.offered(scene.two_way)
    assert offer.id == scene.asked.id, "the question is open, and offered again"


async def test_a_question_whose_board_is_gone_can_be_answered(farm: Farm, scene: Scene) -> None:
    """Whoever was offered it has it."""
    await delete_like(farm, ":stream:", "|bi|")
    await hears(scene, b"meanwhile")
    assert scene.question.closing is None
    await scene.question.respond(b"yes")
    assert (await scene.asked.response(PATIENCE)).data == b"yes"


async def test_a_question_whose_boards_are_gone_is_put_back_for_those_who_come_late(
    farm: Farm, scene: Scene
) -> None:
    """Whoever was offered it is not offered it again, R72."""
    await delete_like(farm, ":stream:", "|bi|")
    late = await scene.listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    offer = await farm.offered(late)
    assert (offer.id, offer.notification.data) == (scene.asked.id, scene.question.notification.data)
    assert scene.question.closing is None
    await hears(scene, b"meanwhile")
    await offer.respond(b"late")
    assert (await scene.asked.response(PATIENCE)).data == b"late"


async def test_a_question_to_a_pool_whose_boards_are_gone_is_answered(farm: Farm) -> None:
    async with pool(farm, QUESTIONS, **ATTENTIVE) as source:
        asked = await farm.question(source)
        await delete_like(farm, ":stream:", "|bi|")
        member = await Member.join(farm, QUESTIONS, **ATTENTIVE)
        await (await member.offer()).respond(b"yes")
        assert (await asked.response(PATIENCE)).data == b"yes"
        await counted(source, 0, 1, BIDIRECTIONAL)


async def test_a_question_that_is_gone_altogether_is_over(farm: Farm, scene: Scene) -> None:
    await delete_like(farm, ":stream:", "|bi|")
    await delete(farm, keys_of(farm).log(scene.asked.id))
    await is_released(scene.asked)
    await is_released(scene.question)


async def test_who_is_told_nothing_any_more_begins_again(farm: Farm, scene: Scene) -> None:
    """The numbers of all streams are gone, those of the inboxes with them."""
    await delete(farm, keys_of(farm).streams)
    for end in (scene.asked, scene.answered, scene.question, scene.owned):
        await is_released(end)

    async def is_registered_again() -> bool:
        """And what its former session heard is ended: that counts as a listener so long."""
        await scene.source.run_down(PRINTER)
        on = await scene.listener.server(PRINTER)
        return [facts.session for facts in await scene.listener.registrations()] == [on.session] * 2

    await until(is_registered_again)
    await hears(scene, b"again")
    for broker in (scene.source, scene.listener):
        assert (await broker.server(PRINTER)).lapses == 1


@pytest.mark.parametrize("which", ["meta", "leases"])
async def test_what_was_held_under_a_lease_that_is_gone_is_run_down(farm: Farm, which: str) -> None:
    """Without the run id whoever calls first begins again; without the leases all do."""
    scene = await Scene.set(farm, **BRISK)
    await delete(farm, getattr(keys_of(farm), which))
    for end in (scene.answered, scene.question, scene.owned):
        await is_released(end)
    await hears(scene, b"again")

    async def is_run_down() -> bool:
        await scene.source.run_down(PRINTER)
        open_ = {facts.id for facts in await scene.source.channels()}
        return scene.answered.id not in open_ and len(await scene.source.registrations()) == 2

    await until(is_run_down)


async def test_counts_and_lists_that_are_gone_are_missed_by_nobody(
    farm: Farm, scene: Scene
) -> None:
    keys = keys_of(farm)
    await delete(farm, keys.counts, keys.channels, keys.opened)
    await hears(scene, b"still")
    await scene.one_way.unregister()
    await scene.two_way.unregister()
    assert not await farm.client.exists(keys.counts)


async def test_a_right_that_is_gone_with_its_registration_ends_it(farm: Farm, scene: Scene) -> None:
    """It is made again, and refused then."""
    await scene.source.grant(PRINTER, "carol", "administer")
    everyones = await scene.listener.register(PRINTER, TYPE, user="carol", user_filter=ALL_USERS)
    await delete(farm, keys_of(farm).grants)
    await delete_like(farm, ":room:")

    async def has_ended() -> bool:
        return not everyones.is_registered and everyones.ending is not None

    await until(has_ended)
    await hears(scene, b"others")


async def test_a_pool_collects_again(farm: Farm) -> None:
    """Its room is gone: no send knows of it."""
    async with pool(farm, ALERTS, QUESTIONS, **ATTENTIVE) as source:
        member = await Member.join(farm, **ATTENTIVE)
        channel = await source.open_channel(PRINTER, TYPE)
        assert await channel.send(b"1") == S_OK
        await delete_like(farm, ":room:")

        async def collects() -> bool:
            return await channel.send(b"2") == S_OK

        await until(collects)
        assert [(await member.delivery()).notification.data for _ in range(2)] == [b"1", b"2"]


async def test_pools_whose_list_is_gone_are_made_again(farm: Farm) -> None:
    """Both of a process, and of another one; nothing that they had is lost."""
    async with pool(farm, ALERTS, QUESTIONS, **ATTENTIVE) as source:
        alerts, questions = [await Member.join(farm, each) for each in (ALERTS, QUESTIONS)]
        channel = await source.open_channel(PRINTER, TYPE)
        await channel.send(b"1")
        await delete(farm, keys_of(farm).pools)
        for member in (alerts, questions):
            await member.replica.take(1)
        await channel.send(b"2")
        bodies = [(await alerts.delivery()).notification.data for _ in range(2)]
        assert bodies == [b"1", b"2"]
        asked = await farm.question(source)
        await (await questions.offer()).respond(b"yes")
        assert (await asked.response(PATIENCE)).data == b"yes"
        assert (alerts.ends, questions.ends) == (0, 0)
        assert (await facts(source)).replicas == (alerts.replica.server.session,)
        await counted(source, 0, 2)


async def test_pools_whose_list_is_gone_with_what_they_collected_are_made_again(
    farm: Farm,
) -> None:
    async with pool(farm, ALERTS, QUESTIONS, **ATTENTIVE) as source:
        alerts, questions = [await Member.join(farm, each) for each in (ALERTS, QUESTIONS)]
        await delete(farm, keys_of(farm).pools, keys_of(farm).counts)
        await delete_like(farm, ":stream:")
        for member in (alerts, questions):
            await member.replica.take(1)
        channel = await source.open_channel(PRINTER, TYPE)
        await channel.send(b"1")
        assert (await alerts.delivery()).notification.data == b"1"
        asked = await farm.question(source)
        await (await questions.offer()).respond(b"yes")
        assert (await asked.response(PATIENCE)).data == b"yes"
        assert (alerts.ends, questions.ends) == (0, 0)


async def test_a_source_from_before_the_pool_sends_to_it_although_the_lists_name_is_gone(
    farm: Farm,
) -> None:
    """It knows of the list from before the pool, which is as nameless as that of now."""
    source = await farm.broker(**QUIET)
    channel = await source.open_channel(PRINTER, TYPE)
    assert await channel.send(b"nobody listens") == NO_LISTENERS
    async with pool(farm, ALERTS):
        await delete(farm, keys_of(farm).meta)
        channel = await source.open_channel(PRINTER, TYPE)
        assert await channel.send(b"page") == S_OK
        member = await Member.join(farm)
        assert (await member.delivery()).notification.data == b"page"
        await member.drain()


async def test_a_pool_that_was_deleted_is_not_made_again(farm: Farm) -> None:
    async with pool(farm, ALERTS, **ATTENTIVE) as source:
        member = await Member.join(farm, **ATTENTIVE)
        await source.pools.delete("helpdesk", PRINTER)
        await source.pools.create("other", ALERTS)
        with pytest.raises(NoSuchPool):
            await member.replica.take(1)
        (left,) = await source.pools.on_server(PRINTER)
        assert left.pool == "other"
