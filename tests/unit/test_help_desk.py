"""The example help desk, and the public test client that runs it."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Notification
from broker.errors import ChannelAlreadyClosed, ResponseTimeout
from tests.farm import PRINTER, SERVER, TYPE, Answer, OutOfPaper
from workers import EVERYWHERE, CloseDialog, Decline, Outcome, PutAside, RetryLater, Worker
from workers.testing import TestFarm

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "help_desk"


@pytest.fixture
def help_desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The example, in a folder where it may write."""
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module("help_desk")
    del sys.modules["help_desk"]


def test_the_example_is_short() -> None:
    assert len((EXAMPLE / "help_desk.py").read_text().splitlines()) < 40


async def test_the_example_answers_declines_and_orders(
    help_desk: ModuleType, tmp_path: Path
) -> None:
    async with TestFarm(help_desk.worker, user="helpdesk", patience=1.0) as farm:
        answer = await farm.ask(PRINTER, help_desk.OutOfPaper(tray=2))
        assert answer == help_desk.Answer(proceed=True)
        with pytest.raises(ResponseTimeout):
            await farm.ask(PRINTER, help_desk.OutOfPaper(tray=1))
        assert await farm.notify(PRINTER, help_desk.SupplyLow(supply="toner", percent=5)) == "done"
        assert [outcome for _, outcome in farm.outcomes] == [
            Outcome.RESPONDED,
            Outcome.DECLINED,
            Outcome.DONE,
        ]
    orders = tmp_path / "orders.txt"
    assert await asyncio.to_thread(orders.read_text) == f"{PRINTER} toner 5%\n"


# The test client ---------------------------------------------------------------------------------


async def test_a_farm_grants_what_handlers_stand_on_and_has_a_server_for_those_everywhere() -> None:
    worker = Worker("desk")
    heard: list[str] = []

    @worker.listen(EVERYWHERE, TYPE, user_filter=ALL_USERS)
    async def on_servers(notification: Notification) -> None:  # type: ignore[type-arg]
        heard.append(notification.text)

    @worker.listen(PRINTER, TYPE, user_filter=ALL_USERS)
    def on_printers(notification: Notification) -> None:  # type: ignore[type-arg]
        heard.append(notification.text)

    async with TestFarm(worker) as farm:
        assert await farm.notify(SERVER, "one", TYPE) is Outcome.DONE
        assert await farm.notify(PRINTER, b"two", TYPE) is Outcome.DONE
    assert heard == ["one", "two"]


async def test_a_dialog_can_be_gone_on_with() -> None:
    worker = Worker("desk", user="alice")

    @worker.listen(PRINTER, OutOfPaper, style=BIDIRECTIONAL)
    async def handle(paper: OutOfPaper) -> Answer:
        if paper.tray == 9:
            raise CloseDialog
        return Answer(proceed=paper.tray == 1)

    async with TestFarm(worker) as farm:
        channel = await farm.question(PRINTER, OutOfPaper(tray=1))
        assert (await channel.response(5)).payload == Answer(proceed=True)
        await channel.send(OutOfPaper(tray=9))
        with pytest.raises(ChannelAlreadyClosed):
            await channel.response(5)


async def test_each_notification_is_told_its_own_outcome() -> None:
    worker = Worker("desk", user="alice")
    go_on = asyncio.Event()

    @worker.listen(PRINTER, TYPE)
    async def note(notification: Notification) -> None:  # type: ignore[type-arg]
        if notification.text == "slow":
            await go_on.wait()
        elif notification.text == "again":
            raise RetryLater(0.0 if go_on.is_set() else 60.0)
        elif notification.text == "bad":
            go_on.set()
            raise PutAside("nobody can read it")

    @worker.listen(PRINTER, OutOfPaper, style=BIDIRECTIONAL)
    async def answer(paper: OutOfPaper) -> Answer:
        if paper.tray == 9:
            raise Decline
        return Answer(proceed=True)

    async with TestFarm(worker, patience=1.0) as farm:
        assert await farm.ask(PRINTER, OutOfPaper(tray=1)) == Answer(proceed=True)
        assert await farm.notify(PRINTER, "good", TYPE) is Outcome.DONE
        assert await farm.notify(PRINTER, "again", TYPE) is Outcome.RETRIED
        with pytest.raises(ResponseTimeout):
            await farm.ask(PRINTER, OutOfPaper(tray=9))
        slow = asyncio.create_task(farm.notify(PRINTER, "slow", TYPE))
        await asyncio.sleep(0.1)
        assert await farm.notify(PRINTER, "bad", TYPE) is Outcome.DEAD
        assert await slow is Outcome.DONE
        assert await farm.notify(PRINTER, "again", TYPE) is Outcome.RETRIED
        assert await farm.notify(PRINTER, "good", TYPE) is Outcome.DONE
        letters = await farm.broker.dead_letters.on_server(SERVER)
        assert {letter.data: letter.reason for letter in letters}[b"bad"] == "nobody can read it"


async def test_nobody_who_hears_is_told_apart_from_a_slow_one() -> None:
    worker = Worker("desk", user="alice")
    worker.listen(PRINTER, TYPE)(lambda: None)
    async with TestFarm(worker, patience=0.1) as farm:
        with pytest.raises(TimeoutError):
            await farm.notify(SERVER, "nobody", TYPE)
        with pytest.raises(ValueError, match="type="):
            await farm.notify(PRINTER, "what?")
