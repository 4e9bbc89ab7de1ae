"""The wheel alone holds a dialog: everything it needs is in it, and nothing of the tests is.

It is built and installed into an environment of its own, away from the checkout; only what the
project depends on is borrowed from the environment that runs the tests.
"""

from __future__ import annotations

import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.conftest import CHECKOUT, environment, run
from tests.servers import RedisServer

PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]

DIALOG = """
import asyncio, json, sys
import broker, workers
from broker import BIDIRECTIONAL, Broker

async def main(url):
    printer, type_ = r"\\\\print01\\laser-3", "9e0b6c4e-1d2f-4a55-8c1f-0123456789ab"
    async with (
        Broker.connect(url, user="alice") as source,
        Broker.connect(url, user="alice") as desk,
    ):
        questions = await desk.register(printer, type_, style=BIDIRECTIONAL)
        async with await source.open_channel(printer, type_, style=BIDIRECTIONAL) as channel:
            await channel.send("Continue on A3?")
            offer = await questions.fetch(10)
            await offer.respond("yes")
            answer = await channel.response(10)
            await channel.close("thanks")
            closing = await offer.wait_closed(10)
    print(json.dumps({
        "broker": broker.__file__, "workers": workers.__file__, "question": offer.notification.text,
        "answer": answer.text, "reason": closing.reason.text, "path": sys.path,
    }))

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """Files of the wheel, without its own metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment, ``env``, into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    environment(folder, wheel)
    return folder


def test_every_script_is_in_the_wheel(names: set[str]) -> None:
    scripts = {
        f"broker/lua/{path.relative_to(CHECKOUT / 'lua').as_posix()}"
        for path in (CHECKOUT / "lua").rglob("*.lua")
    }
    assert scripts
    assert {name for name in names if name.endswith(".lua")} == scripts


def test_the_packages_are_whole(names: set[str]) -> None:
    files = {
        path.relative_to(CHECKOUT).as_posix()
        for package in ("broker", "workers")
        for path in (CHECKOUT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in names if not name.startswith("broker/lua/")} == files
    assert "broker/py.typed" in files, "callers see the types"


def test_nothing_else_is_in_the_wheel(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names} == {"broker", "workers"}
    tests = [name for name in names if "test" in name and name != "workers/testing.py"]
    assert not [*tests, *(name for name in names if name.endswith(".pyc"))]


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        (points,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        said = archive.read(metadata).decode()
        commands = archive.read(points).decode()
        licences = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert f"Version: {PROJECT['version']}\n" in said
    assert f"Requires-Python: {PROJECT['requires-python']}\n" in said
    for requirement in PROJECT["dependencies"]:
        assert f"Requires-Dist: {requirement.split('>')[0]}" in said
    assert "tympan = workers.cli:main" in commands
    assert licences


def test_the_wheel_alone_holds_a_dialog(elsewhere: Path, redis_server: RedisServer) -> None:
    script = elsewhere / "dialog.py"
    script.write_text(DIALOG, encoding="utf-8")
    python = elsewhere / "env" / "bin" / "python"
    said = json.loads(run(python, "-I", script, redis_server.url, cwd=elsewhere))
    assert (said["question"], said["answer"], said["reason"]) == (
        "Continue on A3?",
        "yes",
        "thanks",
    )
    for package in ("broker", "workers"):
        assert Path(said[package]).is_relative_to(elsewhere / "env"), said[package]
    assert not [path for path in said["path"] if Path(path) == CHECKOUT]


def test_the_command_is_installed(elsewhere: Path) -> None:
    tympan = elsewhere / "env" / "bin" / "tympan"
    assert PROJECT["version"] in run(tympan, "--version", cwd=elsewhere)
