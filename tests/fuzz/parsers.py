"""Everything that parses what others wrote, as functions of bytes.

Each returns for good input, and for junk raises nothing but the errors that it is listed with. The
test run feeds them by Hypothesis, ``make fuzz`` by a fuzzer that sees which lines were reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import click
from click.exceptions import Exit

from broker import Settings
from broker._address import Address
from broker._channel_facts import boards_of
from broker._entries import EntryId, read_bell, read_range
from broker._keys import Keys, parse_subject
from broker._plan import PoolPlan, RegistrationPlan
from broker._server import Server
from broker._stored import read_record
from broker.async_ui import AsyncUIReply, AsyncUIRequest
from broker.dead_letter import _letters
from broker.errors import (
    ForeignLayout,
    InvalidArgument,
    InvalidName,
    InvalidType,
    InvalidUrl,
    PayloadInvalid,
)
from broker.inventory import _facts
from broker.names import Name, parse_pool, parse_server, parse_user
from broker.notification_type import parse_type
from broker.printer_configuration import PrinterConfiguration
from broker.rights import parse_right
from tests.cups.messages import CAPTURED
from workers.cli import COMMANDS, tympan
from workers.cli.failures import USAGE, sentence, status_of
from workers.cli.line import CommandLine
from workers.cups.cupsd.event import Event
from workers.cups.cupsd.ipp import Fault, decode
from workers.cups.cupsd.names import name_of
from workers.cups.events.torn import Stream

SERVER = cast("Server", SimpleNamespace(name="print01", keys=Keys("tympan", "print01")))
"""As much of a server as reading needs."""
SETTINGS = Settings()


@dataclass(frozen=True)
class Parser:
    """One thing that parses."""

    read: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    """Good input, for a fuzzer to begin with."""

    def __call__(self, data: bytes) -> None:
        """Feed it. Raises what it must not raise."""
        said = "read"
        try:
            self.read(data)
        except self.raises as error:
            said = str(error)
        assert said, "an error says what is wrong"


def text(data: bytes) -> str:
    """As it comes from a command line: any text, with lone surrogates for bytes that are none."""
    return data.decode(errors="surrogateescape")


def fields(data: bytes) -> list[bytes]:
    """Names and values, by turns."""
    parts = data.split(b"\0")
    return parts[: len(parts) // 2 * 2]


def read_command_line(data: bytes) -> None:
    """Understand the words of a command, and do nothing: one sentence and status 2 for junk."""
    words = text(data).split("\0")
    ctx = click.Context(tympan, obj=CommandLine(), **tympan.context_settings)
    name, *rest = words
    command = tympan.get_command(ctx, sorted(COMMANDS)[len(name) % len(COMMANDS)])
    assert command is not None
    refused: Exception | None = None
    try:
        while isinstance(command, click.Group):
            inner = sorted(command.list_commands(ctx))
            ctx = click.Context(command, parent=ctx, obj=CommandLine())
            command = command.get_command(ctx, inner[len(rest) % len(inner)]) if inner else None
        if command is not None:
            command.make_context(command.name, rest, parent=ctx)
    except Exit:
        pass  # --help
    except (click.ClickException, InvalidArgument) as error:
        refused = error
    assert refused is None or (status_of(refused) == USAGE and sentence(refused))


def _record(kind: Any, data: bytes) -> object:
    return kind.of_record("print01", read_record(data, "a record"))


def _channel(data: bytes) -> object:
    flat = fields(data)
    return _facts("print01", "c", dict(zip(flat[::2], flat[1::2], strict=True)))


SUBJECT = b"laser-3|5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a01|bi|alice"
RECORD = (
    b'{"printer": "laser-3", "type": "5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a01", "style": "uni", '
    b'"user": "alice", "filter": 0, "needed": 0, "source": "", "printers": false, '
    b'"pool": "helpdesk", "buffer": 100, "everywhere": false}'
)
LETTER = (
    b"pool\0helpdesk\0registration\0~helpdesk.0\0printer\0laser-3\0type\0"
    b"5a1f6f0e-3c0b-4f0e-8f55-6a4d2f0d9a01\0style\0uni\0times\x001\0reason\0why\0at\x001000"
)
BELL = b"5-7\0channel\0c\0op\x001\0body"
CHANNEL = b"subject\0" + SUBJECT + b"\0state\0open\0by\0bob\0at\x001000\0op\x001"
BALLOON = (
    '<?xml version="1.0" ?><asyncPrintUIRequest '
    'xmlns="http://schemas.microsoft.com/2003/print/asyncui/v1/request"><v1><requestOpen>'
    '<balloonUI iconID="1" resourceDll="a.dll"><title stringID="1" resourceDll="a.dll"/>'
    '<body stringID="2" resourceDll="a.dll"/></balloonUI></requestOpen></v1></asyncPrintUIRequest>'
).encode("utf-16-le")

EVENTS = tuple(Stream().feed(CAPTURED.read_bytes()))

PARSERS = {
    "name": Parser(lambda data: Name.parse(text(data)), (InvalidName,), (rb"\\print01\laser-3",)),
    "server": Parser(lambda data: parse_server(text(data)), (InvalidName,), (b"print01",)),
    "user": Parser(lambda data: parse_user(text(data)), (InvalidName,), (b"alice",)),
    "pool": Parser(lambda data: parse_pool(text(data)), (InvalidName,), (b"helpdesk",)),
    "type": Parser(lambda data: parse_type(text(data)), (InvalidType,), (b"asyncui",)),
    "right": Parser(
        lambda data: parse_right(text(data), Name("print01")), (InvalidArgument,), (b"all",)
    ),
    "url": Parser(
        lambda data: Address.parse(text(data), SETTINGS),
        (InvalidUrl,),
        (
            b"redis://alice:secret@[::1]:6379/0?health_check_interval=5",
            b"redis+sentinel://a:1,b/master/0?sentinel_password=x",
            b"rediss+cluster://a,b:7000/0",
            b"unix:///run/redis.sock?db=1",
        ),
    ),
    "request": Parser(AsyncUIRequest.decode, (PayloadInvalid,), (BALLOON,)),
    "reply": Parser(AsyncUIReply.decode, (PayloadInvalid,), (BALLOON,)),
    "configuration": Parser(PrinterConfiguration.decode, (PayloadInvalid,), (BALLOON,)),
    "bell": Parser(read_bell, (ValueError,), (b"%d:%s2:hi" % (len(BELL), BELL),)),
    "entry id": Parser(EntryId.parse, (ValueError,), (b"5-7",)),
    "subject": Parser(lambda data: parse_subject(text(data)), (ForeignLayout,), (SUBJECT,)),
    "boards": Parser(lambda data: boards_of(SERVER, "c", text(data)), (ForeignLayout,), (SUBJECT,)),
    "registration": Parser(
        lambda data: _record(RegistrationPlan, data), (ForeignLayout,), (RECORD,)
    ),
    "pool's record": Parser(lambda data: _record(PoolPlan, data), (ForeignLayout,), (RECORD,)),
    "channel": Parser(_channel, (ForeignLayout,), (CHANNEL,)),
    "letter": Parser(
        lambda data: _letters(SERVER, [(b"5-7", fields(data))]), (ForeignLayout,), (LETTER,)
    ),
    "range": Parser(
        lambda data: [one.sent for one in read_range([(b"5-7", fields(data))])],
        (ValueError,),
        (LETTER,),
    ),
    "ipp": Parser(decode, (Fault,), EVENTS),
    "event": Parser(Event.decode, (Fault,), EVENTS),
    "event stream": Parser(
        lambda data: [Event.decode(whole) for whole in Stream().feed(data)],
        (Fault,),
        (b"".join(EVENTS),),
    ),
    "queue": Parser(
        lambda data: Name.parse(str(name_of(Name("print01"), text(data)))),
        (InvalidName,),
        ("büro, 2".encode(),),
    ),
    "command line": Parser(
        read_command_line, (), (rb"send" + b"\0" + rb"\\print01\a" + b"\0--text\0x",)
    ),
}
"""By name."""
