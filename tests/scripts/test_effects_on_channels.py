"""A script about a channel that succeeds changes this, all of it, and nothing else.

Each test compares all of Redis before and after one call: states, receipts, references that are
counted, the boards, what the other end is told, and what begins to expire.
"""

from __future__ import annotations

from broker import UNIDIRECTIONAL
from tests.scripts.bench import (
    ACQUIRED,
    ADMINISTRATORS,
    BOARD,
    MINE,
    Bench,
    bells,
    off_the_boards,
)

OFFER = {
    "event": "offer", "channel": "c", "printer": "", "user": "alice", "source": "<source>",
    "at": "now",
}  # fmt: skip


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


async def test_offer_of_a_large_body_holds_it_until_somebody_acquires(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()), (bench.source, bench.open()))
    stowed = await bench.large_body()
    changes = await bench.does(bench.source, bench.offer(sent=stowed))
    assert changes["body:b"] == {"value": "x" * 100, "expires": False}
    assert changes["channel:c"]["held"] == stowed.key
    assert changes[f"stream:{BOARD}"]["added"] == [{**OFFER, "ref": stowed.key}]
    handle = bench.handle(asked=stowed.key)
    changes = await bench.does(bench.listener, bench.respond(handle=handle))
    assert changes["body:b"] == {"value": "x" * 100, "expires": True}


async def test_offer_again_puts_the_question_back_where_it_was_lost(bench: Bench) -> None:
    await bench.done(
        (bench.listener, bench.register()),
        (bench.source, bench.open()),
        (bench.source, bench.offer(trace="t")),
    )
    await bench.lose_a_board()
    async with bells(bench, *map(bench.board, (BOARD, ADMINISTRATORS))) as rung:
        assert await bench.does(bench.source, bench.offer_again()) == {
            "channel:c": {"offers": "E-2 E-1"},
            f"stream:{BOARD}": {"added": [{**OFFER, "trace": "t", "body": "?"}]},
            "streams": {BOARD: "2"},
        }
    assert [where for where, _ in rung] == [bench.board(BOARD)], "where somebody listens"


async def test_offer_again_of_a_large_body_passes_its_key(bench: Bench) -> None:
    stowed = await bench.large_body()
    await bench.done(
        (bench.listener, bench.register()),
        (bench.source, bench.open()),
        (bench.source, bench.offer(sent=stowed)),
    )
    await bench.lose_a_board(ADMINISTRATORS)
    async with bells(bench, *map(bench.board, (BOARD, ADMINISTRATORS))) as rung:
        assert await bench.does(bench.source, bench.offer_again()) == {
            "channel:c": {"offers": "E-1 E-2"},
            f"stream:{ADMINISTRATORS}": {"added": [{**OFFER, "ref": stowed.key}]},
            "streams": {ADMINISTRATORS: "2"},
        }
    assert rung == [], "nobody listens there"


async def test_uni_send_reaches_those_with_room(bench: Bench) -> None:
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=1)),
    )
    entry = {"channel": "c", "op": "1", "printer": "", "user": "alice", "at": "now", "body": "?"}
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
            "added": [{"event": "response", "by": "alice", "at": "now", "turn": "", "body": "!"}]
        },
        "held:<listener>": {"dialog:c:r": True},
        "streams": {BOARD: "2", ADMINISTRATORS: None, "to:<source>": "1"},
        "to:<source>": {
            "added": [
                {
                    "event": "response", "to": "source", "channel": "c", "registration": "r",
                    "op": "1",
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
                    "op": "2",
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
    stowed = await bench.large_body()
    changes = await bench.does(bench.source, bench.follow_up(sent=stowed))
    assert changes["to:<listener>"]["added"][0]["ref"] == stowed.key
