"""A script that succeeds changes this, all of it, and nothing else.

Each test compares all of Redis before and after one call, so that a write that is left out, or one
too many, is seen: whether it is a receipt, a reference that is counted, an index, a time to live,
or what the other end is told.
"""

from __future__ import annotations

from typing import Any

from broker import UNIDIRECTIONAL, _calls
from broker._calls import Stowed
from broker._entries import read_bell
from broker._keys import inbox_field
from broker._scripts import Call
from tests.scripts.bench import BOB, Bench, body

BOARD, ADMINISTRATORS = "|T|bi|=alice", "|T|bi|+"
MINE, EVERYBODYS = "|T|uni|=alice", "|T|uni|*"
OFFER = {
    "event": "offer", "channel": "c", "printer": "", "user": "alice", "source": "<source>",
    "at": "now",
}  # fmt: skip
ACQUIRED = {
    "owner": "r", "owner_session": "<listener>", "owner_user": "alice", "token": "E:r",
}  # fmt: skip


def off_the_boards(field: str = ADMINISTRATORS) -> dict[str, Any]:
    """A question that one registration heard is over: one board goes, as nobody listens to it."""
    return {f"stream:{BOARD}": {"removed": 1}, f"stream:{field}": None, "meta": {"floor": "2"}}


# Sessions --------------------------------------------------------------------------------------


async def test_hello_begins_a_session(bench: Bench) -> None:
    call = _calls.hello(bench.keys, "new", 1000)
    assert await bench.does(bench.source, call) == {
        "leases": {"new": "alive"},
        "streams": {"to:new": "0"},
    }


async def test_the_longest_lease_is_everybodys_grace(bench: Bench) -> None:
    call = _calls.hello(bench.keys, "new", 70_000)
    changes = await bench.does(bench.source, call)
    assert changes["meta"] == {"grace": "70000"}


async def test_hello_makes_the_servers_own_keys(bench: Bench) -> None:
    meta: Any = await bench.farm.client.hgetall(bench.keys.meta)
    await bench.clear()
    changes = await bench.does(bench.source, _calls.hello(bench.keys, "new", 1000))
    epoch = changes["meta"].pop("epoch")
    assert int(epoch) >= int(bench.source.epoch), "it begins now"
    assert changes == {
        "meta": {
            "layout": "1", "grace": "1000", "bell": "PUBLISH", "floor": "0",
            "run": meta[b"run"].decode(),
        },
        "leases": {"new": "alive"},
        "streams": {"to:new": "0"},
    }  # fmt: skip


async def test_hello_keeps_what_somebody_set(bench: Bench) -> None:
    await bench.farm.client.hset(bench.keys.meta, mapping={"bell": "SPUBLISH", "floor": 7})
    await bench.farm.client.hset(bench.keys.streams, "to:new", 3)
    changes = await bench.does(bench.source, _calls.hello(bench.keys, "new", 1000))
    assert changes == {"leases": {"new": "alive"}}


async def test_hello_to_another_redis_process_raises_the_epoch(bench: Bench) -> None:
    await bench.farm.client.hset(bench.keys.meta, "run", "another")
    word, epoch = await bench.ask(bench.source, _calls.hello(bench.keys, "new", 1000))
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
    assert await bench.refuses(bench.source, call) == ["OK"]


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


# Channels --------------------------------------------------------------------------------------


async def test_open_makes_a_channel(bench: Bench) -> None:
    assert await bench.does(bench.source, bench.open()) == {
        "channel:c": {
            "state": "open", "session": "<source>", "subject": "|T|bi|alice", "style": "bi",
            "by": "spooler", "at": "now", "op": "0",
        },
        "channels": {"c": "|T|bi|alice"},
        "held:<source>": {"channel:c": True},
        "opened": {"value": "1"},
    }  # fmt: skip


async def test_offer_puts_the_question_on_every_board(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()), (bench.source, bench.open()))
    assert await bench.does(bench.source, bench.offer()) == {
        "channel:c": {"state": "offered", "op": "1", "word": "OK", "offers": "E-1 E-1"},
        "channel:c:log": {
            "added": [{"event": "notification", "by": "source", "at": "now", "body": "?"}]
        },
        f"stream:{BOARD}": {"added": [{**OFFER, "body": "?"}]},
        f"stream:{ADMINISTRATORS}": {"added": [{**OFFER, "body": "?"}]},
        "streams": {BOARD: "1", ADMINISTRATORS: "1"},
    }


async def large_body(bench: Bench) -> Stowed:
    """A body under a key of its own, with a time to live."""
    key = bench.keys.body("b")
    await bench.farm.client.set(key, "x" * 100, px=50_000)
    return Stowed("ref", key, key)


async def test_offer_of_a_large_body_holds_it_until_somebody_acquires(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()), (bench.source, bench.open()))
    stowed = await large_body(bench)
    changes = await bench.does(bench.source, bench.offer(sent=stowed))
    assert changes["body:b"] == {"value": "x" * 100, "expires": False}
    assert changes["channel:c"]["held"] == stowed.key
    assert changes[f"stream:{BOARD}"]["added"] == [{**OFFER, "ref": stowed.key}]
    handle = bench.handle(asked=stowed.key)
    changes = await bench.does(bench.listener, bench.respond(handle=handle))
    assert changes["body:b"] == {"value": "x" * 100, "expires": True}


async def test_uni_send_reaches_those_with_room(bench: Bench) -> None:
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=1)),
    )
    entry = {"channel": "c", "printer": "", "user": "alice", "at": "now", "body": "?"}
    assert await bench.does(bench.source, bench.uni_send()) == {
        "channel:c": {"op": "1", "word": "OK"},
        f"stream:{MINE}": {"added": [entry]},
        "streams": {MINE: "1"},
    }
    assert await bench.does(bench.source, bench.uni_send(2)) == {
        "channel:c": {"op": "2", "word": "FAILURE"}
    }


async def test_uni_send_to_nobody_is_not_stored(bench: Bench) -> None:
    await bench.done((bench.source, bench.open(style=UNIDIRECTIONAL)))
    assert await bench.does(bench.source, bench.uni_send()) == {
        "channel:c": {"op": "1", "word": "NO_LISTENERS"}
    }


async def test_respond_acquires_and_tells_the_source(bench: Bench) -> None:
    await bench.offered()
    assert await bench.does(bench.listener, bench.respond()) == {
        "channel:c": {"state": "answered", "op:r": "1", "word:r": "OK", **ACQUIRED},
        "channel:c:log": {
            "added": [{"event": "response", "by": "alice", "at": "now", "body": "!"}]
        },
        "held:<listener>": {"dialog:c:r": True},
        "streams": {BOARD: "2", ADMINISTRATORS: None, "to:<source>": "1"},
        "to:<source>": {
            "added": [
                {
                    "event": "response", "to": "source", "channel": "c", "registration": "r",
                    "user": "alice", "session": "<listener>", "token": "E:r", "at": "now",
                    "body": "!",
                }
            ]
        },
        **off_the_boards(),
    }  # fmt: skip


async def test_respond_in_turn_acquires_nothing_again(bench: Bench) -> None:
    await bench.asked()
    changes = await bench.does(bench.listener, bench.respond(2))
    assert changes.keys() == {"channel:c", "channel:c:log", "streams", "to:<source>"}
    assert changes["channel:c"] == {"state": "answered", "op:r": "2"}
    assert changes["streams"] == {"to:<source>": "2"}


async def test_follow_up_tells_the_owner(bench: Bench) -> None:
    await bench.answered()
    assert await bench.does(bench.source, bench.follow_up()) == {
        "channel:c": {"state": "asked", "op": "2"},
        "channel:c:log": {
            "added": [{"event": "notification", "by": "source", "at": "now", "body": "?"}]
        },
        "streams": {"to:<listener>": "1"},
        "to:<listener>": {
            "added": [
                {
                    "event": "notification", "to": "owner", "channel": "c", "registration": "r",
                    "at": "now", "body": "?",
                }
            ]
        },
    }  # fmt: skip


async def test_follow_up_leaves_its_own_receipt(bench: Bench) -> None:
    """Not only the one that happens to be there from the send before."""
    await bench.done(
        (bench.source, bench.open()),
        (bench.source, bench.offer()),
        (bench.listener, bench.register()),
        (bench.listener, bench.respond()),
    )
    changes = await bench.does(bench.source, bench.follow_up())
    assert changes["channel:c"] == {"state": "asked", "op": "2", "word": "OK"}


async def test_follow_up_of_a_large_body_passes_its_key(bench: Bench) -> None:
    await bench.answered()
    stowed = await large_body(bench)
    changes = await bench.does(bench.source, bench.follow_up(sent=stowed))
    assert changes["to:<listener>"]["added"][0]["ref"] == stowed.key


# Closing ---------------------------------------------------------------------------------------


def closed_by_source(op: str, dropped: str = "closed") -> dict[str, Any]:
    """Where the word of the operation before was OK as well."""
    return {
        "state": "closed", "closer": "source", "op": op, "dropped": dropped, "drops": "1",
        "expires": True,
    }  # fmt: skip


CLOSED = {"event": "closed", "channel": "c", "by": "source", "at": "now"}


async def test_source_close_takes_the_question_back(bench: Bench) -> None:
    await bench.offered()
    assert await bench.does(bench.source, bench.source_close(2, reason=body("enough"))) == {
        "channel:c": {**closed_by_source("2"), "reason_body": "enough"},
        "channel:c:log": {"added": [{**CLOSED, "body": "enough"}], "expires": True},
        "channels": None,
        "held:<source>": None,
        "streams": {BOARD: "2", ADMINISTRATORS: None},
        **off_the_boards(),
    }


async def test_source_close_without_a_reason(bench: Bench) -> None:
    await bench.offered()
    changes = await bench.does(bench.source, bench.source_close(2))
    assert changes["channel:c"] == closed_by_source("2")
    assert changes["channel:c:log"]["added"] == [CLOSED]


async def test_source_close_leaves_its_own_receipt(bench: Bench) -> None:
    await bench.done((bench.source, bench.open()))
    assert await bench.ask(bench.source, bench.offer()) == ["NO_LISTENERS"]
    changes = await bench.does(bench.source, bench.source_close(2))
    assert changes["channel:c"] == {**closed_by_source("2"), "word": "OK"}


async def test_source_close_with_a_large_reason_keeps_its_key(bench: Bench) -> None:
    await bench.offered()
    stowed = await large_body(bench)
    changes = await bench.does(bench.source, bench.source_close(2, reason=stowed))
    assert changes["channel:c"]["reason_ref"] == stowed.key


async def test_source_close_lets_the_questions_body_go(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()), (bench.source, bench.open()))
    stowed = await large_body(bench)
    await bench.done((bench.source, bench.offer(sent=stowed)))
    changes = await bench.does(bench.source, bench.source_close(2, asked=stowed.key))
    assert changes["body:b"] == {"value": "x" * 100, "expires": True}


async def test_source_close_of_a_dialog_tells_the_owner(bench: Bench) -> None:
    await bench.answered()
    close = bench.source_close(2, reason=body("bye"), listening=bench.listener.session)
    assert await bench.does(bench.source, close) == {
        "channel:c": {
            "state": "closed", "closer": "source", "op": "2", "dropped": "closed",
            "dropped:r": "told", "drops": "2", "expires": True, "reason_body": "bye",
        },
        "channel:c:log": {"added": [{**CLOSED, "body": "bye"}], "expires": True},
        "channels": None,
        "held:<source>": None,
        "held:<listener>": {"dialog:c:r": None},
        "streams": {"to:<listener>": "1"},
        "to:<listener>": {
            "added": [{**CLOSED, "to": "owner", "registration": "r", "body": "bye"}]
        },
    }  # fmt: skip


async def test_source_close_of_a_one_way_channel_tells_nobody(bench: Bench) -> None:
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL)),
        (bench.source, bench.uni_send()),
    )
    close = bench.source_close(2, style=UNIDIRECTIONAL)
    assert await bench.does(bench.source, close) == {
        "channel:c": {
            "state": "closed", "closer": "source", "op": "2", "dropped": "closed", "drops": "1",
            "expires": True,
        },
        "channels": None,
        "held:<source>": None,
    }  # fmt: skip


async def test_source_release_abandons(bench: Bench) -> None:
    await bench.done((bench.source, bench.open()))
    changes = await bench.does(bench.source, bench.source_close(1, "release"))
    assert changes == {
        "channel:c": {**closed_by_source("1", "released"), "word": "RELEASED"},
        "channel:c:log": {"added": [CLOSED], "expires": True},
        "channels": None,
        "held:<source>": None,
    }


async def test_source_release_after_its_close_drops_nothing_again(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.source, bench.source_close(2)))
    assert await bench.does(bench.source, bench.source_close(3, "release")) == {
        "channel:c": {"op": "3", "word": "RELEASED", "dropped": "released"}
    }


async def test_run_down_of_a_source_closes_its_channels_in_nobodys_name(bench: Bench) -> None:
    await bench.answered()
    await bench.sweep(bench.source)
    run_down = bench.source_close(2, "run-down", listening=bench.listener.session)
    changes = await bench.does(bench.other, run_down)
    assert changes["channel:c"] == {
        "state": "closed", "closer": "source", "op": "2", "dropped": "released",
        "dropped:r": "told", "drops": "2", "expires": True,
    }  # fmt: skip
    assert changes["held:<source>"] is None
    assert changes["to:<listener>"]["added"][0]["by"] == "", "it is told as a death"


async def test_run_down_needs_no_number_of_the_sources(bench: Bench) -> None:
    """The dead source's last operation may be of any number, also the one that is asked for."""
    await bench.offered()
    await bench.sweep(bench.source)
    assert await bench.ask(bench.other, bench.source_close(1, "run-down")) == ["OK"]


async def test_abandon_needs_no_number_in_line(bench: Bench) -> None:
    await bench.offered()
    assert await bench.ask(bench.source, bench.source_close(7, "abandon")) == ["OK"]


async def test_run_down_clears_what_is_left_of_a_closed_channel(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.source, bench.source_close(2)))
    held = bench.keys.held(bench.source.session)
    await bench.farm.client.sadd(held, "channel:c", "channel:gone")
    await bench.sweep(bench.source)
    assert await bench.changed_by(bench.other, bench.source_close(2, "run-down")) == {
        "held:<source>": {"channel:c": None}
    }
    await bench.farm.client.delete(bench.keys.channel("c"))
    await bench.farm.client.sadd(held, "channel:c")
    assert await bench.changed_by(bench.other, bench.source_close(2, "run-down")) == {
        "held:<source>": {"channel:c": None}
    }


async def test_a_living_sources_closed_channel_stays_as_it_is(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.source, bench.source_close(2)))
    await bench.farm.client.sadd(bench.keys.held(bench.source.session), "channel:c")
    assert await bench.refuses(bench.source, bench.source_close(3)) == ["CLOSED", "source"]
    await bench.farm.client.delete(bench.keys.channel("c"))
    assert await bench.refuses(bench.source, bench.source_close(3)) == ["GONE"]


async def test_a_decline_is_told_to_nobody(bench: Bench) -> None:
    await bench.offered()
    assert await bench.does(bench.listener, bench.listener_close()) == {
        "channel:c": {"op:r": "1", "word:r": "OK", "dropped:r": "closed", "drops": "1"}
    }


async def test_a_release_declines_too(bench: Bench) -> None:
    await bench.offered()
    assert await bench.does(bench.listener, bench.listener_close(1, "release")) == {
        "channel:c": {"op:r": "1", "word:r": "RELEASED", "dropped:r": "released", "drops": "1"}
    }


async def test_a_release_after_a_decline_drops_nothing_again(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.listener, bench.listener_close()))
    assert await bench.does(bench.listener, bench.listener_close(2, "release")) == {
        "channel:c": {"op:r": "2", "word:r": "RELEASED", "dropped:r": "released"}
    }


async def test_a_loser_that_closes_drops_its_own_reference_only(bench: Bench) -> None:
    await bench.answered()
    late = bench.handle("late", bench.other.session, user=BOB)
    close = bench.listener_close(1, reason=body("too late"), handle=late)
    assert await bench.does(bench.other, close) == {
        "channel:c": {
            "op:late": "1", "word:late": "ACQUIRED", "dropped:late": "closed", "drops": "1"
        }
    }  # fmt: skip
    release = bench.listener_close(2, "release", handle=late)
    assert await bench.does(bench.other, release) == {
        "channel:c": {"op:late": "2", "word:late": "RELEASED", "dropped:late": "released"}
    }


async def test_a_final_answer_acquires_and_closes_in_one_step(bench: Bench) -> None:
    await bench.offered()
    told = {
        "event": "closed", "channel": "c", "registration": "r", "user": "alice", "at": "now",
        "body": "no",
    }  # fmt: skip
    assert await bench.does(bench.listener, bench.listener_close(reason=body("no"))) == {
        "channel:c": {
            "state": "closed", "closer": "r", "dropped": "told", "op:r": "1", "word:r": "OK",
            "dropped:r": "closed", "drops": "2", "expires": True, **ACQUIRED,
        },
        "channel:c:log": {"added": [told], "expires": True},
        "channels": None,
        "held:<source>": None,
        "streams": {BOARD: "2", ADMINISTRATORS: None, "to:<source>": "1"},
        "to:<source>": {"added": [{**told, "to": "source", "token": "E:r"}]},
        **off_the_boards(),
    }  # fmt: skip


async def test_an_owners_close_ends_the_dialog(bench: Bench) -> None:
    await bench.answered()
    told = {"event": "closed", "channel": "c", "registration": "r", "user": "alice", "at": "now"}
    assert await bench.does(bench.listener, bench.listener_close(2)) == {
        "channel:c": {
            "state": "closed", "closer": "r", "dropped": "told", "op:r": "2",
            "dropped:r": "closed", "drops": "2", "expires": True,
        },
        "channel:c:log": {"added": [told], "expires": True},
        "channels": None,
        "held:<listener>": {"dialog:c:r": None},
        "held:<source>": None,
        "streams": {"to:<source>": "2"},
        "to:<source>": {"added": [{**told, "to": "source", "token": "E:r"}]},
    }  # fmt: skip


async def test_an_owners_release_in_its_turn_ends_the_dialog(bench: Bench) -> None:
    await bench.asked()
    changes = await bench.does(bench.listener, bench.listener_close(2, "release"))
    assert changes["channel:c"] == {
        "state": "closed", "closer": "r", "dropped": "told", "op:r": "2", "word:r": "RELEASED",
        "dropped:r": "released", "drops": "2", "expires": True,
    }  # fmt: skip


async def test_a_final_answer_lets_the_questions_body_go(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()), (bench.source, bench.open()))
    stowed = await large_body(bench)
    await bench.done((bench.source, bench.offer(sent=stowed)))
    close = bench.listener_close(reason=body("no"), handle=bench.handle(asked=stowed.key))
    changes = await bench.does(bench.listener, close)
    assert changes["body:b"] == {"value": "x" * 100, "expires": True}


async def test_a_large_final_answer_passes_its_key(bench: Bench) -> None:
    await bench.offered()
    stowed = await large_body(bench)
    changes = await bench.does(bench.listener, bench.listener_close(reason=stowed))
    assert changes["to:<source>"]["added"][0]["ref"] == stowed.key


async def test_run_down_of_an_owner_closes_its_dialog(bench: Bench) -> None:
    await bench.answered()
    await bench.sweep(bench.listener)
    changes = await bench.does(bench.other, bench.listener_close(0, "run-down"))
    assert changes["channel:c"]["state"] == "closed"
    assert changes["channel:c"]["drops"] == "2"
    assert changes["held:<listener>"] == {"dialog:c:r": None}
    assert changes["to:<source>"]["added"][0]["event"] == "closed"


async def test_run_down_of_a_loser_forgets_its_dialog_only(bench: Bench) -> None:
    await bench.answered()
    await bench.farm.client.sadd(bench.keys.held(bench.other.session), "dialog:c:late")
    await bench.sweep(bench.other)
    late = bench.handle("late", bench.other.session, user=BOB)
    run_down = bench.listener_close(0, "run-down", handle=late)
    assert await bench.does(bench.source, run_down) == {"held:<other>": None}


async def test_run_down_clears_what_is_left_of_a_closed_dialog(bench: Bench) -> None:
    await bench.answered()
    await bench.done((bench.source, bench.source_close(2, listening=bench.listener.session)))
    held = bench.keys.held(bench.listener.session)
    await bench.farm.client.sadd(held, "dialog:c:r")
    await bench.sweep(bench.listener)
    run_down = bench.listener_close(0, "run-down")
    assert await bench.changed_by(bench.other, run_down) == {
        "held:<listener>": {"dialog:c:r": None}
    }
    await bench.farm.client.delete(bench.keys.channel("c"))
    await bench.farm.client.sadd(held, "dialog:c:r")
    assert await bench.changed_by(bench.other, run_down) == {
        "held:<listener>": {"dialog:c:r": None}
    }


async def test_abandon_ends_a_dialog_whatever_its_number(bench: Bench) -> None:
    await bench.answered()
    assert (await bench.ask(bench.listener, bench.listener_close(7, "abandon")))[0] == "OK"


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
    await bench.farm.client.sadd(held, "registration:r")
    assert await bench.refuses(bench.listener, bench.unregister()) == ["GONE"]
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
    assert await bench.ask(bench.listener, bench.take(1, 1)) == ["OK", "4"]


# Bells -----------------------------------------------------------------------------------------


async def test_a_bell_carries_what_was_added_unless_it_is_large(bench: Bench) -> None:
    await bench.done((bench.source, bench.open(style=UNIDIRECTIONAL)))
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=9)))
    async with bench.farm.client.pubsub(ignore_subscribe_messages=True) as bells:
        await bells.subscribe(bench.keys.stream(bench.plan(UNIDIRECTIONAL).audiences[0]))
        for op, size in ((1, 100), (2, 4000), (3, 4200)):
            await bench.done((bench.source, bench.uni_send(op, body("x" * size))))
            message = None
            while message is None:
                message = await bells.get_message(timeout=5)
            id_, entry = read_bell(message["data"])
            assert (id_.number, str(id_.epoch)) == (op, bench.source.epoch)
            if size > 4096:
                assert entry is None
            else:
                assert entry is not None
                assert entry.fields["body"] == b"x" * size
                assert entry.text("channel") == "c"


async def test_a_bell_that_may_not_ring_undoes_nothing(bench: Bench) -> None:
    """The bell is whatever the server's own record says; here it is no command at all."""
    await bench.offered()
    await bench.farm.client.hset(bench.keys.meta, "bell", "NOSUCHCOMMAND")
    assert await bench.ask(bench.listener, bench.respond()) == ["OK", "E:r"]
    assert await bench.farm.client.xlen(bench.keys.inbox(bench.source.session)) == 1


async def test_a_withdrawal_rings_on_every_board(bench: Bench) -> None:
    await bench.offered()
    async with bench.farm.client.pubsub(ignore_subscribe_messages=True) as bells:
        boards = bench.route().streams
        await bells.subscribe(*boards)
        await bench.done((bench.listener, bench.respond()))
        heard: dict[str, Any] = {}
        while len(heard) < len(boards):
            message = await bells.get_message(timeout=5)
            if message is not None:
                heard[message["channel"].decode()] = read_bell(message["data"])
    for board in boards:
        id_, entry = heard[board]
        assert id_.number == 2
        assert entry is not None
        assert entry.text("event") == "acquired"
        assert (entry.text("channel"), entry.text("registration")) == ("c", "r")


async def test_nothing_is_told_to_those_who_were_buried(bench: Bench) -> None:
    await bench.answered()
    await bench.farm.client.hdel(bench.keys.streams, inbox_field(bench.listener.session))
    close = bench.source_close(2, listening=bench.listener.session)
    changes = await bench.does(bench.source, close)
    assert "to:<listener>" not in changes
    assert "streams" not in changes
