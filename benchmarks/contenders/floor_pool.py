"""The floor of a pool: one consumer group, of which each listener's process is a consumer.

It reads up to 64 entries, and acknowledges them in the write of the next read.
"""

from __future__ import annotations

import contextlib

import hiredis

from benchmarks.contenders.floor import BATCH, Connection, FloorListener, FloorSource
from benchmarks.contenders.program import Heard, main

GROUP = "pool"


class PoolListener(FloorListener):
    """Consumers of one group."""

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """The first process makes the group."""
        for subject in subjects:
            for _ in range(each):
                connection = await self._connect()
                with contextlib.suppress(hiredis.ReplyError):  # another process made it
                    await connection.call("XGROUP", "CREATE", subject, GROUP, "0", "MKSTREAM")
                consumer = f"consumer-{await connection.call('CLIENT', 'ID')}"
                self._follow(_share(connection, subject, consumer, self.heard))


async def _share(connection: Connection, subject: str, consumer: str, heard: Heard) -> None:
    async def handle(data: bytes) -> None:
        heard.take(data)

    read = (
        "XREADGROUP", "GROUP", GROUP, consumer, "BLOCK", "0", "COUNT", str(BATCH),
        "STREAMS", subject, ">",
    )  # fmt: skip
    reply = await connection.call(*read)
    while True:
        entries = reply[0][1]
        for _, fields in entries:
            await handle(fields[1])
        connection.call("XACK", subject, GROUP, *(entry[0] for entry in entries))
        reply = await connection.call(*read)


if __name__ == "__main__":
    main(source=FloorSource, listener=PoolListener)
