"""A script of a pool that succeeds changes this, all of it, and nothing else.

Each test compares all of Redis before and after one call: what is pending with whom, and how often
it was delivered; who waits for work, and who is woken; room, counts, letters, tokens.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Style
from broker._scripts import Call
from broker._server import Server
from broker.errors import RedisFull
from tests.dump import unchanged
from tests.scripts.bench import BOARD, KEEP, LATER, MINE, Bench, bells, body
from tests.scripts.desk import GROUP, ID, LETTER, OWN, Desk
from tests.scripts.test_guards import READY

EVERYBODYS_BOARD = "|T|bi|*"
NOTIFICATION = {
    "channel": "c", "op": "1", "printer": "", "user": "alice", "at": "now", "body": "?",
}  # fmt: skip
RECEIPT = {"value": "first", "expires": True}
STREAM, ROOM, RETURNED = f"stream:{OWN}", f"room:{OWN}", f"returned:{ID}|{OWN}"
IDLE, WAITING = f"idle:{ID}", f"held:{ID}"
DIALOG = f"dialog:c:{ID}"


def record(style: str, buffer: int = 3) -> str:
    """What Redis keeps of the pool."""
    kept = {
        "pool": "desk", "printer": "", "type": "T", "style": style, "user": "alice", "filter": 0,
        "needed": 0, "source": "", "printers": False, "buffer": buffer, "everywhere": False,
        "since": "now",
    }  # fmt: skip
    return json.dumps(kept, sort_keys=True)


def pending(*held: str) -> dict[str, str]:
    """Entries and their holders: ``1 <listener> 1`` is number, holder, deliveries."""
    split = (one.split(" ", 1) for one in held)
    return {f"E-{number} {GROUP}": holder for number, holder in split}


def notified(number: int, times: int = 1, stream: int = 0) -> list[Any]:
    """A notification as fetch answers it."""
    fields = {**NOTIFICATION, "op": str(number)}
    return [str(stream), f"E-{number}", str(times), fields, "0"]


def consumers(*names: str) -> dict[str, bool]:
    """The consumers of a stream's groups, as they are seen to change."""
    return dict.fromkeys(names, True)


def but_consumers(changes: dict[str, Any]) -> dict[str, Any]:
    """Redis 7.2 makes a consumer when it looks, the ones before when it finds something."""
    for key in [key for key in changes if key.startswith("stream:")]:
        changes[key].pop("consumers", None)
        if not changes[key]:
            del changes[key]
    return changes


async def fetched(bench: Bench, who: Server, call: Call) -> tuple[int, list[str], list[Any]]:
    """When something is due, the dialogs, and the entries, their fields as a table."""
    word, due, dialogs, *streams = await bench.ask(who, call)
    assert word == "OK"
    entries = [
        [str(stream), id_, times, as_table(flat), doubt]
        for stream, (back, new, doubtful) in enumerate(streams)
        for id_, times, flat, doubt in (
            *((*one, "0") for one in back),
            *((id_, "1", flat, str(int(n < int(doubtful)))) for n, (id_, flat) in enumerate(new)),
        )
    ]
    return int(due), dialogs, entries


def as_table(flat: list[str]) -> dict[str, str]:
    """An entry's fields."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return fields | ({"at": "now"} if "at" in fields else {})


def numbers(entries: list[Any]) -> list[tuple[str, str, str]]:
    """Stream, entry and number of deliveries of what was fetched."""
    return [(stream, id_, times) for stream, id_, times, *_ in entries]


async def clock(bench: Bench) -> int:
    """Redis's own time, in ms."""
    seconds, microseconds = await bench.farm.client.time()
    return int(seconds * 1000 + microseconds // 1000)


# create_pool, delete_pool, join ----------------------------------------------------------------


async def test_a_one_way_pool_has_a_stream_of_its_own(bench: Bench) -> None:
    assert await bench.does(bench.listener, Desk(bench).create()) == {
        "counts": {"|T": "1"},
        "meta": {"pools": "E-1", "pooled": "1"},
        "pools": {ID: record("uni")},
        ROOM: {GROUP: "3.0"},
        STREAM: {"groups": {GROUP: "0-0"}},
        "streams": {OWN: "0"},
    }


async def test_a_two_way_pool_hears_the_boards(bench: Bench) -> None:
    assert await bench.does(bench.listener, Desk(bench, BIDIRECTIONAL).create()) == {
        "counts": {"|T": "1"},
        "meta": {"pools": "E-1", "pooled": "1"},
        "pools": {ID: record("bi")},
        f"room:{BOARD}": {GROUP: "inf"},
        f"room:{EVERYBODYS_BOARD}": {GROUP: "inf"},
        f"stream:{BOARD}": {"groups": {GROUP: "0-0"}},
        f"stream:{EVERYBODYS_BOARD}": {"groups": {GROUP: "0-0"}},
        "streams": {BOARD: "0", EVERYBODYS_BOARD: "0"},
    }


async def test_a_pool_that_is_made_again_goes_on_above_the_floor(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.collected(2)
    await bench.done((bench.other, desk.delete()))
    changes = await bench.does(bench.listener, desk.create())
    assert (changes["streams"], changes[ROOM]) == ({OWN: "2"}, {GROUP: "5.0"})
    assert changes["meta"] == {"pools": "E-3", "pooled": "1"}


async def test_a_pool_whose_list_was_deleted_goes_on_with_what_it_collected(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand(2)
    await bench.farm.client.delete(bench.keys.pools)
    changes = await bench.does(bench.listener, desk.create())
    began, _, many = changes.pop("meta")["pools"].partition("-")
    assert (began != "E", many) == (True, "1"), "another list, so that nobody takes it for changed"
    assert changes == {
        "pools": {ID: record("uni")},
        ROOM: {GROUP: "5.0"},
    }


async def test_of_a_list_of_pools_that_was_lost_the_first_that_is_made_names_another(
    bench: Bench,
) -> None:
    """Those that were on it with it are not taken for deleted ones, whatever else is gone."""
    desk, other = Desk(bench), Desk(bench, name="another")
    await bench.done((bench.listener, desk.create()), (bench.listener, other.create()))
    await bench.farm.client.delete(bench.keys.pools, bench.keys.stream(other.plan.audiences[0]))
    changes = await bench.does(bench.listener, other.create())
    began, _, many = changes["meta"].pop("pools").partition("-")
    assert (began != "E", many, changes["meta"]) == (True, "1", {"pooled": "1"})
    changes = await bench.does(bench.listener, desk.create())
    assert changes["meta"] == {"pools": f"{began}-2", "pooled": "2"}


async def test_a_part_of_the_list_of_pools_that_was_lost_is_missed_later_too(bench: Bench) -> None:
    desk, other = Desk(bench), Desk(bench, name="another")
    await bench.done((bench.listener, desk.create()), (bench.listener, other.create()))
    await bench.farm.client.hdel(bench.keys.pools, other.id)
    changes = await bench.does(bench.other, desk.delete())
    assert changes["meta"]["pooled"] == "1", "there is one more than the list has"
    await bench.farm.client.delete(bench.keys.stream(other.plan.audiences[0]))
    changes = await bench.does(bench.listener, Desk(bench, name="third").create())
    assert changes["meta"].keys() == {"pools"}
    assert not changes["meta"]["pools"].startswith("E-")


async def test_the_list_of_pools_is_named_by_the_epoch_in_which_the_first_was_made(
    bench: Bench,
) -> None:
    await bench.farm.client.hset(bench.keys.meta, "pools", "77-9")
    changes = await bench.does(bench.listener, Desk(bench).create())
    assert changes["meta"] == {"pools": "77-10", "pooled": "1"}


async def test_two_pools_are_counted_and_made_apart(bench: Bench) -> None:
    await bench.done((bench.listener, Desk(bench).create()))
    changes = await bench.does(bench.listener, Desk(bench, name="another").create())
    assert changes["counts"] == {"|T": "2"}
    assert changes["meta"] == {"pools": "E-2", "pooled": "2"}
    assert "room:|T|uni|~another" in changes


async def test_a_pool_ends_with_all_that_it_collected(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand(3)
    await bench.done(
        (bench.listener, desk.hand_back((desk.place(1), LATER))),
    )
    assert await bench.ask(bench.source, desk.send(4)) == ["FAILURE"]
    await bench.farm.client.hset(
        bench.keys.streams, f"{desk.plan.audiences[0].field} again {desk.id}", 1
    )
    await bench.farm.client.zadd(bench.keys.idle(desk.id), {desk.inbox(bench.listener): 2})
    assert await bench.does(bench.other, desk.delete()) == {
        "counts": None,
        IDLE: None,
        "meta": {"pools": "E-2", "pooled": "0", "floor": "3"},
        "pools": None,
        RETURNED: None,
        ROOM: None,
        STREAM: None,
        "streams": {OWN: None, f"{OWN} denied": None, f"{OWN} again {ID}": None},
    }


async def test_the_end_of_a_pool_leaves_the_boards_to_the_others(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    await bench.done((bench.other, bench.register(session=bench.other.session)))
    assert but_consumers(await bench.does(bench.other, desk.delete())) == {
        "counts": {"|T": "1"},
        "meta": {"pools": "E-2", "pooled": "0"},
        "pools": None,
        f"room:{BOARD}": {GROUP: None},
        f"room:{EVERYBODYS_BOARD}": {GROUP: None},
        f"stream:{BOARD}": {"groups": {"T:alice:r": "0-0"}, "pending": {}},
        f"stream:{EVERYBODYS_BOARD}": {"groups": {"T:alice:r": "0-0"}},
    }


async def test_the_end_of_a_pool_leaves_open_questions_on_their_board(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    changes = await bench.does(bench.other, desk.delete())
    assert changes[f"stream:{BOARD}"] == {"groups": {}, "consumers": consumers(), "pending": {}}
    assert changes[f"stream:{EVERYBODYS_BOARD}"] is None, "nothing is open for everybody"
    assert changes["streams"] == {EVERYBODYS_BOARD: None}


async def test_a_pool_ends_although_somebody_deleted_a_board(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.made()
    await bench.farm.client.delete(bench.keys.stream(desk.plan.audiences[0]))
    changes = await bench.does(bench.other, desk.delete())
    assert changes["pools"] is None
    assert changes[f"room:{EVERYBODYS_BOARD}"] is None


async def test_the_end_of_a_pool_is_told_to_all_who_wait_for_work(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    for server in (bench.listener, bench.other):
        await desk.waits(server)
    inboxes = [desk.inbox(server) for server in (bench.listener, bench.other)]
    async with bells(bench, *inboxes) as heard:
        await bench.done((bench.source, desk.delete()))
    assert sorted(heard) == sorted((inbox, f"work {desk.id}") for inbox in inboxes)


async def test_join_leaves_a_share_to_be_run_down(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    assert await bench.does(bench.other, desk.join(bench.other)) == {
        "held:<other>": {f"replica:{ID}": True}
    }


# fetch -----------------------------------------------------------------------------------------


async def test_a_replica_that_finds_nothing_waits_for_work(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    changes = await bench.does(bench.listener, desk.fetch(carried=4))
    assert but_consumers(changes) == {IDLE: {bench.named(desk.inbox(bench.listener)): "4.0"}}
    assert await fetched(bench, bench.listener, desk.fetch()) == (-1, [], [])


async def test_a_replica_takes_what_it_has_room_for(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.collected(3)
    before = await bench.dump()
    assert await fetched(bench, bench.listener, desk.fetch(2)) == (
        -1, [], [notified(1), notified(2)],
    )  # fmt: skip
    assert bench.changes(before, await bench.dump()) == {
        STREAM: {
            "groups": {GROUP: "E-2"},
            "consumers": consumers("<listener>"),
            "pending": pending("1 <listener> 1", "2 <listener> 1"),
        }
    }


async def test_a_replica_that_finds_less_than_it_has_room_for_waits(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.collected(2)
    changes = await bench.does(bench.listener, desk.fetch(3))
    assert changes[IDLE] == {bench.named(desk.inbox(bench.listener)): "0.0"}


async def test_a_replica_that_is_full_waits_no_more(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    await desk.waits(bench.listener)
    await bench.farm.client.xadd(
        bench.keys.stream(desk.plan.audiences[0]), {"channel": "c"}, id="9999999999999-1"
    )
    changes = await bench.does(bench.listener, desk.fetch(1))
    assert changes[IDLE] is None


async def test_each_entry_goes_to_one_replica(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.collected(3)
    await bench.done((bench.other, desk.join(bench.other)))
    _, _, first = await fetched(bench, bench.listener, desk.fetch(1))
    _, _, second = await fetched(bench, bench.other, desk.fetch(9, who=bench.other))
    assert (numbers(first), numbers(second)) == (
        [("0", "E-1", "1")],
        [("0", "E-2", "1"), ("0", "E-3", "1")],
    )


async def test_what_was_handed_back_comes_first_and_counts_as_delivered_again(
    bench: Bench,
) -> None:
    desk = Desk(bench)
    await desk.collected(3)
    await bench.done((bench.listener, desk.fetch(2)), (bench.other, desk.join(bench.other)))
    await bench.done((bench.listener, desk.hand_back((desk.place(2), 0))))
    before = await bench.dump()
    due, _, entries = await fetched(bench, bench.other, desk.fetch(2, who=bench.other))
    assert (due, entries) == (-1, [notified(2, times=2), notified(3)])
    assert bench.changes(before, await bench.dump()) == {
        RETURNED: None,
        STREAM: {
            "groups": {GROUP: "E-3"},
            "consumers": consumers("<listener>", "<other>", "~"),
            "pending": pending("1 <listener> 1", "2 <other> 2", "3 <other> 1"),
        },
    }


async def test_no_more_is_taken_than_there_is_room_for(bench: Bench) -> None:
    """What was handed back fills it: nothing new, and the rest stays due."""
    desk = Desk(bench)
    await desk.collected(3)
    await bench.done((bench.listener, desk.fetch(2)))
    await bench.done((bench.listener, desk.hand_back((desk.place(1), 0), (desk.place(2), 0))))
    before = await bench.dump()
    due, _, entries = await fetched(bench, bench.listener, desk.fetch(1))
    assert (due, numbers(entries)) == (0, [("0", "E-1", "2")])
    assert bench.changes(before, await bench.dump()) == {
        RETURNED: {"E-1": None},
        STREAM: {"pending": pending("1 <listener> 2", "2 ~ 1")},
    }


async def test_what_is_not_due_stays_and_says_when_it_will_be(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand()
    await bench.done((bench.listener, desk.hand_back((desk.place(1), LATER))))
    due, dialogs, entries = await fetched(bench, bench.listener, desk.fetch())
    assert LATER - 60_000 < due <= LATER
    assert (dialogs, entries) == ([], [])
    assert await bench.farm.client.zcard(bench.keys.idle(desk.id)) == 1


async def test_a_question_comes_with_its_board(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.made()
    await bench.done((bench.source, bench.offer()))
    board = bench.keys.stream(desk.plan.audiences[1])
    await bench.farm.client.xadd(board, {"channel": "d"}, id=f"{bench.source.epoch}-1")
    _, _, entries = await fetched(bench, bench.listener, desk.fetch(2))
    assert numbers(entries) == [("0", "E-1", "1"), ("1", "E-1", "1")]
    assert (entries[0][3]["channel"], entries[1][3]["channel"]) == ("c", "d")


async def test_the_room_is_for_both_boards_together(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.made()
    await bench.done((bench.source, bench.offer()))
    board = bench.keys.stream(desk.plan.audiences[1])
    await bench.farm.client.xadd(board, {"channel": "d"}, id=f"{bench.source.epoch}-1")
    for stream in ("0", "1"):
        _, _, entries = await fetched(bench, bench.listener, desk.fetch(1))
        assert numbers(entries) == [(stream, "E-1", "1")]


@pytest.mark.parametrize(
    ("delays", "due"),
    [
        ((5 * LATER, 2 * LATER), 2 * LATER),
        ((2 * LATER, 5 * LATER), 2 * LATER),
        ((0, LATER), 0),
        ((LATER, 0), 0),
    ],
)
async def test_what_is_due_first_of_both_boards_is_said(
    bench: Bench, delays: tuple[int, int], due: int
) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    board = bench.keys.stream(desk.plan.audiences[1])
    await bench.farm.client.xadd(board, {"channel": "d"}, id=f"{bench.source.epoch}-1")
    await bench.done((bench.listener, desk.fetch(1)))
    places = [desk.place(1, 0), desk.place(1, 1)]
    await bench.done((bench.listener, desk.hand_back(*zip(places, delays, strict=True))))
    # Dialogs that wait take all the room, so that what is due stays.
    await bench.farm.client.sadd(bench.keys.held(desk.id), f"dialog:d:{desk.id}")
    said, dialogs, entries = await fetched(bench, bench.listener, desk.fetch(1))
    assert (dialogs, entries) == ([f"dialog:d:{ID}"], [])
    assert due - 60_000 < said <= due


async def test_a_question_that_was_handed_back_and_is_over_is_forgotten(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    await bench.done((bench.listener, desk.hand_back()), (bench.source, bench.source_close(2)))
    before = await bench.dump()
    assert await fetched(bench, bench.listener, desk.fetch(1)) == (-1, [], [])
    assert bench.changes(before, await bench.dump()) == {
        f"returned:{ID}|{BOARD}": None,
        f"stream:{BOARD}": {"pending": {}},
        IDLE: {bench.named(desk.inbox(bench.listener)): "0.0"},
    }


async def test_dialogs_that_wait_are_named_and_stay_until_they_are_adopted(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    await bench.done((bench.other, desk.join(bench.other)))
    before = await bench.dump()
    due, dialogs, entries = await fetched(bench, bench.other, desk.fetch(1, who=bench.other))
    assert (due, dialogs, entries) == (-1, [DIALOG], [])
    assert bench.changes(before, await bench.dump()) == {}, "there is no room for more"


async def test_dialogs_take_room(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    await bench.done((bench.source, bench.open("d")), (bench.source, bench.offer(channel="d")))
    await bench.done((bench.other, desk.join(bench.other)))
    for most, found in ((1, 0), (2, 1)):
        _, dialogs, entries = await fetched(bench, bench.other, desk.fetch(most, who=bench.other))
        assert (dialogs, len(entries)) == ([DIALOG], found)


async def test_a_group_that_somebody_destroyed_begins_anew(bench: Bench) -> None:
    """What was not finished is handed out again, also what was in somebody's hands."""
    desk = Desk(bench)
    await desk.in_hand(3)
    await bench.done(
        (bench.listener, desk.finish(desk.place(1))),
        (bench.listener, desk.hand_back((desk.place(2), 0))),
    )
    stream = bench.keys.stream(desk.plan.audiences[0])
    await bench.farm.client.xgroup_destroy(stream, desk.plan.group)
    before = await bench.dump()
    _, _, entries = await fetched(bench, bench.listener, desk.fetch(1))
    assert numbers(entries) == [("0", "E-2", "1")]
    assert bench.changes(before, await bench.dump()) == {
        RETURNED: None,
        STREAM: {
            "groups": {GROUP: "E-2"},
            "consumers": consumers("<listener>"),
            "pending": pending("2 <listener> 1"),
        },
        "streams": {f"{OWN} again {ID}": "3"},
    }


async def test_what_may_have_been_delivered_before_is_said_to_be_doubtful(bench: Bench) -> None:
    """A group that is lost forgot how often; so did a Redis that lost an epoch's last writes."""
    desk = Desk(bench)
    await desk.in_hand(2)
    stream = bench.keys.stream(desk.plan.audiences[0])
    await bench.farm.client.xgroup_destroy(stream, desk.plan.group)
    _, _, entries = await fetched(bench, bench.listener, desk.fetch(1))
    assert entries == [[*notified(1)[:-1], "1"]]
    await bench.done((bench.source, desk.send(3)))
    _, _, entries = await fetched(bench, bench.listener, desk.fetch())
    assert entries == [[*notified(2)[:-1], "1"], notified(3)]


async def test_what_is_of_an_earlier_epoch_is_said_to_be_doubtful(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    stream = bench.keys.stream(desk.plan.audiences[0])
    await bench.farm.client.xadd(stream, {"channel": "c"}, id="77-1")
    await bench.done((bench.source, desk.send()))
    _, _, entries = await fetched(bench, bench.listener, desk.fetch())
    assert entries == [["0", "77-1", "1", {"channel": "c"}, "1"], notified(1)]


async def test_a_stream_that_somebody_deleted_begins_anew(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand()
    await bench.farm.client.delete(bench.keys.stream(desk.plan.audiences[0]))
    assert await fetched(bench, bench.listener, desk.fetch()) == (-1, [], [])
    await bench.done((bench.source, desk.send(2)))
    _, _, entries = await fetched(bench, bench.listener, desk.fetch())
    assert numbers(entries) == [("0", "E-2", "1")]


# finish ----------------------------------------------------------------------------------------


async def test_what_is_finished_makes_room(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand(2)
    assert await bench.does(bench.listener, desk.finish()) == {
        ROOM: {GROUP: "4.0"},
        STREAM: {"removed": 1, "pending": pending("2 <listener> 1")},
    }
    assert await bench.does(bench.listener, desk.finish(desk.place(2))) == {
        ROOM: {GROUP: "5.0"},
        STREAM: {"removed": 1, "pending": {}},
    }


async def test_a_question_that_is_finished_stays_for_the_others(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    assert await bench.does(bench.listener, desk.finish()) == {f"stream:{BOARD}": {"pending": {}}}


async def test_what_was_in_hand_of_a_group_that_is_gone_is_finished_all_the_same(
    bench: Bench,
) -> None:
    """So it is not handed out again by the group that takes its place."""
    desk = Desk(bench)
    await desk.in_hand()
    stream = bench.keys.stream(desk.plan.audiences[0])
    await bench.farm.client.xgroup_destroy(stream, desk.plan.group)
    changes = await bench.changed_by(bench.listener, desk.finish())
    assert changes == {ROOM: {GROUP: "4.0"}, STREAM: {"removed": 1}}


# hand_back -------------------------------------------------------------------------------------


async def test_what_is_handed_back_waits_until_it_is_due(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand(3)
    call = desk.hand_back((desk.place(1), 0), (desk.place(3), LATER))
    assert await bench.does(bench.listener, call) == {
        RETURNED: {"E-1": "due", "E-3": "later"},
        STREAM: {
            "consumers": consumers("<listener>", "~"),
            "pending": pending("1 ~ 1", "2 <listener> 1", "3 ~ 1"),
        },
    }


async def test_what_is_handed_back_is_due_after_its_delay(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand()
    before = await clock(bench)
    await bench.done((bench.listener, desk.hand_back((desk.place(1), 7000))))
    key = bench.keys.returned(desk.id, desk.plan.audiences[0])
    due = await bench.farm.client.zscore(key, desk.place(1).entry)
    assert due is not None
    assert before <= due - 7000 <= await clock(bench)


async def test_how_often_it_was_delivered_is_kept(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.collected()
    for times in ("1", "2", "3"):
        _, _, entries = await fetched(bench, bench.listener, desk.fetch(1))
        assert numbers(entries) == [("0", "E-1", times)]
        await bench.done((bench.listener, desk.hand_back()))


async def test_a_question_that_is_over_is_not_handed_back(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    await bench.done((bench.source, bench.source_close(2)))
    before = await bench.dump()
    assert await bench.ask(bench.listener, desk.hand_back()) == ["OK", "GONE"]
    assert bench.changes(before, await bench.dump()) == {f"stream:{BOARD}": {"pending": {}}}


# disown ----------------------------------------------------------------------------------------


async def test_what_a_replica_leaves_behind_goes_back_to_the_pool(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.collected(3)
    await bench.done((bench.other, desk.join(bench.other)))
    await bench.done(
        (bench.listener, desk.fetch(1)),
        (bench.other, desk.fetch(1, who=bench.other)),
        (bench.listener, desk.fetch(2)),
        (bench.listener, desk.hand_back((desk.place(3), LATER))),
    )
    await bench.farm.client.zadd(bench.keys.idle(desk.id), {desk.inbox(bench.listener): 1})
    assert await bench.does(bench.listener, desk.disown()) == {
        "held:<listener>": None,
        IDLE: None,
        RETURNED: {"E-1": "due"},
        STREAM: {
            "consumers": consumers("<other>", "~"),
            "pending": pending("1 ~ 1", "2 <other> 1", "3 ~ 1"),
        },
    }


async def test_what_is_left_behind_is_due_at_once_and_in_its_order(bench: Bench) -> None:
    desk = Desk(bench, buffer=10)
    await desk.in_hand(10)
    before = await clock(bench)
    await bench.done((bench.listener, desk.disown(most=11)))
    key = bench.keys.returned(desk.id, desk.plan.audiences[0])
    left: Any = await bench.farm.client.zrange(key, 0, -1, withscores=True)
    assert [entry.decode() for entry, _ in left] == [desk.place(n).entry for n in range(1, 11)]
    after = await clock(bench)
    assert all(before - 1 <= due <= after for _, due in left)


async def test_as_much_goes_back_in_one_step_as_was_asked_for(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand(3)
    before = await bench.dump()
    assert await bench.ask(bench.listener, desk.disown(most=2)) == ["MORE", "2"]
    assert bench.changes(before, await bench.dump()) == {
        RETURNED: {"E-1": "due", "E-2": "due"},
        STREAM: {
            "consumers": consumers("<listener>", "~"),
            "pending": pending("1 ~ 1", "2 ~ 1", "3 <listener> 1"),
        },
    }
    assert await bench.ask(bench.listener, desk.disown(most=1)) == ["MORE", "1"]
    assert await bench.ask(bench.listener, desk.disown(most=1)) == ["OK", "0"]
    assert await bench.farm.client.exists(bench.keys.held(bench.listener.session)) == 0


async def test_both_boards_are_disowned_together(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.made()
    await bench.done((bench.source, bench.offer()))
    boards = [bench.keys.stream(audience) for audience in desk.plan.audiences]
    for number in (1, 2):
        await bench.farm.client.xadd(
            boards[1], {"channel": "d"}, id=f"{bench.source.epoch}-{number}"
        )
    await bench.done((bench.listener, desk.fetch()))
    assert await bench.ask(bench.listener, desk.disown(most=2)) == ["MORE", "2"]
    changes = await bench.does(bench.listener, desk.disown(most=2))
    assert changes == {
        "held:<listener>": None,
        f"returned:{ID}|{EVERYBODYS_BOARD}": {"E-2": "due"},
        f"stream:{EVERYBODYS_BOARD}": {
            "consumers": consumers("~"), "pending": pending("1 ~ 1", "2 ~ 1"),
        },
    }  # fmt: skip


async def test_a_question_that_is_over_does_not_go_back(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    await bench.done((bench.source, bench.source_close(2)))
    assert but_consumers(await bench.does(bench.listener, desk.disown())) == {
        "held:<listener>": None,
        f"stream:{BOARD}": {"pending": {}},
    }


async def test_a_question_that_is_over_is_looked_at_once(bench: Bench) -> None:
    """Or whoever disowns in small steps would find it again and again."""
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    await bench.done((bench.source, bench.source_close(2)))
    before = await bench.dump()
    assert await bench.ask(bench.listener, desk.disown(most=1)) == ["MORE", "1"]
    assert bench.changes(before, await bench.dump()) == {f"stream:{BOARD}": {"pending": {}}}
    assert await bench.ask(bench.listener, desk.disown(most=1)) == ["OK", "0"]


async def test_a_dead_replica_waits_for_no_work(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    await desk.waits(bench.other)
    await bench.sweep(bench.other)
    assert but_consumers(await bench.does(bench.listener, desk.disown(bench.other))) == {
        "held:<other>": None,
        IDLE: None,
    }


# orphan, adopt ---------------------------------------------------------------------------------


async def test_a_dialog_waits_for_another_replica(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    assert await bench.does(bench.listener, desk.orphan()) == {
        "channel:c": {"owner_session": ID},
        "held:<listener>": {DIALOG: None},
        WAITING: {DIALOG: True},
    }


@pytest.mark.parametrize("why", ["closed", "carried by another"])
async def test_a_dialog_that_does_not_wait_is_held_no_more(bench: Bench, why: str) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    holder = bench.other if why == "carried by another" else bench.listener
    if why == "closed":
        await bench.done((bench.source, bench.source_close(2, listening=bench.listener.session)))
    await bench.farm.client.sadd(bench.keys.held(holder.session), f"dialog:c:{desk.id}", "x")
    changes = await bench.changed_by(holder, desk.orphan(holder))
    name = "other" if holder is bench.other else "listener"
    assert changes == {f"held:<{name}>": {DIALOG: None}}


async def test_a_replica_carries_a_dialog_on(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    assert await bench.does(bench.other, desk.adopt()) == {
        "channel:c": {"owner_session": "<other>", "token": f"E:{ID}/E-1", "adopted": "1"},
        "channel:c:log": {"added": [{"event": "adopted", "by": "<other>", "at": "now"}]},
        "held:<other>": {DIALOG: True},
        WAITING: None,
        "streams": {"to:<source>": "2"},
        "to:<source>": {
            "added": [
                {
                    "event": "moved", "to": "source", "channel": "c", "registration": ID,
                    "session": "<other>", "token": f"E:{ID}/E-1",
                }
            ]
        },
    }  # fmt: skip


async def test_a_dialog_may_be_carried_on_again_and_again(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    for times, who in enumerate((bench.other, bench.listener, bench.other), 1):
        answer = await bench.ask(who, desk.adopt(who))
        assert answer == ["OK", f"E:{ID}/E-{times}", "1", str(times)]
        await bench.done((who, desk.orphan(who)))


@pytest.mark.parametrize("why", ["closed", "carried"])
async def test_a_dialog_that_nobody_can_adopt_waits_no_more(bench: Bench, why: str) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    if why == "closed":
        await bench.done((bench.source, bench.source_close(2, listening=bench.listener.session)))
    await bench.farm.client.sadd(bench.keys.held(desk.id), f"dialog:c:{desk.id}")
    assert await bench.changed_by(bench.other, desk.adopt()) == {WAITING: None}


async def test_what_the_source_says_while_a_dialog_waits_is_in_the_conversation(
    bench: Bench,
) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    assert await bench.does(bench.source, desk.follow_up(listening=desk.id)) == {
        "channel:c": {"state": "asked", "op": "2"},
        "channel:c:log": {
            "added": [{"event": "notification", "by": "source", "at": "now", "body": "?"}]
        },
    }


async def test_a_dialog_that_waits_is_closed_in_the_name_of_its_pool(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    handle = bench.handle(desk.id, desk.id)
    close = bench.listener_close(0, "run-down", handle=handle)
    changes = await bench.does(bench.other, close)
    assert changes[WAITING] is None
    assert changes["held:<source>"] is None
    (told,) = changes["to:<source>"]["added"]
    assert (told["event"], told["registration"], told["token"]) == ("closed", ID, f"E:{ID}")
    assert (changes["channel:c"]["state"], changes["channel:c"]["closer"]) == ("closed", ID)


@pytest.mark.parametrize(("ends_turn", "said"), [(True, "ends"), (False, "")])
async def test_an_answer_says_whether_it_ends_the_turn(
    bench: Bench, ends_turn: bool, said: str
) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    changes = await bench.does(bench.listener, desk.respond(ends_turn=ends_turn))
    assert changes["channel:c:log"]["added"] == [
        {"event": "response", "by": "alice", "at": "now", "turn": said, "body": "!"}
    ]
    assert "turn" not in changes["to:<source>"]["added"][0]


# dead_letter, replay ---------------------------------------------------------------------------


async def test_a_dead_letter_takes_the_place_of_the_notification(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand(2)
    assert await bench.does(bench.listener, desk.dead_letter(desk.place())) == {
        "dead": {"added": [LETTER]},
        ROOM: {GROUP: "4.0"},
        STREAM: {"removed": 1, "pending": pending("2 <listener> 1")},
    }


async def test_a_question_that_is_put_aside_stays_for_the_others(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    assert await bench.does(bench.listener, desk.dead_letter(desk.place())) == {
        "dead": {"added": [LETTER]},
        f"stream:{BOARD}": {"pending": {}},
    }


async def test_a_dialog_that_is_put_aside_leaves_a_letter_only(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    assert await bench.does(bench.listener, desk.dead_letter(None)) == {"dead": {"added": [LETTER]}}


async def test_the_answer_is_the_letters_id(bench: Bench) -> None:
    desk = Desk(bench)
    letter = await desk.buried()
    left: Any = await bench.farm.client.xrange(bench.keys.dead)
    assert [id_.decode() for id_, _ in left] == [letter]


async def test_a_letters_body_is_kept(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand()
    stowed = await bench.large_body()
    await bench.done((bench.listener, desk.dead_letter(desk.place(), body=stowed.key)))
    assert 80_000 < await bench.farm.client.pttl(bench.keys.body("b")) <= 90_000


async def test_a_questions_body_stays_its_channels(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.made()
    stowed = await bench.large_body()
    await bench.done((bench.source, bench.offer(sent=stowed)), (bench.listener, desk.fetch(1)))
    changes = await bench.does(bench.listener, desk.dead_letter(desk.place(), body=stowed.key))
    assert set(changes) == {"dead", f"stream:{BOARD}"}


async def test_a_dialogs_body_stays_its_channels(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    stowed = await bench.large_body()
    assert set(await bench.does(bench.listener, desk.dead_letter(None, body=stowed.key))) == {
        "dead"
    }
    assert await bench.farm.client.pttl(bench.keys.body("b")) <= 50_000


async def test_the_oldest_letters_go_first(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand(3)
    for number in (1, 2, 3):
        call = desk.dead_letter(desk.place(number), most=2, letter={"number": number})
        await bench.done((bench.listener, call))
    left: Any = await bench.farm.client.xrange(bench.keys.dead)
    assert [fields for _, fields in left] == [{b"number": b"2"}, {b"number": b"3"}]


async def test_a_letter_is_a_notification_again(bench: Bench) -> None:
    desk = Desk(bench)
    letter = await desk.buried()
    assert await bench.does(bench.other, desk.replay(letter)) == {
        "dead": {"removed": 1},
        f"letter:{letter}": RECEIPT,
        STREAM: {"added": [{"channel": "c", "body": "again"}]},
        "streams": {OWN: "2"},
    }
    _, _, entries = await fetched(bench, bench.listener, desk.fetch())
    assert entries == [["0", "E-2", "1", {"channel": "c", "body": "again"}, "0"]]


async def test_a_question_is_handed_out_again_to_the_pool_alone(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    letter = await desk.buried()
    assert await bench.does(bench.other, desk.replay(letter)) == {
        "dead": {"removed": 1},
        f"letter:{letter}": RECEIPT,
        f"returned:{ID}|{BOARD}": {"E-1": "due"},
        f"stream:{BOARD}": {"consumers": consumers("<listener>", "~"), "pending": pending("1 ~ 1")},
    }
    _, _, entries = await fetched(bench, bench.listener, desk.fetch())
    assert numbers(entries) == [("0", "E-1", "2")]


async def test_a_question_is_handed_out_again_by_a_group_that_begins_anew(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    letter = await desk.buried()
    board = bench.keys.stream(desk.plan.audiences[0])
    await bench.farm.client.xgroup_destroy(board, desk.plan.group)
    assert await bench.does(bench.other, desk.replay(letter)) == {
        "dead": {"removed": 1},
        f"letter:{letter}": RECEIPT,
        f"returned:{ID}|{BOARD}": {"E-1": "due"},
    }
    _, _, entries = await fetched(bench, bench.listener, desk.fetch())
    assert numbers(entries) == [("0", "E-1", "1")]


async def test_a_letter_that_is_dropped_leaves_a_receipt(bench: Bench) -> None:
    desk = Desk(bench)
    letter = await desk.buried()
    assert await bench.does(bench.other, desk.drop(letter)) == {
        "dead": {"removed": 1},
        f"letter:{letter}": RECEIPT,
    }


@pytest.mark.parametrize("what", ["replay", "drop"])
async def test_a_receipt_ends_by_itself(bench: Bench, what: str) -> None:
    desk = Desk(bench)
    letter = await desk.buried()
    await bench.done((bench.other, desk.replay(letter) if what == "replay" else desk.drop(letter)))
    assert KEEP - 10_000 < await bench.farm.client.pttl(bench.keys.receipt(letter)) <= KEEP


# On a full Redis -------------------------------------------------------------------------------


@asynccontextmanager
async def full(bench: Bench) -> AsyncIterator[None]:
    await bench.farm.client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await bench.farm.client.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    "script", ["fetch", "finish", "hand_back", "disown", "orphan", "adopt", "delete_pool"]
)
async def test_a_full_redis_lets_a_pool_be_served_and_end(bench: Bench, script: str) -> None:
    who, call = await READY[script](bench)
    async with full(bench):
        answer = await bench.ask(who, call)
    assert answer[0] == "OK"
    assert "GONE" not in answer


async def test_a_full_redis_lets_letters_be_dropped(bench: Bench) -> None:
    desk = Desk(bench)
    letter = await desk.buried()
    async with full(bench):
        assert await bench.ask(bench.other, desk.drop(letter)) == ["OK"]
        assert await bench.ask(bench.other, desk.drop(letter)) == ["OK"], "with its receipt"


@pytest.mark.parametrize("script", ["create_pool", "join", "dead_letter", "replay"])
async def test_a_full_redis_refuses_whole_what_adds_to_a_pool(bench: Bench, script: str) -> None:
    who, call = await READY[script](bench)
    async with unchanged(bench.farm.client, f"{bench.farm.namespace}:*"), full(bench):
        with pytest.raises(RedisFull):
            await bench.ask(who, call)


# Sources ---------------------------------------------------------------------------------------


async def test_a_pool_collects(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    assert await bench.does(bench.source, desk.send()) == {
        "channel:c": {"op": "1", "word": "OK"},
        STREAM: {"added": [NOTIFICATION]},
        "streams": {OWN: "1"},
    }


async def test_each_pool_and_each_listener_gets_its_copy(bench: Bench) -> None:
    desk, another = Desk(bench), Desk(bench, name="another")
    await desk.made()
    await bench.done(
        (bench.other, another.create()),
        (bench.other, bench.register(style=UNIDIRECTIONAL, session=bench.other.session)),
    )
    call = bench.uni_send(pools=(desk.plan, another.plan), listed=desk.listed(2))
    assert await bench.does(bench.source, call) == {
        "channel:c": {"op": "1", "word": "OK"},
        STREAM: {"added": [NOTIFICATION]},
        "stream:|T|uni|~another": {"added": [NOTIFICATION]},
        f"stream:{MINE}": {"added": [NOTIFICATION]},
        "streams": {OWN: "1", "|T|uni|~another": "1", MINE: "1"},
    }


async def test_what_a_full_pool_misses_is_counted(bench: Bench) -> None:
    desk = Desk(bench, buffer=1)
    await desk.collected()
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=1)))
    for op, word, mine in ((2, "LOST", {MINE: "1"}), (3, "FAILURE", {})):
        changes = await bench.does(bench.source, desk.send(op))
        assert changes.pop(f"stream:{MINE}", None) == (
            {"added": [{**NOTIFICATION, "op": str(op)}]} if mine else None
        )
        assert changes == {
            "channel:c": {"op": str(op), "word": word},
            "streams": {f"{OWN} denied": str(op - 1), **mine},
        }


async def test_a_large_body_is_kept_for_as_long_as_a_pool_may_need_it(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    stowed = await bench.large_body()
    changes = await bench.does(bench.source, desk.send(sent=stowed))
    (added,) = changes[STREAM]["added"]
    assert (added["ref"], added["keep"]) == (stowed.key, "sole")
    assert 80_000 < await bench.farm.client.pttl(bench.keys.body("b")) <= 90_000


async def test_a_large_body_is_kept_no_longer_for_listeners_alone(bench: Bench) -> None:
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL)),
    )
    stowed = await bench.large_body()
    changes = await bench.does(bench.source, bench.uni_send(sent=stowed))
    assert "keep" not in changes[f"stream:{MINE}"]["added"][0]
    assert await bench.farm.client.pttl(bench.keys.body("b")) <= 50_000


async def test_a_large_body_is_kept_no_longer_for_a_pool_that_misses_it(bench: Bench) -> None:
    desk = Desk(bench, buffer=1)
    await desk.collected()
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    stowed = await bench.large_body()
    changes = await bench.does(bench.source, desk.send(2, stowed))
    assert "keep" not in changes[f"stream:{MINE}"]["added"][0]
    assert await bench.farm.client.pttl(bench.keys.body("b")) <= 50_000


async def test_a_large_body_that_others_heard_too_is_no_pools_alone(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    changes = await bench.does(bench.source, desk.send(sent=await bench.large_body()))
    for stream in (STREAM, f"stream:{MINE}"):
        assert changes[stream]["added"][0]["keep"] == "shared"
    assert 80_000 < await bench.farm.client.pttl(bench.keys.body("b")) <= 90_000


async def test_the_trace_of_the_sender_travels_with_each_notification(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    changes = await bench.does(bench.source, desk.send(trace="00-1-2-01"))
    for stream in (STREAM, f"stream:{MINE}"):
        assert changes[stream]["added"] == [{**NOTIFICATION, "trace": "00-1-2-01"}]


async def test_the_trace_of_who_speaks_travels_through_a_dialog(
    bench: Bench,
) -> None:
    await bench.done((bench.listener, bench.register()), (bench.source, bench.open()))
    changes = await bench.does(bench.source, bench.offer(trace="00-1-2-01"))
    assert changes[f"stream:{BOARD}"]["added"][0]["trace"] == "00-1-2-01"
    assert changes["channel:c:log"]["added"][0]["trace"] == "00-1-2-01"
    changes = await bench.does(bench.listener, bench.respond(trace="00-1-3-01"))
    assert changes["to:<source>"]["added"][0]["trace"] == "00-1-3-01"
    changes = await bench.does(bench.source, bench.follow_up(trace="00-1-4-01"))
    assert changes["to:<listener>"]["added"][0]["trace"] == "00-1-4-01"
    assert changes["channel:c:log"]["added"][0]["trace"] == "00-1-4-01"


# Who is woken ----------------------------------------------------------------------------------


async def test_a_send_wakes_one_replica_with_the_least_in_hand(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    await desk.waits(bench.listener, carried=2)
    await desk.waits(bench.other, carried=1)
    work = f"work {desk.id}"
    busy, free = desk.inbox(bench.listener), desk.inbox(bench.other)
    async with bells(bench, busy, free) as heard:
        changes = await bench.does(bench.source, desk.send())
    assert heard == [(free, work)]
    assert changes[IDLE] == {bench.named(free): None}
    async with bells(bench, busy, free) as heard:
        for op in (2, 3):
            await bench.done((bench.source, desk.send(op)))
    assert heard == [(busy, work)], "the third finds nobody who waits"


async def test_a_replica_whose_process_is_gone_is_passed_over(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    await desk.waits(bench.listener, carried=2)
    nobody = bench.keys.inbox("nobody")
    await bench.farm.client.zadd(bench.keys.idle(desk.id), {nobody: 1})
    inbox = desk.inbox(bench.listener)
    async with bells(bench, inbox) as heard:
        changes = await bench.does(bench.source, desk.send())
    assert heard == [(inbox, f"work {desk.id}")]
    assert changes[IDLE] is None


async def test_a_send_rings_nowhere_else_for_a_pool(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.made()
    async with bells(bench, bench.keys.stream(desk.plan.audiences[0])) as heard:
        await bench.done((bench.source, desk.send()))
    assert heard == []


async def test_a_bell_that_may_not_ring_counts_as_heard(bench: Bench) -> None:
    """Nobody knows whether the replica would have come; the next one is not sent for it."""
    desk = Desk(bench)
    await desk.made()
    for server in (bench.listener, bench.other):
        await desk.waits(server)
    await bench.farm.client.hset(bench.keys.meta, "bell", "NOSUCHCOMMAND")
    await bench.done((bench.source, desk.send()))
    assert await bench.farm.client.zcard(bench.keys.idle(desk.id)) == 1


@pytest.mark.parametrize("style", [UNIDIRECTIONAL, BIDIRECTIONAL])
@pytest.mark.parametrize("what", ["hand back", "replay"])
async def test_whoever_waits_is_woken_for_what_comes_back(
    bench: Bench, what: str, style: Style
) -> None:
    desk = Desk(bench, style)
    if what == "replay":
        call = desk.replay(await desk.buried())
    else:
        await (desk.asked() if style is BIDIRECTIONAL else desk.in_hand())
        call = desk.hand_back()
    await desk.waits(bench.other)
    await bench.farm.client.zadd(bench.keys.idle(desk.id), {desk.inbox(bench.source): 3})
    inboxes = [desk.inbox(server) for server in (bench.other, bench.source)]
    async with bells(bench, *inboxes) as heard:
        await bench.done((bench.listener, call))
    assert heard == [(inboxes[0], f"work {desk.id}")], "one entry, one replica"


async def test_as_many_are_woken_as_entries_are_left_behind(bench: Bench) -> None:
    desk = Desk(bench)
    await desk.in_hand(2)
    idle = {bench.keys.inbox(f"s{number}"): number for number in (1, 2, 3)}
    await bench.farm.client.zadd(bench.keys.idle(desk.id), idle)
    async with bells(bench, *idle) as heard:
        await bench.done((bench.listener, desk.disown()))
    assert [where for where, _ in heard] == list(idle)[:2]


async def test_one_is_woken_for_a_dialog_that_waits(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.carried()
    idle = {bench.keys.inbox(f"s{number}"): number for number in (1, 2)}
    await bench.farm.client.zadd(bench.keys.idle(desk.id), idle)
    async with bells(bench, *idle) as heard:
        await bench.done((bench.listener, desk.orphan()))
    assert heard == [(bench.keys.inbox("s1"), f"work {desk.id}")]


async def test_the_source_is_told_at_once_who_carries_the_dialog_on(bench: Bench) -> None:
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.waiting()
    inbox = bench.keys.inbox(bench.source.session)
    async with bells(bench, inbox) as heard:
        await bench.done((bench.other, desk.adopt()))
    ((_, bell),) = heard
    assert "moved" in bell


async def test_what_is_answered_by_a_pool_is_answered_for_all(bench: Bench) -> None:
    """The same acquisition as any registration's; the losers are told by their boards' bells."""
    desk = Desk(bench, BIDIRECTIONAL)
    await desk.asked()
    await bench.done((bench.other, bench.register("r", session=bench.other.session)))
    changes = await bench.does(bench.listener, desk.respond(1, bench.listener, sent=body("!")))
    assert changes["channel:c"] == {
        "state": "answered", f"op:{ID}": "1", f"word:{ID}": "OK", "owner": ID,
        "owner_session": "<listener>", "owner_user": "alice", "token": f"E:{ID}",
    }  # fmt: skip
    assert changes["held:<listener>"] == {DIALOG: True}
    late = bench.handle("r", bench.other.session)
    assert await bench.refuses(bench.other, bench.respond(handle=late)) == ["ACQUIRED", "alice"]
