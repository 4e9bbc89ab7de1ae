"""Asking again, and telling once that somebody waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from broker import _waiting
from broker._waiting import LinkLost, until_answered
from broker.errors import RedisRefused, RedisUnreachable

PATIENCE = 0.3


@pytest.fixture(autouse=True)
def told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[pytest.LogCaptureFixture]:
    """What is told, where a moment is short."""
    monkeypatch.setattr(_waiting, "MOMENT", 0.02)
    monkeypatch.setattr(_waiting, "LONG", 0.1)
    with caplog.at_level(logging.WARNING, "tympan"):
        yield caplog


class Redis:
    """Answers in the end, or never."""

    def __init__(self, *failures: Exception, endless: bool = False) -> None:
        self.failures = list(failures)
        self.endless = endless

    async def ask(self) -> str:
        if self.failures:
            failure = self.failures[0] if self.endless else self.failures.pop(0)
            raise failure
        return "here"


async def test_it_asks_again_until_there_is_an_answer() -> None:
    redis = Redis(RedisUnreachable("loading"), LinkLost("cut"))
    assert await until_answered(redis.ask, "redis://a", PATIENCE) == "here"


@pytest.mark.parametrize("error", [RedisUnreachable("gone"), LinkLost("cut")])
async def test_the_last_failure_is_raised_when_patience_is_over(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        await until_answered(Redis(error, endless=True).ask, "redis://a", PATIENCE)


async def test_what_is_no_weather_is_raised_at_once() -> None:
    redis = Redis(RedisRefused("no"), RedisUnreachable("never asked"))
    with pytest.raises(RedisRefused):
        await until_answered(redis.ask, "redis://a", PATIENCE)
    redis = Redis(RedisUnreachable("nobody there"), RedisUnreachable("never asked"))
    with pytest.raises(RedisUnreachable, match="nobody there"):
        await until_answered(redis.ask, "redis://a", PATIENCE, lambda: False)


async def test_any_number_of_waits_for_one_redis_are_told_once(
    told: pytest.LogCaptureFixture,
) -> None:
    gone = Redis(RedisUnreachable("no connection"), endless=True)
    for _ in range(2):
        waits = [until_answered(gone.ask, where, PATIENCE) for where in ("a", "a", "a", "b")]
        ended = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(one) for one in ended} == {RedisUnreachable}
    assert told.messages == ["waiting for up to 0.3 s: no connection"] * 4, "a and b, two times"


async def test_a_silence_without_a_reason_is_told_too(told: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await until_answered(asyncio.Event().wait, "redis://a", PATIENCE)
    assert told.messages == ["waiting for up to 0.3 s: redis://a does not answer"]


async def test_a_wait_that_cannot_take_long_is_not_told(told: pytest.LogCaptureFixture) -> None:
    gone = Redis(RedisUnreachable("no connection"), endless=True)
    with pytest.raises(RedisUnreachable):
        await until_answered(gone.ask, "redis://a", 0.09)
    assert told.messages == []
