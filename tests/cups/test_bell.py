"""The bell: rung by another process, or by nobody."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from workers.cups.events.bell import Bell, share


def ring(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.sendto(b"\0", str(path))


async def test_it_wakes_who_waits_and_who_waits_next(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    async with Bell(path) as bell:
        waiting = asyncio.create_task(bell.wait(60))
        await asyncio.sleep(0)
        ring(path)
        async with asyncio.timeout(10):
            await waiting
        ring(path)
        bell.ring()
        async with asyncio.timeout(10):
            await bell.wait(60)
    assert not path.exists()


async def test_a_wait_ends_although_nobody_rings(tmp_path: Path) -> None:
    async with Bell(tmp_path / "bell") as bell:
        async with asyncio.timeout(10):
            await bell.wait(0.01)


async def test_what_a_dead_bridge_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(path))
    async with Bell(path) as bell:
        ring(path)
        async with asyncio.timeout(10):
            await bell.wait(60)


@pytest.mark.parametrize(("of_folder", "mode"), [(0o770, 0o660), (0o700, 0o600)])
async def test_those_may_ring_who_may_write_to_its_folder(
    tmp_path: Path, of_folder: int, mode: int
) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    folder.chmod(of_folder)
    async with Bell(folder / "bell"):
        assert stat.S_IMODE((folder / "bell").stat().st_mode) == mode


def test_what_somebody_put_in_its_place_is_left_alone(tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.write_text("")
    others.chmod(0o600)
    (tmp_path / "link").symlink_to(others)
    for path in (others, tmp_path / "link"):
        with pytest.raises(OSError, match=r"[Ss]ocket|symbolic"):
            share(path)
    assert stat.S_IMODE(others.stat().st_mode) == 0o600


async def test_a_path_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        async with Bell(tmp_path / ("x" * 120)):
            pytest.fail("it cannot be bound")
