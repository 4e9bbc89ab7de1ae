"""The post: who gives an alert is told what became of it, and nobody is asked too often."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.actors import eventually
from tests.relay.alerts import alert
from workers.relay.allowance import Allowance
from workers.relay.destination import NotNow, Refused
from workers.relay.pile import Batch
from workers.relay.post import Post
from workers.verdict import PutAside, RetryLater

PATIENCE = 30.0


class Box:
    """A destination that takes messages, or does what a test says."""

    name = "box.test:1"

    def __init__(self) -> None:
        self.messages: list[list[str]] = []
        self.faults: deque[Exception] = deque()
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.is_closed = False

    async def send(self, batch: Batch[Any]) -> None:
        self.begun.set()
        await self.gate.wait()
        if self.faults:
            raise self.faults.popleft()
        self.messages.append([item.alert.id for item in batch.items])

    async def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def box() -> Box:
    return Box()


Posts = Any


@pytest.fixture
async def posts(box: Box) -> AsyncIterator[Posts]:
    """Makes posts to the box, and closes them."""
    made: list[Post] = []

    def make(most: int = 0, **how: Any) -> Post:
        options = {"window": 600.0, "first_pause": 0.02} | how
        made.append(Post(box, Allowance(most, 1), **options))
        return made[-1]

    yield make
    for post in made:
        await post.close()


async def ended(work: asyncio.Task[None]) -> None:
    async with asyncio.timeout(PATIENCE):
        await work


async def test_whoever_tells_waits_until_it_is_told(box: Box, posts: Posts) -> None:
    post = posts()
    box.gate.clear()
    telling = asyncio.create_task(post.tell(alert(1)))
    await box.begun.wait()
    assert not telling.done()
    box.gate.set()
    await ended(telling)
    assert box.messages == [["event-1"]]


async def test_what_came_meanwhile_is_one_digest(box: Box, posts: Posts) -> None:
    post = posts(most=3600)
    box.gate.clear()
    first = asyncio.create_task(post.tell(alert(1, subject="1")))
    await box.begun.wait()
    others = [asyncio.create_task(post.tell(alert(n, subject=str(n)))) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    box.gate.set()
    await ended(first)
    for other in others:
        await ended(other)
    assert box.messages == [["event-1"], ["event-2", "event-3", "event-4"]]


async def test_alerts_beyond_the_allowance_are_in_the_log(
    posts: Posts, caplog: pytest.LogCaptureFixture
) -> None:
    post = posts(most=1)
    await post.tell(alert(1, subject="1"))
    assert not caplog.records
    others = [asyncio.create_task(post.tell(alert(n, subject=str(n)))) for n in (2, 3)]
    await eventually(lambda: bool(caplog.records), "a line of the log")
    (record,) = caplog.records
    assert "alerts wait, to be told together in 3600 s" in record.getMessage()
    post.end()
    for other in others:
        with pytest.raises(RetryLater):
            await ended(other)
    assert len(caplog.records) == 1


async def test_a_repeat_is_done_with_at_once(box: Box, posts: Posts) -> None:
    post = posts()
    for number in (1, 2, 3):
        await post.tell(alert(number))
    assert box.messages == [["event-1"]]


async def test_later(box: Box, posts: Posts) -> None:
    post = posts()
    box.faults.extend([NotNow("busy"), NotNow("busy"), NotNow("busy", 900.0)])
    pauses = []
    for _ in range(3):
        with pytest.raises(RetryLater, match=r"box.test:1: busy") as found:
            await post.tell(alert(1))
        pauses.append(found.value.after)
    assert pauses == [0.02, 0.04, 900.0]
    assert not box.messages


async def test_a_trouble_that_is_over_when_they_take_messages_again(box: Box, posts: Posts) -> None:
    """Its pool hands it out again after its all-clear, of nothing told, was acknowledged."""
    post = posts()
    box.faults.append(NotNow("away"))
    with pytest.raises(RetryLater):
        await post.tell(alert(1))
    await ended(asyncio.create_task(post.tell(alert(2, ""))))
    await ended(asyncio.create_task(post.tell(alert(1))))
    await post.tell(alert(3, subject="other"))
    assert box.messages == [["event-3"]]


async def test_an_all_clear_after_an_answer_that_was_lost(box: Box, posts: Posts) -> None:
    post = posts(timeout=0.02)
    box.gate.clear()
    with pytest.raises(RetryLater):
        await post.tell(alert(1))
    box.gate.set()
    await ended(asyncio.create_task(post.tell(alert(2, ""))))
    await ended(asyncio.create_task(post.tell(alert(1))))
    assert box.messages == [["event-2"]], "they may have had the trouble"


async def test_pauses_end(box: Box, posts: Posts, caplog: pytest.LogCaptureFixture) -> None:
    post = posts()
    box.faults.append(NotNow("busy"))
    with pytest.raises(RetryLater):
        await post.tell(alert(1))
    await ended(asyncio.create_task(post.tell(alert(2))))
    assert box.messages == [["event-2"]]
    assert "box.test:1 takes no messages: busy" in caplog.text
    assert "box.test:1 takes messages again" in caplog.text


async def test_pauses_have_a_bound(box: Box, posts: Posts) -> None:
    post = posts(first_pause=200.0)
    box.faults.extend([NotNow("x", 1e9)])
    with pytest.raises(RetryLater) as found:
        await post.tell(alert(1))
    assert found.value.after == 3600.0


async def test_never(box: Box, posts: Posts) -> None:
    post = posts()
    box.faults.append(Refused("550 spam"))
    with pytest.raises(PutAside, match=r"box.test:1: 550 spam"):
        await post.tell(alert(1))
    await post.tell(alert(2))
    assert box.messages == [["event-2"]], "the next one is offered at once"


async def test_a_destination_that_takes_too_long(box: Box, posts: Posts) -> None:
    post = posts(timeout=0.02)
    box.gate.clear()
    with pytest.raises(RetryLater, match=r"did not answer in 0\.02 s"):
        await post.tell(alert(1))


async def test_a_fault_of_a_destination_is_no_loss(
    box: Box, posts: Posts, caplog: pytest.LogCaptureFixture
) -> None:
    post = posts()
    box.faults.append(KeyError("x"))
    with pytest.raises(RetryLater, match="KeyError"):
        await post.tell(alert(1))
    assert "Traceback" in caplog.text


async def test_who_is_broken_off_is_not_told(box: Box, posts: Posts) -> None:
    post = posts(most=3600)
    box.gate.clear()
    first = asyncio.create_task(post.tell(alert(1, subject="1")))
    await box.begun.wait()
    second = asyncio.create_task(post.tell(alert(2, subject="2")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})
    box.gate.set()
    await ended(first)
    await post.tell(alert(3, subject="3"))
    assert box.messages == [["event-1"], ["event-3"]]


async def test_the_end_hands_back_what_waits_and_finishes_what_is_on_its_way(
    box: Box, posts: Posts
) -> None:
    post = posts(most=1)
    box.gate.clear()
    on_its_way = asyncio.create_task(post.tell(alert(1, subject="1")))
    await box.begun.wait()
    waiting = asyncio.create_task(post.tell(alert(2, subject="2")))
    await asyncio.sleep(0)
    post.end()
    with pytest.raises(RetryLater) as found:
        await ended(waiting)
    assert found.value.after == 0
    with pytest.raises(RetryLater):
        await post.tell(alert(3))
    box.gate.set()
    await ended(on_its_way)
    assert box.messages == [["event-1"]]
    await post.close()
    assert box.is_closed


async def test_a_fault_of_the_post_itself_leaves_nobody_waiting(
    box: Box, posts: Posts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    post = posts()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    for method in ("told", "next"):
        with monkeypatch.context() as patch:
            patch.setattr(f"workers.relay.pile.Pile.{method}", fail)
            with pytest.raises(RetryLater):
                await post.tell(alert(1))
    assert "ZeroDivisionError" in caplog.text
    await post.tell(alert(2))
    assert box.messages[-1] == ["event-2"]
