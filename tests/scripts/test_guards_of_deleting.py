"""The scripts of a printer's deletion refuse without a trace, and are done once.

A channel that was closed before, or changed since its facts were read; a deletion whose reply was
lost; keys of another program: each call would succeed but for one thing.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Style
from broker._keys import Audience, Keys
from broker.errors import ForeignLayout
from tests.farm import TYPE
from tests.scripts.bench import Bench, body

KeyOf = Callable[[Keys, Bench], str]


def audience(style: Style, whom: str) -> Audience:
    return Audience("", TYPE, style, whom)


# server_close ----------------------------------------------------------------------------------


async def test_server_close_of_nothing_does_nothing(bench: Bench) -> None:
    assert await bench.refuses(bench.other, bench.server_close()) == ["GONE"]


async def test_server_close_is_done_once(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.other, bench.server_close()))
    assert await bench.refuses(bench.other, bench.server_close()) == ["OK"], "the first answer"
    assert await bench.refuses(bench.source, bench.server_close()) == ["OK"]


async def test_server_close_of_a_channel_that_an_end_closed_does_nothing(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.source, bench.source_close(2)))
    assert await bench.refuses(bench.other, bench.server_close()) == ["CLOSED", "source"]


async def test_server_close_knows_whose_channel_it_is(bench: Bench) -> None:
    await bench.offered()
    foreign = bench.server_close(holder=bench.other.session)
    assert await bench.refuses(bench.other, foreign) == ["MOVED"]


async def test_server_close_knows_who_owns_the_dialog(bench: Bench) -> None:
    await bench.offered()
    listening = bench.server_close(listening=bench.listener.session)
    assert await bench.refuses(bench.other, listening) == ["MOVED"], "nobody owns it yet"
    await bench.done((bench.listener, bench.respond()))
    assert await bench.refuses(bench.other, bench.server_close()) == ["MOVED"]
    elsewhere = bench.server_close(listening=bench.source.session)
    assert await bench.refuses(bench.other, elsewhere) == ["MOVED"]
    assert await bench.ask(bench.other, listening) == ["OK"]


async def test_server_close_knows_which_body_was_held(bench: Bench) -> None:
    """One that was sent since would never end."""
    await bench.done((bench.source, bench.open()))
    before = bench.server_close()
    stowed = await bench.large_body()
    wrong = bench.server_close(asked=stowed.key)
    assert await bench.refuses(bench.other, wrong) == ["MOVED"]
    assert await bench.ask(bench.source, bench.offer(sent=stowed)) == ["NO_LISTENERS"]
    assert await bench.refuses(bench.other, before) == ["MOVED"]
    assert await bench.ask(bench.other, bench.server_close(asked=stowed.key)) == ["OK"]


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda keys, _: keys.grants, id="grants"),
        pytest.param(lambda keys, _: keys.log("c"), id="log"),
        pytest.param(lambda keys, _: keys.streams, id="streams"),
        pytest.param(lambda keys, bench: keys.held(bench.source.session), id="sources"),
        pytest.param(lambda keys, bench: keys.inbox(bench.source.session), id="source_inbox"),
        pytest.param(lambda keys, bench: keys.held(bench.listener.session), id="dialogs"),
        pytest.param(lambda keys, bench: keys.inbox(bench.listener.session), id="owner_inbox"),
        pytest.param(lambda keys, _: keys.stream(audience(BIDIRECTIONAL, "=alice")), id="board"),
        pytest.param(lambda keys, _: keys.room(audience(BIDIRECTIONAL, "+")), id="room"),
    ],
)
async def test_server_close_is_not_half_done_on_foreign_keys(bench: Bench, key: KeyOf) -> None:
    await bench.answered()
    await bench.farm.client.delete(key(bench.keys, bench))
    await bench.farm.client.rpush(key(bench.keys, bench), "theirs")
    before = await bench.dump()
    with pytest.raises(ForeignLayout):
        await bench.ask(bench.other, bench.server_close(listening=bench.listener.session))
    assert bench.changes(before, await bench.dump()) == {}


# The ends, after it ----------------------------------------------------------------------------


async def test_neither_end_does_anything_after_a_server_close(bench: Bench) -> None:
    await bench.answered()
    await bench.done((bench.other, bench.server_close(listening=bench.listener.session)))
    source, listener, server = bench.source, bench.listener, ["CLOSED", "server"]
    assert await bench.refuses(source, bench.follow_up()) == server
    assert await bench.refuses(source, bench.source_close(2)) == server
    assert await bench.refuses(source, bench.source_close(2, "release")) == ["VIOLATION"]
    assert await bench.refuses(listener, bench.respond(2)) == server
    assert await bench.refuses(listener, bench.listener_close(2, reason=body())) == server
    assert await bench.refuses(listener, bench.listener_close(2, "release")) == ["VIOLATION"]
    late = bench.handle("late", bench.other.session)
    assert await bench.refuses(bench.other, bench.respond(handle=late)) == ["ACQUIRED", "alice"]


async def test_a_question_that_the_server_closed_cannot_be_answered(bench: Bench) -> None:
    await bench.offered()
    await bench.done((bench.other, bench.server_close()))
    assert await bench.refuses(bench.listener, bench.respond()) == ["CLOSED", "server"]
    assert await bench.refuses(bench.listener, bench.listener_close(reason=body())) == [
        "CLOSED",
        "server",
    ]


async def test_a_one_way_channel_that_the_server_closed_sends_nothing(bench: Bench) -> None:
    await bench.done(
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.listener, bench.register(style=UNIDIRECTIONAL)),
        (bench.source, bench.uni_send()),
        (bench.other, bench.server_close(style=UNIDIRECTIONAL)),
    )
    assert await bench.refuses(bench.source, bench.uni_send()) == ["OK"], "the first answer"
    assert await bench.refuses(bench.source, bench.uni_send(2)) == ["CLOSED", "server"]


# delete_printer --------------------------------------------------------------------------------


async def test_delete_printer_is_told_once(bench: Bench) -> None:
    await bench.done(
        (bench.listener, bench.register(style=UNIDIRECTIONAL)),
        (bench.other, bench.delete_printer()),
    )
    assert await bench.refuses(bench.other, bench.delete_printer()) == ["OK"], "the first answer"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda keys, _: keys.grants, id="grants"),
        pytest.param(lambda keys, _: keys.streams, id="streams"),
        pytest.param(lambda keys, _: keys.stream(audience(UNIDIRECTIONAL, "*")), id="stream"),
        pytest.param(lambda keys, _: keys.room(audience(UNIDIRECTIONAL, "*")), id="room"),
    ],
)
async def test_delete_printer_is_not_half_done_on_foreign_keys(bench: Bench, key: KeyOf) -> None:
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    await bench.farm.client.delete(key(bench.keys, bench))
    await bench.farm.client.rpush(key(bench.keys, bench), "theirs")
    before = await bench.dump()
    with pytest.raises(ForeignLayout):
        await bench.ask(bench.other, bench.delete_printer())
    assert bench.changes(before, await bench.dump()) == {}


# unregister ------------------------------------------------------------------------------------


async def test_a_registration_ends_with_its_printer_once(bench: Bench) -> None:
    delete = bench.unregister(kind="delete")
    assert await bench.refuses(bench.other, delete) == ["GONE"]
    await bench.done((bench.listener, bench.register()))
    foreign = bench.unregister(kind="delete", holder=bench.other.session)
    assert await bench.refuses(bench.other, foreign) == ["NOT_YOURS"], "a record of another holder"
    await bench.done((bench.other, delete))
    assert await bench.refuses(bench.other, delete) == ["GONE"]
