"""Tympan's pools, as a user has them: a worker, and a replica of it in each listener's process.

The form says how many handlers one replica runs at the same time (``--concurrency``).
"""

from __future__ import annotations

from benchmarks.contenders.program import Listener, main
from benchmarks.contenders.tympan import TYPE, USER, TympanSource, name_of
from broker import Broker, Notification
from workers import Worker
from workers.runner import Runner

BUFFER = 1_000_000
"""Unfinished notifications that the pool holds."""


class PoolListener(Listener):
    """One replica."""

    def __init__(self, url: str, form: str) -> None:
        super().__init__(url, form)
        self._broker = Broker.connect(url, user=USER)
        self._runner: Runner | None = None

    async def start(self) -> None:
        """Connect."""
        await self._broker.start()

    async def listen(self, subjects: list[str], each: int, handler: str) -> None:
        """A worker that handles all subjects; ``each`` is 1, and its handlers are coroutines."""
        if each != 1 or handler != "async":
            raise ValueError("a process is one replica, and its handlers are coroutines")
        worker = Worker("bench")
        for subject in subjects:

            @worker.listen(name_of(subject), TYPE, buffer=BUFFER)
            async def handle(notification: Notification) -> None:  # type: ignore[type-arg]
                self.heard.take(notification.body)

        self._runner = Runner(worker, self._broker, concurrency=int(self.form))
        await self._runner.start()

    async def stop(self) -> None:
        """Drain, and leave the pool."""
        if self._runner is not None:
            await self._runner.stop()
        await self._broker.close()


if __name__ == "__main__":
    main(source=TympanSource, listener=PoolListener)
