"""``tympan up``: a private Redis, from its first line to its end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
import redis

from tests.cli.commands import Tympan
from workers.embedded import free_port


def pid_at(url: str) -> int:
    """The process that answers there."""
    with redis.Redis.from_url(url) as client:
        return int(client.info("server")["process_id"])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_runs_until_interrupted(tympan: Tympan, number: signal.Signals) -> None:
    up = await tympan.start("up", "--json")
    await up.until(lambda: bool(up.lines), "URL")
    url = up.answer["url"]
    pid = pid_at(url)
    used = await tympan.run("channels", url=url)
    assert "no channel is open" in used.notes
    up.signal(number)
    assert await up.ended() == 0
    assert not is_alive(pid), "its Redis ends with it"
    assert up.answer == {"url": url}


async def test_line_to_paste_port_and_data(tympan: Tympan, tmp_path: Path) -> None:
    port, data = free_port(), tmp_path / "data"
    words = ("up", "--port", str(port), "--data", str(data))
    up = await tympan.start(*words)
    url = f"redis://127.0.0.1:{port}/0"
    await up.until(lambda: f"export TYMPAN_URL={url}" in up.lines, "line to paste")
    assert any(url in line and str(data) in line for line in up.lines[:1])
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    taken = await tympan.run("up", "--port", str(port), "--json", status=3)
    assert str(port) in taken.answer["message"]
    assert taken.answer["error"] == "REDIS_NOT_STARTED"
    up.signal()
    assert await up.ended() == 0

    again = await tympan.start(*words)
    await again.until(lambda: bool(again.lines), "line")
    with redis.Redis.from_url(url, decode_responses=True) as client:
        assert client.get("kept") == "yes", "--data keeps the data"
    again.signal()
    assert await again.ended() == 0


async def test_redis_that_ends_by_itself_ends_it(tympan: Tympan) -> None:
    up = await tympan.start("up", "--json")
    await up.until(lambda: bool(up.lines), "URL")
    await asyncio.to_thread(os.kill, pid_at(up.answer["url"]), signal.SIGKILL)
    assert await up.ended() == 3
    assert "ended by itself" in up.notes
