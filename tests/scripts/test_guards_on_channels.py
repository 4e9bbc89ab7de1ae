"""A script about a channel that refuses changes nothing, and says which of its guards it was.

Repeats, gaps, other people's channels, turns that are not the caller's, references that were
dropped before: each call would succeed but for one thing.
"""

from __future__ import annotations

from typing import Any

from broker import UNIDIRECTIONAL
from broker._calls import Stowed, together
from tests.scripts.bench import BOB, Bench, body

MISSING = Stowed("ref", "nowhere", "nowhere")
"""A body by reference whose key is gone."""


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


async def test_only_an_open_question_is_put_back_and_only_by_its_source(bench: Bench) -> None:
    source, log = bench.source, bench.keys.log("c")
    assert await bench.refuses(source, bench.offer_again()) == ["GONE"]
    await bench.done((source, bench.open()))
    assert await bench.refuses(source, bench.offer_again()) == ["OK", "0"], "nothing was asked yet"
    await bench.done((bench.listener, bench.register()), (source, bench.offer()))
    assert await bench.refuses(source, bench.offer_again()) == ["OK", "0"], "it lies on its boards"
    question: Any = await bench.farm.client.dump(log)
    await bench.farm.client.delete(log)
    assert await bench.refuses(source, bench.offer_again()) == ["OK", "0"], "its boards have it"
    await bench.lose_a_board()
    assert await bench.refuses(bench.other, bench.offer_again()) == ["NOT_YOURS"]
    assert await bench.refuses(source, bench.offer_again()) == ["FORGOTTEN"]
    await bench.farm.client.restore(log, 0, question)
    assert await bench.ask(source, bench.offer_again()) == ["OK", "1"]
    assert await bench.refuses(source, bench.offer_again()) == ["OK", "0"]
    await bench.done((bench.listener, bench.respond()))
    assert await bench.refuses(source, bench.offer_again()) == ["OK", "0"], "it is answered"


async def test_what_travels_together_is_answered_one_by_one(bench: Bench) -> None:
    """As if each came alone: its own number, room for one more or not, and its own word."""
    source, listener = bench.source, bench.listener
    three = together([b"1", b"2", b"3"])
    await bench.done((source, bench.open(style=UNIDIRECTIONAL)))
    assert await bench.refuses(source, bench.uni_send(2, three)) == ["GAP"]
    assert await bench.refuses(source, bench.uni_send(4, three)) == ["GAP"]
    assert await bench.ask(source, bench.uni_send(3, three)) == ["MANY", "3 NO_LISTENERS"]
    await bench.done(
        (listener, bench.register("small", style=UNIDIRECTIONAL, buffer=1)),
        (listener, bench.register("large", style=UNIDIRECTIONAL, buffer=2)),
    )
    assert await bench.refuses(source, bench.uni_send(3, three)) == ["MANY", "3 NO_LISTENERS"]
    answer = ["MANY", "1 OK 1 LOST 1 FAILURE"]
    assert await bench.ask(source, bench.uni_send(6, three)) == answer
    assert await bench.refuses(source, bench.uni_send(6, three)) == answer, "the first answer"
    assert await bench.ask(source, bench.uni_send(7)) == ["FAILURE"]
    assert await bench.refuses(source, bench.uni_send(7)) == ["FAILURE"], "and not the one before"
    key = bench.keys.stream(bench.plan(UNIDIRECTIONAL).audiences[0])
    stream: Any = await bench.farm.client.xrange(key)
    assert [(entry[b"op"], entry[b"body"]) for _, entry in stream] == [(b"4", b"1"), (b"5", b"2")]


async def test_of_what_travels_together_lossless_the_rest_waits_for_room(bench: Bench) -> None:
    source, listener = bench.source, bench.listener
    three = together([b"1", b"2", b"3"])
    await bench.done(
        (source, bench.open(style=UNIDIRECTIONAL)),
        (listener, bench.register("small", style=UNIDIRECTIONAL, buffer=1)),
        (listener, bench.register("large", style=UNIDIRECTIONAL, buffer=9)),
    )
    answer = ["MANY", "1 OK 2 FULL"]
    assert await bench.ask(source, bench.uni_send(3, three, lossless=True)) == answer
    assert await bench.refuses(source, bench.uni_send(3, three, lossless=True)) == answer
    assert await bench.refuses(source, bench.uni_send(6, three, lossless=True)) == ["FULL"]
    assert (
        await bench.farm.client.xlen(bench.keys.stream(bench.plan(UNIDIRECTIONAL).audiences[0]))
        == 1
    )


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
    assert await bench.refuses(bench.listener, bench.respond(1)) == ["DECLINED"], (
        "that was no answer"
    )


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
    await bench.sweep(bench.source)
    run_down = bench.source_close(2, "run-down")
    assert await bench.refuses(bench.other, run_down) == ["MOVED", "<listener>"]


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
    for op in (3, 9):
        closed = await bench.refuses(bench.listener, bench.listener_close(op))
        assert closed == ["CLOSED", "r"], "what is closed is closed, whatever the number"


async def test_owners_close_after_the_sources_says_who_closed(bench: Bench) -> None:
    await bench.answered()
    await bench.done((bench.source, bench.source_close(2, listening=bench.listener.session)))
    for op in (2, 9):
        closed = await bench.refuses(bench.listener, bench.listener_close(op))
        assert closed == ["CLOSED", "source"]


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
    answer = await bench.ask(bench.other, bench.listener_close(1, "release", handle=late))
    assert answer == ["RELEASED", "alice"]
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
