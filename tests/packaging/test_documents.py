"""The samples that a newcomer runs first do what their document says."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.commands import CHECKOUT, Process, Tympan
from tests.servers import RedisServer

PRINTER = r"\\print01\laser-3"


def sample(document: str, mark: str, language: str = "python") -> str:
    """The one block of a language in a document that has this in it."""
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    (found,) = [
        block for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if mark in block
    ]
    return str(found)


class Shell:
    """A Redis of one's own, the command beside it, and files that are run."""

    def __init__(self, url: str, folder: Path) -> None:
        self.tympan = Tympan(url)
        self._url = url
        self._folder = folder
        self._started: list[Process] = []

    async def run(self, code: str) -> Process:
        """Start a file of this code."""
        file = self._folder / "sample.py"
        file.write_text(code, encoding="utf-8")
        process = Process((str(file),), (sys.executable, "-u"), self._folder)
        self._started.append(process)
        environment = os.environ | {"TYMPAN_URL": self._url, "PYTHONPATH": str(CHECKOUT)}
        return await process.start(environment, asyncio.subprocess.DEVNULL)

    async def clean_up(self) -> None:
        """End what still runs."""
        for process in self._started:
            await process.clean_up()
        await self.tympan.clean_up()


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    with RedisServer() as server:
        made = Shell(server.url, tmp_path)
        yield made
        await made.clean_up()


async def test_the_first_dialog_in_python(shell: Shell) -> None:
    process = await shell.run(sample("README.md", "async def print_component"))
    assert await process.ended() == 0, process.notes
    assert "alice says True" in process.lines
    first = [line for line in process.lines if line.endswith(" was first")]
    assert len(first) == 1, "one of the two devices, and it says which"


async def test_the_plain_listener_survives_the_deletion_of_its_printer(shell: Shell) -> None:
    code = sample("README.md", "class TonerLow")
    (type_,) = re.findall(r'type="(.+?)"', code)
    process = await shell.run(code)
    send = ("send", PRINTER, "--type", type_, "--user", "alice", "--json", "--text")
    while (await shell.tympan.run(*send, "no toner")).answer["result"] != "S_OK":
        assert process.notes == ""
    await shell.tympan.run("printer", "delete", PRINTER)
    await shell.tympan.run(*send, '{"colour": "cyan"}')
    await process.until(lambda: len(process.lines) >= 2, "second line")
    assert process.lines[0].startswith("not understood: no TonerLow"), process.lines
    assert process.lines[-1] == rf"{PRINTER} cyan"


async def test_a_ported_component(shell: Shell) -> None:
    code = sample("docs/interfaces.md", "class Callback")
    own = code.replace('connect("redis://localhost", user=', "connect(user=")
    assert own != code
    process = await shell.run(own)
    await process.until(lambda: bool(process.lines), "status")
    await shell.tympan.run(
        *("listen", PRINTER, "--type", "sample-ui", "--as", "alice"),
        *("--respond", "Yes, on A3", "--count", "1"),
    )
    assert await process.ended() == 0, process.notes
    assert process.lines == ["S:NO_LISTENERS (0x00040007)", "answered: b'Yes, on A3'"]


async def test_the_unit_tests_of_a_worker(tmp_path: Path) -> None:
    page = "docs/workers.md"
    for name, code in {
        "desk.py": sample(page, "def out_of_paper(question"),
        "test_desk.py": sample(page, "TestFarm("),
        "pyproject.toml": sample(page, "pytest", "toml"),
    }.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    process = Process(("-q",), (sys.executable, "-m", "pytest"), tmp_path)
    await process.start(os.environ | {"PYTHONPATH": str(CHECKOUT)}, asyncio.subprocess.DEVNULL)
    assert await process.ended() == 0, process.lines
    assert process.lines[-1].startswith("4 passed"), process.lines
