"""A script that refuses changes nothing, and says which of its guards it was.

Each test makes a state in which the call would succeed but for one thing, and compares all of
Redis before and after. Stale epochs, strangers, the dead, repeats, gaps, other people's channels:
what a client would never send is sent here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, _calls
from broker._scripts import DROP, HELLO, SCRIPTS, Call
from broker._server import Server
from broker.errors import RedisReadOnly
from tests.farm import Farm, RedisBackend
from tests.scripts.bench import Bench, body
from tests.scripts.desk import Desk
from tests.servers import RedisServer

Ready = Callable[[Bench], Awaitable[tuple[Server, Call]]]


# Whom every script listens to ------------------------------------------------------------------


async def ready_to_renew(bench: Bench) -> tuple[Server, Call]:
    return bench.source, _calls.renew(bench.keys, bench.source.session, 60_000, "0-1")


async def ready_to_sweep(bench: Bench) -> tuple[Server, Call]:
    return bench.source, _calls.sweep(bench.keys, 10)


async def ready_to_bury(bench: Bench) -> tuple[Server, Call]:
    await bench.sweep(bench.other)
    return bench.source, bench.bury(bench.other)


async def ready_to_grant(bench: Bench) -> tuple[Server, Call]:
    return bench.source, _calls.grant(bench.keys, "|bob", 1, give=True)


async def ready_to_confirm(bench: Bench) -> tuple[Server, Call]:
    await bench.done((bench.source, bench.open()))
    return bench.source, _calls.confirm(bench.keys, "c", "source", 0, "")


async def ready_to_open(bench: Bench) -> tuple[Server, Call]:
    return bench.source, bench.open()


async def ready_to_offer(bench: Bench) -> tuple[Server, Call]:
    await bench.done((bench.listener, bench.register()), (bench.source, bench.open()))
    return bench.source, bench.offer()


async def ready_to_offer_again(bench: Bench) -> tuple[Server, Call]:
    await bench.offered()
    await bench.lose_a_board()
    return bench.source, bench.offer_again()


async def ready_to_uni_send(bench: Bench) -> tuple[Server, Call]:
    await bench.done(
        (bench.listener, bench.register(style=UNIDIRECTIONAL)),
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
    )
    return bench.source, bench.uni_send()


async def ready_to_follow_up(bench: Bench) -> tuple[Server, Call]:
    await bench.answered()
    return bench.source, bench.follow_up()


async def ready_to_respond(bench: Bench) -> tuple[Server, Call]:
    await bench.offered()
    return bench.listener, bench.respond()


async def ready_to_source_close(bench: Bench) -> tuple[Server, Call]:
    await bench.offered()
    return bench.source, bench.source_close(2)


async def ready_to_listener_close(bench: Bench) -> tuple[Server, Call]:
    await bench.offered()
    return bench.listener, bench.listener_close(reason=body())


async def ready_to_server_close(bench: Bench) -> tuple[Server, Call]:
    await bench.offered()
    return bench.other, bench.server_close()


async def ready_to_delete_printer(bench: Bench) -> tuple[Server, Call]:
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    return bench.other, bench.delete_printer()


async def ready_to_register(bench: Bench) -> tuple[Server, Call]:
    return bench.listener, bench.register()


async def ready_to_unregister(bench: Bench) -> tuple[Server, Call]:
    await bench.done((bench.listener, bench.register()))
    return bench.listener, bench.unregister()


async def ready_to_take(bench: Bench) -> tuple[Server, Call]:
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    return bench.listener, bench.take(2, 1)


async def ready_to_create_pool(bench: Bench) -> tuple[Server, Call]:
    return bench.listener, Desk(bench).create()


async def ready_to_delete_pool(bench: Bench) -> tuple[Server, Call]:
    await Desk(bench).made()
    return bench.other, Desk(bench).delete()


async def ready_to_join(bench: Bench) -> tuple[Server, Call]:
    await Desk(bench).made()
    return bench.other, Desk(bench).join(bench.other)


async def ready_to_fetch(bench: Bench) -> tuple[Server, Call]:
    await Desk(bench).collected()
    return bench.listener, Desk(bench).fetch()


async def ready_to_finish(bench: Bench) -> tuple[Server, Call]:
    await Desk(bench).in_hand()
    return bench.listener, Desk(bench).finish()


async def ready_to_hand_back(bench: Bench) -> tuple[Server, Call]:
    await Desk(bench).in_hand()
    return bench.listener, Desk(bench).hand_back()


async def ready_to_disown(bench: Bench) -> tuple[Server, Call]:
    await Desk(bench).in_hand()
    return bench.listener, Desk(bench).disown()


async def ready_to_orphan(bench: Bench) -> tuple[Server, Call]:
    await Desk(bench, BIDIRECTIONAL).carried()
    return bench.listener, Desk(bench, BIDIRECTIONAL).orphan()


async def ready_to_adopt(bench: Bench) -> tuple[Server, Call]:
    await Desk(bench, BIDIRECTIONAL).waiting()
    return bench.other, Desk(bench, BIDIRECTIONAL).adopt()


async def ready_to_dead_letter(bench: Bench) -> tuple[Server, Call]:
    await Desk(bench).in_hand()
    return bench.listener, Desk(bench).dead_letter(Desk(bench).place())


async def ready_to_replay(bench: Bench) -> tuple[Server, Call]:
    letter = await Desk(bench).buried()
    return bench.other, Desk(bench).replay(letter)


READY: dict[str, Ready] = {
    name.removeprefix("ready_to_"): made
    for name, made in list(globals().items())
    if name.startswith("ready_to_")
}
every_script = pytest.mark.parametrize(
    "script", [script.name for script in SCRIPTS if script not in (HELLO, DROP)]
)
"""Those that act for a session."""


@every_script
async def test_the_living_are_served(bench: Bench, script: str) -> None:
    """The control of the tests below: but for what they do, the call succeeds."""
    who, call = await READY[script](bench)
    assert (await bench.ask(who, call))[0] == "OK"


@every_script
async def test_a_stranger_changes_nothing(bench: Bench, script: str) -> None:
    who, call = await READY[script](bench)
    assert await bench.refuses(who, call, session="nobody.1.2") == ["LAPSED"]


async def test_a_replica_that_lags_declares_nobody_dead() -> None:
    with RedisServer() as server:
        async with Farm(RedisBackend(server)) as farm:
            bench = await Bench.set_up(farm)
            who, call = await READY["open"](bench)
            server.cli("REPLICAOF", "127.0.0.1", 1)
            with pytest.raises(RedisReadOnly):
                await bench.ask(who, call, session="nobody.1.2")
            server.promote()
            assert await bench.refuses(who, call, session="nobody.1.2") == ["LAPSED"]


@every_script
async def test_whoever_knows_another_epoch_changes_nothing(bench: Bench, script: str) -> None:
    who, call = await READY[script](bench)
    for epoch in ("1", str(int(who.epoch) + 1)):
        assert await bench.refuses(who, call, epoch=epoch) == ["EPOCH", "E"]


@every_script
async def test_whoever_is_late_changes_nothing_even_unswept(bench: Bench, script: str) -> None:
    """A sweep that is late is no permission (D14)."""
    who, call = await READY[script](bench)
    await bench.lapse(who)
    assert await bench.refuses(who, call) == ["LAPSED"]


@every_script
async def test_an_outage_kills_nobody(bench: Bench, script: str) -> None:
    """The lease ran out, but not one lease time has passed in this epoch."""
    who, call = await READY[script](bench)
    await bench.farm.client.zadd(bench.keys.leases, {who.session: 1})
    assert (await bench.ask(who, call))[0] == "OK"


@every_script
async def test_whoever_was_swept_changes_nothing(bench: Bench, script: str) -> None:
    who, call = await READY[script](bench)
    await bench.sweep(who)
    assert await bench.refuses(who, call) == ["LAPSED"]


@every_script
async def test_without_its_own_beginning_there_is_nothing_to_do(bench: Bench, script: str) -> None:
    who, call = await READY[script](bench)
    await bench.farm.client.delete(bench.keys.meta)
    assert await bench.refuses(who, call) == ["LAPSED"]


@every_script
async def test_another_redis_process_is_another_epoch(bench: Bench, script: str) -> None:
    who, call = await READY[script](bench)
    run: Any = await bench.farm.client.hget(bench.keys.meta, "run")
    await bench.farm.client.hset(bench.keys.meta, "run", "another")
    before = await bench.dump()
    word, epoch = await bench.ask(who, call)
    after = await bench.dump()
    assert word == "EPOCH"
    assert int(epoch) > int(who.epoch)
    assert bench.changes(before, after) == {"meta": {"run": run.decode(), "epoch": epoch}}
    assert await bench.refuses(who, call) == ["EPOCH", epoch], "it is raised once"
    assert (await bench.ask(who, call, epoch=epoch))[0] == "OK"


@every_script
async def test_no_epoch_revives_the_dead(bench: Bench, script: str) -> None:
    who, call = await READY[script](bench)
    await bench.sweep(who)
    await bench.farm.client.hset(bench.keys.meta, "run", "another")
    await bench.ask(bench.other if who is not bench.other else bench.source, call)
    assert await bench.refuses(who, call) == ["LAPSED"]


async def test_an_epoch_is_later_than_the_one_before_whatever_the_clock_says(bench: Bench) -> None:
    future = int(bench.source.epoch) + 1_000_000
    await bench.farm.client.hset(bench.keys.meta, mapping={"run": "another", "epoch": future})
    assert await bench.ask(*await ready_to_open(bench)) == ["EPOCH", str(future + 1)]


# hello -----------------------------------------------------------------------------------------


def hello(bench: Bench, session: str, lease: int = 60_000) -> Call:
    return _calls.hello(bench.keys, session, lease, "PUBLISH")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda client, key: client.hset(key, "layout", "0"), "layout 0"),
        (lambda client, key: client.hdel(key, "layout"), "a hash"),
        (lambda client, key: replaced(client.set, key, "x"), "a string"),
        (lambda client, key: replaced(client.sadd, key, "x"), "a set"),
    ],
)
async def test_foreign_keys_are_left_alone(
    bench: Bench, spoil: Callable[[object, str], Awaitable[object]], found: str
) -> None:
    await spoil(bench.farm.client, bench.keys.meta)
    assert await bench.refuses(bench.source, hello(bench, "new.1")) == ["FOREIGN", found]


async def replaced(write: Callable[[str, str], Awaitable[object]], key: str, value: str) -> None:
    """A key of another type in the same place."""
    client = write.__self__  # type: ignore[attr-defined]
    await client.delete(key)
    await write(key, value)


async def test_the_dead_cannot_say_hello_again(bench: Bench) -> None:
    await bench.sweep(bench.source)
    assert await bench.refuses(bench.source, hello(bench, bench.source.session)) == ["LAPSED"]


async def test_the_late_cannot_say_hello_again(bench: Bench) -> None:
    await bench.lapse(bench.source)
    assert await bench.refuses(bench.source, hello(bench, bench.source.session)) == ["LAPSED"]


async def test_the_living_may_say_hello_again(bench: Bench) -> None:
    again = hello(bench, bench.source.session)
    assert await bench.refuses(bench.source, again) == ["OK", "E", "PUBLISH", "E-0"]
    await bench.farm.client.zadd(bench.keys.leases, {bench.source.session: 1})
    answer = await bench.ask(bench.source, again)
    assert answer == ["OK", "E", "PUBLISH", "E-0"], "no lease time has passed yet"


# Registrations ---------------------------------------------------------------------------------


async def test_register_repeated_registers_once(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register(limit=1)))
    answer = await bench.refuses(bench.listener, bench.register(limit=1))
    assert answer == ["OK", "1", "0", "inf", "0", "inf"], "known, and within the limit as before"


async def test_register_for_all_users_needs_the_right(bench: Bench) -> None:
    call = bench.register(all_users=True)
    assert await bench.refuses(bench.listener, call) == ["DENIED"]
    await bench.farm.client.hset(bench.keys.grants, "|alice", 2)
    assert await bench.refuses(bench.listener, call) == ["DENIED"], "that is another right"
    await bench.farm.client.hset(bench.keys.grants, "|alice", 1)
    assert (await bench.ask(bench.listener, call))[0] == "OK"
    await bench.farm.client.hdel(bench.keys.grants, "|alice")
    assert (await bench.refuses(bench.listener, call))[0] == "OK", "it stands, until it is ended"


async def test_register_asks_the_grants_for_no_right_that_somebody_else_gives(bench: Bench) -> None:
    call = bench.register(all_users=True, source="a directory of users")
    assert (await bench.ask(bench.listener, call))[0] == "OK"


async def test_register_stops_at_the_limit(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register("first", limit=1)))
    assert await bench.refuses(bench.listener, bench.register("second", limit=1)) == ["LIMIT"]
    assert (await bench.ask(bench.listener, bench.register("second", limit=2)))[0] == "OK"
    assert await bench.refuses(bench.listener, bench.register("third", limit=0)) == ["LIMIT"]


async def test_unregister_is_done_once_and_by_its_holder(bench: Bench) -> None:
    assert await bench.refuses(bench.listener, bench.unregister()) == ["GONE"]
    await bench.done((bench.listener, bench.register()))
    assert await bench.refuses(bench.other, bench.unregister()) == ["NOT_YOURS"]
    foreign = bench.unregister(holder=bench.other.session)
    assert await bench.refuses(bench.other, foreign) == ["NOT_YOURS"]
    assert await bench.refuses(bench.listener, foreign) == ["NOT_YOURS"]
    revoke = bench.unregister(kind="revoke", holder=bench.other.session)
    assert await bench.refuses(bench.other, revoke) == ["NOT_YOURS"], "a record of another holder"
    await bench.done((bench.listener, bench.unregister()))
    assert await bench.refuses(bench.listener, bench.unregister()) == ["GONE"]


async def test_nobody_runs_down_the_registrations_of_the_living(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()))
    run_down = bench.unregister(kind="run-down")
    assert await bench.refuses(bench.other, run_down) == ["NOT_YOURS"]
    await bench.lapse(bench.listener)
    assert await bench.refuses(bench.other, run_down) == ["NOT_YOURS"]
    await bench.sweep(bench.listener)
    assert await bench.ask(bench.other, run_down) == ["OK"]


async def test_nobody_runs_down_the_registration_of_another_holder(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()))
    held = bench.keys.held(bench.other.session)
    await bench.farm.client.sadd(held, "registration:r")
    await bench.sweep(bench.other)
    run_down = bench.unregister(kind="run-down", holder=bench.other.session)
    assert await bench.refuses(bench.source, run_down) == ["NOT_YOURS"]


async def test_take_counts_what_was_taken_once(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    assert await bench.ask(bench.listener, bench.take(2, 1)) == ["OK", "3"]
    assert await bench.refuses(bench.listener, bench.take(2, 1)) == ["OK", "3"], "done before"
    assert await bench.refuses(bench.listener, bench.take(9, 1)) == ["OK", "3"], "nobody's room"
    assert await bench.refuses(bench.listener, bench.take(3, 0)) == ["OK", "3"], "nothing taken"


async def test_take_of_a_registration_that_is_gone_does_nothing(bench: Bench) -> None:
    await bench.done(
        (bench.listener, bench.register(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register("stays", style=UNIDIRECTIONAL)),
        (bench.listener, bench.unregister(style=UNIDIRECTIONAL)),
    )
    assert await bench.refuses(bench.listener, bench.take(2, 1)) == ["OK", "-1"]


# Sessions --------------------------------------------------------------------------------------


async def test_nobody_buries_the_living(bench: Bench) -> None:
    assert await bench.refuses(bench.source, bench.bury(bench.other)) == ["NOT_DEAD"]
    await bench.lapse(bench.other)
    assert await bench.refuses(bench.source, bench.bury(bench.other)) == ["NOT_DEAD"]


async def test_nobody_is_buried_with_what_it_holds(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()))
    assert await bench.refuses(bench.listener, bench.bury(bench.listener)) == ["HOLDS", "1"]
    await bench.sweep(bench.listener)
    assert await bench.refuses(bench.source, bench.bury(bench.listener)) == ["HOLDS", "1"]


async def test_sweep_leaves_the_living_alone(bench: Bench) -> None:
    sweep = _calls.sweep(bench.keys, 10)
    assert await bench.refuses(bench.source, sweep) == ["OK"]
    await bench.farm.client.zadd(bench.keys.leases, {bench.other.session: 1})
    assert await bench.refuses(bench.source, sweep) == ["OK"], "no lease time has passed yet"


# confirm ---------------------------------------------------------------------------------------


async def test_confirm_finds_out_what_redis_forgot(bench: Bench) -> None:
    def confirm(handle: str, op: int, token: str) -> Call:
        return _calls.confirm(bench.keys, "c", handle, op, token)

    source = bench.source
    assert await bench.refuses(source, confirm("source", 0, "")) == ["GONE"]
    await bench.answered()
    token = f"{source.epoch}:r"
    for handle in ("source", "r"):
        assert await bench.refuses(source, confirm(handle, 0, "")) == ["OK", "answered"]
        assert await bench.refuses(source, confirm(handle, 1, token)) == ["OK", "answered"]
        assert await bench.refuses(source, confirm(handle, 2, token)) == ["FORGOTTEN"]
        assert await bench.refuses(source, confirm(handle, 1, "another")) == ["FORGOTTEN"]
    assert await bench.refuses(source, confirm("stranger", 1, "")) == ["FORGOTTEN"]


@pytest.mark.parametrize("handle", ["source", "r"])
async def test_confirm_finds_out_that_the_other_end_is_over(bench: Bench, handle: str) -> None:
    """Whoever ran it down would have ended the dialog before."""
    mine, other = bench.source, bench.listener
    if handle == "r":
        mine, other = other, mine
    call = _calls.confirm(bench.keys, "c", handle, 1, "")
    await bench.answered()
    await bench.sweep(other)
    assert await bench.refuses(mine, call) == ["OK", "answered"], "it is being run down"
    await bench.farm.client.zrem(bench.keys.leases, other.session)
    assert await bench.refuses(mine, call) == ["FORGOTTEN"]
    await bench.farm.client.hset(bench.keys.channel("c"), "state", "closed")
    assert await bench.refuses(mine, call) == ["OK", "closed"]
