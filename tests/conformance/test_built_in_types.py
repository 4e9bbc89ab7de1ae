"""Built-in types: printer configuration is one-way and made to fit, AsyncUI is one round."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from broker import (
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Broker,
    Channel,
    Offer,
    Payload,
    Style,
    async_ui,
)
from broker.async_ui import (
    CANCEL,
    OK,
    AsyncUIReply,
    AsyncUIRequest,
    Balloon,
    Button,
    CustomUI,
    CustomUIReply,
    MessageBox,
    MessageBoxReply,
)
from broker.errors import (
    ChannelAcquired,
    ChannelAlreadyClosed,
    InvalidArgument,
    InvalidStyle,
    NotificationTooLarge,
    PayloadInvalid,
)
from broker.notification_type import ASYNC_UI, PRINTER_CONFIGURATION
from broker.printer_configuration import PrinterConfiguration, ReducedSchema, Schema
from broker.results import NO_LISTENERS, S_OK
from tests.conformance.actors import Recorder, all_heard, said, state
from tests.conformance.listening import both_styles, heard_before, notified
from tests.conformance.rules import rule
from tests.farm import PATIENCE, PRINTER, SERVER, Farm

QUESTION = MessageBox(
    title="Tray 2 is empty", body="Print on A3?", buttons=[OK, CANCEL, Button(id=7, string_id=1)]
)
LEVEL = Schema(name=r"\Printer.Layout.InputBins.Tray2:Level", value=40)
LOG = Schema(name=r"\Printer.Maintenance:Log", value="x" * 2_000)
CHANGED = PrinterConfiguration(printer_name="laser-3", changes=[LOG, LEVEL])


# Printer configuration --------------------------------------------------------------------------

Ask = Callable[[Broker], Coroutine[Any, Any, object]]


@rule(129)
@pytest.mark.parametrize(
    "ask",
    [
        lambda broker: broker.register(PRINTER, PRINTER_CONFIGURATION, style=BIDIRECTIONAL),
        lambda broker: broker.register(SERVER, "printer-configuration", style=BIDIRECTIONAL),
        lambda broker: broker.register(PRINTER, PrinterConfiguration, style=BIDIRECTIONAL),
        lambda broker: broker.listen(
            PRINTER, PRINTER_CONFIGURATION, Recorder(), style=BIDIRECTIONAL
        ),
        lambda broker: broker.register_everywhere(PRINTER_CONFIGURATION, style=BIDIRECTIONAL),
        lambda broker: broker.open_channel(PRINTER, PrinterConfiguration, style=BIDIRECTIONAL),
        lambda broker: broker.open_channel(PRINTER, PRINTER_CONFIGURATION, style=BIDIRECTIONAL),
    ],
    ids=["type", "alias", "model", "callback", "everywhere", "channel by model", "channel by type"],
)
async def test_printer_configuration_is_not_bidirectional(farm: Farm, ask: Ask) -> None:
    broker = await farm.broker("alice")
    with pytest.raises(InvalidStyle, match="unidirectional type") as refused:
        await ask(broker)
    assert refused.value.result.hresult == 0x80070057
    assert await broker.registrations() == []
    assert await broker.channels() == []


@rule(129)
async def test_the_refused_registration_object_may_register_in_the_right_style(farm: Farm) -> None:
    broker = await farm.broker("alice")
    registration = await broker.registration(PRINTER, PrinterConfiguration)
    with pytest.raises(InvalidStyle):
        await registration.register(
            PRINTER_CONFIGURATION, user="alice", user_filter=PER_USER, style=BIDIRECTIONAL
        )
    await registration.register(
        PRINTER_CONFIGURATION, user="alice", user_filter=PER_USER, style=UNIDIRECTIONAL
    )
    channel = await broker.open_channel(PRINTER, PrinterConfiguration)
    assert await channel.send(CHANGED) == S_OK
    assert (await notified(registration)).payload == CHANGED


@rule(130)
async def test_a_configuration_above_the_limit_is_reduced_until_it_fits(farm: Farm) -> None:
    limit = 2_000
    source = await farm.broker("spooler", max_payload=limit)
    registration = await (await farm.broker("alice")).register(PRINTER, PrinterConfiguration)
    channel = await source.open_channel(PRINTER, PrinterConfiguration, user="alice")
    assert len(CHANGED.encode()) > limit
    assert await channel.send(CHANGED) == S_OK
    told = await notified(registration)
    assert told.payload.changes == (ReducedSchema(name=LOG.name), LEVEL)
    assert len(told.body) < limit


@rule(130)
async def test_one_of_exactly_the_limit_is_sent_whole(farm: Farm) -> None:
    size = len(CHANGED.encode())
    registration = await (await farm.broker("alice")).register(PRINTER, PrinterConfiguration)
    for limit, sent in ((size, CHANGED), (size - 1, CHANGED.within(size - 1))):
        source = await farm.broker("spooler", max_payload=limit)
        channel = await source.open_channel(PRINTER, PrinterConfiguration, user="alice")
        assert await channel.send(CHANGED) == S_OK
        assert (await notified(registration)).payload == sent
        assert (sent == CHANGED) is (limit == size)


@rule(130)
async def test_what_cannot_be_reduced_far_enough_fails_and_changes_nothing(farm: Farm) -> None:
    source = await farm.broker("spooler", max_payload=400)
    registration = await (await farm.broker("alice")).register(PRINTER, PrinterConfiguration)
    channel = await source.open_channel(PRINTER, PrinterConfiguration, user="alice")
    many = PrinterConfiguration(printer_name="laser-3", changes=[LEVEL] * 10)
    for too_large in (many, CHANGED.encode()):
        with pytest.raises(NotificationTooLarge) as refused:
            await channel.send(too_large)
        assert refused.value.result.hresult == 0x80040012
    few = PrinterConfiguration(printer_name="laser-3", changes=[ReducedSchema(name=LEVEL.name)])
    assert await channel.send(few) == S_OK
    assert await heard_before(registration, few.encode()) == []


@rule(130)
async def test_a_document_that_does_not_comply_is_for_its_listener_to_skip(farm: Farm) -> None:
    source = await farm.broker("spooler")
    registration = await (await farm.broker("alice")).register(PRINTER, PrinterConfiguration)
    channel = await source.open_channel(PRINTER, PRINTER_CONFIGURATION, user="alice")
    for body in (b"<Notification/>", CHANGED):
        await channel.send(body)
    with pytest.raises(PayloadInvalid) as refused:
        _ = (await notified(registration)).payload
    assert refused.value.data == b"<Notification/>"
    assert (await notified(registration)).payload == CHANGED


# AsyncUI: one round -----------------------------------------------------------------------------


async def asked(
    farm: Farm, message: AsyncUIRequest, listeners: int = 1, callback: Recorder | None = None
) -> tuple[Channel, list[Offer[AsyncUIRequest]]]:
    """A message that so many listeners were offered."""
    source = await farm.broker("spooler")
    channel = await source.open_channel(
        PRINTER, type(message), user="alice", style=BIDIRECTIONAL, callback=callback
    )
    registrations = [
        await (await farm.broker("alice")).register(PRINTER, AsyncUIRequest, style=BIDIRECTIONAL)
        for _ in range(listeners)
    ]
    await channel.send(message)
    return channel, [await farm.offered(registration) for registration in registrations]


@rule(131)
async def test_the_answer_to_a_message_box_is_the_reason_that_it_is_closed_for(farm: Farm) -> None:
    recorder = Recorder()
    channel, (offer, other) = await asked(farm, QUESTION, 2, recorder)
    assert await async_ui.read(offer) == QUESTION
    reply = MessageBoxReply(button=OK)
    assert await offer.close(reply) == S_OK
    await recorder.until(closed=1)
    assert recorder.notified == [], "an answer is no further turn"
    (reason,) = recorder.closed
    assert (reason.type, reason.data) == (ASYNC_UI, reply.encode())
    assert await state(await farm.broker("spooler"), channel) == "closed"
    with pytest.raises(ChannelAlreadyClosed):
        await channel.send(QUESTION)
    with pytest.raises(ChannelAcquired):
        await other.respond(CANCEL.number.to_bytes(2, "little"))
    assert (await other.close(MessageBoxReply(button=CANCEL))).hresult == 0x00040010


@rule(131)
async def test_the_source_reads_the_answer_as_its_final_response(farm: Farm) -> None:
    channel, (offer,) = await asked(farm, QUESTION)
    await offer.close(MessageBoxReply(button=CANCEL))
    response = await channel.response(PATIENCE)
    assert response.is_final
    assert response.payload == MessageBoxReply(button=2)
    with pytest.raises(ChannelAlreadyClosed):
        await channel.response(0)


@rule(131)
@pytest.mark.parametrize("reply", [MessageBoxReply(button=OK), CustomUIReply(text="yes")])
async def test_an_answer_is_not_given_as_a_turn_of_a_dialog(
    farm: Farm, reply: AsyncUIReply
) -> None:
    channel, (offer, other) = await asked(farm, QUESTION, 2)
    with pytest.raises(InvalidArgument, match=r"ends the dialog.*close\(\)"):
        await offer.respond(reply)
    source = await farm.broker("spooler")
    assert await state(source, channel) == "offered", "and nobody has acquired the channel"
    assert await other.close(MessageBoxReply(button=OK)) == S_OK


@rule(131)
async def test_custom_messages_are_answered_alike(farm: Farm) -> None:
    message = CustomUI(dll="ihv.dll", entrypoint="Entry", bidi=True, text="<tray/>")
    channel, (offer,) = await asked(farm, message)
    assert await async_ui.read(offer) == message
    await offer.close(CustomUIReply(text="<ok/>"))
    response = await channel.response(PATIENCE)
    assert (response.payload, response.is_final) == (CustomUIReply(text="<ok/>"), True)


@rule(132)
@pytest.mark.parametrize(("pressed", "number"), [(0, 1), (1, 2), (2, 7)], ids=["OK", "Cancel", "7"])
async def test_a_reply_says_its_button_by_number(farm: Farm, pressed: int, number: int) -> None:
    channel, (offer,) = await asked(farm, QUESTION)
    box = await async_ui.read(offer)
    assert isinstance(box, MessageBox)
    await offer.close(MessageBoxReply(button=box.buttons[pressed]))
    response = await channel.response(PATIENCE)
    assert f"<buttonID>{number}</buttonID>" in response.body.decode("utf-16-le")
    assert response.payload == MessageBoxReply(button=number)


# AsyncUI: invalid messages ----------------------------------------------------------------------

INVALID = {
    "text": b"Print on A3?",
    "nothing": b"",
    "UTF-8": QUESTION.encode().decode("utf-16-le").encode(),
    "a document type": "<!DOCTYPE a><a/>".encode("utf-16-le"),
    "the other style": Balloon(title="T", body="B").encode(),
    "a reply": MessageBoxReply(button=1).encode(),
}
SKIPPED = INVALID | {"the other style": QUESTION.encode()}


@rule(133)
@pytest.mark.parametrize("body", INVALID.values(), ids=INVALID)
async def test_an_invalid_question_is_closed_without_an_answer(farm: Farm, body: bytes) -> None:
    recorder = Recorder()
    source, host = await farm.broker("spooler"), await farm.broker("alice")
    registration = await host.register(PRINTER, AsyncUIRequest, style=BIDIRECTIONAL)
    other = await (await farm.broker("alice")).register(PRINTER, ASYNC_UI, style=BIDIRECTIONAL)
    channel = await source.open_channel(
        PRINTER, ASYNC_UI, user="alice", style=BIDIRECTIONAL, callback=recorder
    )
    await channel.send(body)
    offer = await farm.offered(registration)
    assert await async_ui.read(offer) is None
    assert offer.closing is not None
    assert offer.closing.reason.is_release
    with pytest.raises(ChannelAlreadyClosed):
        await offer.close(MessageBoxReply(button=OK))
    await all_heard(farm, source, host)
    assert recorder.told == [], "the source is not told that one listener left"
    assert await said(source, channel) == [("notification", body)], "and nothing was answered"
    assert await (await farm.offered(other)).close(b"I can read that") == S_OK
    await recorder.until(closed=1)
    assert recorder.closed[0].data == b"I can read that"


@rule(133)
async def test_a_question_that_its_source_took_back_meanwhile_is_no_failure(farm: Farm) -> None:
    source = await farm.broker("spooler")
    registration = await (await farm.broker("alice")).register(
        PRINTER, AsyncUIRequest, style=BIDIRECTIONAL
    )
    channel = await source.open_channel(PRINTER, ASYNC_UI, user="alice", style=BIDIRECTIONAL)
    await channel.send(b"Print on A3?")
    offer = await farm.offered(registration)
    await channel.close()
    assert await async_ui.read(offer) is None
    assert await offer.wait_closed(PATIENCE) is not None


@rule(133)
async def test_invalid_unidirectional_messages_are_skipped(farm: Farm) -> None:
    source = await farm.broker("spooler")
    registration = await (await farm.broker("alice")).register(PRINTER, AsyncUIRequest)
    channel = await source.open_channel(PRINTER, ASYNC_UI, user="alice")
    valid = Balloon(title="Printed", body="Tray 1")
    for body in (*SKIPPED.values(), valid.encode()):
        assert await channel.send(body) == S_OK
    read = [await async_ui.read(await notified(registration)) for _ in range(len(SKIPPED) + 1)]
    assert read == [None] * len(SKIPPED) + [valid]


@rule(133)
@both_styles
async def test_a_callback_reads_alike(farm: Farm, style: Style) -> None:
    read: list[AsyncUIRequest | None] = []

    async def reading(channel: Any, notification: Any) -> None:
        read.append(await async_ui.read(channel or notification))

    recorder = Recorder(reading)
    source = await farm.broker("spooler")
    await (await farm.broker("alice")).listen(PRINTER, AsyncUIRequest, recorder, style=style)
    valid = QUESTION if style is BIDIRECTIONAL else Balloon(title="Printed", body="Tray 1")
    for turn, body in enumerate((b"no message", valid), 1):
        channel = await source.open_channel(PRINTER, ASYNC_UI, user="alice", style=style)
        await channel.send(body)
        await recorder.until(notified=turn)
    await recorder.until_idle()
    assert read == [None, valid]


@rule(133)
async def test_a_source_does_not_send_a_message_in_the_other_style(farm: Farm) -> None:
    source = await farm.broker("spooler")
    cases: list[tuple[Style, Payload]] = [
        (BIDIRECTIONAL, Balloon(title="T", body="B")),
        (UNIDIRECTIONAL, QUESTION),
    ]
    for style, body in cases:
        channel = await source.open_channel(PRINTER, ASYNC_UI, user="alice", style=style)
        with pytest.raises(InvalidStyle, match=f"{style.name.lower()} channel"):
            await channel.send(body)
        assert await channel.send(INVALID["text"]) == NO_LISTENERS, "the channel is as it was"


# AsyncUI: bytes ---------------------------------------------------------------------------------

NAMES_CODE = CustomUI(dll="evil.dll", entrypoint="Run", bidi=True, text="calc.exe").encode()
BODIES = {
    **INVALID,
    "names code": NAMES_CODE,
    "large": NAMES_CODE * 200,
    "an entity bomb": (
        '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><a>&c;</a>'.encode("utf-16-le")
    ),
    "all bytes": bytes(range(256)),
}


@rule(134)
@both_styles
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_bytes_pass_unread_and_unchanged(
    farm: Farm, style: Style, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(_: bytes) -> None:
        raise AssertionError("somebody looked into the payload")

    monkeypatch.setattr("broker._xml.parse", parse)
    source = await farm.broker("spooler")
    registration = await (await farm.broker("alice")).register(PRINTER, AsyncUIRequest, style=style)
    channel = await source.open_channel(PRINTER, AsyncUIRequest, user="alice", style=style)
    await channel.send(body)
    if style is UNIDIRECTIONAL:
        assert (await notified(registration)).data == body
        return
    offer = await farm.offered(registration)
    assert offer.notification.data == body
    await offer.respond(body)
    assert (await channel.response(PATIENCE)).data == body
    await channel.send(body)
    assert (await offer.follow_up(PATIENCE)).data == body
    await offer.close(body)
    assert (await channel.response(PATIENCE)).data == body
