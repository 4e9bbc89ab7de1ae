"""A print component and a listening client, ported line by line from the documents' prose.

They do what the page on notification channels says, in its order, with its names: create, send,
wait for OnEventNotify, close, and Release only after a close that succeeded; foreground and
callback settle by an interlocked exchange which of them does. The comments are the page's
conditions. Code that keeps them is never reported as a violation, and every reference comes back.
"""

# ruff: noqa: N802, ARG002 (the documents' names and arguments)

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from broker.prnasnot import (
    CHANNEL_ACQUIRED,
    CHANNEL_ALREADY_CLOSED,
    E_UNEXPECTED,
    FACILITY_ITF,
    FAILED,
    HRESULT,
    HRESULT_CODE,
    MAKE_HRESULT,
    NO_LISTENERS,
    NOTIFICATION_RELEASE,
    S_OK,
    SEVERITY_ERROR,
    SUCCEEDED,
    DataObject,
    IPrintAsyncNotifyCallback,
    IPrintAsyncNotifyChannel,
    IPrintAsyncNotifyDataObject,
    Spooler,
    kAllUsers,
    kBiDirectional,
    kPerUser,
    kUniDirectional,
)
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.ported import until
from tests.servers import RedisServer


class Interlocked:
    """InterlockedCompareExchange on one LONG."""

    def __init__(self) -> None:
        self._value = 0
        self._lock = threading.Lock()

    def CompareExchange(self, exchange: int, comparand: int) -> int:
        """Set it where it is ``comparand``; what it was."""
        with self._lock:
            before = self._value
            if before == comparand:
                self._value = exchange
            return before


# The print component ----------------------------------------------------------------------------


class ComponentCallback(IPrintAsyncNotifyCallback):
    """The component's IPrintAsyncNotifyCallback: hands answers to the foreground."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.answer: bytes | None = None
        self.reason: bytes | None = None
        self.finished = Interlocked()
        self.foreground_is_done = threading.Event()
        self.was_closed = False

    def OnEventNotify(
        self, channel: IPrintAsyncNotifyChannel | None, data: IPrintAsyncNotifyDataObject
    ) -> HRESULT:
        hr, body, _, schema = data.AcquireData()
        if SUCCEEDED(hr):
            if schema == TYPE:
                self.answer = body
            data.ReleaseData()
        self.answered.set()
        return S_OK

    def ChannelClosed(
        self, channel: IPrintAsyncNotifyChannel, data: IPrintAsyncNotifyDataObject
    ) -> HRESULT:
        # The foreground must not call the channel once this has returned, and nobody releases it.
        if self.finished.CompareExchange(1, 0) != 0:
            self.foreground_is_done.wait(PATIENCE)
        hr, body, _, schema = data.AcquireData()
        if SUCCEEDED(hr):
            if schema != NOTIFICATION_RELEASE:
                self.reason = body
            data.ReleaseData()
        self.was_closed = True
        self.answered.set()
        return S_OK


class PrintComponent:
    """Asks a user something."""

    def __init__(self, spooler: Spooler) -> None:
        self.spooler = spooler
        self.callback = ComponentCallback()
        self.channel: IPrintAsyncNotifyChannel | None = None
        self.closed_with: HRESULT | None = None

    def Ask(self, question: bytes) -> HRESULT:
        hr, self.channel = self.spooler.CreatePrintAsyncNotifyChannel(
            PRINTER, TYPE, kPerUser, kBiDirectional, self.callback
        )
        if FAILED(hr) or self.channel is None:
            return hr
        notification = DataObject(TYPE, question)
        hr = self.channel.SendNotification(notification)
        notification.Release()
        if FAILED(hr):
            self.Finish()
        return hr

    def WaitForAnswer(self, seconds: float = PATIENCE) -> bool:
        return self.callback.answered.wait(seconds)

    def Finish(self) -> None:
        # Foreground and callback cannot begin a call to CloseChannel if the other is about to
        # call, or has completed calling, Release.
        if self.channel is not None and self.callback.finished.CompareExchange(1, 0) == 0:
            hr = self.channel.CloseChannel(None)
            self.closed_with = hr
            if SUCCEEDED(hr):
                self.channel.Release()  # only after a CloseChannel that succeeded
            self.callback.foreground_is_done.set()
        self.channel = None
        self.callback.Release()


# The listening client ---------------------------------------------------------------------------


UserInterface = Callable[[bytes], bytes | None]
"""Asks the user; None leaves the question to others."""


class ListenerCallback(IPrintAsyncNotifyCallback):
    """The listener's IPrintAsyncNotifyCallback. ``ends``: it answers with CloseChannel."""

    def __init__(self, ui: UserInterface, *, ends: bool = False) -> None:
        self.ui = ui
        self.ends = ends
        self.shown: list[bytes | None] = []
        self.results: list[HRESULT] = []
        self.closed: list[bytes | None] = []
        self.done = threading.Semaphore(0)

    def OnEventNotify(
        self, channel: IPrintAsyncNotifyChannel | None, data: IPrintAsyncNotifyDataObject
    ) -> HRESULT:
        hr, body, _, schema = data.AcquireData()
        if FAILED(hr):
            return hr if isinstance(hr, HRESULT) else E_UNEXPECTED
        data.ReleaseData()
        if schema != TYPE:
            return E_UNEXPECTED  # a listening client validates the data
        self.shown.append(body)
        if channel is None:
            self.done.release()  # unidirectional: there is nothing to send back on
            return S_OK
        answer = self.ui(body or b"")
        if answer is None or self.ends:
            reason = None if answer is None else DataObject(TYPE, answer)
            hr = channel.CloseChannel(reason)
            if SUCCEEDED(hr):
                channel.Release()  # CloseChannel and then Release, in OnEventNotify
        else:
            hr = channel.SendNotification(DataObject(TYPE, answer))
            if hr == MAKE_HRESULT(SEVERITY_ERROR, FACILITY_ITF, CHANNEL_ACQUIRED):
                channel.Release()  # another was first: the pointer is still this listener's
        self.results.append(HRESULT(hr))
        self.done.release()
        return S_OK

    def ChannelClosed(
        self, channel: IPrintAsyncNotifyChannel, data: IPrintAsyncNotifyDataObject
    ) -> HRESULT:
        # Neither CloseChannel nor Release in here.
        _, body, _, _ = data.AcquireData()
        data.ReleaseData()
        self.closed.append(body)
        self.done.release()
        return S_OK

    def Wait(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert self.done.acquire(timeout=PATIENCE), (self.shown, self.results, self.closed)


class ListeningClient:
    """A user's session that shows what the spooler asks."""

    def __init__(
        self, spooler: Spooler, callback: ListenerCallback, style: Any, user_filter: Any
    ) -> None:
        self.spooler = spooler
        hr, self.handle = spooler.RegisterForPrintAsyncNotifications(
            PRINTER, TYPE, user_filter, style, callback
        )
        assert hr == S_OK

    def Leave(self) -> None:
        assert self.spooler.UnRegisterForPrintAsyncNotifications(self.handle) == S_OK


# The house --------------------------------------------------------------------------------------


class House:
    """Spoolers of one farm; at its end every callback is back with its maker."""

    def __init__(self, server: RedisServer, stack: ExitStack) -> None:
        self._server = server
        self._namespace = f"t{secrets.token_hex(4)}"
        self._stack = stack
        self.spoolers: list[Spooler] = []
        self.callbacks: list[tuple[IPrintAsyncNotifyCallback, int]] = []

    def spooler(self, user: str = "user1") -> Spooler:
        made = Spooler.connect(self._server.url, user=user, namespace=self._namespace, resync=0.2)
        self.spoolers.append(made)
        return self._stack.enter_context(made)

    def component(self, user: str = "user1") -> PrintComponent:
        made = PrintComponent(self.spooler(user))
        self.callbacks.append((made.callback, 0))  # it releases its own reference in Finish
        return made

    def listener(
        self,
        ui: UserInterface,
        user: str = "user1",
        *,
        ends: bool = False,
        style: Any = kBiDirectional,
        user_filter: Any = kPerUser,
    ) -> ListenerCallback:
        """A session, registered; it leaves when the house is left."""
        callback = ListenerCallback(ui, ends=ends)
        self.callbacks.append((callback, 1))
        client = ListeningClient(self.spooler(user), callback, style, user_filter)
        self._stack.callback(client.Leave)
        return callback

    def is_in_order(self) -> None:
        """After everybody left."""
        for spooler in self.spoolers:
            assert not spooler.violations
        for callback, own in self.callbacks:
            assert callback.references == own, callback


@pytest.fixture
def house(redis_server: RedisServer) -> Iterator[House]:
    with ExitStack() as stack:
        made = House(redis_server, stack)
        yield made
    made.is_in_order()


def yes(_: bytes) -> bytes:
    return b"yes"


def nobody(_: bytes) -> None:
    return None


# What the page says -----------------------------------------------------------------------------


def test_open_send_wait_close_release(house: House) -> None:
    listener = house.listener(yes)
    component = house.component()
    assert component.Ask(b"Continue on A3?") == S_OK
    assert component.WaitForAnswer()
    assert component.callback.answer == b"yes"
    component.Finish()
    assert component.closed_with == S_OK
    listener.Wait(2)
    assert (listener.shown, listener.results) == ([b"Continue on A3?"], [S_OK])
    assert listener.closed == [None], "no reason was given"


def test_the_listener_ends_the_dialog_with_its_answer(house: House) -> None:
    """CloseChannel with data, then Release, inside OnEventNotify."""
    listener = house.listener(yes, ends=True)
    component = house.component()
    component.Ask(b"Continue on A3?")
    assert component.WaitForAnswer()
    assert (component.callback.answer, component.callback.reason) == (None, b"yes")
    component.Finish()
    assert component.closed_with is None, "ChannelClosed came: the foreground calls nothing"
    listener.Wait()
    assert (listener.results, listener.closed) == ([S_OK], [])


def test_nobody_listens_and_the_component_gives_up(house: House) -> None:
    component = house.component()
    hr = component.Ask(b"Anybody?")
    assert SUCCEEDED(hr)
    assert HRESULT_CODE(hr) == NO_LISTENERS
    assert not component.WaitForAnswer(0)
    component.Finish()
    assert component.closed_with == S_OK


def test_a_listener_that_is_not_interested_leaves_it_to_another(house: House) -> None:
    idle = house.listener(nobody)

    def hesitate(_: bytes) -> bytes:
        until(lambda: bool(idle.results), "the other one to leave it")
        return b"yes"

    willing = house.listener(hesitate)
    component = house.component()
    component.Ask(b"Continue on A3?")
    assert component.WaitForAnswer()
    assert component.callback.answer == b"yes"
    component.Finish()
    idle.Wait()
    willing.Wait(2)
    assert (idle.results, idle.closed) == ([S_OK], [])


@pytest.mark.parametrize("ends", [False, True], ids=["by SendNotification", "by CloseChannel"])
def test_the_one_that_answers_late_finds_the_channel_taken(house: House, ends: bool) -> None:
    """Both sessions show it; the first to respond goes on with the dialog."""
    everybody_sees_it, first_answered = threading.Barrier(2), threading.Event()

    def quick(_: bytes) -> bytes:
        everybody_sees_it.wait(PATIENCE)
        return b"quick"

    def slow(_: bytes) -> bytes:
        everybody_sees_it.wait(PATIENCE)
        assert first_answered.wait(PATIENCE)
        return b"slow"

    first, second = house.listener(quick), house.listener(slow, ends=ends)
    component = house.component()
    component.Ask(b"Continue on A3?")
    assert component.WaitForAnswer()
    first_answered.set()
    second.Wait()
    assert component.callback.answer == b"quick"
    assert [HRESULT_CODE(hr) for hr in second.results] == [CHANNEL_ACQUIRED]
    assert SUCCEEDED(second.results[0]) == ends
    component.Finish()
    first.Wait(2)
    assert second.closed == [], "it knows already, and the pointer is released"


def test_an_administrator_who_logs_on_later_is_asked_the_same(house: House) -> None:
    """And whoever hesitates hears that the channel is closed."""
    hesitates = threading.Event()

    def hesitate(_: bytes) -> bytes:
        assert hesitates.wait(PATIENCE)
        return b"too late"

    user = house.listener(hesitate)
    component = house.component()
    component.Ask(b"Continue on A3?")
    house.spooler()._broker.grant(PRINTER, "admin", "administer")
    admin = house.listener(yes, "admin", user_filter=kAllUsers)
    assert component.WaitForAnswer()
    assert component.callback.answer == b"yes"
    assert admin.shown == [b"Continue on A3?"]
    component.Finish()
    admin.Wait(2)
    hesitates.set()
    user.Wait()
    assert [HRESULT_CODE(hr) for hr in user.results] == [CHANNEL_ACQUIRED]


def test_notifications_go_to_their_user_and_are_not_answered(house: House) -> None:
    """Unidirectional: no callback, no channel for the listener; close, then Release once."""
    mine = house.listener(yes, style=kUniDirectional)
    other = house.listener(yes, "user2", style=kUniDirectional)
    spooler = house.spooler()
    hr, channel = spooler.CreatePrintAsyncNotifyChannel(
        PRINTER, TYPE, kPerUser, kUniDirectional, None
    )
    assert hr == S_OK
    assert channel is not None
    for page in (b"page 1", b"page 2", b"page 3"):
        notification = DataObject(TYPE, page)
        assert channel.SendNotification(notification) == S_OK
        assert notification.Release() == 0
    assert channel.CloseChannel(None) == S_OK
    assert channel.Release() == 0
    mine.Wait(3)
    assert mine.shown == [b"page 1", b"page 2", b"page 3"]
    assert (mine.results, other.shown) == ([], [])


@pytest.mark.parametrize("ends", [False, True], ids=["answers", "closes"])
def test_a_foreground_that_gives_up_while_the_answer_comes(house: House, ends: bool) -> None:
    """The exchange decides who finishes; whichever it is, nothing is released twice or never."""
    house.listener(yes, ends=ends)
    spooler = house.spooler()
    outcomes = set()
    for round_ in range(100):
        component = PrintComponent(spooler)
        house.callbacks.append((component.callback, 0))
        component.Ask(b"Continue on A3?")
        component.WaitForAnswer(0.0001 * (round_ % 30))
        component.Finish()
        outcomes.add(component.closed_with)
    too_late = MAKE_HRESULT(SEVERITY_ERROR, FACILITY_ITF, CHANNEL_ALREADY_CLOSED)
    assert outcomes <= {None, S_OK, too_late}
