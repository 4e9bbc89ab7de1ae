"""The journal, for code that must not wait: all that is done with it is done in one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from workers.cups.events.journal import Journal, JournalFault
from workers.cups.file import Place

T = TypeVar("T")


class Keeping:
    """Opens the journal when it is needed, and anew where it failed or was put aside."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._journal: Journal | None = None
        self._thread = ThreadPoolExecutor(1, "journal")

    async def do(self, what: Callable[[Journal], T]) -> T:
        """What this returns; raises JournalFault where it does. Once called, it is done."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, self._do, what))

    def _do(self, what: Callable[[Journal], T]) -> T:
        if self._journal is not None and not self._journal.is_current:
            self._close()
        if self._journal is None:
            self._journal = Journal(self.place.journal, most=self.place.max_events)
        try:
            return what(self._journal)
        except JournalFault:
            self._close()
            raise

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    async def close(self) -> None:
        """Close it."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
