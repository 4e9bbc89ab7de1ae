"""Where calls and callbacks of one channel pointer meet, step by step, on an end that waits.

The real ends race in tests/redis/test_prnasnot.py; here each order is forced.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from broker._hresult import E_UNEXPECTED, HRESULT, S_OK
from broker._pointer import Ear, Loan, attempt
from broker.errors import (
    BrokerClosed,
    ChannelAcquired,
    ChannelAlreadyClosed,
    ContractViolation,
    NotDurable,
    TympanError,
)
from broker.names import Name
from broker.notification import Closing, Notification
from broker.notification_type import NOTIFICATION_RELEASE
from broker.prnasnot import CHANNEL_ACQUIRED, CHANNEL_ALREADY_CLOSED
from broker.results import NO_LISTENERS, Result
from broker.results import S_OK as OK
from broker.sync import Channel, Offer
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.ported import CLOSED, EVENT, Callback, E, data

WHERE = Name.parse(PRINTER)
SAID: Notification[Any] = Notification(TYPE, b"said", "c1", WHERE, None, 0.0)
RELEASE: Notification[Any] = Notification(NOTIFICATION_RELEASE, None, "c1", WHERE, None, 0.0)


class Scripted:
    """One end of a channel: answers as told, as soon as it may."""

    def __init__(self, outcome: Result | TympanError = OK) -> None:
        self.outcome = outcome
        self.asked = threading.Semaphore(0)
        self.may = threading.Event()
        self.may.set()
        self.count = 0
        self.is_over: Closing | None = None

    id = "c1"
    is_lost = True

    @property
    def closing(self) -> Closing | None:
        return self.is_over

    def answer(self, *_: object) -> Result:
        self.count += 1
        self.asked.release()
        assert self.may.wait(PATIENCE)
        if isinstance(self.outcome, TympanError):
            raise self.outcome
        return self.outcome

    send = respond = close = release = answer


class Source(Scripted, Channel):  # type: ignore[misc]
    """A source's end."""


class Listener(Scripted, Offer[Any]):
    """A listener's end."""


def beside(work: Any, *args: object) -> tuple[threading.Thread, list[Any]]:
    """A call in a thread, and where its result will be."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work(*args)), daemon=True)
    thread.start()
    return thread, results


def ended(thread: threading.Thread) -> None:
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.fixture
def callback() -> Callback:
    return Callback()


@pytest.fixture
def violations() -> list[ContractViolation]:
    return []


@pytest.fixture
def ear(callback: Callback, violations: list[ContractViolation]) -> Ear:
    """A listener's."""
    return Ear(callback, violations.append, Loan(callback))


@pytest.fixture
def source_ear(callback: Callback, violations: list[ContractViolation]) -> Ear:
    return Ear(callback, violations.append)


def shown(ear: Ear, end: Any, callback: Callback) -> Any:
    """The pointer, as the first OnEventNotify shows it."""
    ear.on_event_notify(end, SAID)
    return callback.next()[0]


def test_channel_closed_waits_for_a_call_and_is_not_told_when_that_says_it(
    ear: Ear, callback: Callback, violations: list[ContractViolation]
) -> None:
    """A loser whose answer is under way learns it from the answer; the reference stays its own."""
    end = Listener(ChannelAcquired("bob was first"))
    pointer = shown(ear, end, callback)
    end.may.clear()
    sending, said = beside(pointer.SendNotification, data())
    assert end.asked.acquire(timeout=PATIENCE)
    telling, _ = beside(ear.channel_closed, end, RELEASE)
    telling.join(0.05)
    assert telling.is_alive(), "it waits"
    assert not callback.noted
    end.may.set()
    ended(sending)
    ended(telling)
    assert said == [E(CHANNEL_ACQUIRED)]
    assert not callback.noted
    assert (pointer.references, callback.references) == (1, 2)
    assert pointer.Release() == 0
    assert not violations


def test_a_call_that_begins_while_channel_closed_waits_finds_it_told(
    ear: Ear, callback: Callback
) -> None:
    """Callers that never pause cannot keep it from being told."""
    end = Listener(ChannelAlreadyClosed("closed"))
    pointer = shown(ear, end, callback)
    end.may.clear()
    sending, _ = beside(pointer.SendNotification, data())
    assert end.asked.acquire(timeout=PATIENCE)
    telling, _ = beside(ear.channel_closed, end, RELEASE)
    telling.join(0.05)
    late, said = beside(pointer.CloseChannel)
    late.join(0.05)
    assert not said
    end.may.set()
    for thread in (sending, telling, late):
        ended(thread)
    assert callback.noted == [CLOSED]
    assert said == [E(CHANNEL_ALREADY_CLOSED)]
    assert end.count == 1, "the late one asked nobody"


def test_nothing_arrives_after_a_call_that_found_the_channel_closed(
    ear: Ear, callback: Callback
) -> None:
    """Only ChannelClosed is still to come."""
    end = Listener(ChannelAlreadyClosed("closed"))
    pointer = shown(ear, end, callback)
    assert pointer.SendNotification(data()) == E(CHANNEL_ALREADY_CLOSED)
    assert pointer.references == 0
    ear.on_event_notify(end, SAID)
    ear.channel_closed(end, RELEASE)
    assert callback.noted == [CLOSED]


def test_two_last_releases_are_one_after_another(
    ear: Ear, callback: Callback, violations: list[ContractViolation]
) -> None:
    """The core is asked once; AddRef waits for neither."""
    end = Listener()
    pointer = shown(ear, end, callback)
    end.may.clear()
    releasing = [beside(pointer.Release) for _ in range(2)]
    assert end.asked.acquire(timeout=PATIENCE)
    assert not end.asked.acquire(timeout=0.05)
    assert [pointer.AddRef(), pointer.Release()] == [2, 1]
    end.may.set()
    for thread, _ in releasing:
        ended(thread)
    assert [left for _, left in releasing] == [[0], [0]]
    assert (end.count, len(violations)) == (1, 1)


def test_a_close_that_is_under_way_lets_the_last_release_wait(
    ear: Ear, callback: Callback, violations: list[ContractViolation]
) -> None:
    """So it is the one that is allowed after a close."""
    end = Listener()
    pointer = shown(ear, end, callback)
    end.may.clear()
    closing, closed = beside(pointer.CloseChannel)
    assert end.asked.acquire(timeout=PATIENCE)
    releasing, left = beside(pointer.Release)
    assert not end.asked.acquire(timeout=0.05)
    end.may.set()
    ended(closing)
    ended(releasing)
    assert (closed, left) == ([S_OK], [0])
    assert (end.count, violations) == (1, [])


def test_what_comes_for_a_source_that_has_closed_is_dropped(
    source_ear: Ear, callback: Callback
) -> None:
    """Also when it was on its way already; no second pointer is made for it (R104, R116)."""
    end = Source()
    pointer = source_ear.pointer(end)
    assert pointer is not None
    assert pointer.CloseChannel() == S_OK
    end.is_over = Closing("c1", RELEASE, "source")
    source_ear.on_event_notify(end, SAID)
    source_ear.channel_closed(end, RELEASE)
    assert not callback.noted
    assert source_ear.pointer(end) is pointer
    assert callback.references == 1


def test_what_a_source_is_told_before_its_create_returned_is_told(
    source_ear: Ear, callback: Callback
) -> None:
    """With the pointer that Create then gives."""
    end = Source()
    source_ear.channel_closed(end, RELEASE)
    assert callback.next(CLOSED) == (source_ear.pointer(end), None)


def test_a_question_that_was_on_its_way_to_an_unregistered_listener_is_not_shown(
    callback: Callback, violations: list[ContractViolation]
) -> None:
    loan = Loan(callback)
    ear = Ear(callback, violations.append, loan)
    loan.end()
    ear.on_event_notify(Listener(), SAID)
    ear.on_event_notify(None, SAID)
    ear.channel_closed(Listener(), RELEASE)
    assert not callback.noted
    assert callback.references == 1


def test_a_question_that_is_lost_before_it_was_shown_is_not_shown(
    ear: Ear, callback: Callback
) -> None:
    end = Listener()
    end.is_over = Closing("c1", RELEASE, "bob", acquired=True)
    ear.on_event_notify(end, SAID)
    ear.channel_closed(end, RELEASE)
    assert not callback.noted


def test_a_winner_that_redis_forgot_gives_the_reference_back_to_the_broker(
    ear: Ear, callback: Callback
) -> None:
    """The next answer is the first one then, and the dialog is told of again."""
    end = Listener(ChannelAcquired("bob was first"))
    pointer = shown(ear, end, callback)
    assert pointer.SendNotification(data()) == E(CHANNEL_ACQUIRED)
    end.outcome = OK
    assert pointer.SendNotification(data()) == S_OK
    ear.on_event_notify(end, SAID)
    assert callback.noted == [EVENT]


def test_a_release_once_the_broker_is_closed_is_no_violation(
    ear: Ear, callback: Callback, violations: list[ContractViolation]
) -> None:
    end = Listener(BrokerClosed("closed"))
    pointer = shown(ear, end, callback)
    assert pointer.Release() == 0
    assert not violations
    pointer.Release()
    assert len(violations) == 1


def test_what_is_done_but_not_held_as_asked_is_done(
    ear: Ear, callback: Callback, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure would have the component do it again."""
    end = Listener(NotDurable("no replica has it", OK))
    pointer = shown(ear, end, callback)
    assert pointer.CloseChannel() == S_OK
    assert pointer.references == 0
    assert "no replica has it" in caplog.text


def test_an_error_that_nobody_foresaw_is_a_status() -> None:
    assert attempt(print, lambda: NO_LISTENERS) == (HRESULT(NO_LISTENERS.hresult), None)
    assert attempt(print, lambda: 1 / 0)[0] == E_UNEXPECTED  # type: ignore[arg-type, return-value]
