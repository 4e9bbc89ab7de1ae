"""The documents' interfaces: statuses, interfaces, data objects, and the rules of Release.

One client is both ends here; what needs threads that race is in tests/redis/test_prnasnot.py.
"""

# ruff: noqa: N802 (the documents' names)

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from broker import prnasnot
from broker.errors import InvalidArgument
from broker.prnasnot import (
    ALREADY_UNREGISTERED,
    CHANNEL_ACQUIRED,
    E_ACCESSDENIED,
    E_HANDLE,
    E_INVALIDARG,
    E_NOINTERFACE,
    E_POINTER,
    E_UNEXPECTED,
    FAILED,
    HRESULT,
    HRESULT_CODE,
    INTERNAL_NOTIFICATION_QUEUE_IS_FULL,
    INVALID_NOTIFICATION_TYPE,
    MAX_NOTIFICATION_SIZE_EXCEEDED,
    NO_LISTENERS,
    NOT_REGISTERED,
    NOTIFICATION_RELEASE,
    S_OK,
    SUCCEEDED,
    DataObject,
    IID_IPrintAsyncNotifyCallback,
    IID_IPrintAsyncNotifyChannel,
    IID_IPrintAsyncNotifyDataObject,
    IID_IUnknown,
    IPrintAsyncNotifyDataObject,
    PrintAsyncNotifyError,
    Spooler,
    kAllUsers,
    kBiDirectional,
    kPerUser,
    kUniDirectional,
)
from broker.sync import Broker
from tests.farm import OTHER_TYPE, PRINTER, TYPE, Backend
from tests.ported import (
    CLOSED,
    EVENT,
    Callback,
    E,
    S,
    ask,
    bytes_of,
    create,
    data,
    on,
    register,
    until,
    until_held,
    violations,
)

# Statuses ---------------------------------------------------------------------------------------


def test_a_status_prints_its_name_and_severity() -> None:
    assert str(E(CHANNEL_ACQUIRED)) == "E:CHANNEL_ACQUIRED (0x80040010)"
    assert repr(S(CHANNEL_ACQUIRED)) == "S:CHANNEL_ACQUIRED (0x00040010)"
    assert str(S_OK) == "S_OK (0x00000000)"
    assert str(E_ACCESSDENIED) == "E_ACCESSDENIED (0x80070005)"
    assert str(HRESULT(0x8007_007B)) == "INVALID_NAME (0x8007007B)"
    assert str(HRESULT(0x8012_0001)) == "HRESULT of facility 18 (0x80120001)"


@pytest.mark.parametrize("code", PrintAsyncNotifyError)
def test_the_codes_are_there_by_the_headers_names(code: PrintAsyncNotifyError) -> None:
    assert getattr(prnasnot, code.name) is code
    assert HRESULT_CODE(E(code)) == HRESULT_CODE(S(code)) == code
    assert FAILED(E(code))
    assert SUCCEEDED(S(code))


def test_a_negative_number_is_a_failure_as_c_prints_it() -> None:
    assert HRESULT(-2147024891) == E_ACCESSDENIED
    assert FAILED(-2147024891)
    assert not SUCCEEDED(-1)


def test_the_numbers_are_those_of_the_header() -> None:
    """Not those of the page that counts styles from one (C1)."""
    assert (kBiDirectional, kUniDirectional) == (0, 1)
    assert (kPerUser, kAllUsers) == (0, 1)
    assert {name: str(getattr(prnasnot, name)) for name in prnasnot.__all__ if "IID" in name} == {
        "IID_IUnknown": "00000000-0000-0000-c000-000000000046",
        "IID_IPrintAsyncNotifyChannel": "4a5031b1-1f3f-4db0-a462-4530ed8b0451",
        "IID_IPrintAsyncNotifyCallback": "7def34c1-9d92-4c99-b3b3-db94a9d4191b",
        "IID_IPrintAsyncNotifyDataObject": "77cf513e-5d49-4789-9f30-d0822b335c0d",
    }


def test_everything_that_the_header_names_is_there() -> None:
    assert len(set(prnasnot.__all__)) == len(prnasnot.__all__)
    for name in prnasnot.__all__:
        assert getattr(prnasnot, name) is not None


# IUnknown ---------------------------------------------------------------------------------------


def test_a_callback_counts_its_references() -> None:
    callback = Callback()
    assert callback.references == 1, "its maker's"
    assert [callback.AddRef(), callback.AddRef()] == [2, 3]
    assert [callback.Release(), callback.Release(), callback.Release()] == [2, 1, 0]


def test_a_release_too_many_is_reported_and_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    callback = Callback()
    callback.Release()
    with caplog.at_level(logging.ERROR, "tympan"):
        assert callback.Release() == 0
        assert callback.AddRef() == 0
    assert caplog.text.count("contract violation: Callback") == 2
    assert callback.references == 0


def test_an_object_is_asked_for_its_interfaces() -> None:
    callback, found = Callback(), data()
    for thing, own in (
        (callback, IID_IPrintAsyncNotifyCallback),
        (found, IID_IPrintAsyncNotifyDataObject),
    ):
        for riid in (own, IID_IUnknown):
            hr, same = thing.QueryInterface(riid)
            assert hr == S_OK
            assert same is thing
        assert thing.references == 3
        refused: list[tuple[Any, HRESULT]] = [
            (IID_IPrintAsyncNotifyChannel, E_NOINTERFACE),
            (uuid4(), E_NOINTERFACE),
            (None, E_POINTER),
            (str(own), E_INVALIDARG),
        ]
        for asked, why in refused:
            assert thing.QueryInterface(asked) == (why, None)
        assert thing.references == 3, "a failure changes no count"


def test_references_counted_in_many_threads_add_up() -> None:
    callback = Callback()

    def count() -> None:
        for _ in range(2000):
            callback.AddRef()
            callback.Release()
        callback.AddRef()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert callback.references == 5


# Data objects -----------------------------------------------------------------------------------


def test_a_data_object_shows_its_bytes() -> None:
    assert data(b"x" * 5).AcquireData() == (S_OK, b"xxxxx", 5, TYPE)
    assert DataObject(str(TYPE), b"").AcquireData() == (S_OK, b"", 0, TYPE)
    assert DataObject("sample-ui").AcquireData()[3] == UUID("0b20806a-328a-4e1c-931c-0250308574c7")
    with pytest.raises(InvalidArgument):
        DataObject(TYPE, "text")  # type: ignore[arg-type]


def test_the_release_object_has_no_bytes() -> None:
    """Whatever it was made with (R103, R120)."""
    for empty in (DataObject(NOTIFICATION_RELEASE), DataObject(NOTIFICATION_RELEASE, b"why")):
        assert empty.AcquireData() == (S_OK, None, 0, NOTIFICATION_RELEASE)


def test_a_data_object_outlives_its_release_until_it_is_not_read_any_more() -> None:
    """AcquireData counts; a plain Release in between does not free the object (R119)."""
    found = data(b"kept")
    _, body, _, _ = found.AcquireData()
    assert found.Release() == 1
    assert found.Release() == 1, "the reader's is not to be had by Release"
    assert found.AcquireData()[1] == body == b"kept"
    assert found.ReleaseData() == S_OK
    assert found.ReleaseData() == S_OK
    assert found.references == 0
    assert found.AcquireData() == (E_HANDLE, None, 0, None)
    assert found.ReleaseData() == E_HANDLE


class OwnData(IPrintAsyncNotifyDataObject):
    """A component's own data object; what it says is a test's business."""

    def __init__(self, *answer: object) -> None:
        self._answer = answer if len(answer) > 1 else answer[0]
        self.acquired = self.released = 0

    def AcquireData(self) -> Any:
        self.acquired += 1
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def ReleaseData(self) -> int:
        self.released += 1
        return S_OK


# With a broker ----------------------------------------------------------------------------------


@pytest.fixture
def spooler(backend: Backend) -> Iterator[Spooler]:
    """One client on each backend."""
    with on(backend) as made:
        yield made


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((S_OK, b"page", 4, TYPE), S_OK),
        ((S_OK, bytearray(b"page and more"), 4, TYPE), S_OK),
        ((S_OK, None, 0, TYPE), S_OK),
        ((S_OK, b"page", 4, OTHER_TYPE), E(INVALID_NOTIFICATION_TYPE)),
        ((S_OK, None, 0, NOTIFICATION_RELEASE), E(INVALID_NOTIFICATION_TYPE)),
        ((S_OK, b"x" * 101, 101, TYPE), E(MAX_NOTIFICATION_SIZE_EXCEEDED)),
        ((S_OK, b"page", 5, TYPE), E_INVALIDARG),
        ((S_OK, b"page", -1, TYPE), E_INVALIDARG),
        ((S_OK, "page", 4, TYPE), E_INVALIDARG),
        ((S_OK, b"page", 4, str(TYPE)), E_INVALIDARG),
        ((S_OK, b"page", 4, None), E_INVALIDARG),
    ],
    ids=str,
)
def test_data_is_acquired_and_given_back_also_where_the_call_fails(
    spooler: Spooler, answer: tuple[object, ...], status: HRESULT
) -> None:
    heard = Callback()
    register(spooler, heard, kUniDirectional)
    channel = create(spooler, style=kUniDirectional)
    own = OwnData(*answer)
    assert channel.SendNotification(own) == status
    assert (own.acquired, own.released, own.references) == (1, 1, 1)
    assert channel.references == 1
    if status == S_OK:
        assert heard.next()[1] in (b"page", b"")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (ValueError("no data"), E_UNEXPECTED),
        (E_ACCESSDENIED, E_ACCESSDENIED),
        (None, E_UNEXPECTED),
        (S_OK, E_UNEXPECTED),
    ],
    ids=str,
)
def test_data_that_was_not_acquired_is_not_given_back(
    spooler: Spooler, answer: object, status: HRESULT
) -> None:
    channel = create(spooler, style=kUniDirectional)
    own = OwnData(answer)
    assert channel.SendNotification(own) == status
    assert channel.CloseChannel(own) == status
    failing = OwnData(E_ACCESSDENIED, None, 0, None)
    assert channel.SendNotification(failing) == E_ACCESSDENIED
    assert own.released == failing.released == 0


def test_what_is_no_data_object_is_refused(spooler: Spooler) -> None:
    channel = create(spooler)
    assert channel.SendNotification(None) == E_POINTER
    assert channel.SendNotification(b"bytes") == E_INVALIDARG  # type: ignore[arg-type]
    assert channel.CloseChannel(b"bytes") == E_INVALIDARG  # type: ignore[arg-type]


def test_arguments_that_nothing_makes_right_are_refused(spooler: Spooler) -> None:
    make, callback = spooler.CreatePrintAsyncNotifyChannel, Callback()
    listen = spooler.RegisterForPrintAsyncNotifications
    bad: list[tuple[tuple[Any, ...], int]] = [
        (("laser-3", TYPE, kPerUser, kBiDirectional, callback), 0x8007_007B),
        ((None, TYPE, kPerUser, kBiDirectional, callback), 0x8007_007B),
        ((5, TYPE, kPerUser, kBiDirectional, callback), 0x8007_007B),
        ((PRINTER, "no guid", kPerUser, kBiDirectional, callback), E_INVALIDARG),
        ((PRINTER, NOTIFICATION_RELEASE, kPerUser, kBiDirectional, callback), E_INVALIDARG),
        ((PRINTER, TYPE, 2, kBiDirectional, callback), E_INVALIDARG),
        ((PRINTER, TYPE, kPerUser, "both", callback), E_INVALIDARG),
        ((PRINTER, TYPE, kPerUser, kBiDirectional, object()), E_INVALIDARG),
        ((PRINTER, TYPE, kAllUsers, kBiDirectional, callback), E_ACCESSDENIED),
    ]
    for arguments, status in bad:
        assert make(*arguments) == (status, None), arguments
        assert listen(*arguments) == (status, None), arguments
    assert listen(PRINTER, TYPE, kPerUser, kBiDirectional, None) == (E_POINTER, None)
    assert callback.references == 1, "a failure keeps no reference (AV A024)"
    assert not spooler.violations


def test_nothing_works_before_the_spooler_is_entered(backend: Backend) -> None:
    spooler = Spooler(Broker(backend.broker(user="alice")))
    arguments = (PRINTER, TYPE, kPerUser, kBiDirectional, Callback())
    assert spooler.CreatePrintAsyncNotifyChannel(*arguments) == (E_HANDLE, None)
    assert spooler.RegisterForPrintAsyncNotifications(*arguments) == (E_HANDLE, None)
    assert arguments[-1].references == 1


# Callbacks --------------------------------------------------------------------------------------


def test_a_unidirectional_listener_gets_no_channel(spooler: Spooler) -> None:
    heard = Callback()
    handle = register(spooler, heard, kUniDirectional)
    channel = create(spooler, style=kUniDirectional)
    for body in (b"1", b"2", b"3"):
        assert channel.SendNotification(data(body)) == S_OK
    assert [heard.next() for _ in range(3)] == [(None, b"1"), (None, b"2"), (None, b"3")]
    assert threading.get_ident() not in heard.threads
    assert heard.references == 2
    assert spooler.UnRegisterForPrintAsyncNotifications(handle) == S_OK
    assert heard.references == 1
    assert channel.SendNotification(data()) == S(NO_LISTENERS)
    assert not heard.noted


@pytest.mark.parametrize(
    "fails",
    [
        lambda *_: E(INTERNAL_NOTIFICATION_QUEUE_IS_FULL),
        lambda *_: 1 / 0,
        lambda *_: exec("raise SystemExit"),
    ],
    ids=["a full queue", "an exception", "an exit"],
)
def test_a_callback_that_fails_is_logged_and_costs_nothing(
    spooler: Spooler, fails: Callable[..., object], caplog: pytest.LogCaptureFixture
) -> None:
    """The notification counts as delivered; the next one comes, and so does ChannelClosed."""
    heard = Callback(on_event=fails)
    register(spooler, heard, kUniDirectional)
    channel = create(spooler, style=kUniDirectional)
    with caplog.at_level(logging.WARNING, "tympan"):
        for body in (b"1", b"2"):
            channel.SendNotification(data(body))
            assert heard.next() == (None, body)
        until(lambda: caplog.text.count("OnEventNotify") >= 2, "two lines in the log")
    asked = Callback(on_event=fails, on_closed=fails)
    register(spooler, asked)
    question = ask(spooler)
    handle, _ = asked.next()
    question.CloseChannel()
    assert asked.next(CLOSED) == (handle, None)
    until_held(asked, 2)


def test_data_that_a_callback_keeps_is_valid_while_it_holds_a_reference(spooler: Spooler) -> None:
    kept: list[Any] = []

    def keep(_: object, source: Any) -> None:
        source.AddRef()
        kept.append(source)

    heard = Callback(on_event=keep)
    register(spooler, heard, kUniDirectional)
    create(spooler, style=kUniDirectional).SendNotification(data(b"page"))
    heard.next()
    until(lambda: kept[0].references == 1, "the broker's reference to go")
    assert bytes_of(kept[0]) == b"page"
    assert kept[0].Release() == 0
    with violations(spooler, 2):
        assert kept[0].AcquireData() == (E_HANDLE, None, 0, None)
        kept[0].Release()


def test_what_arrived_can_be_sent_on(spooler: Spooler) -> None:
    listener = Callback(on_event=lambda handle, source: handle.SendNotification(source))
    register(spooler, listener)
    source = Callback()
    ask(spooler, source, b"echo")
    assert source.next()[1] == b"echo"


# Registrations ----------------------------------------------------------------------------------


def test_a_handle_is_good_once(spooler: Spooler) -> None:
    callback = Callback()
    handle = register(spooler, callback)
    assert callback.references == 2
    assert spooler.UnRegisterForPrintAsyncNotifications(handle) == S_OK
    assert callback.references == 1
    with violations(spooler):
        again = spooler.UnRegisterForPrintAsyncNotifications(handle)
    assert again == S(ALREADY_UNREGISTERED)
    assert SUCCEEDED(again)
    assert callback.references == 1


def test_what_is_no_handle_changes_nothing(spooler: Spooler, backend: Backend) -> None:
    callback = Callback()
    handle = register(spooler, callback)
    other = Spooler(Broker(backend.broker(user="alice")))
    with violations(other, 3):
        foreign = other.UnRegisterForPrintAsyncNotifications(handle)
        for junk in (None, "handle"):
            assert other.UnRegisterForPrintAsyncNotifications(junk) == E_HANDLE  # type: ignore[arg-type]
    assert foreign == S(NOT_REGISTERED)
    assert callback.references == 2
    ask(spooler)
    callback.next()


def test_a_registration_that_ended_with_its_right_is_undone_all_the_same(
    spooler: Spooler,
) -> None:
    """The handle and the callback's reference stay until then."""
    spooler._broker.grant(PRINTER, "alice", "administer")
    callback = Callback()
    hr, handle = spooler.RegisterForPrintAsyncNotifications(
        PRINTER, TYPE, kAllUsers, kBiDirectional, callback
    )
    assert hr == S_OK
    spooler._broker.revoke(PRINTER, "alice", "administer")
    until(lambda: not spooler._broker.registrations(), "the registration's end")
    assert callback.references == 2
    with violations(spooler, 0):
        assert SUCCEEDED(spooler.UnRegisterForPrintAsyncNotifications(handle))
    assert callback.references == 1


def test_two_registrations_of_one_callback_are_two(spooler: Spooler) -> None:
    """D9: each has its handle, its reference, and its own pointer to the channel."""
    callback = Callback()
    handles = [register(spooler, callback) for _ in range(2)]
    assert callback.references == 3
    ask(spooler)
    (one, _), (other, _) = callback.next(), callback.next()
    assert one is not other
    assert callback.references == 5
    for handle in handles:
        assert spooler.UnRegisterForPrintAsyncNotifications(handle) == S_OK
    assert callback.references == 3, "the dialogs go on (R34)"
    assert one.SendNotification(data()) == S_OK


def test_after_unregister_open_dialogs_go_on_and_no_new_one_comes(spooler: Spooler) -> None:
    source, listener = Callback(), Callback()
    registration = register(spooler, listener)
    channel = ask(spooler, source)
    handle, _ = listener.next()
    assert spooler.UnRegisterForPrintAsyncNotifications(registration) == S_OK
    assert listener.references == 2, "the dialog's"
    assert handle.SendNotification(data(b"still here")) == S_OK
    assert source.next() == (channel, b"still here")
    assert channel.SendNotification(data(b"and now?")) == S_OK
    assert listener.next() == (handle, b"and now?")
    other = create(spooler)
    assert other.SendNotification(data()) == S(NO_LISTENERS)
    assert channel.CloseChannel() == S_OK
    assert listener.next(CLOSED) == (handle, None)
    until_held(listener, 1)
    assert not listener.noted


def test_a_callback_may_unregister_itself(spooler: Spooler) -> None:
    """Its reference is given back once the call has returned."""
    counts: list[int] = []
    handles: list[Any] = []

    def leave(_: object, __: object) -> None:
        assert spooler.UnRegisterForPrintAsyncNotifications(handles[0]) == S_OK
        counts.append(heard.references)

    heard = Callback(on_event=leave)
    handles.append(register(spooler, heard, kUniDirectional))
    channel = create(spooler, style=kUniDirectional)
    assert channel.SendNotification(data(b"1")) == S_OK
    heard.next()
    until_held(heard, 1)
    assert counts == [2]
    assert channel.SendNotification(data(b"2")) == S(NO_LISTENERS)


# The end ----------------------------------------------------------------------------------------


def test_closing_gives_back_what_is_held_and_names_leaked_handles(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    spooler = Spooler(Broker(backend.broker(user="alice", namespace=f"t{secrets.token_hex(4)}")))
    source, listener, uni = Callback(), Callback(), Callback()
    with spooler, caplog.at_level(logging.WARNING, "tympan"):
        register(spooler, uni, kUniDirectional)
        handle = register(spooler, listener)
        channel = ask(spooler, source)
        pointer, _ = listener.next()
        assert (source.references, listener.references, uni.references) == (2, 3, 2)
    assert (source.references, listener.references, uni.references) == (1, 1, 1)
    assert caplog.text.count("was not unregistered") == 2
    with violations(spooler, 0):
        for each in (channel, pointer):
            assert each.SendNotification(data()) == E_HANDLE
            assert each.CloseChannel() == E_HANDLE
            assert each.Release() == 0
    assert spooler.UnRegisterForPrintAsyncNotifications(handle) == S(ALREADY_UNREGISTERED)
    spooler.close()
    assert EVENT not in listener.noted
