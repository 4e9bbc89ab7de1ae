"""The rules of Release, row by row (docs/interfaces.md), on both backends.

One client is both ends here; what needs threads that race is in tests/redis/test_prnasnot.py, and
each order of one call and one callback in tests/unit/test_pointer.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broker.prnasnot import (
    ASYNC_CALL_IN_PROGRESS,
    CHANNEL_ACQUIRED,
    CHANNEL_ALREADY_CLOSED,
    CHANNEL_NOT_OPENED,
    CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION,
    E_HANDLE,
    FAILED,
    HRESULT,
    INVALID_NOTIFICATION_TYPE,
    NO_LISTENERS,
    NOTIFICATION_RELEASE,
    S_OK,
    DataObject,
    IID_IPrintAsyncNotifyChannel,
    IID_IUnknown,
    Spooler,
    kUniDirectional,
)
from tests.farm import OTHER_TYPE, PATIENCE, TYPE, Backend
from tests.ported import (
    CLOSED,
    Callback,
    E,
    S,
    ask,
    create,
    data,
    dialog,
    on,
    register,
    until,
    until_held,
    violations,
)


@pytest.fixture
def spooler(backend: Backend) -> Iterator[Spooler]:
    """One client on each backend."""
    with on(backend) as made:
        yield made


def test_an_explicit_reference_takes_one_release_more(spooler: Spooler) -> None:
    channel = create(spooler)
    assert [channel.AddRef(), channel.AddRef()] == [2, 3]
    assert [channel.Release(), channel.Release()] == [2, 1]
    hr, same = channel.QueryInterface(IID_IPrintAsyncNotifyChannel)
    assert hr == S_OK
    assert same is channel
    assert channel.Release() == 1
    assert channel.Release() == 0, "the implicit one: the channel is abandoned"
    assert not spooler._broker.channels()


def test_an_explicit_reference_outlives_the_close(spooler: Spooler) -> None:
    register(spooler, Callback())
    channel = ask(spooler)
    channel.AddRef()
    assert channel.CloseChannel() == S_OK
    assert channel.references == 1
    with violations(spooler, 0):
        assert [channel.Release(), channel.Release()] == [0, 0]
    with violations(spooler):
        channel.Release()


@pytest.mark.parametrize("closes", [True, False])
def test_a_unidirectional_creator_releases_once(spooler: Spooler, closes: bool) -> None:
    channel = create(spooler, style=kUniDirectional)
    assert channel.SendNotification(data()) == S(NO_LISTENERS)
    if closes:
        assert channel.CloseChannel() == S_OK
    assert channel.Release() == 0
    assert not spooler._broker.channels()
    with violations(spooler):
        assert channel.Release() == 0


def test_a_unidirectional_creators_callback_is_not_touched(spooler: Spooler) -> None:
    callback = Callback()
    channel = create(spooler, callback, kUniDirectional)
    assert callback.references == 1
    channel.Release()
    assert not callback.noted


def test_a_creator_may_not_close_at_once_but_release(spooler: Spooler) -> None:
    callback = Callback()
    channel = create(spooler, callback)
    assert callback.references == 2
    assert channel.CloseChannel() == E(CHANNEL_NOT_OPENED)
    assert channel.Release() == 0
    assert callback.references == 1
    assert channel.SendNotification(data()) == E(CHANNEL_ALREADY_CLOSED)


def test_a_creator_may_not_release_what_it_sent(spooler: Spooler) -> None:
    register(spooler, Callback())
    source = Callback()
    channel = ask(spooler, source)
    with violations(spooler):
        assert channel.Release() == 1
    assert channel.SendNotification(data()) == E(CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION)
    assert channel.CloseChannel() == S_OK


def test_a_creator_keeps_what_nobody_listens_to(spooler: Spooler) -> None:
    channel = create(spooler)
    assert channel.SendNotification(data()) == S(NO_LISTENERS)
    with violations(spooler, 0):
        assert channel.Release() == 0
    late = Callback()
    register(spooler, late)
    assert not late.noted


@pytest.mark.parametrize("wrong", [DataObject(OTHER_TYPE), DataObject(TYPE, b"x" * 101), None])
def test_a_creator_keeps_what_it_failed_to_send(spooler: Spooler, wrong: DataObject | None) -> None:
    channel = create(spooler)
    assert FAILED(channel.SendNotification(wrong))
    with violations(spooler, 0):
        assert channel.Release() == 0


def test_a_creator_may_release_inside_on_event_notify(spooler: Spooler) -> None:
    """It has the reference again, and gives up the dialog."""
    left: list[int] = []
    source = Callback(on_event=lambda channel, _: left.append(channel.Release()))
    _, handle = dialog(spooler, source, listener := Callback())
    assert left == [0]
    assert listener.next(CLOSED) == (handle, None)
    until(lambda: source.references == listener.references - 1 == 1, "the callbacks back")
    assert not source.noted


@pytest.mark.parametrize("releases", [0, 1])
@pytest.mark.parametrize("closer", ["source", "owner"])
def test_a_close_that_succeeds_drops_the_reference_with_and_without_a_release(
    spooler: Spooler, closer: str, releases: int
) -> None:
    source, listener = Callback(), Callback()
    channel, handle = dialog(spooler, source, listener)
    mine, other = (channel, handle) if closer == "source" else (handle, channel)
    assert mine.CloseChannel(data(b"over")) == S_OK
    assert mine.references == 0
    with violations(spooler, 0):
        for _ in range(releases):
            assert mine.Release() == 0
    told = listener if closer == "source" else source
    assert told.next(CLOSED) == (other, b"over")
    until(lambda: (source.references, listener.references) == (1, 2), "the callbacks back")
    if releases:
        with violations(spooler):
            assert mine.Release() == 0


def test_after_a_close_that_came_too_late_nothing_is_to_be_released(spooler: Spooler) -> None:
    """A source without a callback finds out by its own close (C12)."""
    listener = Callback(on_event=lambda handle, _: handle.CloseChannel(data(b"no")))
    register(spooler, listener)
    channel = ask(spooler)
    listener.next()
    assert channel.CloseChannel() == E(CHANNEL_ALREADY_CLOSED)
    assert channel.references == 0
    with violations(spooler):
        assert channel.Release() == 0


def test_after_a_close_that_failed_release_abandons(spooler: Spooler) -> None:
    """C14: the channel lives, and the reference is still the caller's."""
    source, listener = Callback(), Callback()
    channel, handle = dialog(spooler, source, listener)
    assert channel.CloseChannel(DataObject(OTHER_TYPE)) == E(INVALID_NOTIFICATION_TYPE)
    with violations(spooler, 0):
        assert channel.Release() == 0
    assert listener.next(CLOSED) == (handle, None)


def test_a_close_without_a_reason_and_with_an_empty_one_are_the_same(spooler: Spooler) -> None:
    for reason in (None, DataObject(NOTIFICATION_RELEASE, b"ignored")):
        listener = Callback()
        channel, handle = dialog(spooler, Callback(), listener)
        assert channel.CloseChannel(reason) == S_OK
        assert listener.next(CLOSED) == (handle, None)


def everything(pointer: Any) -> dict[str, HRESULT | int]:
    """Every call there is."""
    return {
        "Send": pointer.SendNotification(data(b"late")),
        "Close": pointer.CloseChannel(),
        "Close with data": pointer.CloseChannel(data(b"late")),
        "Release": pointer.Release(),
    }


@pytest.mark.parametrize("told", ["source", "owner"])
def test_inside_and_after_channel_closed_every_call_is_refused(spooler: Spooler, told: str) -> None:
    answers: list[dict[str, HRESULT | int]] = []

    def try_all(pointer: Any, _: object) -> None:
        answers.append(everything(pointer))

    source, listener = Callback(on_closed=try_all), Callback(on_closed=try_all)
    channel, handle = dialog(spooler, source, listener)
    pointer, other = (channel, handle) if told == "source" else (handle, channel)
    refused = dict.fromkeys(("Send", "Close", "Close with data"), E(CHANNEL_ALREADY_CLOSED))
    expected = refused | {"Release": 0}
    with violations(spooler, 4):
        assert other.CloseChannel() == S_OK
        (source if told == "source" else listener).next(CLOSED)
    until(lambda: pointer._is_dead, "ChannelClosed to return")
    with violations(spooler, 6):
        answers.append(everything(pointer))
        assert pointer.AddRef() == 0
        assert pointer.QueryInterface(IID_IUnknown) == (E_HANDLE, None)
    assert answers == [expected, expected]
    assert not source.noted
    assert not listener.noted


def test_an_explicit_reference_may_be_released_after_channel_closed(spooler: Spooler) -> None:
    source, listener = Callback(), Callback()
    channel, handle = dialog(spooler, source, listener)
    handle.AddRef()
    channel.CloseChannel()
    listener.next(CLOSED)
    with violations(spooler, 0):
        assert handle.Release() == 0


@pytest.mark.parametrize("how", ["Release", "CloseChannel", "CloseChannel and Release"])
def test_a_listener_that_is_not_interested_leaves_the_question_to_others(
    spooler: Spooler, how: str
) -> None:
    def leave(handle: Any, _: object) -> None:
        for call in how.split(" and "):
            assert getattr(handle, call)() == 0

    idle, source = Callback(on_event=leave), Callback()
    register(spooler, idle)
    with violations(spooler, 0):
        channel = ask(spooler, source)
        idle.next()
    until_held(idle, 2)
    other = Callback(on_event=lambda handle, _: handle.CloseChannel(data(b"yes")))
    register(spooler, other)
    assert source.next(CLOSED) == (channel, b"yes")
    assert not idle.noted, "nothing more is told"


def test_a_listener_may_not_release_what_it_answered(spooler: Spooler) -> None:
    source, listener = Callback(), Callback()
    channel, handle = dialog(spooler, source, listener)
    with violations(spooler):
        assert handle.Release() == 1
    assert handle.SendNotification(data()) == E(ASYNC_CALL_IN_PROGRESS)
    assert channel.SendNotification(data(b"and?")) == S_OK
    assert listener.next() == (handle, b"and?"), "the same pointer (R116)"


@pytest.mark.parametrize(
    ("how", "more"),
    [
        ("Release", [0]),
        ("CloseChannel", [S(CHANNEL_ACQUIRED)]),
        ("CloseChannel and Release", [S(CHANNEL_ACQUIRED), 0]),
        ("", []),
    ],
)
def test_a_listener_that_lost_still_has_its_reference(
    spooler: Spooler, how: str, more: list[int]
) -> None:
    """And is told nothing more, whether it drops it or not."""
    lost: list[HRESULT] = []
    turn = threading.Event()

    def answer_late(handle: Any, _: object) -> None:
        turn.wait(PATIENCE)
        lost.append(handle.SendNotification(data(b"me too")))
        assert handle.references == 1
        lost.extend(getattr(handle, call)() for call in how.split(" and ") if call)

    late = Callback(on_event=answer_late)
    register(spooler, late)
    source, first = Callback(), Callback()
    with violations(spooler, 0):
        channel, _ = dialog(spooler, source, first)
        turn.set()
        handle, _ = late.next()
        channel.CloseChannel()
        first.next(CLOSED)
    assert lost == [E(CHANNEL_ACQUIRED), *more]
    until_held(late, 2)
    assert not late.noted
    if "Release" not in how:
        with violations(spooler, 0):
            assert handle.Release() == 0, "later is early enough"
    with violations(spooler):
        assert handle.Release() == 0


def test_a_loser_that_did_not_answer_is_told_at_once(spooler: Spooler) -> None:
    """D20. What it says after that is refused, and there is nothing to be released."""
    idle = Callback()
    register(spooler, idle)
    dialog(spooler, Callback(), Callback())
    handle, _ = idle.next()
    assert idle.next(CLOSED) == (handle, None)
    until(lambda: handle._is_dead, "ChannelClosed to return")
    assert everything(handle) == {
        "Send": E(CHANNEL_ACQUIRED),
        "Close": E(CHANNEL_ALREADY_CLOSED),
        "Close with data": E(CHANNEL_ALREADY_CLOSED),
        "Release": 0,
    }
