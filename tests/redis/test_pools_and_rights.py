"""A pool that stood on a grant ends with it: by revocation, or with its printer. Others stay."""

from __future__ import annotations

from typing import Any

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Broker, Channel, Right
from broker._keys import Keys
from broker.deletion import Deletion
from broker.errors import NoSuchPool, ServerInUse
from broker.names import Name
from broker.pool import Subscription
from broker.pooled_offer import PooledOffer
from broker.replica import Replica
from tests.farm import OTHER_PRINTER, PATIENCE, PRINTER, SERVER, TYPE, Farm
from tests.redis.pooling import Member
from tests.redis.scenes import QUIET, is_released

EVERYBODYS = Subscription(PRINTER, TYPE, user_filter=ALL_USERS)
QUESTIONS = Subscription(PRINTER, TYPE, user_filter=ALL_USERS, style=BIDIRECTIONAL)
OWN = Subscription(PRINTER, TYPE)


async def there(broker: Broker) -> set[tuple[str, str]]:
    """The pools of the server, and what each listens to."""
    return {(facts.pool, str(facts.name)) for facts in await broker.pools.on_server(SERVER)}


async def test_a_revocation_ends_what_stood_on_the_grant(farm: Farm) -> None:
    admin = await farm.administrator("admin", PRINTER, OTHER_PRINTER, **QUIET)
    other = await farm.administrator("carol", PRINTER, **QUIET)
    await admin.pools.create("desk", EVERYBODYS)
    await admin.pools.create("elsewhere", Subscription(OTHER_PRINTER, TYPE, user_filter=ALL_USERS))
    await other.pools.create("carols", EVERYBODYS)
    await admin.pools.create("own", OWN)
    await farm.client.hdel(Keys(farm.namespace, "print01").grants, "laser-3|carol")
    await admin.revoke(PRINTER, "admin", "use")
    assert ("desk", PRINTER) in await there(admin), "it stood on another right"
    await admin.revoke(PRINTER, "admin", "administer")
    left = {("elsewhere", OTHER_PRINTER), ("carols", PRINTER), ("own", PRINTER)}
    assert await there(admin) == left
    for pool, name in left:
        await admin.pools.delete(pool, name)


async def test_its_replicas_find_out_and_let_go(farm: Farm) -> None:
    admin = await farm.administrator("admin", PRINTER, **QUIET)
    part = await Member.of(admin, EVERYBODYS)
    channel = await admin.open_channel(PRINTER, TYPE, user="alice")
    await channel.send(b"page")
    await admin.revoke(PRINTER, "admin", "administer")
    with pytest.raises(NoSuchPool, match="more: its right was revoked \\(administer, of admin\\)"):
        await part.replica.take(1)
    assert isinstance(await part.end, NoSuchPool)


async def test_where_the_right_is_there_each_cause_is_named(farm: Farm) -> None:
    admin = await farm.administrator("admin", PRINTER, **QUIET)
    part, own = await Member.of(admin, EVERYBODYS), await Member.of(admin, OWN)
    for each in (part, own):
        await admin.pools.delete(each.replica.pool, PRINTER)
    with pytest.raises(NoSuchPool, match="its right was revoked, it was deleted, or Redis lost it"):
        await part.replica.take(1)
    with pytest.raises(NoSuchPool, match="more: it was deleted, or Redis lost it"):
        await own.replica.take(1)


async def test_its_dialogs_that_wait_are_closed_and_those_that_are_carried_go_on(
    farm: Farm,
) -> None:
    admin = await farm.administrator("admin", PRINTER, **QUIET)
    leaves = await farm.broker("admin", **QUIET)
    source = await farm.broker(**QUIET)
    waits, goes_on = [await farm.question(source) for _ in range(2)]
    gone, part = await Member.of(leaves, QUESTIONS), await Member.of(admin, QUESTIONS)
    await carries(gone.replica, waits)
    offer = await carries(part.replica, goes_on)
    await gone.replica.leave()
    await admin.revoke(PRINTER, "admin", "administer")
    await is_released(waits)
    await goes_on.send(b"and now?")
    assert (await offer.follow_up(PATIENCE)).data == b"and now?"
    await goes_on.close()
    assert await there(admin) == set()


async def carries(replica: Replica[Any], channel: Channel) -> PooledOffer[Any]:
    """The replica takes this question, and acquires it."""
    (offer,) = await replica.take(1)
    assert isinstance(offer, PooledOffer)
    assert offer.id == channel.id
    await offer.respond(b"yes")
    await channel.response(PATIENCE)
    return offer


async def test_a_deleted_printer_ends_what_stood_on_its_grants(farm: Farm) -> None:
    admin = await farm.administrator("admin", PRINTER, SERVER, **QUIET)
    await admin.pools.create("desk", EVERYBODYS)
    await admin.pools.create("desk", QUESTIONS)
    await admin.pools.create("own", OWN)
    await admin.pools.create(
        "all", Subscription(SERVER, TYPE, user_filter=ALL_USERS, printers=True)
    )
    assert await admin.delete_printer(PRINTER) == Deletion(Name.parse(PRINTER), 0, 0, 2, 1)
    assert await there(admin) == {("own", PRINTER), ("all", SERVER)}
    for pool in ("own", "all"):
        await admin.pools.delete(pool, SERVER)


async def test_what_stands_on_a_source_of_its_own_is_not_ended(farm: Farm) -> None:
    class Directory:
        async def rights(self, user: str, name: Name) -> Right:  # noqa: ARG002
            return Right.PRINTER_ACCESS_ADMINISTER

    theirs = await farm.broker("carol", rights=Directory(), **QUIET)
    admin = await farm.administrator("carol", PRINTER, **QUIET)
    await theirs.pools.create("desk", EVERYBODYS)
    await admin.revoke(PRINTER, "carol", "administer")
    assert await there(admin) == {("desk", PRINTER)}
    await admin.pools.delete("desk", PRINTER)


async def test_pools_are_counted_and_keep_their_server(farm: Farm) -> None:
    broker = await farm.broker(**QUIET)
    await broker.pools.create("desk", OWN)
    await broker.pools.create("desk", Subscription(OTHER_PRINTER, TYPE))
    (facts,) = await broker.overview()
    assert (facts.pools, facts.registrations) == (2, 0)
    await broker.close()
    looker = await farm.broker(**QUIET)
    with pytest.raises(ServerInUse, match=r"in use by 2 pools: .*tympan pool list"):
        await looker.forget_server(SERVER)
    assert len(await looker.pools.delete("desk", OTHER_PRINTER)) == 1, "for that printer only"
    assert await there(looker) == {("desk", PRINTER)}
    assert len(await looker.pools.delete("desk", SERVER)) == 1
    await looker.close()
    last = await farm.broker(**QUIET)
    await last.forget_server(SERVER)
    assert await last.servers() == []
