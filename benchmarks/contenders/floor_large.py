"""The floor of large bodies: a SET, an entry that names it, and a GET by each listener."""

from __future__ import annotations

import asyncio

from benchmarks.contenders.floor import Connection, FloorListener, FloorSource
from benchmarks.contenders.program import Heard, main


class LargeListener(FloorListener):
    """Listeners, each blocked in a read of its own."""

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """Groups are named anew, so that processes may share a subject."""
        for subject in subjects:
            for _ in range(each):
                connection = await self._connect()
                group = f"group-{await connection.call('CLIENT', 'ID')}"
                await connection.call("XGROUP", "CREATE", subject, group, "$", "MKSTREAM")
                self._follow(_hear(connection, subject, group, self.heard))


async def _hear(connection: Connection, subject: str, group: str, heard: Heard) -> None:
    read = ("XREADGROUP", "GROUP", group, "me", "BLOCK", "0", "COUNT", "1", "STREAMS", subject, ">")
    while True:
        [[_, [[entry, (_, key)]]]] = await connection.call(*read)
        heard.take(await connection.call("GET", key))
        connection.call("XACK", subject, group, entry)


class LargeSource(FloorSource):
    """Writes a body once."""

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self._written = 0

    async def send(self, index: int, data: bytes) -> None:
        """SET and XADD in one write."""
        call, subject = self.connection.call, self._subjects[index % len(self._subjects)]
        self._written += 1
        key = f"{subject}-{self._written}"
        await asyncio.gather(
            call("SET", key, data, "EX", 60), call("XADD", subject, "*", "body", key)
        )


if __name__ == "__main__":
    main(source=LargeSource, listener=LargeListener)
