"""The scripts of pools refuse without a trace, and say which of their guards it was.

What is in other hands, was finished or handed back before, belongs to the living, or to a pool
that is gone; keys of another program: each call would succeed but for one thing.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Style, _calls
from broker._keys import Keys
from broker.errors import ForeignLayout
from tests.scripts.bench import Bench
from tests.scripts.desk import ID, LETTER, Desk

every_style = pytest.mark.parametrize("style", [UNIDIRECTIONAL, BIDIRECTIONAL])


# create_pool -----------------------------------------------------------------------------------


@every_style
async def test_create_pool_repeated_creates_once(bench: Bench, style: Style) -> None:
    desk = Desk(bench, style)
    await bench.done((bench.listener, desk.create(limit=1)))
    assert await bench.refuses(bench.listener, desk.create(limit=1)) == ["KNOWN"]
    assert await bench.refuses(bench.other, desk.create(limit=0)) == ["KNOWN"]


async def test_create_pool_repeated_by_its_maker_gives_the_first_answer(bench: Bench) -> None:
    desk = Desk(bench)
    await bench.done((bench.listener, desk.create(made="m")))
    assert await bench.refuses(bench.listener, desk.create(made="m")) == ["OK"]
    assert await bench.refuses(bench.listener, desk.create(made="n")) == ["KNOWN"]
    assert await bench.refuses(bench.listener, desk.create()) == ["KNOWN"]


async def test_create_pool_does_not_take_one_that_names_no_maker_for_its_own(bench: Bench) -> None:
    desk = Desk(bench)
    await bench.done((bench.listener, desk.create()))
    assert await bench.refuses(bench.listener, desk.create(made="m")) == ["KNOWN"]


async def test_create_pool_for_all_users_needs_the_right(bench: Bench) -> None:
    desk = Desk(bench, all_users=True)
    assert await bench.refuses(bench.listener, desk.create()) == ["DENIED"]
    await bench.farm.client.hset(bench.keys.grants, "|alice", 2)
    assert await bench.refuses(bench.listener, desk.create()) == ["DENIED"], "that is another right"
    await bench.farm.client.hset(bench.keys.grants, "|alice", 1)
    assert await bench.ask(bench.listener, desk.create()) == ["OK"]
    await bench.farm.client.hdel(bench.keys.grants, "|alice")
    assert await bench.refuses(bench.listener, desk.create()) == ["KNOWN"], "until it is ended"


async def test_create_pool_asks_the_grants_for_no_right_that_somebody_else_gives(
    bench: Bench,
) -> None:
    desk = Desk(bench, all_users=True, source="a directory of users")
    assert await bench.ask(bench.listener, desk.create()) == ["OK"]


async def test_create_pool_stops_at_the_limit_of_all_registrations(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()))
    desk, another = Desk(bench), Desk(bench, name="another")
    assert await bench.refuses(bench.listener, desk.create(limit=1)) == ["LIMIT"]
    assert await bench.ask(bench.listener, desk.create(limit=2)) == ["OK"]
    assert await bench.refuses(bench.listener, another.create(limit=2)) == ["LIMIT"]
    assert await bench.refuses(bench.listener, another.create(limit=0)) == ["LIMIT"]
    assert await bench.refuses(bench.listener, bench.register("second", limit=2)) == ["LIMIT"]


# delete_pool -----------------------------------------------------------------------------------


@every_style
async def test_delete_pool_is_done_once(bench: Bench, style: Style) -> None:
    desk = Desk(bench, style)
    assert await bench.refuses(bench.other, desk.delete()) == ["GONE"]
    await desk.made()
    await bench.done((bench.other, desk.delete()))
    assert await bench.refuses(bench.other, desk.delete()) == ["GONE"]


async def test_no_pool_is_deleted_with_dialogs_that_wait_for_a_replica(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    assert await bench.refuses(bench.other, desk.delete()) == ["HOLDS", "1"]
    await bench.done((bench.other, desk.adopt()), (bench.other, desk.delete()))


# join, fetch -----------------------------------------------------------------------------------


async def test_nobody_joins_a_pool_that_is_not_there(bench: Bench) -> None:
    desk = Desk(bench)
    assert await bench.refuses(bench.listener, desk.join()) == ["GONE", "E-0"]
    await desk.made()
    assert await bench.refuses(bench.listener, desk.join()) == ["OK", "E-1"], "it is one already"
    await bench.done((bench.other, desk.delete()))
    assert await bench.refuses(bench.other, desk.join(bench.other)) == ["GONE", "E-2"]


async def test_only_a_replica_fetches(bench: Bench) -> None:
    desk = Desk(bench)
    assert await bench.refuses(bench.listener, desk.fetch()) == ["GONE"]
    await desk.collected()
    other = bench.other
    assert await bench.refuses(other, desk.fetch(who=other)) == ["NOT_JOINED"]
    await bench.done((bench.listener, desk.disown()))
    assert await bench.refuses(bench.listener, desk.fetch()) == ["NOT_JOINED"], "it left"
    await bench.done((other, desk.join(other)), (other, desk.delete()))
    assert await bench.refuses(other, desk.fetch(who=other)) == ["GONE"]


async def test_a_replica_of_another_pool_is_none_of_this_one(bench: Bench) -> None:
    desk, another = Desk(bench), Desk(bench, name="another")
    await desk.collected()
    await bench.done((bench.other, another.create()), (bench.other, another.join(bench.other)))
    assert await bench.refuses(bench.other, desk.fetch(who=bench.other)) == ["NOT_JOINED"]


# finish ----------------------------------------------------------------------------------------


@every_style
async def test_finish_is_done_once_and_by_the_holder(bench: Bench, style: Style) -> None:
    desk = Desk(bench, style)
    await (desk.asked() if style is BIDIRECTIONAL else desk.in_hand())
    assert await bench.refuses(bench.other, desk.finish()) == ["OK", "NOT_YOURS"]
    assert await bench.ask(bench.listener, desk.finish()) == ["OK", "OK"]
    assert await bench.refuses(bench.listener, desk.finish()) == ["OK", "GONE"]
    assert await bench.refuses(bench.other, desk.finish()) == ["OK", "GONE"]


async def test_finish_after_it_was_handed_back_is_too_late(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand()
    await bench.done((bench.listener, desk.hand_back()))
    assert await bench.refuses(bench.listener, desk.finish()) == ["OK", "NOT_YOURS"]
    await bench.done((bench.other, desk.join(bench.other)))
    await bench.done((bench.other, desk.fetch(who=bench.other)))
    assert await bench.refuses(bench.listener, desk.finish()) == ["OK", "NOT_YOURS"]
    assert await bench.ask(bench.other, desk.finish()) == ["OK", "OK"]


async def test_an_entry_that_came_in_hand_once_more_is_not_finished_by_who_had_it_before(
    bench: Bench,
) -> None:
    desk = Desk(bench)
    await desk.in_hand()
    await bench.done((bench.listener, desk.hand_back()), (bench.listener, desk.fetch()))
    first, second = desk.place(times=1), desk.place(times=2)
    assert await bench.refuses(bench.listener, desk.finish(first)) == ["OK", "NOT_YOURS"]
    assert await bench.refuses(bench.listener, desk.dead_letter(first)) == ["NOT_YOURS"]
    back = desk.hand_back((first, 0))
    assert await bench.refuses(bench.listener, back) == ["OK", "OK"], "it did give it back"
    assert await bench.ask(bench.listener, desk.finish(second)) == ["OK", "OK"]


@pytest.mark.parametrize("what", ["finish", "hand_back", "dead_letter"])
async def test_the_delivery_that_it_came_in_hand_by_is_the_right_one(
    bench: Bench, what: str
) -> None:
    desk = Desk(bench)
    await desk.in_hand()
    await bench.done((bench.listener, desk.hand_back()), (bench.listener, desk.fetch()))
    place = desk.place(times=2)
    calls = {
        "finish": desk.finish(place),
        "hand_back": desk.hand_back((place, 0)),
        "dead_letter": desk.dead_letter(place),
    }
    assert await bench.changed_by(bench.listener, calls[what]) != {}


async def test_finish_after_the_end_of_the_pool_leaves_the_board_alone(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    await bench.done((bench.listener, bench.register()), (bench.other, desk.delete()))
    assert await bench.refuses(bench.listener, desk.finish()) == ["OK", "GONE"]
    assert await bench.farm.client.xlen(bench.route().streams[0]) == 1


async def test_finish_answers_for_each_entry(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.collected(3)
    await bench.done((bench.listener, desk.fetch(2)), (bench.other, desk.join(bench.other)))
    await bench.done((bench.other, desk.fetch(1, who=bench.other)))
    call = desk.finish(*[desk.place(number) for number in (1, 3, 2, 1)])
    assert await bench.ask(bench.listener, call) == ["OK", "OK", "NOT_YOURS", "OK", "GONE"]


async def test_finish_looks_at_each_entry_of_a_row(bench: Bench) -> None:
    """Numbers that follow each other make a row, whoever has what of it in hand."""
    desk = Desk(bench, buffer=5)
    await desk.collected(5)
    await bench.done((bench.listener, desk.fetch(4)), (bench.other, desk.join(bench.other)))
    await bench.done(
        (bench.listener, desk.hand_back((desk.place(3), 0))),
        (bench.other, desk.fetch(1, who=bench.other)),
        (bench.listener, desk.finish(desk.place(2))),
    )
    call = desk.finish(*[desk.place(number) for number in range(1, 7)])
    assert len(call.keys) == 4, "one row"
    found = await bench.ask(bench.listener, call)
    assert found == ["OK", "OK", "GONE", "NOT_YOURS", "OK", "GONE", "GONE"]
    room = bench.keys.room(desk.plan.audiences[0])
    assert await bench.farm.client.zscore(room, desk.plan.group) == 9
    assert await bench.farm.client.xlen(bench.keys.stream(desk.plan.audiences[0])) == 1


async def test_finish_of_other_deliveries_is_another_row(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand(3)
    await bench.done(
        (bench.listener, desk.hand_back((desk.place(2), 0))),
        (bench.listener, desk.fetch()),
    )
    call = desk.finish(*[desk.place(number, times=1) for number in (1, 2, 3)])
    assert await bench.ask(bench.listener, call) == ["OK", "OK", "NOT_YOURS", "OK"]
    call = desk.finish(desk.place(1, times=1), desk.place(2, times=2), desk.place(3, times=1))
    assert len(call.keys) == 8, "three rows"
    assert await bench.ask(bench.listener, call) == ["OK", "GONE", "OK", "GONE"]


async def test_finish_of_both_boards_is_two_rows(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    board = bench.keys.stream(desk.plan.audiences[1])
    await bench.farm.client.xadd(board, {"channel": "d"}, id=f"{bench.source.epoch}-2")
    await bench.done((bench.listener, desk.fetch(1)))
    call = desk.finish(desk.place(1, 0), desk.place(2, 1))
    assert await bench.ask(bench.listener, call) == ["OK", "OK", "OK"]
    assert await bench.farm.client.xpending(board, desk.plan.group) | {"consumers": 0} == {
        "pending": 0, "min": None, "max": None, "consumers": 0,
    }  # fmt: skip


# hand_back -------------------------------------------------------------------------------------


async def test_hand_back_is_done_once_and_by_the_holder(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.collected()
    assert await bench.refuses(bench.listener, desk.hand_back()) == ["OK", "GONE"], "nobody has it"
    await bench.done((bench.listener, desk.fetch()))
    assert await bench.refuses(bench.other, desk.hand_back()) == ["OK", "NOT_YOURS"]
    assert await bench.ask(bench.listener, desk.hand_back()) == ["OK", "OK"]
    later = desk.hand_back((desk.place(), 1000))
    assert await bench.refuses(bench.listener, later) == ["OK", "OK"], "the first answer"
    await bench.done((bench.other, desk.join(bench.other)))
    await bench.done((bench.other, desk.fetch(who=bench.other)))
    assert await bench.refuses(bench.listener, desk.hand_back()) == ["OK", "NOT_YOURS"]
    await bench.done((bench.other, desk.finish()))
    assert await bench.refuses(bench.other, desk.hand_back()) == ["OK", "GONE"]


async def test_hand_back_after_the_end_of_the_pool_does_nothing(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand()
    await bench.done((bench.other, desk.delete()))
    assert await bench.refuses(bench.listener, desk.hand_back()) == ["OK", "GONE"]


async def test_hand_back_answers_for_each_entry(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand(2)
    await bench.done((bench.listener, desk.finish(desk.place(1))))
    call = desk.hand_back((desk.place(1), 0), (desk.place(2), 0))
    assert await bench.ask(bench.listener, call) == ["OK", "GONE", "OK"]


# disown ----------------------------------------------------------------------------------------


async def test_nobody_takes_from_the_living_what_they_have_in_hand(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand()
    assert await bench.refuses(bench.other, desk.disown()) == ["NOT_YOURS"]
    await bench.lapse(bench.listener)
    assert await bench.refuses(bench.other, desk.disown()) == ["NOT_YOURS"], "a late sweep"
    await bench.sweep(bench.listener)
    assert await bench.ask(bench.other, desk.disown()) == ["OK", "1"]
    assert await bench.refuses(bench.other, desk.disown()) == ["OK", "0"]


async def test_disown_of_a_pool_that_is_gone_lets_go(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand()
    await bench.done((bench.other, desk.delete()))
    assert await bench.ask(bench.listener, desk.disown()) == ["OK", "0"]
    assert await bench.refuses(bench.listener, desk.disown()) == ["OK", "0"]


# orphan, adopt ---------------------------------------------------------------------------------


async def test_nobody_orphans_the_dialogs_of_the_living(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    assert await bench.refuses(bench.other, desk.orphan()) == ["NOT_YOURS"]
    await bench.lapse(bench.listener)
    assert await bench.refuses(bench.other, desk.orphan()) == ["NOT_YOURS"]
    await bench.sweep(bench.listener)
    assert await bench.ask(bench.other, desk.orphan()) == ["OK"]
    assert await bench.refuses(bench.other, desk.orphan()) == ["GONE"], "it waits already"


async def test_no_dialog_waits_that_is_over_or_somebody_elses(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.made()
    assert await bench.refuses(bench.listener, desk.orphan(channel="nowhere")) == ["GONE"]
    await bench.done((bench.source, bench.offer()), (bench.other, bench.register()))
    assert await bench.refuses(bench.listener, desk.orphan()) == ["GONE"], "nobody owns it"
    foreign = bench.handle("r", bench.other.session)
    await bench.done((bench.other, bench.respond(handle=foreign)))
    assert await bench.refuses(bench.listener, desk.orphan()) == ["GONE"], "another owns it"
    assert await bench.refuses(bench.other, desk.orphan(bench.other)) == ["GONE"]


async def test_a_dialog_that_was_closed_does_not_wait(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    await bench.done((bench.source, bench.source_close(2, listening=bench.listener.session)))
    assert await bench.refuses(bench.listener, desk.orphan()) == ["GONE"]


async def test_a_dialog_that_another_replica_carries_does_not_wait(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    await bench.done((bench.other, desk.adopt()))
    assert await bench.refuses(bench.listener, desk.orphan()) == ["GONE"]


async def test_a_dialog_does_not_wait_for_a_pool_that_is_gone(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    await bench.done((bench.other, desk.delete()))
    assert await bench.refuses(bench.listener, desk.orphan()) == ["NO_POOL"]
    await bench.done((bench.source, bench.source_close(2, listening=bench.listener.session)))
    assert await bench.refuses(bench.listener, desk.orphan()) == ["GONE"], "it is over"


async def test_adopt_is_done_once_and_by_one(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    assert await bench.refuses(bench.other, desk.adopt()) == ["GONE"]
    await desk.carried()
    assert await bench.refuses(bench.other, desk.adopt()) == ["NOT_YOURS"], "it is carried"
    await bench.done((bench.listener, desk.orphan()))
    first = ["OK", f"E:{ID}/E-1", "1", "1"]
    assert await bench.ask(bench.other, desk.adopt()) == first
    assert await bench.refuses(bench.other, desk.adopt()) == first, "the first answer"
    assert await bench.refuses(bench.listener, desk.adopt(bench.listener)) == ["NOT_YOURS"]


async def test_adopt_by_who_carries_it_already_finds_it_done(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    found = await bench.refuses(bench.listener, desk.adopt(bench.listener))
    assert found == ["OK", f"E:{ID}", "1", "0"]


async def test_nobody_adopts_what_the_pool_does_not_own(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.made()
    await bench.done((bench.listener, bench.register()), (bench.source, bench.offer()))
    assert await bench.refuses(bench.other, desk.adopt()) == ["GONE"], "nobody owns it"
    await bench.done((bench.listener, bench.respond()))
    assert await bench.refuses(bench.listener, desk.adopt(bench.listener)) == ["GONE"]


async def test_nobody_adopts_what_was_closed(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    await bench.done((bench.source, bench.source_close(2, listening=bench.listener.session)))
    assert await bench.refuses(bench.other, desk.adopt()) == ["GONE"]
    assert await bench.refuses(bench.listener, desk.adopt(bench.listener)) == ["GONE"]


# A dialog that changed hands -------------------------------------------------------------------


async def test_whoever_carried_a_dialog_before_is_refused(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    await bench.done((bench.other, desk.adopt()))
    listening = bench.other.session
    assert await bench.refuses(bench.listener, desk.respond()) == ["NOT_YOURS"], "or repeats"
    await bench.done((bench.source, desk.follow_up(listening=listening)))
    assert await bench.refuses(bench.listener, desk.respond(2)) == ["NOT_YOURS"]
    close = bench.listener_close(2, handle=desk.handle())
    assert await bench.refuses(bench.listener, close) == ["NOT_YOURS"]
    assert await bench.ask(bench.other, desk.respond(2, bench.other)) == ["OK", f"E:{ID}/E-1"]


async def test_the_receipt_of_another_replica_is_not_ones_own(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    await bench.done((bench.other, desk.adopt()))
    closes = [
        bench.listener_close(2, handle=desk.handle(who)) for who in (bench.other, bench.listener)
    ]
    await bench.done((bench.other, closes[0]))
    assert (await bench.refuses(bench.other, closes[0]))[0] == "OK", "the first answer"
    assert await bench.refuses(bench.listener, closes[1]) == ["NOT_YOURS"]
    assert await bench.refuses(bench.listener, desk.respond(2)) == ["NOT_YOURS"]


async def test_nobody_answers_while_a_dialog_waits(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    waiting = desk.follow_up(listening=desk.id)
    await bench.done((bench.source, waiting))
    for who in (bench.listener, bench.other):
        assert await bench.refuses(who, desk.respond(2, who)) == ["NOT_YOURS"]


async def test_follow_up_knows_the_acquisition_and_is_told_where_the_dialog_went(
    bench: Bench,
) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    source, other = bench.source, bench.other.session
    assert await bench.refuses(source, desk.follow_up()) == ["MOVED", ID]
    await bench.done((bench.other, desk.adopt()))
    assert await bench.refuses(source, desk.follow_up()) == ["MOVED", "<other>"]
    whole = bench.follow_up(token=f"{source.epoch}:{desk.id}/{source.epoch}-1", listening=other)
    assert await bench.refuses(source, whole) == ["NOT_YOURS"], "the acquisition is what counts"
    foreign = bench.follow_up(token=f"{source.epoch}:r", listening=other)
    assert await bench.refuses(source, foreign) == ["NOT_YOURS"]
    assert await bench.ask(source, desk.follow_up(listening=other)) == ["OK"]


async def test_confirm_knows_a_dialog_that_changed_hands(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    await bench.done((bench.other, desk.adopt()))
    token = f"{bench.source.epoch}:{desk.id}"
    adopted = f"{token}/{bench.source.epoch}-1"

    async def confirm(handle: str, token: str) -> list[str]:
        call = _calls.confirm(bench.keys, "c", handle, 1, token)
        return await bench.refuses(bench.source, call)

    assert await confirm("source", token) == ["OK", "answered"]
    assert await confirm("source", adopted) == ["FORGOTTEN"]
    assert await confirm(desk.id, adopted) == ["OK", "answered"]
    assert await confirm(desk.id, token) == ["FORGOTTEN"], "that was the replica before"


async def test_confirm_of_a_dialog_that_waits_for_a_replica(bench: Bench) -> None:
    await Desk(bench, BIDIRECTIONAL).waiting()
    call = _calls.confirm(bench.keys, "c", "source", 1, "")
    assert await bench.refuses(bench.source, call) == ["OK", "answered"]


async def test_confirm_of_a_question_that_nobody_answered(bench: Bench) -> None:
    await bench.offered()
    call = _calls.confirm(bench.keys, "c", "source", 1, "")
    assert await bench.refuses(bench.source, call) == ["OK", "offered"]
    call = _calls.confirm(bench.keys, "c", "source", 1, "E:r")
    assert await bench.refuses(bench.source, call) == ["FORGOTTEN"]


# dead_letter, replay ---------------------------------------------------------------------------


@every_style
async def test_only_the_holder_puts_an_entry_aside_and_once(bench: Bench, style: Style) -> None:
    desk = Desk(bench, style)
    await (desk.asked() if style is BIDIRECTIONAL else desk.in_hand())
    bury = desk.dead_letter(desk.place())
    assert await bench.refuses(bench.other, bury) == ["NOT_YOURS"]
    assert (await bench.ask(bench.listener, bury))[0] == "OK"
    assert await bench.refuses(bench.listener, bury) == ["GONE"]


async def test_nobody_puts_aside_what_nobody_has_in_hand(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.collected()
    assert await bench.refuses(bench.listener, desk.dead_letter(desk.place())) == ["GONE"]
    await bench.done((bench.listener, desk.fetch()), (bench.listener, desk.hand_back()))
    assert await bench.refuses(bench.listener, desk.dead_letter(desk.place())) == ["NOT_YOURS"]
    await bench.done((bench.listener, desk.delete()))
    assert await bench.refuses(bench.listener, desk.dead_letter(desk.place())) == ["GONE"]


async def test_nothing_is_put_aside_for_a_group_without_a_room(bench: Bench) -> None:
    """As after somebody deleted the key of a pool that is made anew."""
    desk = Desk(bench)
    await desk.in_hand()
    await bench.farm.client.delete(bench.keys.room(desk.plan.audiences[0]))
    assert await bench.refuses(bench.listener, desk.dead_letter(desk.place())) == ["GONE"]


@every_style
async def test_a_letter_is_written_once(bench: Bench, style: Style) -> None:
    """Also one of a dialog, which has no entry that would be gone."""
    desk = Desk(bench, style)
    await (desk.carried() if style is BIDIRECTIONAL else desk.in_hand(2))
    place = None if style is BIDIRECTIONAL else desk.place()
    again = desk.dead_letter(place, after="-")
    first = await bench.ask(bench.listener, again)
    assert first[0] == "OK"
    assert await bench.refuses(bench.listener, again) == first
    other = None if place is None else desk.place(2)
    another = desk.dead_letter(other, letter=LETTER | {"times": "2"}, after="-")
    second = await bench.ask(bench.listener, another)
    assert second != first
    assert await bench.refuses(bench.listener, again) == first, "among others"


async def test_a_letter_from_before_is_not_taken_for_this_one(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    _, first = await bench.ask(bench.listener, desk.dead_letter(None))
    _, second = await bench.ask(bench.listener, desk.dead_letter(None, after=f"({first}"))
    assert second != first


async def test_a_letter_is_replayed_once(bench: Bench) -> None:
    desk = Desk(bench)
    letter = await desk.buried()
    assert await bench.refuses(bench.other, desk.replay("1-1")) == ["GONE"]
    await bench.done((bench.other, desk.replay(letter)))
    assert await bench.refuses(bench.other, desk.replay(letter, call="second")) == ["GONE"]
    assert await bench.refuses(bench.other, desk.drop(letter, call="second")) == ["GONE"]


@every_style
async def test_a_replay_that_is_repeated_is_answered_as_before(bench: Bench, style: Style) -> None:
    """Whatever became meanwhile of what it handed out, and of the pool."""
    desk = Desk(bench, style)
    letter = await desk.buried()
    await bench.done((bench.other, desk.replay(letter)))
    assert await bench.refuses(bench.other, desk.replay(letter)) == ["OK"]
    await bench.done(
        (bench.listener, desk.fetch()),
        (bench.listener, desk.finish(desk.place(1 if style is BIDIRECTIONAL else 2))),
    )
    assert await bench.refuses(bench.other, desk.replay(letter)) == ["OK"]
    await bench.done((bench.other, desk.delete()))
    assert await bench.refuses(bench.other, desk.replay(letter)) == ["OK"]


async def test_a_letter_is_dropped_once_and_the_answer_repeated(bench: Bench) -> None:
    desk = Desk(bench)
    letter = await desk.buried()
    assert await bench.refuses(bench.other, desk.drop("1-1")) == ["GONE"]
    await bench.done((bench.other, desk.drop(letter)))
    assert await bench.refuses(bench.other, desk.drop(letter)) == ["OK"]
    assert await bench.refuses(bench.other, desk.drop(letter, call="second")) == ["GONE"]
    assert await bench.refuses(bench.other, desk.replay(letter, call="second")) == ["GONE"]


async def test_nothing_is_replayed_for_a_pool_that_is_gone(bench: Bench) -> None:
    desk = Desk(bench)
    letter = await desk.buried()
    await bench.done((bench.other, desk.delete()))
    assert await bench.refuses(bench.other, desk.replay(letter)) == ["NO_POOL"]


async def test_nothing_is_replayed_where_a_pool_has_no_room(bench: Bench) -> None:
    desk = Desk(bench)
    letter = await desk.buried()
    await bench.farm.client.delete(bench.keys.room(desk.plan.audiences[0]))
    assert await bench.refuses(bench.other, desk.replay(letter)) == ["NO_POOL"]


async def test_a_full_pool_gets_nothing_again(bench: Bench) -> None:
    desk = Desk(bench, buffer=1)
    letter = await desk.buried()
    await bench.done((bench.source, desk.send(2)))
    assert await bench.refuses(bench.other, desk.replay(letter)) == ["FULL"]
    await bench.done((bench.listener, desk.fetch()))
    assert await bench.refuses(bench.other, desk.replay(letter)) == ["FULL"], "it is in hand"
    await bench.done((bench.listener, desk.finish(desk.place(2))))
    assert await bench.ask(bench.other, desk.replay(letter)) == ["OK"]


async def test_a_question_that_is_over_is_not_handed_out_again(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    letter = await desk.buried()
    await bench.done((bench.source, bench.source_close(2)))
    assert await bench.refuses(bench.other, desk.replay(letter)) == ["OVER"]


# What sources know of pools --------------------------------------------------------------------


async def test_a_source_that_knows_another_list_sends_nothing(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    source = bench.source
    assert await bench.refuses(source, bench.uni_send()) == ["POOLS", "E-1"]
    later = bench.uni_send(listed=desk.listed(2))
    assert await bench.refuses(source, later) == ["POOLS", "E-1"]
    assert await bench.ask(source, desk.send()) == ["OK"]
    await bench.done((bench.other, desk.delete()))
    assert await bench.refuses(source, desk.send(2)) == ["POOLS", "E-2"]
    assert await bench.refuses(source, bench.uni_send()) == ["OK"], "the first answer"
    assert await bench.refuses(source, bench.uni_send(3)) == ["GAP"], "before its list is looked at"
    assert await bench.ask(source, bench.uni_send(2, listed=desk.listed(2))) == ["NO_LISTENERS"]
    await bench.done((source, bench.source_close(3, style=UNIDIRECTIONAL)))
    assert await bench.refuses(source, bench.uni_send(4)) == ["CLOSED", "source"]


async def test_a_session_that_begins_is_told_which_list_there_is(bench: Bench) -> None:
    hello = _calls.hello(bench.keys, bench.source.session, 60_000, "PUBLISH")
    assert await bench.refuses(bench.source, hello) == ["OK", "E", "PUBLISH", "E-0"]
    await bench.done((bench.listener, Desk(bench).create()))
    assert await bench.refuses(bench.source, hello) == ["OK", "E", "PUBLISH", "E-1"]


async def test_a_list_whose_name_was_lost_is_not_taken_for_the_empty_one(bench: Bench) -> None:
    """Somebody may know that one, and that nothing is on it."""
    await bench.done((bench.listener, Desk(bench).create()))
    await bench.farm.client.delete(bench.keys.meta)
    hello = _calls.hello(bench.keys, "new", 60_000, "PUBLISH")
    word, epoch, _, listed = await bench.ask(bench.source, hello)
    assert (word, listed) == ("OK", f"{epoch}-0")
    again = _calls.hello(bench.keys, "newer", 60_000, "PUBLISH")
    assert (await bench.ask(bench.source, again))[3] == listed
    assert await bench.farm.client.hget(bench.keys.meta, "pools") == listed.encode()


async def test_a_full_pool_counts_as_a_listener_that_misses_it(bench: Bench) -> None:
    desk = Desk(bench, buffer=1)
    await desk.collected()
    source = bench.source
    assert await bench.refuses(source, desk.send(2, lossless=True)) == ["FULL"], "nor is it denied"
    assert await bench.ask(source, desk.send(2)) == ["FAILURE"]
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    assert await bench.ask(source, desk.send(3)) == ["LOST"]
    assert await bench.refuses(source, desk.send(3)) == ["LOST"]


# Keys of another program -----------------------------------------------------------------------


async def spoiled(bench: Bench, key: str) -> None:
    """A value of a type that is used nowhere, in the place of a key."""
    await bench.farm.client.delete(key)
    await bench.farm.client.rpush(key, "theirs")


KEYS: dict[str, Callable[[Keys, Desk, int], str]] = {
    "grants": lambda keys, *_: keys.grants,
    "counts": lambda keys, *_: keys.counts,
    "pools": lambda keys, *_: keys.pools,
    "streams": lambda keys, *_: keys.streams,
    "dead": lambda keys, *_: keys.dead,
    "stream": lambda keys, desk, board: keys.stream(desk.plan.audiences[board]),
    "room": lambda keys, desk, board: keys.room(desk.plan.audiences[board]),
    "returned": lambda keys, desk, board: keys.returned(desk.id, desk.plan.audiences[board]),
    "idle": lambda keys, desk, _: keys.idle(desk.id),
    "waiting": lambda keys, desk, _: keys.held(desk.id),
    "held": lambda keys, desk, _: keys.held(desk.bench.listener.session),
    "held of the other": lambda keys, desk, _: keys.held(desk.bench.other.session),
    "channel": lambda keys, *_: keys.channel("c"),
    "log": lambda keys, *_: keys.log("c"),
    "inbox": lambda keys, desk, _: keys.inbox(desk.bench.source.session),
}
TOUCHED = {
    "create_pool": ("grants", "counts", "pools", "streams", "stream", "room"),
    "delete_pool": (
        "counts", "pools", "streams", "waiting", "idle", "stream", "room", "returned",
    ),
    "join": ("pools", "held of the other"),
    "fetch": ("pools", "held", "idle", "waiting", "stream", "returned"),
    "finish": ("stream", "room"),
    "hand_back": ("stream", "returned", "idle"),
    "disown": ("held", "idle", "stream", "returned"),
    "orphan": ("pools", "channel", "held", "waiting", "idle"),
    "adopt": ("channel", "log", "streams", "waiting", "held of the other", "inbox"),
    "dead_letter": ("dead", "stream", "room"),
    "replay": ("pools", "streams", "dead", "receipt", "stream", "room", "returned", "idle"),
    "drop": ("dead", "receipt"),
    "uni_send": ("streams", "stream", "room", "idle"),
}  # fmt: skip
"""The keys of each script that somebody else may have written to."""


@pytest.mark.parametrize(
    ("script", "key", "style"),
    [
        pytest.param(script, key, style, id=f"{script}-{key}-{style.word}")
        for script, keys in TOUCHED.items()
        for key in keys
        for style in (UNIDIRECTIONAL, BIDIRECTIONAL)
        if (script, style)
        not in {
            ("orphan", UNIDIRECTIONAL),
            ("adopt", UNIDIRECTIONAL),
            ("drop", BIDIRECTIONAL),
            ("uni_send", BIDIRECTIONAL),
        }
    ],
)
async def test_nothing_is_half_done_on_foreign_keys(
    bench: Bench, script: str, key: str, style: Style
) -> None:
    desk = Desk(bench, style, all_users=script == "create_pool")
    who, call = bench.listener, desk.create()
    if script == "create_pool":
        await bench.farm.client.hset(bench.keys.grants, "|alice", 1)
    elif script in ("orphan", "adopt"):
        await (desk.carried() if script == "orphan" else desk.waiting())
        call = desk.orphan() if script == "orphan" else desk.adopt()
        who = bench.listener if script == "orphan" else bench.other
    elif script in ("replay", "drop"):
        call = (desk.replay if script == "replay" else desk.drop)(await desk.buried())
    else:
        await (desk.asked() if style is BIDIRECTIONAL else desk.in_hand())
        call = {
            "delete_pool": desk.delete(),
            "join": desk.join(bench.other),
            "fetch": desk.fetch(),
            "finish": desk.finish(desk.place(1), desk.place(1, -1)),
            "hand_back": desk.hand_back((desk.place(1), 0), (desk.place(1, -1), 0)),
            "disown": desk.disown(),
            "dead_letter": desk.dead_letter(desk.place()),
            "uni_send": desk.send(2),
        }[script]
        who = bench.other if script == "join" else bench.source if script == "uni_send" else who
    board = 0 if script in ("dead_letter", "replay") else -1
    if key == "receipt":  # a letter's
        where = call.keys[call.script.keys.index(key)]
    else:
        where = KEYS[key](bench.keys, desk, board)
    await spoiled(bench, where)
    before = await bench.dump()
    with pytest.raises(ForeignLayout):
        await bench.ask(who, call)
    assert bench.changes(before, await bench.dump()) == {}
