r"""Testing: runs a worker's handlers in your own unit tests, on the in-memory double.

::

    async with TestFarm(worker) as farm:
        answer = await farm.ask(r"\\print01\laser-3", OutOfPaper(tray=2))
        assert answer == Answer(proceed=True)

It needs ``tympan[memory]``. What it cannot show is what a farm survives; see
:mod:`broker.memory`.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    Broker,
    Channel,
    Name,
    Payload,
    Settings,
)
from broker.memory import MemoryRedis
from broker.notification import Body
from broker.rights import Right
from workers.handling import Run
from workers.runner import Runner
from workers.verdict import Outcome
from workers.worker import Worker

PATIENCE = 5.0
_channel: ContextVar[str] = ContextVar("_channel")
"""The channel of what the run that asks was given."""


class TestFarm:
    """A farm of one worker and one source, in memory.

    Args:
        worker: whose handlers run.
        user: who the source is, and whom its channels are for.
        patience: seconds that a call waits for what the handlers do.
        server: where handlers that listen everywhere are joined.
        **settings: of the broker, see :class:`broker.Settings`.
    """

    __test__ = False  # pytest, which collects by name

    def __init__(
        self,
        worker: Worker,
        *,
        user: str = "alice",
        patience: float = PATIENCE,
        server: str = r"\\print01",
        **settings: Any,
    ) -> None:
        self.worker = worker
        self.outcomes: list[tuple[str, Outcome]] = []
        """Handler and outcome of each run, in the order in which they ended."""
        self._became: dict[str, Outcome] = {}
        """By channel, what became of the first run."""
        self._user = user
        self._patience = patience
        self._server = server
        self._settings = Settings.of(**settings)
        self._memory = MemoryRedis()
        self._ended = asyncio.Condition()
        self.broker = self._broker(user)
        """The source's broker."""
        self._workers = self._broker(worker.user or "worker")
        self.runner = _Following(worker, self._workers, telemetry=self)

    def _broker(self, user: str) -> Broker:
        return self._memory.broker(user=user, server=self._server, settings=self._settings)

    async def __aenter__(self) -> Self:
        await self.broker.start()
        await self._workers.start()
        try:
            await self.broker.server(self._server)
            await self._grant()
            await self.runner.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.runner.stop(self._patience)
        finally:
            await self._close()

    async def _close(self) -> None:
        await self._workers.close()
        await self.broker.close()

    async def _grant(self) -> None:
        """What handlers for all users stand on."""
        for handler in self.worker.handlers:
            wish = handler.subscription
            if wish.user_filter is ALL_USERS:
                name = Name.parse(wish.name, self._server)
                right = Right.PRINTER_ALL_ACCESS if name.printer else Right.SERVER_ALL_ACCESS
                await self.broker.grant(name, wish.user or self._workers.user, right)

    # Speaking to the handlers -------------------------------------------------------------------

    async def notify(
        self, name: str | Name, body: Body, type: str | UUID | type[Payload] | None = None
    ) -> Outcome:
        """Send a unidirectional notification; returns what became of it at its first run.

        ``type``: of bytes and text; a model says its own. Raises TimeoutError where no handler
        heard it, or none was done with it.
        """
        async with await self.broker.open_channel(
            name, _type(body, type), user=self._user, user_filter=PER_USER
        ) as channel:
            await channel.send(body)
            return await self._outcome_on(channel.id)

    async def ask(
        self, name: str | Name, body: Body, type: str | UUID | type[Payload] | None = None
    ) -> Any:
        """Ask a question, and close the channel; returns the answer: a model, or bytes.

        Raises ChannelAlreadyClosed where a handler closed without an answer, ResponseTimeout
        where none answered.
        """
        async with await self.question(name, body, type) as channel:
            response = await channel.response(self._patience)
            return response.data if response.model is None else response.payload

    async def question(
        self, name: str | Name, body: Body, type: str | UUID | type[Payload] | None = None
    ) -> Channel:
        """A channel on which a question was asked: a dialog to go on with."""
        channel = await self.broker.open_channel(
            name, _type(body, type), user=self._user, style=BIDIRECTIONAL
        )
        await channel.send(body)
        return channel

    async def _outcome_on(self, channel: str) -> Outcome:
        async with asyncio.timeout(self._patience), self._ended:
            await self._ended.wait_for(lambda: channel in self._became)
        return self._became[channel]

    async def _tell(self) -> None:
        async with self._ended:
            self._ended.notify_all()

    # What the runner says -----------------------------------------------------------------------

    def delivered(
        self, pool: str, handler: str, *, redelivered: bool, latency: float | None
    ) -> None:
        """See :class:`workers.runner.Witness`."""

    def handled(self, pool: str, handler: str, outcome: Outcome, seconds: float) -> None:  # noqa: ARG002
        """See :class:`workers.runner.Witness`."""
        self.outcomes.append((handler, outcome))
        self._became.setdefault(_channel.get(), outcome)
        self._telling = asyncio.ensure_future(self._tell())


class _Following(Runner):
    """A runner whose witness can tell which channel a run is of."""

    async def _run(self, run: Run) -> None:
        _channel.set(run.item.notification.channel)
        await super()._run(run)


def _type(body: Body, named: str | UUID | type[Payload] | None) -> str | UUID | type[Payload]:
    if named is not None:
        return named
    if isinstance(body, Payload):
        return type(body)
    raise ValueError("bytes and text have no type of their own: give type=")
