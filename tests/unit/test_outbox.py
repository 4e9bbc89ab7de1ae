"""The outbox: what waits travels together, in order, and each has its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from broker import _outbox
from broker._calls import together
from broker._end import Answer
from broker._outbox import MOST, MOST_BYTES, Outbox, Sending
from broker.errors import BrokerClosed, OutcomeUnknown

PATIENCE = 30.0


class Post:
    """Carries sendings when the test says so, with the answers that it says."""

    def __init__(self) -> None:
        self.carried: list[list[bytes]] = []
        self.words: dict[bytes, list[str]] = {}
        """What to answer to a body, one time after another; otherwise OK."""
        self.faults: list[Exception | None] = []
        """What each call raises; nothing after the last."""
        self.open = asyncio.Event()
        self.is_closed = False
        self.tasks: list[asyncio.Task[None]] = []
        self.streams = 4
        self.outbox = Outbox(self.carry, self.spawn, lambda: self.streams)

    async def carry(self, sendings: Sequence[Sending]) -> Sequence[Answer]:
        self.carried.append([each.data for each in sendings])
        await self.open.wait()
        await asyncio.sleep(0)  # on its way
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return [Answer(self._word(each.data), "", held=True) for each in sendings]

    def _word(self, body: bytes) -> str:
        words = self.words.get(body)
        return words.pop(0) if words else "OK"

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        if self.is_closed:
            work.close()
            return None
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    def put(
        self, body: bytes, *, large: bool = False, due: float | None = None, trace: str = ""
    ) -> asyncio.Task[Answer]:
        return asyncio.create_task(self.outbox.put(Sending(body, trace, large, due)))


@pytest.fixture
async def post() -> Post:
    return Post()


async def words(puts: Sequence[asyncio.Task[Answer]]) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        return [answer.word for answer in await asyncio.gather(*puts)]


async def test_one_alone_goes_at_once(post: Post) -> None:
    post.open.set()
    assert await words([post.put(b"1")]) == ["OK"]
    assert post.tasks == [], "nothing runs beside it"
    assert await words([post.put(b"2")]) == ["OK"]
    assert post.carried == [[b"1"], [b"2"]]


async def test_what_waits_meanwhile_travels_together(post: Post) -> None:
    post.words[b"3"] = ["LOST"]
    puts = [post.put(b"%d" % n) for n in range(1, 5)]
    await asyncio.sleep(0)
    assert post.carried == [[b"1"]]
    post.open.set()
    assert await words(puts) == ["OK", "OK", "LOST", "OK"]
    assert post.carried == [[b"1"], [b"2", b"3", b"4"]]


async def test_a_call_has_its_bounds(post: Post) -> None:
    small = [post.put(b"x") for _ in range(MOST + 2)]
    big = [post.put(b"y" * (MOST_BYTES // 2)) for _ in range(3)]
    await asyncio.sleep(0)
    post.open.set()
    assert set(await words([*small, *big])) == {"OK"}
    sizes = [(len(call), sum(map(len, call))) for call in post.carried]
    assert max(many for many, _ in sizes) == MOST
    assert max(size for _, size in sizes) <= MOST_BYTES


@pytest.mark.parametrize(("streams", "most"), [(8, MOST), (64, 8), (100, 5), (10_000, 1)])
async def test_a_call_writes_no_more_entries_than_redis_has_time_for(
    post: Post, streams: int, most: int
) -> None:
    post.streams = streams
    puts = [post.put(b"x") for _ in range(MOST + 2)]
    await asyncio.sleep(0)
    post.open.set()
    assert set(await words(puts)) == {"OK"}
    assert max(map(len, post.carried)) == most


async def test_who_was_answered_just_now_sends_the_next_with_the_others(post: Post) -> None:
    async def talk() -> None:
        for _ in range(3):
            await post.outbox.put(Sending(b"x", "", is_large=False, due=None))

    post.open.set()
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as talkers:
        for _ in range(4):
            talkers.create_task(talk())
    assert list(map(len, post.carried)) == [1, 4, 4, 3]


async def test_only_what_is_alike_goes_together_and_nothing_overtakes(post: Post) -> None:
    later = asyncio.get_running_loop().time() + PATIENCE
    puts = [
        post.put(b"1"),
        post.put(b"2"),
        post.put(b"3", due=later),
        post.put(b"4", due=later),
        post.put(b"5", large=True),
        post.put(b"6"),
        post.put(b"7", trace="t"),
    ]
    await asyncio.sleep(0)
    post.open.set()
    await words(puts)
    assert post.carried == [[b"1"], [b"2"], [b"3", b"4"], [b"5"], [b"6"], [b"7"]]


async def test_what_finds_no_room_is_tried_again_before_all_that_follows(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outbox, "PAUSE", 0.001)
    post.open.set()
    later = asyncio.get_running_loop().time() + PATIENCE
    post.words = {b"1": ["FULL"], b"3": ["FULL", "FULL"], b"4": ["FULL", "FULL"]}
    puts = [post.put(b"%d" % n, due=later) for n in range(1, 5)]
    puts.append(post.put(b"5"))
    await asyncio.sleep(0)
    assert await words(puts) == ["OK"] * 5
    first = [call[0] for call in post.carried]
    assert first == [b"1", b"1", b"3", b"3", b"5"]


async def test_whoever_has_no_time_left_is_told_that_there_is_no_room(post: Post) -> None:
    post.open.set()
    post.words = {b"1": ["FULL"] * 99, b"2": ["FULL"] * 99}
    now = asyncio.get_running_loop().time()
    assert await words([post.put(b"1", due=now), post.put(b"2", due=now)]) == ["FULL", "FULL"]
    assert post.carried == [[b"1"], [b"2"]]


async def test_a_fault_is_told_to_all_who_travelled_and_the_rest_goes_on(post: Post) -> None:
    post.faults = [None, OutcomeUnknown("no answer")]
    puts = [post.put(b"%d" % n) for n in range(3)]
    await asyncio.sleep(0)
    post.open.set()
    assert await words(puts[:1]) == ["OK"]
    found = await asyncio.gather(*puts[1:], return_exceptions=True)
    assert [type(each) for each in found] == [OutcomeUnknown, OutcomeUnknown]
    assert await words([post.put(b"4")]) == ["OK"]


async def test_whoever_is_cancelled_before_its_turn_sends_nothing(post: Post) -> None:
    puts = [post.put(b"%d" % n) for n in range(3)]
    await asyncio.sleep(0)
    puts[1].cancel()
    await asyncio.wait({puts[1]})
    post.open.set()
    assert await words([puts[0], puts[2]]) == ["OK", "OK"]
    assert post.carried == [[b"0"], [b"2"]]


async def test_the_first_one_may_be_cancelled_too(post: Post) -> None:
    puts = [post.put(b"%d" % n) for n in range(3)]
    await asyncio.sleep(0)
    puts[0].cancel()
    await asyncio.wait({puts[0]})
    post.open.set()
    assert await words(puts[1:]) == ["OK", "OK"]


async def test_when_the_broker_is_closed_whoever_waits_is_told(post: Post) -> None:
    puts = [post.put(b"%d" % n) for n in range(3)]
    await asyncio.sleep(0)
    post.is_closed = True
    post.open.set()
    assert await words(puts[:1]) == ["OK"]
    found = await asyncio.gather(*puts[1:], return_exceptions=True)
    assert [type(each) for each in found] == [BrokerClosed, BrokerClosed]


async def test_when_its_task_is_ended_whoever_waits_is_told(post: Post) -> None:
    puts = [post.put(b"%d" % n) for n in range(3)]
    await asyncio.sleep(0)
    puts[0].cancel()
    await asyncio.wait({puts[0]})
    await asyncio.sleep(0)
    puts.append(post.put(b"3"))
    await asyncio.sleep(0)
    (task,) = post.tasks
    task.cancel()
    found = await asyncio.gather(*puts[1:], return_exceptions=True)
    assert {type(each) for each in found} == {BrokerClosed}


def test_bodies_travel_as_netstrings() -> None:
    assert together([b"a:b", b"", b"\x00"]).arg == b"3:a:b0:1:\x00"
