"""A stream of notifications is trimmed to what somebody has still to receive.

One process drops for all. The facts of all groups are long where many listen, so a process that
finds nothing left does not ask for them, and where something is left each asks as often as its
share of the groups is large.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from broker import Broker, Channel, Payload, Registration
from broker._entries import by_name
from broker._reader import Reader
from broker.results import S_OK
from tests.farm import PRINTER, TYPE, Farm
from tests.redis.scenes import bodies, heard, until

LARGE = bytes(30_000)
NEVER = 300.0
"""No process keeps house by the clock meanwhile."""


class Process:
    """One that listens, keeps house when it is told to, and notes what it asked."""

    def __init__(self, broker: Broker, registrations: list[Registration[Payload]]) -> None:
        self.broker = broker
        self.registrations = registrations

    @classmethod
    async def start(cls, farm: Farm, count: int = 1) -> Process:
        """With so many registrations."""
        broker = await farm.broker(resync=NEVER)
        return cls(broker, [await broker.register(PRINTER, TYPE) for _ in range(count)])

    async def hear(self, body: bytes) -> None:
        """By every registration."""
        assert [await heard(each) for each in self.registrations] == [body] * len(
            self.registrations
        )

    async def reader(self) -> Reader:
        """Of the stream on which something arrived."""
        readers = (await self.broker.server(PRINTER)).listening.readers.values()
        (found,) = (reader for reader in readers if reader.position.number)
        return found

    async def keep_house(self, patch: pytest.MonkeyPatch) -> list[str]:
        """What it asked of the stream meanwhile."""
        server = await self.broker.server(PRINTER)
        plain, asked, key = server.command, list[str](), (await self.reader()).key

        async def noted(*command: Any, **options: Any) -> Any:
            if key in command:
                asked.append(" ".join(command[: command.index(key)]))
            return await plain(*command, **options)

        with patch.context() as patched:
            patched.setattr(server, "command", noted)
            await server.listening.keep_house()
        return asked


async def told(farm: Farm, body: bytes, *processes: Process) -> Channel:
    """A source's channel, on which this was sent; they heard it, and Redis knows."""
    channel = await (await farm.broker()).open_channel(PRINTER, TYPE)
    assert await channel.send(body) == S_OK
    for process in processes:
        await process.hear(body)
    await is_known(processes[0])
    return channel


async def length(process: Process) -> int:
    """Of the stream that it listens to."""
    server = await process.broker.server(PRINTER)
    return int(await server.command("XLEN", (await process.reader()).key))


async def is_known(process: Process) -> None:
    """Wait until Redis knows that every group has received everything."""
    server = await process.broker.server(PRINTER)
    key = (await process.reader()).key

    async def holds() -> bool:
        stream = by_name(await server.command("XINFO", "STREAM", key))
        groups = await server.command("XINFO", "GROUPS", key)
        return {by_name(each)[b"last-delivered-id"] for each in groups} == {
            stream[b"last-generated-id"]
        }

    await until(holds)


async def bodies_stay(farm: Farm) -> bool:
    """Whether there are bodies, and none of them ends within the hour."""
    return min((await bodies(farm)).values(), default=0) > 3_600_000


async def test_what_everybody_received_is_dropped_by_one(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await Process.start(farm), await Process.start(farm)
    await told(farm, b"paper", first, second)

    monkeypatch.setattr(random, "random", lambda: 0.49)
    assert await first.keep_house(monkeypatch) == ["XINFO STREAM", "XINFO GROUPS", "XTRIM"]
    assert await length(first) == 0
    assert await second.keep_house(monkeypatch) == ["XINFO STREAM"], "somebody dropped it"
    assert await first.keep_house(monkeypatch) == []
    assert await second.keep_house(monkeypatch) == []


async def test_each_asks_as_often_as_its_share_of_the_groups_is_large(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = await Process.start(farm, 1), await Process.start(farm, 9)
    await told(farm, b"paper", small, large)

    monkeypatch.setattr(random, "random", lambda: 0.1)
    assert await small.keep_house(monkeypatch) == ["XINFO STREAM"]
    assert await length(small) == 1
    monkeypatch.setattr(random, "random", lambda: 0.09)
    assert await small.keep_house(monkeypatch) == ["XINFO STREAM", "XINFO GROUPS", "XTRIM"]
    assert await length(small) == 0

    await told(farm, b"toner", small, large)
    monkeypatch.setattr(random, "random", lambda: 0.89)
    assert await large.keep_house(monkeypatch) == ["XINFO STREAM", "XINFO GROUPS", "XTRIM"]


async def test_what_somebody_has_not_received_stays(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, slow = await Process.start(farm), await Process.start(farm)
    (registration,) = slow.registrations
    channel = await told(farm, b"paper", quick, slow)
    reader = await slow.reader()
    await reader.pause()
    assert await channel.send(LARGE) == S_OK
    await quick.hear(LARGE)

    monkeypatch.setattr(random, "random", lambda: 0.0)
    assert "XTRIM" in await quick.keep_house(monkeypatch)
    assert await length(quick) == 1, "the first is dropped, the second not"
    assert await bodies_stay(farm)
    reader.resume()
    assert await heard(registration) == LARGE
    await is_known(slow)
    assert "XTRIM" in await quick.keep_house(monkeypatch)
    assert await length(quick) == 0


async def test_who_does_not_ask_lets_the_bodies_go_of_what_others_dropped(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the stream is not empty."""
    asking, other, slow = [await Process.start(farm) for _ in range(3)]
    channel = await told(farm, LARGE, asking, other, slow)
    reader = await slow.reader()
    await reader.pause()
    assert await channel.send(b"paper") == S_OK
    await asking.hear(b"paper")
    await other.hear(b"paper")
    monkeypatch.setattr(random, "random", lambda: 0.0)
    assert "XTRIM" in await asking.keep_house(monkeypatch)
    assert await length(asking) == 1
    for key in await bodies(farm):
        await farm.client.expire(key, 86_400)

    monkeypatch.setattr(random, "random", lambda: 0.99)
    assert await other.keep_house(monkeypatch) == ["XINFO STREAM"]
    assert not await bodies_stay(farm)
    reader.resume()


async def test_what_arrives_meanwhile_keeps_its_body(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream was empty when Redis answered, and is not any more."""
    first, second = await Process.start(farm), await Process.start(farm)
    channel = await told(farm, b"paper", first, second)
    monkeypatch.setattr(random, "random", lambda: 0.0)
    await first.keep_house(monkeypatch)

    server = await second.broker.server(PRINTER)
    plain, key = server.command, (await second.reader()).key

    async def then_sent(*command: Any, **options: Any) -> Any:
        answer = await plain(*command, **options)
        if command == ("XINFO", "STREAM", key):
            monkeypatch.setattr(server, "command", plain)
            assert await channel.send(LARGE) == S_OK
            await second.hear(LARGE)
        return answer

    monkeypatch.setattr(server, "command", then_sent)
    await server.listening.keep_house()
    assert await bodies_stay(farm), "the other process has not dropped the entry yet"
