"""The example of docs/extending.md is a package: installed beside the wheel, Tympan knows it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.commands import Place, Tympan
from tests.packaging.conftest import CHECKOUT, build, environment
from tests.servers import RedisServer

EXAMPLE = CHECKOUT / "examples" / "toner_alerts"


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment, ``env``, that has the wheel and the example."""
    folder = tmp_path_factory.mktemp("example")
    environment(folder, wheel, build(EXAMPLE, tmp_path_factory.mktemp("example-dist")))
    return folder


@pytest.fixture
async def tympan(elsewhere: Path, redis_server: RedisServer) -> AsyncIterator[Tympan]:
    """The command that is installed there."""
    async with Tympan(
        redis_server.url, (str(elsewhere / "env" / "bin" / "tympan"),), elsewhere
    ) as made:
        yield made


@pytest.fixture
def place() -> Place:
    """A print server of this test's own."""
    return Place()


def test_what_the_document_shows_is_what_the_example_has() -> None:
    """Whoever copies the one and reads the other finds the same names in both."""
    shown = (CHECKOUT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = [part.split("\n", 1) for part in shown.split("```")[1::2]]
    model, bridge = (text for language, text in blocks if language == "python")
    declared = "".join(text for language, text in blocks if language == "toml")
    package = EXAMPLE / "toner_alerts"
    for text, file in (
        (model, package / "notification.py"),
        (bridge.split("    async def run")[0], package / "bridge.py"),
        (declared, EXAMPLE / "pyproject.toml"),
    ):
        has = file.read_text(encoding="utf-8").splitlines()
        own = [line for line in text.splitlines() if line not in has]
        assert [line for line in own if not line.startswith("from ")] == [], file


async def test_both_extensions_are_found(tympan: Tympan) -> None:
    listed = await tympan.run("extensions", "--json")
    assert [
        (record["kind"], record["name"], record["package"], record["fault"])
        for record in listed.events
    ] == [
        ("type", "toner", "toner-alerts 1.0", None),
        ("bridge", "toner-log", "toner-alerts 1.0", None),
    ]


async def test_its_type_is_sent_heard_and_answered(tympan: Tympan, place: Place) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", "toner", "--as", "alice"),
        *("--respond", '{"order": true}', "--count", "1"),
    )
    send = ("send", place.printer, "--type", "toner", "--user", "alice", "--json", "--wait", "20")
    refused = await tympan.run(*send, "--text", '{"colour": "pink"}', status=3)
    assert "no TonerLow: colour" in refused.answer["message"]
    sent = await tympan.run(*send, "--text", '{"colour": "black"}')
    assert sent.answer["response"]["payload"] == {"order": True}
    told = await listener.event("notification")
    assert told["payload"] == {"colour": "black", "level": 0}
    assert await listener.ended() == 0


async def test_its_bridge_tells_what_is_written_to_a_log(
    tympan: Tympan, place: Place, tmp_path: Path
) -> None:
    told = await tympan.run("bridge", "run", "toner-log", "--help")
    assert any("--user USER " in line for line in told.lines)
    log = tmp_path / "toner"
    log.write_text("laser-3 black 1\n", encoding="utf-8")
    listener = await tympan.listening(
        *(place.printer, "--type", "toner", "--as", "alice", "--count", "2")
    )
    bridge = await tympan.start(
        *("bridge", "run", "toner-log", "--server", place.server, "--user", "alice", str(log))
    )
    await bridge.note(f"following {log}")
    with log.open("a", encoding="utf-8") as lines:
        lines.write("laser-3 cyan 80\nlaser-3 pink 2\n\\ black 2\nlaser-3 cyan 7\nlaser-3 mag")
        lines.flush()
        await listener.event("notification")
        lines.write("enta 8\n")
    assert await listener.ended() == 0
    assert [event["payload"] for event in listener.events[1:]] == [
        {"colour": "cyan", "level": 7},
        {"colour": "magenta", "level": 8},
    ], "what was there before is old, and toner that lasts is no news"
    assert bridge.notes.count("not understood") == 2, "the bridge goes on"
    bridge.signal(signal.SIGTERM)
    assert await bridge.ended() == 0
    assert "Traceback" not in bridge.notes
