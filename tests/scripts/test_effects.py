"""A script that succeeds changes this, all of it, and nothing else.

Each test compares all of Redis before and after one call, so that a write that is left out, or one
too many, is seen: whether it is a receipt, a reference that is counted, an index, a time to live,
or what the other end is told.
"""

from __future__ import annotations

from typing import Any

import pytest

from broker import UNIDIRECTIONAL, _calls
from broker._calls import together
from broker._entries import Entry, EntryId, read_bell
from broker._keys import inbox_field
from broker._scripts import Call
from tests.scripts.bench import ADMINISTRATORS, BOARD, EVERYBODYS, MINE, Bench, body, subscribed

# Sessions --------------------------------------------------------------------------------------


async def test_hello_begins_a_session(bench: Bench) -> None:
    call = _calls.hello(bench.keys, "new", 1000, "PUBLISH")
    assert await bench.does(bench.source, call) == {
        "leases": {"new": "alive"},
        "streams": {"to:new": "0"},
    }


async def test_the_longest_lease_is_everybodys_grace(bench: Bench) -> None:
    call = _calls.hello(bench.keys, "new", 70_000, "PUBLISH")
    changes = await bench.does(bench.source, call)
    assert changes["meta"] == {"grace": "70000"}


async def test_hello_makes_the_servers_own_keys(bench: Bench) -> None:
    meta: Any = await bench.farm.client.hgetall(bench.keys.meta)
    await bench.farm.clear()
    changes = await bench.does(bench.source, _calls.hello(bench.keys, "new", 1000, "PUBLISH"))
    epoch = changes["meta"].pop("epoch")
    assert int(epoch) >= int(bench.source.epoch), "it begins now"
    assert changes["meta"].pop("pools") == f"{epoch}-0"
    assert changes == {
        "meta": {
            "layout": "2", "grace": "1000", "bell": "PUBLISH", "floor": "0",
            "run": meta[b"run"].decode(),
        },
        "leases": {"new": "alive"},
        "streams": {"to:new": "0"},
    }  # fmt: skip


@pytest.mark.parametrize("bell", ["PUBLISH", "SPUBLISH"])
async def test_the_first_hello_says_how_bells_ring(bench: Bench, bell: str) -> None:
    await bench.farm.clear()
    for mine in (bell, "PUBLISH", "SPUBLISH"):
        answer = await bench.ask(bench.source, _calls.hello(bench.keys, "new", 1000, mine))
        assert answer[2] == bell


async def test_hello_keeps_what_somebody_set(bench: Bench) -> None:
    await bench.farm.client.hset(bench.keys.meta, mapping={"bell": "SPUBLISH", "floor": 7})
    await bench.farm.client.hset(bench.keys.streams, "to:new", 3)
    changes = await bench.does(bench.source, _calls.hello(bench.keys, "new", 1000, "PUBLISH"))
    assert changes == {"leases": {"new": "alive"}}


async def test_hello_to_another_redis_process_raises_the_epoch(bench: Bench) -> None:
    await bench.farm.client.hset(bench.keys.meta, "run", "another")
    call = _calls.hello(bench.keys, "new", 1000, "PUBLISH")
    word, epoch, *_ = await bench.ask(bench.source, call)
    assert word == "OK"
    assert int(epoch) > int(bench.source.epoch)
    assert await bench.farm.client.hget(bench.keys.meta, "epoch") == epoch.encode()


async def test_renew_moves_the_deadline_and_trims_the_inbox(bench: Bench) -> None:
    await bench.answered()
    client, session = bench.farm.client, bench.source.session
    await client.zadd(bench.keys.leases, {session: 1})
    unread = f"{bench.source.epoch}-2"
    assert await bench.does(bench.source, _calls.renew(bench.keys, session, 90_000, unread)) == {
        "leases": {"<source>": "alive"},
        "to:<source>": {"removed": 1},
    }
    deadline = await client.zscore(bench.keys.leases, session)
    seconds, _ = await client.time()
    assert deadline is not None
    assert seconds + 85 < deadline / 1000 < seconds + 95, "90 s from now"


async def test_renew_keeps_what_is_unread(bench: Bench) -> None:
    await bench.answered()
    unread = f"{bench.source.epoch}-1"
    call = _calls.renew(bench.keys, bench.source.session, 60_000, unread)
    assert (await bench.refuses(bench.source, call))[0] == "OK"


async def test_renew_says_what_time_it_is_in_redis(bench: Bench) -> None:
    call = _calls.renew(bench.keys, bench.source.session, 60_000, "0-1")
    times = []
    for _ in range(2):
        seconds, microseconds = await bench.farm.client.time()
        times.append(seconds * 1000 + microseconds // 1000)
        word, now = await bench.ask(bench.source, call)
        assert word == "OK"
        times.append(int(now))
    assert times == sorted(times), "each answer between two looks at the clock"


async def test_sweep_marks_the_late_as_dead_for_good(bench: Bench) -> None:
    await bench.lapse(bench.other)
    assert await bench.does(bench.source, _calls.sweep(bench.keys, 10)) == {
        "leases": {"<other>": "dead"}
    }
    assert await bench.refuses(bench.source, _calls.sweep(bench.keys, 10)) == ["OK", "<other>"]


async def test_sweep_names_as_many_as_it_was_asked_for(bench: Bench) -> None:
    await bench.lapse(bench.other)
    await bench.lapse(bench.listener)
    assert len(await bench.ask(bench.source, _calls.sweep(bench.keys, 1))) == 2
    assert await bench.farm.client.zcount(bench.keys.leases, 0, 0) == 1
    assert len(await bench.ask(bench.source, _calls.sweep(bench.keys, 2))) == 3


async def test_bury_forgets_the_dead(bench: Bench) -> None:
    await bench.answered()
    await bench.done((bench.source, bench.source_close(2, listening=bench.listener.session)))
    await bench.sweep(bench.source)
    assert await bench.does(bench.other, bench.bury(bench.source)) == {
        "leases": {"<source>": None},
        "streams": {"to:<source>": None},
        "to:<source>": None,
    }


async def test_bury_forgets_oneself(bench: Bench) -> None:
    assert await bench.does(bench.other, bench.bury(bench.other)) == {
        "leases": {"<other>": None},
        "streams": {"to:<other>": None},
    }


# Rights ----------------------------------------------------------------------------------------


async def test_grant_changes_single_rights(bench: Bench) -> None:
    def grant(mask: int, *, give: bool) -> Call:
        return _calls.grant(bench.keys, "|bob", mask, give=give)

    assert await bench.does(bench.source, grant(5, give=True)) == {"grants": {"|bob": "5"}}
    assert await bench.does(bench.source, grant(0xF0002, give=True)) == {
        "grants": {"|bob": str(0xF0007)}
    }
    assert await bench.does(bench.source, grant(0xF0001, give=False)) == {"grants": {"|bob": "6"}}
    assert await bench.refuses(bench.source, grant(2, give=True)) == ["OK", "6"]
    assert await bench.refuses(bench.source, grant(8, give=False)) == ["OK", "6"]
    assert await bench.does(bench.source, grant(6, give=False)) == {"grants": None}
    assert await bench.refuses(bench.source, grant(6, give=False)) == ["OK", "0"]


# Registrations ---------------------------------------------------------------------------------


async def test_register_one_way_begins_at_the_present_number(bench: Bench) -> None:
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.other, bench.register("first", style=UNIDIRECTIONAL, session=bench.other.session)),
        (bench.source, bench.uni_send()),
    )
    call = bench.register(style=UNIDIRECTIONAL, buffer=5)
    assert await bench.does(bench.listener, call) == {
        "counts": {"|T": "2"},
        "held:<listener>": {"registration:r": True},
        "registrations": {"r": '{"session": "<listener>", "since": "now"}'},
        f"room:{MINE}": {"T:alice:r": "6.0"},
        f"room:{EVERYBODYS}": {"T:alice:r": "5.0"},
        f"stream:{MINE}": {"groups": {"T:alice:first": "E-0", "T:alice:r": "E-1"}},
        f"stream:{EVERYBODYS}": {"groups": {"T:alice:first": "E-0", "T:alice:r": "E-0"}},
    }
    assert await bench.ask(bench.listener, call) == ["OK", "1", "1", "6", "0", "5"]


async def test_register_at_a_board_begins_at_its_beginning(bench: Bench) -> None:
    assert await bench.does(bench.listener, bench.register()) == {
        "counts": {"|T": "1"},
        "held:<listener>": {"registration:r": True},
        "registrations": {"r": '{"session": "<listener>", "since": "now"}'},
        f"room:{BOARD}": {"T:alice:r": "inf"},
        "room:|T|bi|*": {"T:alice:r": "inf"},
        f"stream:{BOARD}": {"groups": {"T:alice:r": "0-0"}},
        "stream:|T|bi|*": {"groups": {"T:alice:r": "0-0"}},
        "streams": {BOARD: "0", "|T|bi|*": "0"},
    }


async def test_unregister_discards_what_was_not_fetched(bench: Bench) -> None:
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL)),
        (bench.source, bench.uni_send()),
        (bench.source, bench.uni_send(2)),
    )
    assert await bench.does(bench.listener, bench.unregister(style=UNIDIRECTIONAL)) == {
        "counts": None,
        "held:<listener>": None,
        "meta": {"floor": "2"},
        "registrations": None,
        f"room:{MINE}": None,
        f"room:{EVERYBODYS}": None,
        f"stream:{MINE}": None,
        f"stream:{EVERYBODYS}": None,
        "streams": {MINE: None, EVERYBODYS: None},
    }


async def test_numbers_are_never_used_again(bench: Bench) -> None:
    """A stream that is made anew goes on above the floor: no reader mistakes old for new."""
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL)),
        (bench.source, bench.uni_send()),
        (bench.listener, bench.unregister(style=UNIDIRECTIONAL)),
    )
    call = bench.register("again", style=UNIDIRECTIONAL)
    assert await bench.ask(bench.listener, call) == ["OK", "0", "1", "3", "1", "3"]
    changes = await bench.does(bench.source, bench.uni_send(2))
    assert changes["streams"] == {MINE: "2"}


async def test_the_floor_never_falls(bench: Bench) -> None:
    await bench.farm.client.hset(bench.keys.meta, "floor", 9)
    await bench.farm.client.hset(bench.keys.streams, "elsewhere", 1)
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    await bench.farm.client.hset(
        bench.keys.streams, mapping={bench.plan(UNIDIRECTIONAL).audiences[0].field: 3}
    )
    changes = await bench.does(bench.listener, bench.unregister(style=UNIDIRECTIONAL))
    assert "meta" not in changes, "the floor stays at 9"


async def test_unregister_leaves_a_stream_to_the_others(bench: Bench) -> None:
    await bench.done(
        (bench.listener, bench.register(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register("stays", style=UNIDIRECTIONAL)),
    )
    assert await bench.does(bench.listener, bench.unregister(style=UNIDIRECTIONAL)) == {
        "counts": {"|T": "1"},
        "held:<listener>": {"registration:r": None},
        "registrations": {"r": None},
        f"room:{MINE}": {"T:alice:r": None},
        f"room:{EVERYBODYS}": {"T:alice:r": None},
        f"stream:{MINE}": {"groups": {"T:alice:stays": "E-0"}},
        f"stream:{EVERYBODYS}": {"groups": {"T:alice:stays": "E-0"}},
    }


async def test_unregister_leaves_open_questions_on_their_board(bench: Bench) -> None:
    await bench.offered()
    changes = await bench.does(bench.listener, bench.unregister())
    assert changes[f"stream:{BOARD}"] == {"groups": {}}, "the question is still there"
    assert changes["stream:|T|bi|*"] is None, "nothing is open for everybody"
    assert changes["streams"] == {"|T|bi|*": None}


async def test_a_board_goes_with_its_last_question(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.listener, bench.unregister()))
    changes = await bench.does(bench.source, bench.source_close(2))
    assert changes[f"stream:{BOARD}"] is None
    assert changes["streams"] == {BOARD: None, ADMINISTRATORS: None}


async def test_a_board_with_another_question_stays(bench: Bench) -> None:
    await bench.done((bench.source, bench.open()), (bench.source, bench.offer()))
    await bench.done((bench.source, bench.open("d")), (bench.source, bench.offer(channel="d")))
    changes = await bench.does(bench.source, bench.source_close(2))
    assert changes[f"stream:{BOARD}"] == {"removed": 1}
    assert changes["streams"] == {BOARD: "3", ADMINISTRATORS: "3"}


async def test_a_revoked_right_is_told_to_the_holder(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()))
    changes = await bench.does(bench.other, bench.unregister(kind="revoke"))
    assert changes["to:<listener>"] == {
        "added": [{"event": "ended", "registration": "r", "why": "right revoked"}]
    }
    assert changes["streams"] == {
        BOARD: None, "|T|bi|*": None, "to:<listener>": "1",
    }  # fmt: skip


async def test_run_down_of_a_registration_that_is_gone_clears_the_rest(bench: Bench) -> None:
    held = bench.keys.held(bench.listener.session)
    for kind in ("revoke", "delete"):
        assert await bench.refuses(bench.listener, bench.unregister(kind=kind)) == ["GONE"]
    await bench.farm.client.sadd(held, "registration:r")
    assert await bench.changed_by(bench.listener, bench.unregister()) == {"held:<listener>": None}
    assert await bench.refuses(bench.listener, bench.unregister()) == ["GONE"]
    await bench.farm.client.sadd(held, "registration:r")
    await bench.sweep(bench.listener)
    run_down = bench.unregister(kind="run-down")
    assert await bench.changed_by(bench.other, run_down) == {"held:<listener>": None}


async def test_take_makes_room_and_moves_the_group(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    received = f"{bench.source.epoch}-1"
    assert await bench.does(bench.listener, bench.take(2, 1, received)) == {
        f"room:{MINE}": {"T:alice:r": "3.0"},
        f"stream:{MINE}": {"groups": {"T:alice:r": "E-1"}},
    }
    assert await bench.does(bench.listener, bench.take(3, 0, f"{bench.source.epoch}-2")) == {
        f"stream:{MINE}": {"groups": {"T:alice:r": "E-2"}}
    }


async def test_take_after_a_denial_makes_room_from_now_on(bench: Bench) -> None:
    """Room is for what comes; what was denied stays denied."""
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=1)),
        (bench.listener, bench.register("large", style=UNIDIRECTIONAL, buffer=9)),
        (bench.source, bench.uni_send(1)),
    )
    for op in (2, 3):
        assert await bench.ask(bench.source, bench.uni_send(op)) == ["LOST"]
    assert await bench.refuses(bench.listener, bench.take(1, 0)) == ["OK", "1"], "nothing taken"
    assert await bench.ask(bench.listener, bench.take(1, 1)) == ["OK", "4"]


async def test_take_makes_room_on_a_full_redis(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    redis = bench.farm.client
    await redis.config_set("maxmemory", 1)
    try:
        assert await bench.ask(bench.listener, bench.take(2, 1)) == ["OK", "3"]
    finally:
        await redis.config_set("maxmemory", 0)


# Bells -----------------------------------------------------------------------------------------


async def test_a_bell_carries_what_was_added_up_to_4096_bytes(bench: Bench) -> None:
    await bench.done((bench.source, bench.open(style=UNIDIRECTIONAL)))
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=9)))
    async with subscribed(
        bench, bench.keys.stream(bench.plan(UNIDIRECTIONAL).audiences[0])
    ) as bells:
        rest = 0
        for op, size in ((1, 0), (2, 100), (3, 4096), (4, 4097)):
            data = "x" * max(0, size - rest)
            await bench.done((bench.source, bench.uni_send(op, body(data))))
            message = None
            while message is None:
                message = await bells.get_message(timeout=5)
            ((id_, entry),) = read_bell(message["data"])
            assert (id_.number, str(id_.epoch)) == (op, bench.source.epoch)
            if size > 4096:
                assert entry is None
                continue
            assert entry is not None
            assert entry.fields["body"] == data.encode()
            assert entry.text("channel") == "c"
            rest = int(message["data"].partition(b":")[0])  # what is not its body


async def test_what_travels_together_rings_together_up_to_16384_bytes(bench: Bench) -> None:
    await bench.done((bench.source, bench.open(style=UNIDIRECTIONAL)))
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=99)))
    async with subscribed(
        bench, bench.keys.stream(bench.plan(UNIDIRECTIONAL).audiences[0])
    ) as bells:
        bodies = [b"%02d" % n + b"x" * 998 for n in range(40)]
        await bench.done((bench.source, bench.uni_send(40, together(bodies))))
        rung: list[list[tuple[EntryId, Entry | None]]] = []
        sizes: list[int] = []
        while sum(map(len, rung)) < 40:
            message = await bells.get_message(timeout=5)
            if message is not None:
                rung.append(read_bell(message["data"]))
                sizes.append(len(message["data"]))
    each = sizes[0] / len(rung[0])
    assert max(sizes) <= 16_384
    assert min(sizes[:-1]) > 16_384 - each, "as many as there is room for"
    entries = [entry for part in rung for _, entry in part]
    assert [entry.fields["body"] for entry in entries if entry] == bodies


async def test_what_nobody_has_room_for_rings_nowhere(bench: Bench) -> None:
    await bench.done((bench.source, bench.open(style=UNIDIRECTIONAL)))
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=1)))
    await bench.done((bench.source, bench.uni_send()))
    async with subscribed(
        bench, bench.keys.stream(bench.plan(UNIDIRECTIONAL).audiences[0]), bench.keys.meta
    ) as bells:
        assert (await bench.ask(bench.source, bench.uni_send(2)))[0] == "FAILURE"
        await bench.farm.client.publish(bench.keys.meta, "the next that rings")
        while (message := await bells.get_message(timeout=5)) is None:
            pass
        assert message["data"] == b"the next that rings"


async def test_a_bell_that_may_not_ring_undoes_nothing(bench: Bench) -> None:
    """The bell is whatever the server's own record says; here it is no command at all."""
    await bench.offered()
    await bench.farm.client.hset(bench.keys.meta, "bell", "NOSUCHCOMMAND")
    assert await bench.ask(bench.listener, bench.respond()) == ["OK", "E:r"]
    assert await bench.farm.client.xlen(bench.keys.inbox(bench.source.session)) == 1


async def test_a_withdrawal_rings_on_every_board(bench: Bench) -> None:
    await bench.offered()
    boards = bench.route().streams
    async with subscribed(bench, *boards) as bells:
        await bench.done((bench.listener, bench.respond()))
        heard: dict[str, Any] = {}
        while len(heard) < len(boards):
            message = await bells.get_message(timeout=5)
            if message is not None:
                (heard[message["channel"].decode()],) = read_bell(message["data"])
    for board in boards:
        id_, entry = heard[board]
        assert id_.number == 2
        assert entry is not None
        assert entry.text("event") == "acquired"
        assert (entry.text("channel"), entry.text("registration")) == ("c", "r")


async def test_a_question_rings_only_where_somebody_listens(bench: Bench) -> None:
    """Whoever comes later reads the board; a bell for nobody would wake nobody."""
    await bench.done((bench.listener, bench.register()), (bench.source, bench.open()))
    boards = bench.route().streams
    async with subscribed(bench, *boards) as bells:
        await bench.done((bench.source, bench.offer()), (bench.listener, bench.respond()))
        events: dict[str, list[str]] = {board: [] for board in boards}
        while sum(map(len, events.values())) < 3:
            message = await bells.get_message(timeout=5)
            if message is not None:
                ((_, entry),) = read_bell(message["data"])
                assert entry is not None
                events[message["channel"].decode()].append(entry.text("event"))
    assert list(events.values()) == [["offer", "acquired"], ["acquired"]]


async def test_nothing_is_told_to_those_who_were_buried(bench: Bench) -> None:
    await bench.answered()
    await bench.farm.client.hdel(bench.keys.streams, inbox_field(bench.listener.session))
    close = bench.source_close(2, listening=bench.listener.session)
    changes = await bench.does(bench.source, close)
    assert "to:<listener>" not in changes
    assert "streams" not in changes
