"""The races that the documents leave undefined, and what comes of them here (docs/interfaces.md).

Real threads on a real Redis: a foreground and a callback that both want to finish a channel, two
ends that close at once, answers that meet closes and other answers, handles that are undone twice.
Redis counts how many implicit references each channel has dropped.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from broker._pointer import Implicit
from broker.prnasnot import (
    ALREADY_UNREGISTERED,
    CHANNEL_ACQUIRED,
    CHANNEL_ALREADY_CLOSED,
    CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION,
    FAILED,
    HRESULT,
    NO_LISTENERS,
    S_OK,
    SUCCEEDED,
    Spooler,
    kBiDirectional,
    kPerUser,
    kUniDirectional,
)
from tests.farm import OTHER_PRINTER, PATIENCE, PRINTER, TYPE
from tests.ported import (
    CLOSED,
    EVENT,
    Callback,
    E,
    S,
    ask,
    create,
    data,
    register,
    until,
    until_held,
    violations,
)
from tests.servers import RedisServer

ROUNDS = 200
NEARLY = 0.004
"""Seconds that separate the last beginning from the first: a call takes about one."""
BOTH = 2
"""Implicit references of a dialog: the source's and the owner's."""


class Place:
    """Spoolers of one farm, each a process of its own to the others; and a look into Redis."""

    def __init__(self, server: RedisServer, stack: ExitStack) -> None:
        self.server = server
        self.namespace = f"t{secrets.token_hex(4)}"
        self._stack = stack

    def spooler(self, **options: Any) -> Spooler:
        """Another process; all have one user."""
        made = Spooler.connect(
            self.server.url, user="alice", namespace=self.namespace, resync=0.2, **options
        )
        return self._stack.enter_context(made)

    def drops(self, pointer: Any) -> int:
        """Implicit references of the channel that were dropped."""
        key = f"{self.namespace}:{{print01}}:channel:{pointer._end.id}"
        return int(self.server.cli("HGET", key, "drops") or 0)


@pytest.fixture
def place(redis_server: RedisServer) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(redis_server, stack)


class Beside:
    """Work in a thread of its own; an error of it is raised where it is awaited."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised below
            self._error = error

    def result(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"still waiting after {PATIENCE:g} s"
        if self._error is not None:
            raise self._error
        return self._result


def together(*works: Callable[[], Any]) -> list[Any]:
    """Begin all at nearly the same time, each in a thread of its own; what they return."""
    start = threading.Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        start.wait(PATIENCE)
        if random.random() < 0.5:
            threading.Event().wait(random.random() * NEARLY)
        return work()

    running = [Beside(partial(begin, work)) for work in works]
    return [each.result() for each in running]


class Dialogs:
    """Dialogs between one source and one listener, both with callbacks."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.source, self.listener = place.spooler(), place.spooler()
        self.asked = Callback()
        register(self.listener, self.asked)

    def one(self, answer: Callback | None = None) -> tuple[Any, Any, Callback]:
        """Channel and handle of a dialog that was answered, and the source's callback."""
        callback = answer or Callback()
        channel = ask(self.source, callback)
        handle, _ = self.asked.next()
        assert handle.SendNotification(data(b"mine")) == S_OK
        return channel, handle, callback

    def is_over(self, channel: Any, handle: Any, callback: Callback) -> None:
        """Both references were dropped, once, and both callbacks given back."""
        assert (channel.references, handle.references) == (0, 0)
        until_held(callback, 1)
        until_held(self.asked, 2)
        assert self.place.drops(channel) == BOTH


# One end, two threads ---------------------------------------------------------------------------


def close_then_release(pointer: Any) -> list[HRESULT | int]:
    """As S0 has it: Release after a close that succeeded, and never otherwise."""
    hr = pointer.CloseChannel(data(b"over"))
    return [hr, pointer.Release()] if SUCCEEDED(hr) else [hr]


def close_only(pointer: Any) -> list[HRESULT | int]:
    """As the reference pages have it."""
    return [pointer.CloseChannel(data(b"over"))]


def release_only(pointer: Any) -> list[HRESULT | int]:
    """Giving up the dialog."""
    return [pointer.Release()]


@pytest.mark.parametrize(
    ("foreground", "callback"),
    [
        (close_then_release, close_then_release),
        (close_only, close_then_release),
        (close_only, close_only),
        (release_only, close_then_release),
        (close_then_release, release_only),
        (release_only, release_only),
    ],
)
def test_a_foreground_and_a_callback_that_both_finish_the_channel(
    place: Place,
    foreground: Callable[[Any], list[HRESULT | int]],
    callback: Callable[[Any], list[HRESULT | int]],
) -> None:
    """Exactly one final drop; the later one gets a clean code, or its Release is a no-op."""
    dialogs = Dialogs(place)
    for _ in range(ROUNDS):
        start = threading.Barrier(2)
        inside: list[list[HRESULT | int]] = []

        def finish(
            channel: Any, _: object, start: threading.Barrier = start, inside: Any = inside
        ) -> None:
            start.wait(PATIENCE)
            inside.append(callback(channel))

        before = len(dialogs.source.violations)
        channel, handle, heard = dialogs.one(Callback(on_event=finish))

        def outside(channel: Any = channel, start: threading.Barrier = start) -> Any:
            start.wait(PATIENCE)
            return foreground(channel)

        said = Beside(outside).result()
        heard.next()
        dialogs.asked.next(CLOSED)
        dialogs.is_over(channel, handle, heard)
        assert not heard.noted, "its own close is not told"
        closes = [answers[0] for answers in (said, *inside) if isinstance(answers[0], HRESULT)]
        assert closes.count(S_OK) <= 1
        assert set(closes) <= {S_OK, E(CHANNEL_ALREADY_CLOSED)}
        counts = [each for answers in (said, *inside) for each in answers[-1:]]
        assert all(each == 0 for each in counts if not isinstance(each, HRESULT))
        reported = len(dialogs.source.violations) - before
        if release_only not in (foreground, callback):
            assert closes.count(S_OK) == 1
            assert reported == 0, "code that keeps to the rules is never blamed"
        assert reported <= 1


def test_the_last_release_of_two_threads_is_one(place: Place) -> None:
    """With explicit references too: the count falls to 0 once, and the channel ends then."""
    dialogs = Dialogs(place)
    for _ in range(ROUNDS // 4):
        channel, handle, heard = dialogs.one()
        heard.next()
        assert [channel.AddRef() for _ in range(3)] == [2, 3, 4]
        with violations(dialogs.source, 0):
            left = together(*[channel.Release] * 4)
        assert sorted(left) == [0, 1, 2, 3]
        assert dialogs.asked.next(CLOSED) == (handle, None)
        dialogs.is_over(channel, handle, heard)


# Two ends ---------------------------------------------------------------------------------------


def test_two_ends_that_close_at_once(place: Place) -> None:
    """One succeeds. The other is told by its status, and once by ChannelClosed (R105)."""
    dialogs = Dialogs(place)
    for _ in range(ROUNDS):
        channel, handle, heard = dialogs.one()
        heard.next()
        source, owner = together(
            partial(close_then_release, channel), partial(close_then_release, handle)
        )
        assert sorted([source[0], owner[0]]) == [S_OK, E(CHANNEL_ALREADY_CLOSED)]
        lost, pointer = (heard, channel) if owner[0] == S_OK else (dialogs.asked, handle)
        assert lost.next(CLOSED) == (pointer, b"over")
        dialogs.is_over(channel, handle, heard)
        assert not heard.noted
        assert not dialogs.asked.noted
    for violation in (*dialogs.source.violations, *dialogs.listener.violations):
        assert "CloseChannel after ChannelClosed" in str(violation), "it began too late"


def test_a_response_that_meets_a_close(place: Place) -> None:
    """Delivered before the close, or refused, or the owner is told that it came to nothing."""
    dialogs = Dialogs(place)
    for _ in range(ROUNDS):
        heard = Callback()
        channel = ask(dialogs.source, heard)
        handle, _ = dialogs.asked.next()
        said, closed = together(
            partial(handle.SendNotification, data(b"yes")),
            partial(channel.CloseChannel, data(b"never mind")),
        )
        assert closed == S_OK
        assert said in (S_OK, E(CHANNEL_ALREADY_CLOSED))
        assert dialogs.asked.next(CLOSED) == (handle, b"never mind")
        until_held(heard, 1)
        assert heard.noted in ([], [EVENT])
        if said != S_OK:
            assert not heard.noted, "what was refused is not delivered"
        with violations(dialogs.source, 0):
            assert channel.Release() == 0
        with violations(dialogs.listener):
            assert handle.Release() == 0
        assert place.drops(channel) == (BOTH if said == S_OK else 1)


def test_nothing_is_told_of_a_channel_once_its_close_returned(place: Place) -> None:
    """A follow-up that was on its way when the owner closed is dropped (R104)."""
    dialogs = Dialogs(place)
    for _ in range(ROUNDS // 4):
        channel, handle, heard = dialogs.one()
        heard.next()
        assert channel.SendNotification(data(b"and?")) == S_OK
        assert handle.CloseChannel() == S_OK
        noted = len(dialogs.asked.noted)
        assert heard.next(CLOSED) == (channel, None)
        until_held(dialogs.asked, 2)
        assert len(dialogs.asked.noted) - noted <= 1, "only one that had begun"
        while dialogs.asked.noted:
            assert dialogs.asked.next() == (handle, b"and?")


@pytest.mark.parametrize("end", ["source", "owner"])
def test_calls_that_never_stop_are_refused_once_channel_closed_returned(
    place: Place, end: str
) -> None:
    """However many threads call: ChannelClosed comes, and after it nothing has an effect."""
    dialogs = Dialogs(place)
    returned = threading.Event()
    began = threading.Semaphore(0)
    callback = Callback(on_closed=lambda *_: returned.set())
    if end == "owner":
        dialogs.asked._on_closed = lambda *_: returned.set()
    channel, handle, heard = dialogs.one(callback)
    heard.next()
    pointer, other = (channel, handle) if end == "source" else (handle, channel)

    def hammer() -> HRESULT:
        """What the first call says that begins after ChannelClosed returned."""
        while True:
            is_late = pointer._is_dead
            hr: HRESULT = pointer.SendNotification(data(b"again"))
            began.release()
            if is_late:
                return hr

    hammering = [Beside(hammer) for _ in range(4)]
    for _ in hammering:
        assert began.acquire(timeout=PATIENCE)
    assert other.CloseChannel() == S_OK
    assert {each.result() for each in hammering} == {E(CHANNEL_ALREADY_CLOSED)}
    assert returned.is_set()
    with violations(dialogs.source if end == "source" else dialogs.listener):
        assert pointer.Release() == 0
    assert place.drops(channel) == BOTH


# Two listeners ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SendNotification", "CloseChannel"])
def test_two_listeners_that_answer_at_once(place: Place, how: str) -> None:
    """One owns the dialog. The other keeps its reference, and is told nothing more (R76, R82)."""
    source, spoolers = place.spooler(), [place.spooler() for _ in range(2)]
    start = threading.Barrier(2)

    def answer(handle: Any, _: object) -> HRESULT:
        start.wait(PATIENCE)
        hr: HRESULT = getattr(handle, how)(data(b"me"))
        said.append((handle, hr))
        if hr == E(CHANNEL_ACQUIRED):
            assert handle.references == 1
            assert handle.Release() == 0
        return S_OK

    listeners = [Callback(on_event=answer) for _ in spoolers]
    for spooler, listener in zip(spoolers, listeners, strict=True):
        register(spooler, listener)
    lost = E(CHANNEL_ACQUIRED) if how == "SendNotification" else S(CHANNEL_ACQUIRED)
    for _ in range(ROUNDS):
        said: list[tuple[Any, HRESULT]] = []
        heard = Callback()
        channel = ask(source, heard)
        for listener in listeners:
            listener.next()
        assert sorted(hr for _, hr in said) == sorted([S_OK, lost])
        assert heard.next(EVENT if how == "SendNotification" else CLOSED) == (channel, b"me")
        if how == "SendNotification":
            assert channel.CloseChannel() == S_OK
        until(lambda: all(each.references == 2 for each in listeners), "the listeners' callbacks")
        told = [each for each in listeners if each.noted]
        assert len(told) == (how == "SendNotification"), "the owner, of the source's close"
        for each in told:
            owner = next(handle for handle, hr in said if hr == S_OK)
            assert each.next(CLOSED) == (owner, None)
        assert not heard.noted
    assert not any(spooler.violations for spooler in (source, *spoolers))


def test_a_loser_in_the_foreground_hears_it_one_way(place: Place) -> None:
    """By its status, and then the reference is its own; or by ChannelClosed, and then it is not."""
    source, spoolers = place.spooler(), [place.spooler() for _ in range(2)]
    listeners = [Callback() for _ in spoolers]
    for spooler, listener in zip(spoolers, listeners, strict=True):
        register(spooler, listener)
    for _ in range(ROUNDS):
        heard = Callback()
        channel = ask(source, heard)
        handles = [listener.next()[0] for listener in listeners]
        first, second = together(*(partial(each.SendNotification, data(b"me")) for each in handles))
        assert sorted([first, second]) == [S_OK, E(CHANNEL_ACQUIRED)]
        loser = handles[0] if first != S_OK else handles[1]
        spooler, listener = (
            (spoolers[0], listeners[0]) if first != S_OK else (spoolers[1], listeners[1])
        )
        until_held(listener, 2)
        if loser._implicit is Implicit.LOST:
            assert not listener.noted
            with violations(spooler, 0):
                assert loser.Release() == 0
        else:
            assert listener.next(CLOSED) == (loser, None)
            with violations(spooler):
                assert loser.Release() == 0
        assert channel.CloseChannel() == S_OK
        (listeners[1] if listener is listeners[0] else listeners[0]).next(CLOSED)


# Registrations ----------------------------------------------------------------------------------


def test_a_handle_that_is_undone_twice_at_once(place: Place) -> None:
    """One undoes it, the other is told so; the callback is given back once (AV A022)."""
    spooler = place.spooler()
    for _ in range(ROUNDS // 4):
        callback = Callback()
        handle = register(spooler, callback)
        with violations(spooler):
            undo = partial(spooler.UnRegisterForPrintAsyncNotifications, handle)
            said = together(undo, undo)
        assert sorted(said) == [S_OK, S(ALREADY_UNREGISTERED)]
        assert callback.references == 1


def test_unregister_in_the_middle_of_notifications(place: Place) -> None:
    """No call is made without a reference on the callback, and none begins afterwards."""
    source, spooler = place.spooler(), place.spooler()
    channel = create(source, style=kUniDirectional)
    for _ in range(20):
        held: list[int] = []
        callback = Callback(on_event=lambda *_: held.append(callback.references))  # noqa: B023
        handle = register(spooler, callback, kUniDirectional)
        stop = threading.Event()

        def send(stop: threading.Event = stop) -> None:
            while not stop.is_set():
                assert SUCCEEDED(channel.SendNotification(data(b"page"))), "never refused"

        sending = Beside(send)
        callback.next()
        assert spooler.UnRegisterForPrintAsyncNotifications(handle) == S_OK
        until_held(callback, 1)
        heard = len(held)
        stop.set()
        sending.result()
        assert channel.SendNotification(data()) == S(NO_LISTENERS)
        assert len(held) == heard
        assert set(held) == {2}


# From inside callbacks --------------------------------------------------------------------------


def test_dialogs_that_are_held_in_callbacks_alone(place: Place) -> None:
    """Forty at once, both ends: every call is made inside OnEventNotify."""
    turns, count = 5, 40
    source, listener = place.spooler(), place.spooler()
    ended = threading.Semaphore(0)

    def go_on(channel: Any, found: Any) -> HRESULT:
        _, body, _, _ = found.AcquireData()
        found.ReleaseData()
        number = int(body)
        if number == turns:
            ended.release()
            hr: HRESULT = channel.CloseChannel(data(b"done"))
            return hr
        return channel.SendNotification(data(str(number + 1).encode()))  # type: ignore[no-any-return]

    answering, asking = Callback(on_event=go_on), Callback(on_event=go_on)
    register(listener, answering)
    for _ in range(count):
        ask(source, asking, b"0")
    for _ in range(count):
        assert ended.acquire(timeout=PATIENCE)
    until(lambda: (asking.references, answering.references) == (1, 2), "every dialog's end")
    noted = Counter(asking.noted + answering.noted)
    assert noted == {EVENT: count * (turns + 1), CLOSED: count}
    assert not source.violations
    assert not listener.violations


def test_a_callback_may_wait_for_another_conversation(place: Place) -> None:
    """It registers, opens, asks and waits, all inside OnEventNotify."""
    source, middle, last = (place.spooler() for _ in range(3))

    def forward(handle: Any, found: Any) -> object:
        answered = threading.Event()

        def answer(_: object, reason: Any) -> None:
            handle.CloseChannel(reason)
            answered.set()

        hr, channel = middle.CreatePrintAsyncNotifyChannel(
            OTHER_PRINTER, TYPE, kPerUser, kBiDirectional, Callback(on_closed=answer)
        )
        assert hr == S_OK
        assert channel is not None
        hr = channel.SendNotification(found)
        assert answered.wait(PATIENCE)
        return hr

    register(middle, Callback(on_event=forward))
    final = Callback(on_event=lambda handle, _: handle.CloseChannel(data(b"from afar")))
    hr, _ = last.RegisterForPrintAsyncNotifications(
        OTHER_PRINTER, TYPE, kPerUser, kBiDirectional, final
    )
    assert hr == S_OK
    heard = Callback()
    channel = ask(source, heard)
    assert heard.next(CLOSED) == (channel, b"from afar")


def test_closing_the_spooler_while_callbacks_call_it(place: Place) -> None:
    """It waits for them, and they are refused; nobody hangs."""
    source, spooler = place.spooler(), place.spooler()
    mine = create(spooler, style=kUniDirectional)
    refused = threading.Event()

    def call_until_refused(*_: object) -> None:
        while SUCCEEDED(mine.SendNotification(data())):
            pass
        refused.set()

    callback = Callback(on_event=call_until_refused)
    register(spooler, callback, kUniDirectional)
    create(source, style=kUniDirectional).SendNotification(data())
    until(lambda: bool(callback.threads), "the callback")
    Beside(spooler.close).result()
    assert refused.is_set()
    assert callback.references == 1


def test_a_callback_may_close_its_spooler(place: Place) -> None:
    source, spooler = place.spooler(), place.spooler()
    callback = Callback(on_event=lambda *_: spooler.close())
    register(spooler, callback, kUniDirectional)
    create(source, style=kUniDirectional).SendNotification(data())
    callback.next()
    until_held(callback, 1)


# Redis away -------------------------------------------------------------------------------------


def test_a_redis_that_does_not_answer_is_a_status_too() -> None:
    """The reference stays with the caller, and the same call again settles it."""
    with RedisServer() as server, ExitStack() as stack:
        place = Place(server, stack)
        times = {"reply_timeout": 0.3, "connect_timeout": 0.3, "operation_timeout": 0.8}
        spooler, other = place.spooler(**times, lease=60), place.spooler(lease=60)
        callback, asked = Callback(), Callback()
        register(other, asked)
        channel = create(spooler, callback)
        server.pause()
        try:
            first = channel.SendNotification(data(b"?"))
            made = spooler.CreatePrintAsyncNotifyChannel(PRINTER, TYPE, kPerUser, kBiDirectional)
        finally:
            server.resume()
        assert FAILED(first)
        assert FAILED(made[0])
        assert made[1] is None
        assert channel.references == 1
        until(lambda: channel.SendNotification(data(b"?")) != first, "an answer")
        assert asked.next()[1] == b"?"
        assert channel.SendNotification(data()) == E(CHANNEL_WAITING_FOR_CLIENT_NOTIFICATION)
        assert channel.CloseChannel() == S_OK
