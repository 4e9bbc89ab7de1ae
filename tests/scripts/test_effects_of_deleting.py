"""The scripts of a printer's deletion change this, all of it, and nothing else.

Each test compares all of Redis before and after one call: states, references that are counted,
the boards, what both ends and every audience are told, and what begins to expire.
"""

from __future__ import annotations

from typing import Any

import pytest

from broker import UNIDIRECTIONAL, _calls
from broker._entries import read_bell
from tests.scripts.bench import (
    ADMINISTRATORS,
    BOARD,
    BOB,
    EVERYBODYS,
    MINE,
    Bench,
    body,
    off_the_boards,
    subscribed,
)

CLOSED = {"event": "closed", "channel": "c", "by": "server", "at": "now"}
BY_SERVER: dict[str, Any] = {
    "state": "closed", "closer": "server", "dropped": "told", "drops": "1", "expires": True,
}  # fmt: skip
RELEASE = {"event": "release", "deletion": "d", "printer": "", "at": "now"}


# server_close ----------------------------------------------------------------------------------


async def test_server_close_takes_the_question_back_and_tells_its_source(bench: Bench) -> None:
    await bench.offered()
    assert await bench.does(bench.other, bench.server_close()) == {
        "channel:c": BY_SERVER,
        "channel:c:log": {"added": [CLOSED], "expires": True},
        "channels": None,
        "held:<source>": None,
        "streams": {BOARD: "2", ADMINISTRATORS: None, "to:<source>": "1"},
        "to:<source>": {"added": [{**CLOSED, "to": "source"}]},
        **off_the_boards(),
    }


@pytest.mark.parametrize("turn", ["answered", "asked"])
async def test_server_close_of_a_dialog_tells_both_ends(bench: Bench, turn: str) -> None:
    await getattr(bench, turn)()
    close = bench.server_close(listening=bench.listener.session)
    changes = await bench.does(bench.other, close)
    numbers = changes.pop("streams")
    assert numbers == {"to:<source>": "2", "to:<listener>": "1" if turn == "answered" else "2"}
    assert changes == {
        "channel:c": {**BY_SERVER, "dropped:r": "told", "drops": "2"},
        "channel:c:log": {"added": [CLOSED], "expires": True},
        "channels": None,
        "held:<source>": None,
        "held:<listener>": {"dialog:c:r": None},
        "to:<source>": {"added": [{**CLOSED, "to": "source"}]},
        "to:<listener>": {"added": [{**CLOSED, "to": "owner", "registration": "r"}]},
    }


async def test_server_close_of_a_process_that_talks_to_itself(bench: Bench) -> None:
    await bench.done(
        (bench.source, bench.register(session=bench.source.session)),
        (bench.source, bench.open()),
        (bench.source, bench.offer()),
        (bench.source, bench.respond(handle=bench.handle(session=bench.source.session))),
    )
    changes = await bench.does(bench.other, bench.server_close(listening=bench.source.session))
    assert changes["held:<source>"] == {"channel:c": None, "dialog:c:r": None}
    assert [told["to"] for told in changes["to:<source>"]["added"]] == ["source", "owner"]


async def test_server_close_of_a_channel_on_which_nothing_was_sent(bench: Bench) -> None:
    await bench.done((bench.source, bench.open()))
    assert await bench.does(bench.other, bench.server_close()) == {
        "channel:c": BY_SERVER,
        "channel:c:log": {"added": [CLOSED], "expires": True},
        "channels": None,
        "held:<source>": None,
        "streams": {"to:<source>": "1"},
        "to:<source>": {"added": [{**CLOSED, "to": "source"}]},
    }


async def test_server_close_of_a_one_way_channel_leaves_what_was_sent(bench: Bench) -> None:
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL)),
        (bench.source, bench.uni_send()),
    )
    assert await bench.does(bench.other, bench.server_close(style=UNIDIRECTIONAL)) == {
        "channel:c": BY_SERVER,
        "channels": None,
        "held:<source>": None,
        "streams": {"to:<source>": "1"},
        "to:<source>": {"added": [{**CLOSED, "to": "source"}]},
    }


async def test_server_close_keeps_the_receipt_of_the_last_operation(bench: Bench) -> None:
    await bench.answered()
    await bench.done((bench.other, bench.server_close(listening=bench.listener.session)))
    assert await bench.ask(bench.source, bench.offer(1)) == ["OK"]
    assert (await bench.ask(bench.listener, bench.respond(1)))[0] == "OK"


async def test_server_close_lets_the_questions_body_go(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()), (bench.source, bench.open()))
    stowed = await bench.large_body()
    await bench.done((bench.source, bench.offer(sent=stowed)))
    changes = await bench.does(bench.other, bench.server_close(asked=stowed.key))
    assert changes["body:b"] == {"value": "x" * 100, "expires": True}
    assert changes["channel:c"] == BY_SERVER


async def test_server_close_rings_the_boards(bench: Bench) -> None:
    await bench.offered()
    async with subscribed(bench, bench.keys.stream(bench.plan().audiences[0])) as bells:
        await bench.done((bench.other, bench.server_close()))
        message = None
        while message is None:
            message = await bells.get_message(timeout=5)
    ((_, entry),) = read_bell(message["data"])
    assert entry is not None
    assert (entry.text("event"), entry.text("by")) == ("closed", "server")


async def test_server_close_answers_for_a_while(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.other, bench.server_close()))
    for key in (bench.keys.channel("c"), bench.keys.log("c")):
        assert 50_000 < await bench.farm.client.pttl(key) <= 60_000


# delete_printer --------------------------------------------------------------------------------


async def test_delete_printer_tells_each_audience_that_has_listeners(bench: Bench) -> None:
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=1)),
        (bench.source, bench.uni_send()),
    )
    assert await bench.does(bench.other, bench.delete_printer()) == {
        "meta": {"deletion": "d:0"},
        "streams": {MINE: "2", EVERYBODYS: "1"},
        f"stream:{MINE}": {"added": [RELEASE]},
        f"stream:{EVERYBODYS}": {"added": [RELEASE]},
    }


async def test_delete_printer_without_listeners_leaves_its_own_receipt_only(bench: Bench) -> None:
    assert await bench.does(bench.other, bench.delete_printer()) == {"meta": {"deletion": "d:0"}}
    await bench.done((bench.other, bench.register(user=BOB, style=UNIDIRECTIONAL,
                                                  session=bench.other.session)))  # fmt: skip
    changes = await bench.does(bench.other, bench.delete_printer("e"))
    assert set(changes) == {"meta", "streams", f"stream:{EVERYBODYS}"}, "alice has none"


async def test_another_part_and_another_deletion_are_told(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    for number, call in enumerate(
        (bench.delete_printer(), bench.delete_printer(part=1), bench.delete_printer("e")), 1
    ):
        changes = await bench.does(bench.other, call)
        assert changes["streams"] == {MINE: str(number), EVERYBODYS: str(number)}


async def test_delete_printer_rings_and_names_the_printer(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    audiences = bench.plan(UNIDIRECTIONAL).audiences
    async with subscribed(bench, bench.keys.stream(audiences[0])) as bells:
        call = _calls.delete_printer(bench.keys, "d", 0, "laser-3", audiences)
        await bench.done((bench.other, call))
        message = None
        while message is None:
            message = await bells.get_message(timeout=5)
    ((_, entry),) = read_bell(message["data"])
    assert entry is not None
    assert entry.is_release
    assert (entry.text("printer"), entry.text("deletion")) == ("laser-3", "d")


# unregister ------------------------------------------------------------------------------------


async def test_the_end_of_its_printer_is_told_to_the_holder(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()))
    changes = await bench.does(bench.other, bench.unregister(kind="delete"))
    assert changes["to:<listener>"] == {
        "added": [{"event": "ended", "registration": "r", "why": "printer deleted"}]
    }
    assert changes["registrations"] is None


async def test_nobody_is_told_of_what_the_holder_ended(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()))
    changes = await bench.does(bench.listener, bench.unregister())
    assert "to:<listener>" not in changes


async def test_a_release_is_no_notification_to_a_send(bench: Bench) -> None:
    """It takes a number: the room of who has not taken it back yet is one less."""
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=2)),
        (bench.other, bench.delete_printer()),
        (bench.source, bench.uni_send(1, body("fits"))),
    )
    assert await bench.ask(bench.source, bench.uni_send(2)) == ["FAILURE"]
    assert await bench.ask(bench.listener, bench.take(2, 1)) == ["OK", "3"]
    assert await bench.ask(bench.source, bench.uni_send(3)) == ["OK"]
