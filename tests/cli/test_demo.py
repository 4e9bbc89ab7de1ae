"""The demonstration succeeds, tells its story, and notices what is not as promised."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.cli.commands import CHECKOUT
from workers.demo import CHANGE, QUESTION, BrokenPromise, Demonstration, Transcript
from workers.embedded import free_port


async def demonstrate(**environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workers.demo"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | environment,
        cwd=CHECKOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.slow
async def test_succeeds_and_tells_the_story() -> None:
    status, text = await demonstrate()
    assert status == 0, text
    for part in (
        r"tympan listen '\\print01\laser-3' --type asyncui --as alice --ask",
        r"tympan send '\\print02\plotter-1' --type printer-configuration",
        "gets one answer",
        "answered first",
        "Printer.Configuration.DuplexUnit:Installed = true",
        "ACCESS_DENIED",
        "gets the answer: button 1, from carol",
        "All of this was as promised, and checked",
        "tympan up",
        "in three terminals; in each of them first type `. ",
    ):
        assert part in text
    assert "\x1b" not in text, "no colours where no terminal is"


async def test_fails_clearly_without_a_redis_server(tmp_path: Path) -> None:
    status, text = await demonstrate(PATH=str(tmp_path))
    assert status == 1
    assert "NOT AS PROMISED: redis-server was not found" in text
    assert "Traceback" not in text


async def test_notices_a_promise_that_is_not_kept() -> None:
    demonstration = Demonstration(f"redis://127.0.0.1:{free_port()}/0", Transcript())
    with pytest.raises(BrokenPromise, match=r"grant .* succeeds \(its exit status was 5\)"):
        await demonstration.run()


def test_documents_are_what_the_types_say() -> None:
    for document, root in ((QUESTION, "asyncPrintUIRequest"), (CHANGE, "Notification")):
        data = document.read_bytes()
        text = data.removeprefix(b"\xff\xfe").decode("utf-16-le")
        assert text.startswith("<?xml"), f"{document.name} is UTF-16LE"
        assert ET.fromstring(data).tag.endswith("}" + root)
