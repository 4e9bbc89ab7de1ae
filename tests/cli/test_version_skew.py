"""Versions side by side: a rolling upgrade runs old and new scripts on one Redis.

The other version is the commit before this one, where the checkout knows it and it has workers;
otherwise this one with every script changed, so that Redis runs two of each.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import signal
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker import BIDIRECTIONAL
from tests.cli.commands import CHECKOUT, PATIENCE, TYPE, Process, Tympan
from tests.cli.test_worker import Desk
from tests.servers import RedisServer

PACKAGES = ("broker", "lua", "workers")


def other_version(folder: Path) -> None:
    """Put the packages of another version into a folder."""
    git = subprocess.run(
        ["git", "archive", "HEAD~1", "--", *PACKAGES],
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
    )
    if git.returncode == 0:
        with tarfile.open(fileobj=io.BytesIO(git.stdout)) as archive:
            archive.extractall(folder, filter="data")
        if (folder / "workers" / "runner.py").is_file():
            return
    for package in PACKAGES:
        shutil.rmtree(folder / package, ignore_errors=True)
        shutil.copytree(CHECKOUT / package, folder / package)
    for script in (folder / "lua").glob("*.lua"):
        script.write_text(script.read_text() + "-- of another version\n")


class Skewed(Desk):
    """A desk with workers of two versions."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        super().__init__(folder, redis)
        other = folder / "other"
        other.mkdir()
        other_version(other)
        self.other = Tympan(redis.url, cwd=folder, environment={"PYTHONPATH": str(other)})

    async def other_worker(self) -> Process:
        """A worker of the other version that serves."""
        process = await self.other.start("worker", "desk_module:worker", *self.settings)
        await process.note("is served")
        return process


@pytest.fixture
async def skewed(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Skewed]:
    """The desk; its processes end with the test."""
    made = Skewed(tmp_path, redis_server)
    yield made
    await asyncio.gather(made.tympan.clean_up(), made.other.clean_up())


async def test_the_other_version_is_another_one(skewed: Skewed) -> None:
    process = await skewed.other_worker()
    new = await skewed.worker()
    assert str(skewed.folder / "other") in _imported_from(process.pid)
    assert str(skewed.folder / "other") not in _imported_from(new.pid)


def _imported_from(pid: int) -> str:
    """The environment of a process, which says where it imports from."""
    return Path(f"/proc/{pid}/environ").read_bytes().decode()


async def test_workers_of_two_versions_share_a_pool(skewed: Skewed) -> None:
    skewed.lease = 30.0  # a lease that lapses on a busy machine hands out again
    old, new = await skewed.other_worker(), await skewed.worker()
    await skewed.notify(*(str(i) for i in range(300)))
    done = await skewed.noted("done", 300)
    assert len({note.split()[1] for note in done}) == 300
    assert {note.split()[3] for note in done} == {str(old.pid), str(new.pid)}
    assert all(note.split()[2] == "1" for note in done), "nothing was delivered twice"


@pytest.mark.parametrize("old_first", [True, False], ids=["old to new", "new to old"])
async def test_one_version_carries_on_what_the_other_held(skewed: Skewed, old_first: bool) -> None:
    first = await (skewed.other_worker() if old_first else skewed.worker())
    await skewed.notify(*["hold"] * 5)
    await skewed.noted("begun hold 1", 5)
    broker = await skewed.broker()
    channel = await broker.open_channel(skewed.place.printer, TYPE, style=BIDIRECTIONAL)
    await channel.send("one")
    assert (await channel.response(PATIENCE)).text == f"{first.pid} one"
    second = await (skewed.worker() if old_first else skewed.other_worker())
    first.signal(signal.SIGKILL)
    skewed.let_go()
    await skewed.noted(f"done hold 2 {second.pid}", 5)
    await channel.send("two")
    assert (await channel.response(PATIENCE)).text == f"{second.pid} two"
    await broker.close()
