"""A script that refuses changes nothing, and says which of its guards it was.

Each test makes a state in which the call would succeed but for one thing, and compares all of
Redis before and after. Stale epochs, strangers, the dead, repeats, gaps, other people's channels:
what a client would never send is sent here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker import UNIDIRECTIONAL, _calls
from broker._calls import Stowed
from broker._scripts import HELLO, SCRIPTS, Call
from broker._server import Server
from tests.scripts.bench import BOB, Bench, body

Ready = Callable[[Bench], Awaitable[tuple[Server, Call]]]
MISSING = Stowed("ref", "nowhere", "nowhere")
"""A body by reference whose key is gone."""


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


async def ready_to_register(bench: Bench) -> tuple[Server, Call]:
    return bench.listener, bench.register()


async def ready_to_unregister(bench: Bench) -> tuple[Server, Call]:
    await bench.done((bench.listener, bench.register()))
    return bench.listener, bench.unregister()


async def ready_to_take(bench: Bench) -> tuple[Server, Call]:
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    return bench.listener, bench.take(2, 1)


READY: dict[str, Ready] = {
    name.removeprefix("ready_to_"): made
    for name, made in list(globals().items())
    if name.startswith("ready_to_")
}
every_script = pytest.mark.parametrize("script", [s.name for s in SCRIPTS if s is not HELLO])


@every_script
async def test_the_living_are_served(bench: Bench, script: str) -> None:
    """The control of the tests below: but for what they do, the call succeeds."""
    who, call = await READY[script](bench)
    assert (await bench.ask(who, call))[0] == "OK"


@every_script
async def test_a_stranger_changes_nothing(bench: Bench, script: str) -> None:
    who, call = await READY[script](bench)
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
    return _calls.hello(bench.keys, session, lease)


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
    assert await bench.refuses(bench.source, again) == ["OK", "E"]
    await bench.farm.client.zadd(bench.keys.leases, {bench.source.session: 1})
    assert await bench.ask(bench.source, again) == ["OK", "E"], "no lease time has passed yet"


# open ------------------------------------------------------------------------------------------


async def test_open_repeated_opens_once(bench: Bench) -> None:
    await bench.done((bench.source, bench.open()))
    assert await bench.refuses(bench.source, bench.open()) == ["OK"]
    assert await bench.refuses(bench.source, bench.open(limit=1)) == ["OK"], "it is open already"


async def test_open_refuses_an_id_that_another_holds(bench: Bench) -> None:
    await bench.done((bench.source, bench.open()))
    assert await bench.refuses(bench.other, bench.open()) == ["TAKEN"]


async def test_open_for_all_users_needs_the_right(bench: Bench) -> None:
    call = bench.open(user="*", right="|spooler")
    assert await bench.refuses(bench.source, call) == ["DENIED"]
    for mask in (2, 4, 0x000F_0002):
        await bench.farm.client.hset(bench.keys.grants, "|spooler", mask)
        assert await bench.refuses(bench.source, call) == ["DENIED"], f"{mask:#x} is another right"
    await bench.farm.client.hset(bench.keys.grants, "|spooler", 3)
    assert await bench.ask(bench.source, call) == ["OK"]


async def test_open_stops_at_the_limit(bench: Bench) -> None:
    await bench.done((bench.source, bench.open("first", limit=1)))
    assert await bench.refuses(bench.source, bench.open("second", limit=1)) == ["LIMIT"]
    assert await bench.ask(bench.source, bench.open("second", limit=2)) == ["OK"]
    assert await bench.refuses(bench.source, bench.open("third", limit=0)) == ["LIMIT"]


# The source sends ------------------------------------------------------------------------------


async def test_offer_is_done_once_and_in_turn(bench: Bench) -> None:
    source = bench.source
    assert await bench.refuses(source, bench.offer()) == ["GONE"]
    await bench.done((bench.listener, bench.register()), (source, bench.open()))
    assert await bench.refuses(bench.other, bench.offer()) == ["NOT_YOURS"]
    assert await bench.refuses(source, bench.offer(2)) == ["GAP"]
    assert await bench.refuses(source, bench.offer(sent=MISSING)) == ["NO_BODY"]
    await bench.done((source, bench.offer()))
    assert await bench.refuses(source, bench.offer()) == ["OK"], "the first answer"
    assert await bench.refuses(source, bench.offer(3)) == ["GAP"]
    assert await bench.refuses(source, bench.offer(2)) == ["WAITING"]
    await bench.done((source, bench.source_close(2)))
    assert await bench.refuses(source, bench.offer(3)) == ["CLOSED", "source"]


async def test_offer_repeated_says_no_listeners_again_although_one_came(bench: Bench) -> None:
    await bench.done((bench.source, bench.open()))
    assert await bench.ask(bench.source, bench.offer()) == ["NO_LISTENERS"]
    await bench.done((bench.listener, bench.register()))
    assert await bench.refuses(bench.source, bench.offer()) == ["NO_LISTENERS"]


async def test_uni_send_is_done_once_and_in_turn(bench: Bench) -> None:
    source = bench.source
    assert await bench.refuses(source, bench.uni_send()) == ["GONE"]
    await bench.done((source, bench.open(style=UNIDIRECTIONAL)))
    assert await bench.refuses(bench.other, bench.uni_send()) == ["NOT_YOURS"]
    assert await bench.refuses(source, bench.uni_send(2)) == ["GAP"]
    assert await bench.refuses(source, bench.uni_send(sent=MISSING)) == ["NO_BODY"]
    await bench.done((source, bench.uni_send()))
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    assert await bench.refuses(source, bench.uni_send()) == ["NO_LISTENERS"], "the first answer"
    assert await bench.refuses(source, bench.uni_send(3)) == ["GAP"]
    await bench.done((source, bench.source_close(2, style=UNIDIRECTIONAL)))
    assert await bench.refuses(source, bench.uni_send(3)) == ["CLOSED", "source"]


async def test_uni_send_answers_by_the_room_that_listeners_have(bench: Bench) -> None:
    source, listener = bench.source, bench.listener
    await bench.done(
        (source, bench.open(style=UNIDIRECTIONAL)),
        (listener, bench.register("small", style=UNIDIRECTIONAL, buffer=1)),
        (listener, bench.register("large", style=UNIDIRECTIONAL, buffer=2)),
    )
    assert await bench.ask(source, bench.uni_send(1, lossless=True)) == ["OK"], "room for all"
    assert await bench.refuses(source, bench.uni_send(2, lossless=True)) == ["FULL"]
    assert await bench.ask(source, bench.uni_send(2)) == ["LOST"]
    assert await bench.refuses(source, bench.uni_send(2)) == ["LOST"]
    assert await bench.refuses(source, bench.uni_send(3, lossless=True)) == ["FULL"]
    assert await bench.ask(source, bench.uni_send(3)) == ["FAILURE"]
    assert await bench.refuses(source, bench.uni_send(3)) == ["FAILURE"]


async def test_follow_up_is_done_once_and_in_turn(bench: Bench) -> None:
    source = bench.source
    assert await bench.refuses(source, bench.follow_up(1)) == ["GONE"]
    await bench.done((source, bench.open()))
    assert await bench.refuses(source, bench.follow_up(1)) == ["WAITING"]
    await bench.done((bench.listener, bench.register()), (source, bench.offer()))
    assert await bench.refuses(source, bench.follow_up(2)) == ["WAITING"]
    await bench.done((bench.listener, bench.respond()))
    assert await bench.refuses(bench.other, bench.follow_up()) == ["NOT_YOURS"]
    assert await bench.refuses(source, bench.follow_up(3)) == ["GAP"]
    assert await bench.refuses(source, bench.follow_up(token="")) == ["NOT_YOURS"]
    assert await bench.refuses(source, bench.follow_up(token="E:other")) == ["NOT_YOURS"]
    moved = bench.follow_up(listening=bench.other.session)
    assert await bench.refuses(source, moved) == ["MOVED", "<listener>"]
    assert await bench.refuses(source, bench.follow_up(sent=MISSING)) == ["NO_BODY"]
    await bench.done((source, bench.follow_up()))
    assert await bench.refuses(source, bench.follow_up()) == ["OK"], "the first answer"
    assert await bench.refuses(source, bench.follow_up(3)) == ["WAITING"]
    await bench.done((bench.listener, bench.listener_close(2)))
    assert await bench.refuses(source, bench.follow_up(3)) == ["CLOSED", "r"]


# A listener answers ----------------------------------------------------------------------------


async def test_respond_is_done_once_and_in_turn(bench: Bench) -> None:
    listener = bench.listener
    assert await bench.refuses(listener, bench.respond()) == ["GONE"]
    await bench.done((bench.source, bench.open()))
    assert await bench.refuses(listener, bench.respond()) == ["NOT_OFFERED"]
    await bench.done((listener, bench.register()), (bench.source, bench.offer()))
    assert await bench.refuses(listener, bench.respond(2)) == ["GAP"]
    assert await bench.refuses(listener, bench.respond(0)) == ["GAP"]
    assert await bench.refuses(listener, bench.respond(sent=MISSING)) == ["NO_BODY"]
    await bench.done((listener, bench.respond()))
    assert await bench.refuses(listener, bench.respond()) == ["OK", "E:r"], "the first answer"
    assert await bench.refuses(listener, bench.respond(2)) == ["IN_PROGRESS"]
    await bench.done((bench.source, bench.follow_up()))
    assert await bench.refuses(listener, bench.respond(3)) == ["GAP"]
    assert await bench.refuses(bench.other, bench.respond(2)) == ["NOT_YOURS"]
    await bench.done((listener, bench.respond(2)))
    assert await bench.refuses(listener, bench.respond(2)) == ["OK", "E:r"]
    await bench.done((bench.source, bench.source_close(3, listening=listener.session)))
    assert await bench.refuses(listener, bench.respond(3)) == ["CLOSED", "source"]


async def test_respond_tells_a_loser_who_was_first_for_ever(bench: Bench) -> None:
    await bench.answered()
    late = bench.respond(handle=bench.handle("late", bench.other.session, user=BOB))
    assert await bench.refuses(bench.other, late) == ["ACQUIRED", "alice"]
    await bench.done((bench.source, bench.source_close(2, listening=bench.listener.session)))
    assert await bench.refuses(bench.other, late) == ["ACQUIRED", "alice"], "also once it is closed"


async def test_respond_finds_a_question_that_was_taken_back_closed(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.source, bench.source_close(2)))
    assert await bench.refuses(bench.listener, bench.respond()) == ["CLOSED", "source"]


async def test_respond_after_a_decline_is_none(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.listener, bench.listener_close()))
    assert await bench.refuses(bench.listener, bench.respond(2)) == ["DECLINED"]


# The source closes -----------------------------------------------------------------------------


async def test_source_close_is_done_once_and_only_by_the_source(bench: Bench) -> None:
    source = bench.source
    assert await bench.refuses(source, bench.source_close(1)) == ["GONE"]
    await bench.offered()
    foreign = bench.source_close(2, holder=bench.other.session)
    assert await bench.refuses(bench.other, foreign) == ["NOT_YOURS"]
    assert await bench.refuses(source, foreign) == ["NOT_YOURS"]
    assert await bench.refuses(bench.other, bench.source_close(2)) == ["NOT_YOURS"]
    assert await bench.refuses(bench.other, bench.source_close(2, "abandon")) == ["NOT_YOURS"]
    assert await bench.refuses(source, bench.source_close(3)) == ["GAP"]
    assert await bench.refuses(source, bench.source_close(3, "release")) == ["GAP"]
    await bench.done((source, bench.source_close(2)))
    assert await bench.refuses(source, bench.source_close(2)) == ["OK"], "the first answer"
    assert await bench.refuses(source, bench.source_close(3)) == ["CLOSED", "source"]
    assert await bench.refuses(source, bench.source_close(4)) == ["GAP"]
    assert await bench.refuses(source, bench.source_close(9, "abandon")) == ["CLOSED", "source"]


async def test_source_close_right_after_open_is_refused(bench: Bench) -> None:
    await bench.done((bench.source, bench.open()))
    assert await bench.refuses(bench.source, bench.source_close(1)) == ["NOT_OPENED"]
    assert await bench.ask(bench.source, bench.source_close(1, "release")) == ["RELEASED"]


async def test_source_close_of_an_unused_one_way_channel_is_refused(bench: Bench) -> None:
    await bench.done((bench.source, bench.open(style=UNIDIRECTIONAL)))
    close = bench.source_close(1, style=UNIDIRECTIONAL)
    assert await bench.refuses(bench.source, close) == ["NOT_OPENED"]
    await bench.done((bench.source, bench.uni_send()))
    close = bench.source_close(2, style=UNIDIRECTIONAL)
    assert await bench.ask(bench.source, close) == ["OK"], "something was sent"


async def test_source_release_is_refused_while_the_spooler_owns_the_reference(
    bench: Bench,
) -> None:
    await bench.offered()
    assert await bench.refuses(bench.source, bench.source_close(2, "release")) == ["VIOLATION"]
    await bench.done((bench.listener, bench.respond()), (bench.source, bench.follow_up()))
    release = bench.source_close(3, "release", listening=bench.listener.session)
    assert await bench.refuses(bench.source, release) == ["VIOLATION"]


async def test_source_release_of_a_question_that_nobody_heard(bench: Bench) -> None:
    await bench.done((bench.source, bench.open()), (bench.source, bench.offer()))
    assert await bench.ask(bench.source, bench.source_close(2, "release")) == ["RELEASED"]


async def test_source_release_after_its_close_counts_once(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.source, bench.source_close(2)))
    await bench.done((bench.source, bench.source_close(3, "release")))
    assert await bench.refuses(bench.source, bench.source_close(3, "release")) == ["RELEASED"]
    assert await bench.refuses(bench.source, bench.source_close(4, "release")) == ["VIOLATION"]


async def test_source_release_after_the_owners_close_is_a_violation(bench: Bench) -> None:
    await bench.answered()
    await bench.done((bench.listener, bench.listener_close(2)))
    assert await bench.refuses(bench.source, bench.source_close(2, "release")) == ["VIOLATION"]
    assert await bench.refuses(bench.source, bench.source_close(2)) == ["CLOSED", "r"]


async def test_source_close_must_know_where_the_owner_is(bench: Bench) -> None:
    await bench.answered()
    for elsewhere in ("", bench.other.session):
        close = bench.source_close(2, listening=elsewhere)
        assert await bench.refuses(bench.source, close) == ["MOVED", "<listener>"]


async def test_nobody_runs_down_the_channels_of_the_living(bench: Bench) -> None:
    await bench.offered()
    assert await bench.refuses(bench.other, bench.source_close(2, "run-down")) == ["NOT_YOURS"]
    await bench.lapse(bench.source)
    assert await bench.refuses(bench.other, bench.source_close(2, "run-down")) == ["NOT_YOURS"], (
        "late is not dead yet: only a sweep decides that"
    )
    await bench.sweep(bench.source)
    assert await bench.ask(bench.other, bench.source_close(2, "run-down")) == ["OK"]
    assert await bench.refuses(bench.other, bench.source_close(3, "run-down")) == [
        "CLOSED",
        "source",
    ]


# A listener closes -----------------------------------------------------------------------------


async def test_listener_close_is_done_once_and_only_by_its_holder(bench: Bench) -> None:
    listener = bench.listener
    assert await bench.refuses(listener, bench.listener_close()) == ["GONE"]
    await bench.done((bench.source, bench.open()))
    assert await bench.refuses(listener, bench.listener_close()) == ["NOT_OFFERED"]
    await bench.done((listener, bench.register()), (bench.source, bench.offer()))
    assert await bench.refuses(bench.other, bench.listener_close()) == ["NOT_YOURS"]
    assert await bench.refuses(listener, bench.listener_close(2)) == ["GAP"]
    assert await bench.refuses(listener, bench.listener_close(reason=MISSING)) == ["NO_BODY"]
    await bench.done((listener, bench.listener_close()))
    assert (await bench.refuses(listener, bench.listener_close()))[0] == "OK", "the first answer"
    assert await bench.refuses(listener, bench.listener_close(2)) == ["DECLINED"]
    assert await bench.refuses(listener, bench.listener_close(2, reason=body())) == ["DECLINED"]


async def test_listener_close_of_a_dialog_is_the_owners(bench: Bench) -> None:
    await bench.answered()
    foreign = bench.listener_close(2, handle=bench.handle(session=bench.other.session))
    assert await bench.refuses(bench.other, foreign) == ["NOT_YOURS"]
    assert await bench.refuses(bench.listener, bench.listener_close(3)) == ["GAP"]
    await bench.done((bench.listener, bench.listener_close(2)))
    assert (await bench.refuses(bench.listener, bench.listener_close(2)))[0] == "OK"
    assert await bench.refuses(bench.listener, bench.listener_close(3)) == ["CLOSED", "r"]


async def test_listener_close_after_the_sources_is_late(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.source, bench.source_close(2)))
    assert await bench.refuses(bench.listener, bench.listener_close()) == ["CLOSED", "source"]
    release = bench.listener_close(1, "release")
    assert await bench.refuses(bench.listener, release) == ["VIOLATION"]


async def test_owners_release_is_refused_while_the_spooler_owns_the_reference(
    bench: Bench,
) -> None:
    await bench.answered()
    assert await bench.refuses(bench.listener, bench.listener_close(2, "release")) == ["VIOLATION"]
    await bench.done((bench.source, bench.follow_up()))
    assert (await bench.ask(bench.listener, bench.listener_close(2, "release")))[0] == "RELEASED"


async def test_listener_release_counts_once(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.listener, bench.listener_close(1, "release")))
    first = await bench.refuses(bench.listener, bench.listener_close(1, "release"))
    assert first[0] == "RELEASED"
    assert await bench.refuses(bench.listener, bench.listener_close(2, "release")) == ["VIOLATION"]


async def test_listener_release_after_its_close_counts_once(bench: Bench) -> None:
    await bench.offered()
    await bench.done(
        (bench.listener, bench.listener_close()),
        (bench.listener, bench.listener_close(2, "release")),
    )
    assert await bench.refuses(bench.listener, bench.listener_close(3, "release")) == ["VIOLATION"]


async def test_a_loser_closes_once_and_releases_once(bench: Bench) -> None:
    await bench.answered()
    late = bench.handle("late", bench.other.session, user=BOB)
    await bench.done((bench.other, bench.listener_close(1, handle=late)))
    again = await bench.refuses(bench.other, bench.listener_close(1, handle=late))
    assert again == ["ACQUIRED", "alice"], "the first answer"
    assert await bench.refuses(bench.other, bench.listener_close(2, handle=late)) == [
        "CLOSED",
        "late",
    ]
    await bench.done((bench.other, bench.listener_close(2, "release", handle=late)))
    release = bench.listener_close(3, "release", handle=late)
    assert await bench.refuses(bench.other, release) == ["VIOLATION"]


async def test_a_loser_that_released_may_not_release_again(bench: Bench) -> None:
    await bench.answered()
    late = bench.handle("late", bench.other.session, user=BOB)
    await bench.done((bench.other, bench.listener_close(1, "release", handle=late)))
    release = bench.listener_close(2, "release", handle=late)
    assert await bench.refuses(bench.other, release) == ["VIOLATION"]


async def test_nobody_runs_down_the_dialogs_of_the_living(bench: Bench) -> None:
    await bench.answered()
    run_down = bench.listener_close(0, "run-down")
    assert await bench.refuses(bench.other, run_down) == ["NOT_YOURS"]
    await bench.lapse(bench.listener)
    assert await bench.refuses(bench.other, run_down) == ["NOT_YOURS"]
    await bench.sweep(bench.listener)
    assert (await bench.ask(bench.other, run_down))[0] == "OK"


async def test_only_the_owner_abandons_a_dialog(bench: Bench) -> None:
    await bench.answered()
    abandon = bench.listener_close(7, "abandon")
    assert await bench.refuses(bench.other, abandon) == ["NOT_YOURS"]
    late = bench.handle("late", bench.other.session, user=BOB)
    assert await bench.refuses(bench.other, bench.listener_close(7, "abandon", handle=late)) == [
        "OK"
    ], "a loser has nothing to abandon"


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
