"""What each script does where somebody deleted keys that it needs: nothing is half done."""

from __future__ import annotations

from typing import Any

import pytest

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Style
from tests.scripts.bench import ADMINISTRATORS, BOARD, MINE, Bench, body


async def forget(bench: Bench, *keys: str) -> None:
    """Delete keys of the bench's server, as it names them."""
    head = bench.keys.meta.removesuffix("meta")
    for key in keys:
        assert await bench.farm.client.delete(head + key), key


def stream_of(bench: Bench, *, board: bool) -> str:
    (audience, *_) = bench.plan(BIDIRECTIONAL if board else UNIDIRECTIONAL).audiences
    return bench.keys.stream(audience).removeprefix(bench.keys.meta.removesuffix("meta"))


async def test_a_take_makes_the_stream_again(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register(style=UNIDIRECTIONAL)))
    await forget(bench, stream_of(bench, board=False))
    changes = await bench.does(bench.listener, bench.take(2, 1))
    assert changes[f"stream:{MINE}"]["groups"] == {"T:alice:r": "E-0"}
    assert changes[f"room:{MINE}"] == {"T:alice:r": "3.0"}


@pytest.mark.parametrize("board", [True, False])
async def test_a_registration_without_its_stream_ends(bench: Bench, *, board: bool) -> None:
    style = BIDIRECTIONAL if board else UNIDIRECTIONAL
    before = await bench.dump()
    await bench.done((bench.listener, bench.register(style=style)))
    await forget(bench, stream_of(bench, board=board))
    await bench.done((bench.listener, bench.unregister(style=style)))
    assert bench.changes(before, await bench.dump()) == {}


async def test_a_registration_without_its_record_ends_once(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()), (bench.listener, bench.register("s")))
    await forget(bench, "registrations")
    assert await bench.ask(bench.listener, bench.unregister()) == ["GONE"]
    assert await bench.farm.client.hvals(bench.keys.counts) == [b"1"], "one of two is left"
    assert await bench.refuses(bench.listener, bench.unregister()) == ["GONE"]
    (board, *_) = bench.plan().audiences
    (group,) = await bench.farm.client.xinfo_groups(bench.keys.stream(board))
    assert group["name"].endswith(b":s")


async def test_a_registration_without_its_record_is_nobodys_to_revoke(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()))
    await forget(bench, "registrations")
    assert await bench.refuses(bench.other, bench.unregister(kind="revoke")) == ["GONE"]


async def test_counts_that_are_gone_do_not_begin_below_nought(bench: Bench) -> None:
    await bench.done((bench.listener, bench.register()))
    await forget(bench, "counts")
    await bench.done((bench.listener, bench.unregister()))
    assert not await bench.farm.client.exists(bench.keys.counts)


async def test_a_question_whose_channel_is_gone_leaves_its_boards(bench: Bench) -> None:
    """Its source finds out; others' questions stay, whatever they say."""
    await bench.offered()
    another = bench.offer(sent=body("c"), channel="d")
    await bench.done((bench.source, bench.open("d")), (bench.source, another))
    await forget(bench, "channel:c")
    assert await bench.refuses(bench.other, bench.source_close(0, "abandon")) == ["GONE"]
    changes = await bench.changed_by(bench.source, bench.source_close(0, "abandon"))
    assert changes["channels"] == {"c": None}
    assert changes["held:<source>"] == {"channel:c": None}
    assert changes["channel:c:log"] == {"expires": True}
    for board in (BOARD, ADMINISTRATORS):
        assert changes[f"stream:{board}"] == {"removed": 1}
    for stream in bench.route("d").streams:
        left: Any = await bench.farm.client.xrange(stream)
        assert [entry[b"channel"] for _, entry in left] == [b"d"]
    assert await bench.refuses(bench.source, bench.source_close(0, "abandon")) == ["GONE"]


@pytest.mark.parametrize("style", Style)
async def test_streams_know_their_numbers_where_somebody_deleted_them(
    bench: Bench, style: Style
) -> None:
    """The next entry follows the last one."""
    is_question = style is BIDIRECTIONAL
    await bench.done((bench.listener, bench.register(style=style, buffer=9)))
    for number in (1, 2, 3):
        if number == 3:
            await forget(bench, "streams")
        channel = f"c{number}" if is_question else "c"
        if is_question or number == 1:
            await bench.done((bench.source, bench.open(channel, style=style)))
        send = bench.offer(channel=channel) if is_question else bench.uni_send(number)
        changes = await bench.does(bench.source, send)
        audience = BOARD if is_question else MINE
        assert changes["streams"][audience] == str(number)
        assert len(changes[f"stream:{audience}"]["added"]) == 1


async def test_a_new_registration_goes_on_where_the_stream_is(bench: Bench) -> None:
    await bench.done(
        (bench.listener, bench.register(style=UNIDIRECTIONAL, buffer=9)),
        (bench.source, bench.open(style=UNIDIRECTIONAL)),
        (bench.source, bench.uni_send(1)),
    )
    await forget(bench, "streams")
    word, known, number, room, *_ = await bench.ask(
        bench.listener, bench.register("s", style=UNIDIRECTIONAL, buffer=9)
    )
    assert (word, known, number, float(room)) == ("OK", "0", "1", 10.0)
