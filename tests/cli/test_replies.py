"""Questions of the type ``asyncui`` at the command line: what is typed becomes the reply."""

from __future__ import annotations

import json
import signal
from typing import Any, cast

import pytest

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    Broker,
    Channel,
    Notification,
    Offer,
    Payload,
    Registration,
)
from broker.async_ui import (
    CANCEL,
    OK,
    AsyncUIRequest,
    Balloon,
    Button,
    CloseRequest,
    CustomUI,
    CustomUIReply,
    MessageBox,
    MessageBoxReply,
)
from broker.errors import PayloadInvalid
from broker.names import Name
from broker.notification_type import ASYNC_UI
from tests.cli.commands import PATIENCE, Place, Tympan
from tests.cli.conftest import Brokers
from tests.farm import PRINTER, TYPE, Farm, OutOfPaper
from tests.redis.scenes import QUIET
from workers.cli.answering import Always
from workers.cli.listening import Listening
from workers.cli.output import Output
from workers.cli.replies import choices, reply_to

BOX = MessageBox(
    title="Tray 2 is empty", body="Print on A3?", buttons=[OK, CANCEL, Button(id=7, string_id=5)]
)


def question(data: bytes, model: type[Payload] | None = AsyncUIRequest) -> Notification[Payload]:
    type_ = ASYNC_UI if model is None else model.notification_type
    return Notification(type_, data, "c0ffee", Name("print01", "laser-3"), "alice", 1.5, model)


@pytest.mark.parametrize(
    ("typed", "number"),
    [("1", 1), (" 2 ", 2), ("7", 7), ("ok", 1), ("IDOK", 1), ("Cancel", 2), ("idcancel", 2)],
)
def test_a_button_of_the_box_is_the_reply(typed: str, number: int) -> None:
    reply = reply_to(question(BOX.encode()), typed)
    assert isinstance(reply, MessageBoxReply)
    assert reply.button == number


@pytest.mark.parametrize("typed", ["3", "yes", "1.0", "", "01", "-1", "5"])
def test_what_is_no_button_of_the_box_is_refused(typed: str) -> None:
    with pytest.raises(PayloadInvalid, match=r"no button .*: it has 1 \(OK\), 2 \(Cancel\) or 7"):
        reply_to(question(BOX.encode()), typed)


def test_the_prompt_lists_the_buttons() -> None:
    assert choices(question(BOX.encode())) == "1 (OK), 2 (Cancel) or 7"
    only = MessageBox(title="Tray 2", body="is empty", buttons=[OK])
    assert choices(question(only.encode())) == "1 (OK)"
    assert choices(question(b"A4?")) == ""


def test_code_of_the_driver_is_answered_in_text() -> None:
    asked = question(CustomUI(dll="ui.dll", entrypoint="Ask", bidi=True).encode())
    assert reply_to(asked, "<paper/>") == CustomUIReply(text="<paper/>")
    with pytest.raises(PayloadInvalid, match=r"no CustomUIReply: text: .*U\+0001"):
        reply_to(asked, "\x01")


def test_what_takes_no_answer_gets_none() -> None:
    with pytest.raises(PayloadInvalid, match="CloseRequest takes no answer"):
        reply_to(question(CloseRequest().encode()), "1")


def test_anything_else_is_answered_with_what_was_typed() -> None:
    assert reply_to(question(b"Load A4?"), "yes") == b"yes"
    assert reply_to(question(Balloon(title="a", body="b").encode()), "yes") == b"yes", (
        "it is none for this style"
    )
    assert reply_to(question(BOX.encode(), None), "\udcff yes") == b"\xff yes", (
        "by the GUID these are bytes"
    )
    asked = question(OutOfPaper(tray=2).encode(), OutOfPaper)
    assert asked.type == TYPE
    assert reply_to(asked, '{"proceed": true}') == b'{"proceed": true}'
    with pytest.raises(PayloadInvalid, match="no Answer"):
        reply_to(asked, "yes")


# Listening --------------------------------------------------------------------------------------


async def ask(source: Broker, name: str, user: str = "alice") -> Channel:
    channel = await source.open_channel(name, MessageBox, user=user, style=BIDIRECTIONAL)
    await channel.send(BOX)
    return channel


def _lost(payload: bytes) -> None:
    """A bell that nobody hears."""


async def offered(registration: Registration[AsyncUIRequest]) -> Offer[AsyncUIRequest]:
    offer = await registration.fetch(PATIENCE)
    assert isinstance(offer, Offer)
    return offer


async def test_a_source_reads_the_reply(tympan: Tympan, place: Place, broker: Brokers) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", "asyncui", "--as", "alice", "--respond", "2", "--count", "1")
    )
    channel = await ask(await broker("source"), place.printer)
    response = await channel.response(PATIENCE)
    assert response.payload == MessageBoxReply(button=2)
    assert (response.by, response.is_final) == ("alice", True), "a reply ends the dialog"
    assert await listener.ended() == 0
    assert listener.kinds == ["registered", "notification", "responded", "closed"]
    _, _, responded, closed = listener.events
    assert responded["result"] == "S_OK"
    assert (closed["by"], closed["acquired"]) == ("alice", False)


async def test_an_answer_that_does_not_fit_leaves_the_question_to_others(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", "asyncui", "--as", "alice", "--respond", "9", "--count", "1")
    )
    channel = await ask(await broker("source"), place.printer)
    assert await listener.ended() == 0
    assert listener.kinds == ["registered", "notification", "declined"]
    assert "has no button '9'" in listener.notes
    other = await (await broker("alice")).register(
        place.printer, AsyncUIRequest, style=BIDIRECTIONAL
    )
    await (await offered(other)).close(MessageBoxReply(button=OK))
    assert (await channel.response(PATIENCE)).payload == MessageBoxReply(button=1)


async def test_a_person_is_asked_again(tympan: Tympan, place: Place, broker: Brokers) -> None:
    listener = await tympan.listening(
        *(place.printer, "--type", "asyncui", "--as", "alice", "--ask", "--count", "1")
    )
    channel = await ask(await broker("source"), place.printer)
    await listener.note("answer as alice, 1 (OK), 2 (Cancel) or 7 (an empty line declines)")
    listener.type("3")
    await listener.note("has no button '3'")
    listener.type("7")
    assert (await channel.response(PATIENCE)).payload == MessageBoxReply(button=7)
    assert await listener.ended() == 0


async def test_a_reply_that_lost_its_race_says_who_won(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    admin = await broker("bob")
    await admin.grant(place.printer, "source", "administer")
    quick = await admin.register(place.printer, AsyncUIRequest, style=BIDIRECTIONAL)
    listener = await tympan.listening(
        *(place.printer, "--type", "asyncui", "--as", "alice", "--respond", "1", "--count", "1")
    )
    listener.signal(signal.SIGSTOP)
    source = await broker("source")
    channel = await source.open_channel(
        place.printer, MessageBox, user_filter=ALL_USERS, style=BIDIRECTIONAL
    )
    await channel.send(BOX)
    await (await offered(quick)).close(MessageBoxReply(button=CANCEL))
    response = await channel.response(PATIENCE)
    assert (response.by, response.payload) == ("bob", MessageBoxReply(button=2))
    listener.signal(signal.SIGCONT)
    assert await listener.ended() == 0
    told = listener.events[2:]
    assert [(each["event"], each.get("result")) for each in told] == [
        ("responded", "CHANNEL_ACQUIRED"),
        ("closed", None),
    ]
    assert (told[-1]["by"], told[-1]["acquired"]) == ("bob", True)


async def test_a_reply_that_lost_before_it_was_told_so_asks_who_won(
    real_farm: Farm, capsys: pytest.CaptureFixture[str]
) -> None:
    source = await real_farm.administrator("source", PRINTER, **QUIET)
    late, quick = [await real_farm.broker(user, **QUIET) for user in ("alice", "bob")]
    ours = await late.register(PRINTER, AsyncUIRequest, style=BIDIRECTIONAL)
    theirs = await quick.register(PRINTER, AsyncUIRequest, style=BIDIRECTIONAL)
    channel = await source.open_channel(
        PRINTER, MessageBox, user_filter=ALL_USERS, style=BIDIRECTIONAL
    )
    await channel.send(BOX)
    offer, winning = await offered(ours), await offered(theirs)
    for reader in (await late.server(PRINTER)).listening.readers.values():
        reader.ring = _lost  # type: ignore[method-assign]
    await winning.close(MessageBoxReply(button=CANCEL))
    listening = Listening(cast(Any, ours), Output(as_json=True), Always("1"), 1)
    await listening._follow(cast(Any, offer))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["event"] for each in told] == ["notification", "responded", "closed"]
    assert told[1]["result"] == "CHANNEL_ACQUIRED"
    assert (told[2]["by"], told[2]["acquired"]) == ("bob", True)


async def test_the_shell_asks_and_reads_the_reply(
    tympan: Tympan, place: Place, broker: Brokers
) -> None:
    registration = await (await broker("alice")).register(
        place.printer, AsyncUIRequest, style=BIDIRECTIONAL
    )
    send = await tympan.start(
        *("send", place.printer, "--type", "asyncui", "--user", "alice", "--wait", "20"),
        *("--file", "workers/demo_documents/message_box.xml", "--json"),
    )
    await (await offered(registration)).close(MessageBoxReply(button=OK))
    assert await send.ended() == 0
    response = send.answer["response"]
    assert (response["by"], response["model"], response["payload"]) == (
        "alice",
        "MessageBoxReply",
        {"button": 1},
    )
