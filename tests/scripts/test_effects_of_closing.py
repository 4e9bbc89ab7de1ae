"""A script that closes a channel, or one end of it, changes this, all of it, and nothing else.

Each test compares all of Redis before and after one call: states, receipts, references that are
counted, the boards, what the other end is told, and what begins to expire.
"""

from __future__ import annotations

from typing import Any

from broker import UNIDIRECTIONAL
from tests.scripts.bench import (
    ACQUIRED,
    ADMINISTRATORS,
    BOARD,
    BOB,
    Bench,
    body,
    off_the_boards,
)


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
    stowed = await bench.large_body()
    changes = await bench.does(bench.source, bench.source_close(2, reason=stowed))
    assert changes["channel:c"]["reason_ref"] == stowed.key


async def test_source_close_lets_the_questions_body_go(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()), (bench.source, bench.open()))
    stowed = await bench.large_body()
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
        "state": "closed", "closer": "source", "dropped": "released", "dropped:r": "told",
        "drops": "2", "expires": True,
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


async def test_abandon_is_no_answer_to_what_its_source_asked(bench: Bench) -> None:
    """A Redis that forgot the close is asked again, and must not say that it was done."""
    await bench.offered()
    await bench.done((bench.source, bench.source_close(2, "abandon")))
    assert await bench.refuses(bench.source, bench.offer()) == ["OK"], "as it was answered before"
    assert await bench.refuses(bench.source, bench.source_close(2)) == ["CLOSED", "source"]


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
    assert await bench.refuses(bench.other, bench.source_close(3)) == ["GONE"]
    assert await bench.changed_by(bench.source, bench.source_close(3)) == {"held:<source>": None}
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
    stowed = await bench.large_body()
    await bench.done((bench.source, bench.offer(sent=stowed)))
    close = bench.listener_close(reason=body("no"), handle=bench.handle(asked=stowed.key))
    changes = await bench.does(bench.listener, close)
    assert changes["body:b"] == {"value": "x" * 100, "expires": True}


async def test_a_large_final_answer_passes_its_key(bench: Bench) -> None:
    await bench.offered()
    stowed = await bench.large_body()
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


async def test_a_late_close_clears_what_is_left_of_a_dialog(bench: Bench) -> None:
    """Also in the name of the living: nothing is held of what is over."""
    await bench.answered()
    await bench.done((bench.source, bench.source_close(2, listening=bench.listener.session)))
    held = bench.keys.held(bench.listener.session)
    for forget in (False, True):
        if forget:
            await bench.farm.client.delete(bench.keys.channel("c"))
        await bench.farm.client.sadd(held, "dialog:c:r")
        assert await bench.changed_by(bench.listener, bench.listener_close(2)) == {
            "held:<listener>": {"dialog:c:r": None}
        }


async def test_abandon_ends_a_dialog_whatever_its_number(bench: Bench) -> None:
    await bench.answered()
    assert (await bench.ask(bench.listener, bench.listener_close(7, "abandon")))[0] == "OK"
