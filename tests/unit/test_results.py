"""Every status is a 32-bit HRESULT; its severity bit decides success (R135)."""

from __future__ import annotations

import pytest

from broker import Code, Result, errors, results

SUCCESS_ONLY = {0x05, 0x07, 0x17, 0x18}
BOTH = {0x08, 0x0D, 0x0E, 0x10}
NAMES = {
    0x01: "CHANNEL_CLOSED_BY_SERVER",
    0x02: "CHANNEL_CLOSED_BY_ANOTHER_LISTENER",
    0x03: "CHANNEL_CLOSED_BY_SAME_LISTENER",
    0x04: "CHANNEL_RELEASED_BY_LISTENER",
    0x05: "UNIRECTIONAL_NOTIFICATION_LOST",
    0x06: "ASYNC_NOTIFICATION_FAILURE",
    0x07: "NO_LISTENERS",
    0x08: "CHANNEL_ALREADY_CLOSED",
    0x09: "CHANNEL_ALREADY_OPENED",
    0x0A: "CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION",
    0x0B: "CHANNEL_NOT_OPENED",
    0x0C: "ASYNC_CALL_ALREADY_PARKED",
    0x0D: "NOT_REGISTERED",
    0x0E: "ALREADY_UNREGISTERED",
    0x0F: "ALREADY_REGISTERED",
    0x10: "CHANNEL_ACQUIRED",
    0x11: "ASYNC_CALL_IN_PROGRESS",
    0x12: "MAX_NOTIFICATION_SIZE_EXCEEDED",
    0x13: "INTERNAL_NOTIFICATION_QUEUE_IS_FULL",
    0x14: "INVALID_NOTIFICATION_TYPE",
    0x15: "MAX_REGISTRATION_COUNT_EXCEEDED",
    0x16: "MAX_CHANNEL_COUNT_EXCEEDED",
    0x17: "LOCAL_ONLY_REGISTRATION",
    0x18: "REMOTE_ONLY_REGISTRATION",
}


def test_codes_are_those_of_the_header() -> None:
    assert {int(code): code.name for code in Code} == NAMES


@pytest.mark.parametrize("number", sorted(NAMES))
def test_the_error_form(number: int) -> None:
    if number in SUCCESS_ONLY:
        with pytest.raises(ValueError, match=NAMES[number]):
            Result.error(Code(number))
        return
    result = Result.error(Code(number))
    assert (result.hresult, result.name) == (0x80040000 + number, NAMES[number])
    assert (result.succeeded, bool(result), result.code) == (False, False, Code(number))
    assert str(result) == f"{NAMES[number]} (0x800400{number:02X})"


@pytest.mark.parametrize("number", sorted(NAMES))
def test_the_success_form(number: int) -> None:
    if number not in SUCCESS_ONLY | BOTH:
        with pytest.raises(ValueError, match=NAMES[number]):
            Result.success(Code(number))
        return
    result = Result.success(Code(number))
    assert (result.hresult, result.name) == (0x00040000 + number, NAMES[number])
    assert (result.succeeded, bool(result), result.code) == (True, True, Code(number))


@pytest.mark.parametrize(
    ("result", "hresult"),
    [
        (results.S_OK, 0x00000000),
        (results.NO_LISTENERS, 0x00040007),
        (results.NOTIFICATION_LOST, 0x00040005),
        (results.NOTIFICATION_FAILURE, 0x80040006),
        (results.LOST_THE_RACE, 0x00040010),
        (results.NOT_REGISTERED, 0x0004000D),
        (results.ALREADY_UNREGISTERED, 0x0004000E),
        (results.ACCESS_DENIED, 0x80070005),
        (results.INVALID_HANDLE, 0x80070006),
        (results.OUT_OF_MEMORY, 0x8007000E),
        (results.INVALID_ARGUMENT, 0x80070057),
        (results.INVALID_NAME, 0x8007007B),
        (results.CALL_CANCELLED, 0x8007071A),
        (results.UNEXPECTED, 0x8000FFFF),
    ],
)
def test_named_results(result: Result, hresult: int) -> None:
    assert result.hresult == hresult
    assert result.succeeded == (hresult < 0x80000000)


@pytest.mark.parametrize(
    "result", [results.S_OK, results.ACCESS_DENIED, results.UNEXPECTED, results.INVALID_NAME]
)
def test_other_facilities_have_no_interface_code(result: Result) -> None:
    assert result.code is None


@pytest.mark.parametrize(
    ("error", "hresult"),
    [
        (errors.TympanError, 0x8000FFFF),
        (errors.InvalidArgument, 0x80070057),
        (errors.InvalidName, 0x8007007B),
        (errors.InvalidType, 0x80070057),
        (errors.InvalidUrl, 0x80070057),
        (errors.InvalidSettings, 0x80070057),
        (errors.AccessDenied, 0x80070005),
        (errors.ChannelAcquired, 0x80040010),
        (errors.ChannelAlreadyClosed, 0x80040008),
        (errors.ChannelAlreadyOpened, 0x80040009),
        (errors.ChannelNotOpened, 0x8004000B),
        (errors.WaitingForResponse, 0x8004000A),
        (errors.CallInProgress, 0x80040011),
        (errors.MaxChannelCountExceeded, 0x80040016),
        (errors.NotYours, 0x80070005),
        (errors.ResponseTimeout, 0x800705B4),
        (errors.ContractViolation, 0x80070006),
        (errors.NotificationTooLarge, 0x80040012),
        (errors.InvalidNotificationType, 0x80040014),
        (errors.NotificationFailure, 0x80040006),
        (errors.QueueFull, 0x80040013),
        (errors.PayloadInvalid, 0x80070057),
        (errors.AlreadyRegistered, 0x8004000F),
        (errors.NotRegistered, 0x8004000D),
        (errors.AlreadyUnregistered, 0x8004000E),
        (errors.MaxRegistrationCountExceeded, 0x80040015),
        (errors.CallAlreadyParked, 0x8004000C),
        (errors.RegistrationEnded, 0x8007071A),
        (errors.SessionLapsed, 0x8007071A),
        (errors.BrokerClosed, 0x80070006),
        (errors.RedisRefused, 0x80070005),
        (errors.RedisFull, 0x8007000E),
    ],
)
def test_each_error_carries_its_hresult(error: type[errors.TympanError], hresult: int) -> None:
    assert error.result.hresult == hresult
    assert not error.result.succeeded, "an error never looks like a success"
