"""The poller: printers that are asked themselves, and what of it is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.cups.eveprinter import EvePrinter
from tests.unit.test_proxy import until
from workers.cups.cupsd.client import (
    Client,
    Forbidden,
    Misspoken,
    NotFound,
    PrinterFacts,
    Refused,
    Unreachable,
)
from workers.cups.cupsd.ipp import Group, Tag, decode, encode
from workers.cups.events.levels import Told
from workers.cups.events.poller import Poller, address_of, seen_in, supplies_in
from workers.cups.types import PrinterStatus, Supply


class Printer:
    """One that answers what a test says."""

    def __init__(self) -> None:
        self.state = 3
        self.reasons = ["none"]
        self.attributes: dict[str, tuple[int, Any]] = {}
        self.answer: bytes | None = None
        self.status = 200
        self.asked = 0
        self.uri = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.asked += 1
        if request.method != "POST":
            return web.Response(status=405)
        question = decode(await request.read())
        assert question.first(Tag.OPERATION).one("printer-uri", str) == self.uri
        body = self.answer
        if body is None:
            attributes = {
                "printer-state": (Tag.ENUM, self.state),
                "printer-state-reasons": (Tag.KEYWORD, self.reasons),
                **self.attributes,
            }
            body = encode(0, question.request_id, [(Tag.OPERATION, {}), (Tag.PRINTER, attributes)])
        return web.Response(status=self.status, body=body, content_type="application/ipp")


@pytest.fixture
async def printer() -> AsyncIterator[Printer]:
    made = Printer()
    server = web.Server(made.handle)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    made.uri = f"ipp://127.0.0.1:{port}/ipp/print"
    yield made
    await runner.cleanup()


class Cups(Client):
    """One that knows its queues without a cupsd."""

    def __init__(self, *queues: PrinterFacts) -> None:
        super().__init__("127.0.0.1:1", user="root", timeout=5)
        self.queues = list(queues)

    async def printers(self) -> list[PrinterFacts]:
        return self.queues


class Farm:
    """What was sent."""

    def __init__(self) -> None:
        self.told: list[PrinterStatus] = []

    async def send(self, told: list[Told]) -> None:
        for one in told:
            assert isinstance(one.payload, PrinterStatus)
            assert one.user is None
            self.told.append(one.payload)


def queue(name: str, uri: str, state: Any = "idle") -> PrinterFacts:
    return PrinterFacts(name, uri, state, (), True, "", Group(Tag.PRINTER))


def poller_of(cups: Cups, farm: Any, every: float = 60) -> Poller:
    return Poller(cups, farm, "print01", every=every)


async def test_a_printer_is_told_when_it_changes(printer: Printer) -> None:
    farm = Farm()
    async with Cups(queue("laser-3", f"tympan:{printer.uri}")) as cups:
        poller = poller_of(cups, farm)
        await poller.look()
        await poller.look()
        assert len(farm.told) == 1
        printer.state, printer.reasons = 5, ["media-empty-error", "none"]
        printer.attributes["marker-names"] = (Tag.NAME, ["Black"])
        printer.attributes["marker-levels"] = (Tag.INTEGER, [12])
        await poller.look()
        printer.reasons = ["none"]
        await poller.look()
    first, empty, refilled = farm.told
    assert (first.source, first.state, first.host) == ("printer", "idle", "print01")
    assert (empty.state, empty.added, empty.severity) == ("stopped", ["media-empty-error"], "error")
    assert empty.supplies == [Supply(name="Black", level=12)]
    assert refilled.cleared == ["media-empty-error"]
    assert len({one.event for one in farm.told}) == 3


@pytest.mark.parametrize("uri", ["ipp://[printer/ipp", "ipp://printer..example/ipp"])
async def test_an_address_that_is_none_is_a_printer_that_does_not_answer(uri: str) -> None:
    farm = Farm()
    async with Cups(queue("laser-3", f"tympan:{uri}")) as cups:
        with pytest.raises(Unreachable):
            await cups.printer_at(uri)
        poller = poller_of(cups, farm)
        await poller.look()
        await poller.look()
        assert [one.reasons for one in farm.told] == [["offline-warning"]]
        del cups.queues[0]
        await poller.look()
    assert not poller._failures
    assert not poller._seen


async def test_who_prints_is_not_asked_and_who_cannot_be(printer: Printer) -> None:
    farm = Farm()
    queues = (
        queue("busy", printer.uri, "processing"),
        queue("file", "file:///dev/null"),
        queue("class", ""),
        queue("dnssd", "dnssd://Laser._ipp._tcp.local/"),
    )
    async with Cups(*queues) as cups:
        await poller_of(cups, farm).look()
    assert printer.asked == 0
    assert farm.told == []


async def test_a_printer_that_does_not_answer_twice_is_offline(printer: Printer) -> None:
    farm = Farm()
    async with Cups(queue("laser-3", printer.uri)) as cups:
        poller = poller_of(cups, farm)
        await poller.look()
        printer.status = 503
        await poller.look()
        assert len(farm.told) == 1
        await poller.look()
        await poller.look()
        printer.status = 200
        await poller.look()
    assert [one.reasons for one in farm.told] == [[], ["offline-warning"], []]
    assert farm.told[2].cleared == ["offline-warning"]


async def test_a_queue_that_is_gone_is_forgotten(printer: Printer) -> None:
    farm = Farm()
    async with Cups(queue("laser-3", printer.uri)) as cups:
        poller = poller_of(cups, farm)
        await poller.look()
        here, cups.queues = cups.queues, []
        await poller.look()
        cups.queues = here
        await poller.look()
    assert len(farm.told) == 2


async def test_it_looks_every_so_often_or_never(printer: Printer) -> None:
    async with Cups(queue("laser-3", printer.uri)) as cups:
        await poller_of(cups, Farm(), every=0).run()
        assert printer.asked == 0
        task = asyncio.create_task(poller_of(cups, Farm(), every=0.01).run())
        await until(lambda: printer.asked >= 3)
        task.cancel()
        await asyncio.wait([task])


async def test_what_answers_something_else_is_an_error(printer: Printer) -> None:
    async with Cups() as cups:
        printer.answer = b"<html>"
        with pytest.raises(Misspoken, match="speaks no IPP"):
            await cups.printer_at(printer.uri)
        for status, kind in ((0x0401, Forbidden), (0x0406, NotFound), (0x0500, Refused)):
            said = {"status-message": (Tag.TEXT, "no such thing")}
            printer.answer = encode(status, 1, [(Tag.OPERATION, said)])
            with pytest.raises(kind, match="no such thing") as caught:
                await cups.printer_at(printer.uri)
            assert caught.value.status == status
        printer.status = 401
        with pytest.raises(Forbidden):
            await cups.printer_at(printer.uri)
        printer.status = 302
        with pytest.raises(Refused, match="HTTP status 302"):
            await cups.printer_at(printer.uri)


@pytest.mark.parametrize(
    "uri", ["lpd://host/", "ipp://host:port/", "nonsense", "ipp://127.0.0.1:1/ipp/print", "ipp://"]
)
async def test_what_is_not_there_is_unreachable(uri: str) -> None:
    async with Cups() as cups:
        with pytest.raises(Unreachable):
            await cups.printer_at(uri)


async def test_an_answer_that_never_comes_is_not_waited_for() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with Client("127.0.0.1:1", user="root", timeout=0.2) as cups:
            with pytest.raises(Unreachable):
                await cups.printer_at(f"ipp://127.0.0.1:{silent.getsockname()[1]}/")


def test_addresses() -> None:
    assert address_of("tympan:ipp://x/ipp") == "ipp://x/ipp"
    assert address_of("ipps://x/") == "ipps://x/"
    assert address_of("socket://x:9100") is None
    assert address_of("tympan:socket://x") is None
    assert address_of("") is None


def group(**attributes: list[Any]) -> Group:
    return Group(Tag.PRINTER, {name.replace("_", "-"): v for name, v in attributes.items()})


def test_supplies_by_markers() -> None:
    found = supplies_in(
        group(
            marker_names=["K", "W", "?", "M"], marker_levels=[40, 130, -2], marker_types=["toner"]
        )
    )
    assert found == [
        Supply(name="K", level=40, kind="toner"),
        Supply(name="W", level=100),
        Supply(name="?", level=None),
        Supply(name="M", level=None),
    ]


def test_supplies_by_the_printers_own_description() -> None:
    octets = [
        b"index=1;type=toner;maxcapacity=200;level=50;colorantname=black;",
        b"type=wasteToner;maxcapacity=-2;level=-3",
        b"level=x;;=;type",
        b"\xff\0",
    ]
    found = supplies_in(group(printer_supply=octets, printer_supply_description=["Black Toner"]))
    assert found == [
        Supply(name="Black Toner", level=25, kind="toner"),
        Supply(name="wasteToner", level=None, kind="wasteToner"),
        Supply(name="", level=None),
        Supply(name="", level=None),
    ]


def test_what_a_printer_may_say_is_bounded() -> None:
    found = supplies_in(group(marker_names=["x" * 5000] * 5000))
    assert len(found) == 64
    assert len(found[0].name) == 1024


async def test_a_real_printer() -> None:
    farm = Farm()
    with contextlib.ExitStack() as stack:
        eve = stack.enter_context(EvePrinter("Laser"))
        async with Cups(queue("laser-3", eve.uri)) as cups:
            poller = poller_of(cups, farm)
            await poller.look()
            await asyncio.to_thread(eve.empty)
            await asyncio.to_thread(eve.supply, 4)
            await poller.look()
            seen = seen_in(await cups.printer_at(eve.uri))
    before, after = farm.told
    assert any(reason.startswith("media-empty") for reason in after.added)
    assert any(supply.level == 4 for supply in after.supplies)
    assert before.supplies != after.supplies
    assert tuple(after.supplies) == seen.supplies
