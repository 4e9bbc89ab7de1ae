"""Without a Redis that answers, every command ends with status 5 within a few seconds."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from tests.cli.commands import TYPE, Place, Tympan
from tests.servers import RedisServer
from workers.embedded import free_port

COMMANDS = (
    ("send", "NAME", "--type", TYPE, "--text", "hi"),
    ("listen", "NAME", "--type", TYPE, "--as", "alice"),
    ("channels",),
    ("workers",),
    ("pool", "delete", "desk"),
    ("dead", "list"),
    ("grant", "NAME", "carol", "administer"),
    ("prove", "--quick"),
)
A_FEW_SECONDS = 15.0
"""Five for the command; the rest for a busy machine."""


async def test_connection_refused(tympan: Tympan, place: Place) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    processes = await asyncio.gather(
        *(
            tympan.run(
                *(place.printer if word == "NAME" else word for word in words),
                *("--json", "--url", url),
                status=5,
            )
            for words in COMMANDS
        )
    )
    for process in processes:
        assert process.answer["error"] == "REDIS_UNREACHABLE"
        assert process.answer["hresult"] == "0x800706BA"
        assert "tympan up" in process.answer["message"], "it says what to do"
        assert url in process.notes
        assert "Traceback" not in process.notes
        assert "waiting" not in process.notes, "nobody is there to take over"


@pytest.mark.slow
async def test_connection_accepted_and_never_answered(tympan: Tympan, place: Place) -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        send = ("send", place.printer, "--type", TYPE, "--text", "hi", "--json")
        process = await tympan.run(*send, url=url, status=5)
    assert process.answer["error"] in ("REDIS_UNREACHABLE", "OUTCOME_UNKNOWN")
    assert time.monotonic() - began < A_FEW_SECONDS


@pytest.mark.slow
async def test_redis_that_dies_while_a_question_is_open(place: Place) -> None:
    with RedisServer() as server:
        tympan = Tympan(server.url)
        try:
            send = await tympan.start(
                *("send", place.printer, "--type", TYPE, "--text", "hi", "--json"),
                *("--wait", "0.5"),
            )
            await send.note("waiting for a response")
            await asyncio.to_thread(server.kill)
            assert await send.ended() == 5
            assert send.answer["error"] in ("REDIS_UNREACHABLE", "OUTCOME_UNKNOWN")
            assert "Traceback" not in send.notes
        finally:
            await tympan.clean_up()


@pytest.mark.slow
async def test_who_waits_through_an_outage_is_told_of_it(place: Place) -> None:
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as server:
        tympan = Tympan(server.url)
        try:
            listener = await tympan.listening(place.printer, "--type", TYPE, "--as", "bob")
            send = await tympan.start(
                *("send", place.printer, "--type", TYPE, "--user", "alice"),
                *("--style", "bi", "--text", "A4?", "--json"),
            )
            await send.note("waiting for a response")
            await asyncio.to_thread(server.kill)
            for process in (listener, send):
                await process.note(f"Redis does not answer; trying again ({server.url})")
            await asyncio.to_thread(server.restart)
            for process in (listener, send):
                await process.note("Redis answers again, after ")
                assert process.notes.count("Redis does not answer") == 1
        finally:
            await tympan.clean_up()


async def test_refused_credentials_are_a_refusal() -> None:
    with RedisServer() as server:
        server.config("requirepass", "secret")
        tympan = Tympan(server.url.replace("redis://", "redis://:wrong@"))
        process = await tympan.run("channels", "--json", status=3)
        await tympan.clean_up()
    assert process.answer["error"] == "ACCESS_DENIED"
    assert "wrong" not in process.notes, "no password is shown"
