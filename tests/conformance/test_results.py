"""Results: every status is a 32-bit HRESULT, and its severity bit decides whether it succeeded."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from broker import (
    BIDIRECTIONAL,
    Code,
    Notification,
    Result,
    TympanError,
    errors,
    results,
)
from broker.results import S_OK
from tests.conformance.actors import Recorder, eventually, listener, pass_away, state
from tests.conformance.rules import rule
from tests.farm import PRINTER, TYPE, Farm

CODES = [
    (0x01, "CHANNEL_CLOSED_BY_SERVER", 0x80040001, None),
    (0x02, "CHANNEL_CLOSED_BY_ANOTHER_LISTENER", 0x80040002, None),
    (0x03, "CHANNEL_CLOSED_BY_SAME_LISTENER", 0x80040003, None),
    (0x04, "CHANNEL_RELEASED_BY_LISTENER", 0x80040004, None),
    (0x05, "UNIRECTIONAL_NOTIFICATION_LOST", None, 0x00040005),
    (0x06, "ASYNC_NOTIFICATION_FAILURE", 0x80040006, None),
    (0x07, "NO_LISTENERS", None, 0x00040007),
    (0x08, "CHANNEL_ALREADY_CLOSED", 0x80040008, 0x00040008),
    (0x09, "CHANNEL_ALREADY_OPENED", 0x80040009, None),
    (0x0A, "CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION", 0x8004000A, None),
    (0x0B, "CHANNEL_NOT_OPENED", 0x8004000B, None),
    (0x0C, "ASYNC_CALL_ALREADY_PARKED", 0x8004000C, None),
    (0x0D, "NOT_REGISTERED", 0x8004000D, 0x0004000D),
    (0x0E, "ALREADY_UNREGISTERED", 0x8004000E, 0x0004000E),
    (0x0F, "ALREADY_REGISTERED", 0x8004000F, None),
    (0x10, "CHANNEL_ACQUIRED", 0x80040010, 0x00040010),
    (0x11, "ASYNC_CALL_IN_PROGRESS", 0x80040011, None),
    (0x12, "MAX_NOTIFICATION_SIZE_EXCEEDED", 0x80040012, None),
    (0x13, "INTERNAL_NOTIFICATION_QUEUE_IS_FULL", 0x80040013, None),
    (0x14, "INVALID_NOTIFICATION_TYPE", 0x80040014, None),
    (0x15, "MAX_REGISTRATION_COUNT_EXCEEDED", 0x80040015, None),
    (0x16, "MAX_CHANNEL_COUNT_EXCEEDED", 0x80040016, None),
    (0x17, "LOCAL_ONLY_REGISTRATION", None, 0x00040017),
    (0x18, "REMOTE_ONLY_REGISTRATION", None, 0x00040018),
]
"""Code, name, error form, success form, as the documents have them."""

WIN32 = [
    (results.ACCESS_DENIED, 0x80070005),
    (results.OUT_OF_MEMORY, 0x8007000E),
    (results.INVALID_NAME, 0x8007007B),
    (results.CALL_CANCELLED, 0x8007071A),
]

OF_ERRORS = [
    (errors.InvalidName, 0x8007007B),
    (errors.AccessDenied, 0x80070005),
    (errors.ChannelAcquired, 0x80040010),
    (errors.ChannelAlreadyClosed, 0x80040008),
    (errors.ChannelAlreadyOpened, 0x80040009),
    (errors.ChannelNotOpened, 0x8004000B),
    (errors.WaitingForResponse, 0x8004000A),
    (errors.CallInProgress, 0x80040011),
    (errors.MaxChannelCountExceeded, 0x80040016),
    (errors.NotificationTooLarge, 0x80040012),
    (errors.InvalidNotificationType, 0x80040014),
    (errors.NotificationFailure, 0x80040006),
    (errors.QueueFull, 0x80040013),
    (errors.AlreadyRegistered, 0x8004000F),
    (errors.NotRegistered, 0x8004000D),
    (errors.AlreadyUnregistered, 0x8004000E),
    (errors.MaxRegistrationCountExceeded, 0x80040015),
    (errors.CallAlreadyParked, 0x8004000C),
    (errors.RegistrationEnded, 0x8007071A),
    (errors.RedisFull, 0x8007000E),
]


@rule(135)
def test_the_codes_are_those_of_the_documents_and_no_others() -> None:
    assert {(code.value, code.name) for code in Code} == {row[:2] for row in CODES}


@rule(135)
@pytest.mark.parametrize(("number", "name", "error", "success"), CODES)
def test_each_code_has_its_documented_forms(
    number: int, name: str, error: int | None, success: int | None
) -> None:
    code = Code(number)
    for make, hresult, succeeds in (
        (Result.error, error, False),
        (Result.success, success, True),
    ):
        if hresult is None:
            with pytest.raises(ValueError, match=name):
                make(code)
            continue
        result = make(code)
        assert (result.hresult, result.name, result.code) == (hresult, name, code)
        assert result.succeeded is succeeds
        assert bool(result) is succeeds
        assert f"0x{hresult:08X}" in str(result)


@rule(135)
@pytest.mark.parametrize("number", [0x05, 0x07, 0x17, 0x18])
def test_four_codes_are_always_success(number: int) -> None:
    assert Result.success(Code(number)).succeeded
    with pytest.raises(ValueError, match=Code(number).name):
        Result.error(Code(number))


@rule(135)
def test_success_without_a_code_is_nought() -> None:
    assert (S_OK.hresult, S_OK.succeeded, S_OK.code) == (0, True, None)


@rule(135)
@pytest.mark.parametrize(("result", "hresult"), WIN32, ids=str)
def test_other_facilities_have_their_documented_numbers(result: Result, hresult: int) -> None:
    assert result.hresult == hresult
    assert not result.succeeded
    assert result.code is None, "a number of another facility is no code of this interface"


@rule(135)
@pytest.mark.parametrize(
    ("kind", "hresult"), OF_ERRORS, ids=[kind.__name__ for kind, _ in OF_ERRORS]
)
def test_each_error_carries_its_documented_result(kind: type[TympanError], hresult: int) -> None:
    assert kind.result.hresult == hresult


def members(module: Any, kind: type) -> list[Any]:
    return [value for _, value in inspect.getmembers(module) if isinstance(value, kind)]


@rule(135)
def test_every_status_is_a_32_bit_number_whose_severity_bit_decides() -> None:
    kinds = [kind for kind in members(errors, type) if issubclass(kind, TympanError)]
    assert len(kinds) > len(OF_ERRORS)
    raised = [kind.result for kind in kinds]
    for result in (*members(results, Result), *raised):
        assert 0 <= result.hresult < 2**32
        assert result.succeeded is not bool(result.hresult & 0x8000_0000)
    assert not any(result.succeeded for result in raised), "an error that says it succeeded"


@rule(135)
async def test_what_calls_return_and_raise_has_the_severity_of_its_outcome(farm: Farm) -> None:
    source = await farm.broker("spooler")
    process, registration = await listener(farm)
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    returned = [await pages.send(b"to nobody")]
    plain = await process.register(PRINTER, TYPE, buffer=1)
    returned.append(await pages.send(b"page 1"))
    with pytest.raises(TympanError) as nobody_had_room:
        await pages.send(b"page 2")
    roomy = await process.register(PRINTER, TYPE)
    returned.append(await pages.send(b"page 2"))
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    _, other = await listener(farm)
    loser = await farm.offered(other)
    returned.append(await offer.respond(b"mine"))
    returned.append(await loser.close())
    returned.append(await channel.close())
    returned.append(await roomy.unregister())
    returned.append(await roomy.unregister())
    assert [result.hresult for result in returned] == [
        0x00040007,
        0x00000000,
        0x00040005,
        0x00000000,
        0x00040010,
        0x00000000,
        0x00000000,
        0x0004000E,
    ]
    assert all(result.succeeded for result in returned)
    assert nobody_had_room.value.result.hresult == 0x80040006
    assert plain.is_registered


@rule(136)
async def test_a_send_succeeds_whether_or_not_anyone_takes_it(farm: Farm) -> None:
    source = await farm.broker("spooler")
    process = await farm.broker("alice")
    registration = await process.register(PRINTER, TYPE)
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await pages.send(b"page 1") == S_OK
    await eventually(lambda: registration.unread == 1, "the notification")
    assert await registration.unregister() == S_OK, "unread, and dropped"


@rule(136)
@pytest.mark.parametrize("style", ["bidirectional", "unidirectional"])
async def test_a_send_succeeds_though_the_listeners_callback_fails(
    farm: Farm, style: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: object, notification: Notification[Any]) -> None:
        raise RuntimeError(f"cannot read {notification.data!r}")

    heard = Recorder(fail)
    source = await farm.broker("spooler")
    process = await farm.broker("alice")
    if style == "unidirectional":
        await process.listen(PRINTER, TYPE, heard)
        pages = await source.open_channel(PRINTER, TYPE, user="alice")
        for turn in range(1, 3):
            assert await pages.send(b"page") == S_OK
            await heard.until(notified=turn)
    else:
        await process.listen(PRINTER, TYPE, heard, style=BIDIRECTIONAL)
        for turn in range(1, 3):
            channel = await farm.question(source)
            await heard.until(notified=turn)
            assert await state(source, channel) == "offered", "nothing but silence, to the source"
    await heard.until_idle()
    assert "cannot read" in caplog.text, "its author finds the failure in the log"


@rule(136)
async def test_a_send_succeeds_though_the_listener_dies_with_it(farm: Farm) -> None:
    source = await farm.broker("spooler")
    process = await farm.broker("alice")
    await process.register(PRINTER, TYPE)
    pages = await source.open_channel(PRINTER, TYPE, user="alice")
    assert await pages.send(b"page 1") == S_OK
    await pass_away(farm, process)
    result = await pages.send(b"page 2")
    assert result.code is Code.NO_LISTENERS, "the first success is not taken back"
