"""The synchronous API is the same core in a thread of its own: same results, same errors.

Objects may be used from any thread, and callbacks may wait for the broker. When a broker is closed
nobody is left waiting, and neither a thread nor an event loop is left behind.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import queue
import secrets
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, cast

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, Name, Right
from broker.errors import (
    AccessDenied,
    AlreadyUnregistered,
    BrokerClosed,
    ChannelAcquired,
    ChannelAlreadyClosed,
    ContractViolation,
    InvalidArgument,
    InvalidName,
    InvalidUrl,
    RedisUnreachable,
    ResponseTimeout,
    RightsUnavailable,
    TympanError,
)
from broker.results import NO_LISTENERS, S_OK
from broker.sync import Broker, Channel, Offer, Registration
from tests.farm import PATIENCE, PRINTER, TYPE, Answer, Backend, OutOfPaper
from tests.servers import RedisServer
from workers.embedded import free_port

Make = Callable[..., Broker]
OFFER, CLOSED = "offer", "closed"


def loops() -> int:
    """How many event loops are not closed."""
    return sum(
        isinstance(each, asyncio.AbstractEventLoop) and not each.is_closed()
        for each in gc.get_objects()
    )


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Neither threads nor event loops."""
    threads, open_loops = set(threading.enumerate()), loops()
    yield
    left = [each.name for each in set(threading.enumerate()) - threads if "redis" not in each.name]
    assert not left
    assert loops() <= open_loops


@pytest.fixture
def make(redis_server: RedisServer) -> Iterator[Make]:
    """Makes brokers of one farm, each a process of its own to the others; entered."""
    namespace = f"t{secrets.token_hex(4)}"
    with ExitStack() as stack:

        def made(user: str = "alice", **options: Any) -> Broker:
            broker = Broker.connect(
                redis_server.url, user=user, namespace=namespace, resync=0.2, **options
            )
            return stack.enter_context(broker)

        yield made


class Beside:
    """Runs things in threads of their own, which end with the process though they wait."""

    def submit(self, work: Callable[..., Any], *args: object) -> Future[Any]:
        done: Future[Any] = Future()

        def run() -> None:
            try:
                done.set_result(work(*args))
            except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
                done.set_exception(error)

        threading.Thread(target=run, name="test", daemon=True).start()
        return done


@pytest.fixture
def pool() -> Beside:
    return Beside()


def offered(registration: Registration[Any]) -> Offer[Any]:
    found = registration.fetch(PATIENCE)
    assert isinstance(found, Offer)
    return found


def ask(source: Broker, body: bytes = b"continue?") -> Channel:
    channel = source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel.send(body)
    return channel


class Recorder:
    """A callback that keeps what it is told, and does what a test wants done."""

    def __init__(
        self,
        on_event: Callable[[Any, Any], object] | None = None,
        on_closed: Callable[[Any, Any], object] | None = None,
    ) -> None:
        self.events: queue.Queue[tuple[str, Any, Any]] = queue.Queue()
        self.threads: set[str] = set()
        self._on_event = on_event
        self._on_closed = on_closed

    def on_event_notify(self, channel: Any, notification: Any) -> None:
        self.threads.add(threading.current_thread().name)
        if self._on_event is not None:
            self._on_event(channel, notification)
        self.events.put((OFFER, channel, notification))

    def channel_closed(self, channel: Any, reason: Any) -> None:
        if self._on_closed is not None:
            self._on_closed(channel, reason)
        self.events.put((CLOSED, channel, reason))

    def next(self, kind: str) -> tuple[Any, Any]:
        event, channel, data = self.events.get(timeout=PATIENCE)
        assert event == kind
        return channel, data


# The same results -------------------------------------------------------------------------------


@pytest.fixture
def either(backend: Backend) -> Iterator[Broker]:
    """One broker on each backend."""
    with Broker(backend.broker(user="alice", namespace=f"t{secrets.token_hex(4)}")) as broker:
        yield broker


def test_a_dialog_with_oneself(either: Broker) -> None:
    registration = either.register(PRINTER, OutOfPaper, style=BIDIRECTIONAL)
    with either.open_channel(PRINTER, OutOfPaper, style=BIDIRECTIONAL) as channel:
        assert channel.send(OutOfPaper(tray=2)) == S_OK
        offer = offered(registration)
        assert (offer.payload.tray, offer.id, offer.type) == (2, channel.id, TYPE)
        assert offer.respond(Answer(proceed=True)) == S_OK
        assert offer.is_mine
        assert channel.response(PATIENCE).payload == Answer(proceed=True)
        assert channel.send(OutOfPaper(tray=3)) == S_OK
        assert offer.follow_up(PATIENCE).payload.tray == 3
        assert offer.close(Answer(proceed=False)) == S_OK
        assert channel.response(PATIENCE).is_final
    assert channel.closing is not None
    assert registration.unregister() == S_OK
    assert registration.unregister().succeeded


def test_notifications_to_oneself(either: Broker) -> None:
    channel = either.open_channel(PRINTER, TYPE)
    assert channel.send(b"too early") == NO_LISTENERS
    with either.register(PRINTER, TYPE) as registration:
        assert registration.fetch(0) is None
        assert channel.send(b"page") == S_OK
        found = registration.fetch(PATIENCE)
        assert getattr(found, "data", None) == b"page"
    assert channel.close() == S_OK
    assert channel.release() == S_OK


def test_looking_and_rights(either: Broker) -> None:
    assert either.grant(PRINTER, "bob", "use") == either.grants(PRINTER)[0].right
    channel = either.open_channel(PRINTER, TYPE)
    assert [facts.id for facts in either.channels()] == [channel.id]
    registration = either.register(PRINTER, TYPE)
    assert [facts.id for facts in either.registrations()] == [registration.id]
    shown = either.show(channel.id)
    assert shown is not None
    assert shown[0].id == channel.id
    assert not either.revoke(PRINTER, "bob", "use")
    assert either.run_down() == 0


def test_a_whole_dialog_between_threads(make: Make, pool: Beside) -> None:
    """A source in one thread, two listeners in others; one of them is first."""
    source, listeners = make(), [make(), make()]
    ready = threading.Barrier(3)

    def listen(broker: Broker) -> str:
        with broker.register(PRINTER, TYPE, style=BIDIRECTIONAL) as questions:
            ready.wait(PATIENCE)
            for offer in questions:
                try:
                    offer.respond(b"me")
                except ChannelAcquired:
                    return "lost"
                for follow_up in offer.follow_ups():
                    offer.respond(b"re: " + follow_up.body)
                return "owned"
        raise AssertionError("the registration ended")

    listening = [pool.submit(listen, each) for each in listeners]
    ready.wait(PATIENCE)
    channel = ask(source)
    answers = channel.responses()
    assert next(answers).data == b"me"
    for body in (b"one", b"two"):
        channel.send(body)
        assert next(answers).data == b"re: " + body
    channel.close()
    assert sorted(each.result(PATIENCE) for each in listening) == ["lost", "owned"]
    assert list(answers) == []


def test_errors_are_those_of_the_core(make: Make) -> None:
    broker = make("mallory")
    with pytest.raises(InvalidName):
        broker.open_channel("laser", TYPE)
    with pytest.raises(AccessDenied):
        broker.register(PRINTER, TYPE, user_filter=ALL_USERS)
    with pytest.raises(InvalidUrl):
        Broker.connect("http://localhost")
    broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = ask(broker)
    with pytest.raises(ResponseTimeout):
        channel.response(0)
    assert channel.wait_closed(0) is None
    with pytest.raises(ContractViolation):
        channel.release()


def test_references_are_counted(make: Make) -> None:
    channel = make().open_channel(PRINTER, TYPE, style=BIDIRECTIONAL)
    assert channel.add_ref() == 1
    assert channel.release() == S_OK, "the explicit one"
    assert channel.release() == S_OK, "the implicit one"
    with pytest.raises(ContractViolation):
        channel.release()


def test_what_the_core_offers_is_offered_here(make: Make) -> None:
    """Whoever wants to know which servers there are, or acts for another user, needs no loop."""
    broker = make()
    broker.open_channel(PRINTER, TYPE)
    assert broker.servers() == ["print01"]
    assert broker.user == "alice"


# Callbacks --------------------------------------------------------------------------------------


def test_callbacks_run_beside_the_broker_and_may_wait_for_it(make: Make) -> None:
    listener, source = make(), make()
    recorder = Recorder(on_event=lambda offer, _: offer.respond(b"yes"))
    listener.listen(PRINTER, TYPE, recorder, style=BIDIRECTIONAL)
    channel = ask(source)
    assert channel.response(PATIENCE).data == b"yes"
    offer, notification = recorder.next(OFFER)
    assert notification.data == b"continue?"
    assert isinstance(offer, Offer)
    assert "tympan" not in recorder.threads, "not in the event loop's thread"


def test_what_is_no_callback_is_refused_in_the_call(make: Make) -> None:
    broker, no_callback = make(), cast(Any, print)
    for call in (
        lambda: broker.listen(PRINTER, TYPE, no_callback),
        lambda: broker.listen_everywhere(TYPE, no_callback),
        lambda: broker.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL, callback=no_callback),
    ):
        with pytest.raises(InvalidArgument, match="no method on_event_notify"):
            call()
    assert broker.servers() == []


def test_a_callback_is_shown_the_same_handle_each_time(make: Make) -> None:
    """From the first notification to the close (R116)."""
    listener, source = make(), make()
    heard = Recorder(on_event=lambda offer, _: offer.respond(b"yes"))
    answered = Recorder()
    listener.listen(PRINTER, TYPE, heard, style=BIDIRECTIONAL)
    channel = source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL, callback=answered)
    handles, ends = [], []
    for body in (b"one", b"two", b"three"):
        channel.send(body)
        handles.append(heard.next(OFFER)[0])
        end, response = answered.next(OFFER)
        assert response.data == b"yes"
        ends.append(end)
    channel.close(b"thanks")
    handle, reason = heard.next(CLOSED)
    assert reason.data == b"thanks"
    assert all(each is handle for each in handles)
    assert all(each is ends[0] for each in ends)
    assert ends[0].id == channel.id


def test_a_unidirectional_callback_has_no_handle(make: Make) -> None:
    listener, source = make(), make()
    recorder = Recorder()
    listener.listen(PRINTER, TYPE, recorder)
    source.open_channel(PRINTER, TYPE).send(b"page")
    channel, notification = recorder.next(OFFER)
    assert channel is None
    assert notification.data == b"page"


@pytest.mark.parametrize("call", ["release", "close"])
@pytest.mark.parametrize("where", ["in it", "in another thread"])
def test_the_dead_handle_is_refused_inside_channel_closed(
    make: Make, pool: Beside, call: str, where: str
) -> None:
    """R111: nothing is done, and the caller is told."""
    refused: queue.Queue[BaseException | None] = queue.Queue()

    def on_closed(offer: Offer[Any], _: object) -> None:
        use = getattr(offer, call)
        if where == "in it":
            refused.put(_error_of(use))
        else:
            refused.put(pool.submit(_error_of, use).result(PATIENCE))

    listener, source = make(), make()
    recorder = Recorder(on_closed=on_closed)
    listener.listen(PRINTER, TYPE, recorder, style=BIDIRECTIONAL)
    channel = ask(source)
    offer, _ = recorder.next(OFFER)
    offer.respond(b"yes")
    channel.response(PATIENCE)
    channel.close(b"thanks")
    error = refused.get(timeout=PATIENCE)
    expected = ContractViolation if where == "in it" or call == "release" else ChannelAlreadyClosed
    assert isinstance(error, expected)
    recorder.next(CLOSED)
    assert isinstance(_error_of(offer.release), ContractViolation), "nor after it (R112)"


def _error_of(use: Callable[[], object]) -> BaseException | None:
    try:
        use()
    except TympanError as error:
        return error
    return None


def test_other_handles_may_be_used_inside_channel_closed(make: Make) -> None:
    """Only the handle that is being closed is dead."""
    listener, source = make(), make()
    offers: list[Offer[Any]] = []
    recorder = Recorder(
        on_event=lambda offer, _: offers.append(offer),
        on_closed=lambda offer, _: offers[offers[0] is offer].close(b"then this too"),
    )
    listener.listen(PRINTER, TYPE, recorder, style=BIDIRECTIONAL)
    first, second = ask(source, b"first"), ask(source, b"second")
    for _ in range(2):
        recorder.next(OFFER)
    first.close()
    assert second.response(PATIENCE).data == b"then this too"
    recorder.next(CLOSED)


@pytest.mark.parametrize("how", [("close", "close"), ("close", "release"), ("release", "close")])
def test_a_foreground_and_a_callback_that_finish_at_once(
    make: Make, pool: Beside, how: tuple[str, str]
) -> None:
    """One of them finishes the channel; the reference is dropped once, whoever was first (R117)."""
    source, listener = make(), make()
    questions = listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    inside, outside = how
    for _ in range(10):
        together = threading.Barrier(2)
        outcomes: queue.Queue[BaseException | None] = queue.Queue()

        def finish(
            end: Any,
            call: str,
            barrier: threading.Barrier = together,
            said: queue.Queue[BaseException | None] = outcomes,
        ) -> None:
            barrier.wait(PATIENCE)
            said.put(_error_of(getattr(end, call)))

        recorder = Recorder(on_event=lambda end, _: finish(end, inside))
        channel = source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL, callback=recorder)
        channel.send(b"continue?")
        offer = offered(questions)
        offer.respond(b"yes")
        foreground = pool.submit(finish, channel, outside)
        foreground.result(PATIENCE)
        found = [outcomes.get(timeout=PATIENCE) for _ in range(2)]
        recorder.next(OFFER)
        refused = [each for each in found if each is not None]
        both_may = "release" in how and len(refused) == 0  # a release after one's own close
        assert len(refused) == 1 or both_may, found
        assert all(isinstance(e, ChannelAlreadyClosed | ContractViolation) for e in refused)
        assert offer.wait_closed(PATIENCE) is not None
        shown = listener.show(channel.id)
        assert shown is not None
        assert shown[0].state == "closed"


def test_a_callback_that_fails_is_logged_and_costs_nothing(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object, notification: Any) -> None:
        if notification.data == b"bad":
            raise ValueError("out of paper")

    listener, source = make(), make()
    recorder = Recorder(on_event=fail)
    listener.listen(PRINTER, TYPE, recorder)
    channel = source.open_channel(PRINTER, TYPE)
    with caplog.at_level(logging.ERROR, "tympan"):
        channel.send(b"bad")
        channel.send(b"good")
        _, notification = recorder.next(OFFER)
    assert notification.data == b"good"
    assert "out of paper" in caplog.text


def test_callbacks_that_wait_leave_the_others_their_threads(make: Make) -> None:
    """Each has one of its own, however many people think about their answers at once."""
    count = 40
    all_asked = threading.Barrier(count)
    listener, source = make(), make()
    recorder = Recorder(on_event=lambda *_: all_asked.wait(PATIENCE))
    listener.listen(PRINTER, TYPE, recorder, style=BIDIRECTIONAL)
    for _ in range(count):
        ask(source)
    for _ in range(count):
        recorder.next(OFFER)


def test_handles_of_finished_dialogs_are_let_go(make: Make) -> None:
    """Also of those that the listener finished itself, of whose close nobody tells it."""
    listener, source = make(), make()
    seen: list[weakref.ref[Any]] = []

    def decline(offer: Offer[Any], _: object) -> None:
        seen.append(weakref.ref(offer))
        offer.decline()

    recorder = Recorder(on_event=decline)
    listener.listen(PRINTER, TYPE, recorder, style=BIDIRECTIONAL)
    for _ in range(5):
        ask(source)
        recorder.next(OFFER)
    for _ in range(5):
        gc.collect()
        if sum(each() is not None for each in seen) <= 1:
            break
        threading.Event().wait(0.05)
    assert sum(each() is not None for each in seen) <= 1, "all but the last one, perhaps"


# Interrupts -------------------------------------------------------------------------------------


@pytest.fixture
def interrupt() -> Iterator[Callable[[float], threading.Timer]]:
    """Interrupts the main thread in a while, as Ctrl-C does."""

    def raise_interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGUSR1, raise_interrupt)
    timers: list[threading.Timer] = []

    def within(seconds: float) -> threading.Timer:
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(seconds, lambda: signal.pthread_kill(main, signal.SIGUSR1))
        timers.append(timer)
        timer.start()
        return timer

    yield within
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGUSR1, previous)


def test_an_interrupt_ends_the_wait_on_both_sides(
    make: Make, interrupt: Callable[[float], threading.Timer]
) -> None:
    broker = make()
    registration = broker.register(PRINTER, TYPE)
    interrupt(0.1)
    with pytest.raises(KeyboardInterrupt):
        registration.fetch()
    broker.open_channel(PRINTER, TYPE).send(b"page")
    found = registration.fetch(PATIENCE)
    assert getattr(found, "data", None) == b"page", (
        "the first fetch waits no more, and took nothing"
    )


def test_an_interrupted_program_closes_its_broker(
    redis_server: RedisServer, interrupt: Callable[[float], threading.Timer]
) -> None:
    namespace = f"t{secrets.token_hex(4)}"

    def program() -> None:
        with Broker.connect(redis_server.url, user="alice", namespace=namespace) as broker:
            channel = ask(broker)
            interrupt(0.1)
            channel.response()

    with pytest.raises(KeyboardInterrupt):
        program()
    left = redis_server.cli("HGETALL", f"{namespace}:{{print01}}:channels")
    assert left == {}, "the channel was ended"


# The end ----------------------------------------------------------------------------------------


def test_nothing_works_before_it_is_entered(redis_server: RedisServer) -> None:
    broker = Broker.connect(redis_server.url, user="alice")
    for use in (
        lambda: broker.open_channel(PRINTER, TYPE),
        lambda: broker.register(PRINTER, TYPE),
        lambda: broker.grant(PRINTER, "bob", "use"),
        broker.channels,
        broker.run_down,
    ):
        with pytest.raises(BrokerClosed, match="with Broker"):
            use()
    broker.close()


def test_nothing_works_after_it_was_closed(make: Make) -> None:
    broker = make()
    channel = ask(broker)
    registration = broker.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    offer = offered(registration)
    broker.close()
    for use in (
        lambda: broker.open_channel(PRINTER, TYPE),
        broker.channels,
        broker.start,
        lambda: channel.send(b"late"),
        channel.close,
        channel.response,
        channel.wait_closed,
        lambda: offer.respond(b"late"),
        registration.fetch,
        registration.unregister,
    ):
        with pytest.raises(BrokerClosed):
            use()
    broker.close()


def test_a_broker_starts_once(make: Make) -> None:
    with pytest.raises(BrokerClosed, match="once"):
        make().start()


def test_a_start_that_fails_leaves_no_thread() -> None:
    broker = Broker.connect(f"redis://127.0.0.1:{free_port()}", user="alice")
    with pytest.raises(RedisUnreachable):
        broker.start()
    with pytest.raises(BrokerClosed):
        broker.channels()


def test_whoever_waits_is_woken_when_the_broker_closes(make: Make, pool: Beside) -> None:
    broker = make()
    asked, other = ask(broker), ask(broker)
    registration = broker.register("\\\\print01\\other", TYPE)
    waits = [
        pool.submit(asked.response),
        pool.submit(asked.wait_closed),
        pool.submit(lambda: list(other.responses())),
        pool.submit(registration.fetch),
    ]
    until_all_wait = threading.Event()
    until_all_wait.wait(0.1)
    broker.close()
    for wait in waits:
        error = wait.exception(timeout=2)
        assert error is None or isinstance(error, TympanError)


def test_iteration_ends_when_another_thread_unregisters(make: Make, pool: Beside) -> None:
    """As it does in the core: the loop is left, without an error."""
    registration = make().register(PRINTER, TYPE)
    iterating = pool.submit(lambda: list(registration))
    while not registration._registration._is_fetching:
        threading.Event().wait(0.01)
    registration.unregister()
    assert iterating.result(PATIENCE) == []
    with pytest.raises(AlreadyUnregistered):
        registration.fetch()


def test_closing_does_not_wait_for_a_callback_that_waits_for_the_broker(
    make: Make, pool: Beside
) -> None:
    """The callback's call ends with an error instead, and its thread with it."""
    errors: queue.Queue[BaseException | None] = queue.Queue()
    entered = threading.Event()

    def converse(offer: Offer[Any], _: object) -> None:
        offer.respond(b"yes")
        entered.set()
        errors.put(_error_of(offer.follow_up))

    listener, source = make(), make()
    listener.listen(PRINTER, TYPE, Recorder(on_event=converse), style=BIDIRECTIONAL)
    channel = ask(source)
    channel.response(PATIENCE)
    entered.wait(PATIENCE)
    pool.submit(listener.close).result(PATIENCE)
    assert isinstance(errors.get(timeout=PATIENCE), TympanError)


def test_a_callback_may_close_its_broker(make: Make) -> None:
    """It cannot be waited for then; what is left ends once it has returned."""
    listener, source = make(), make()
    before = set(threading.enumerate())
    heard = Recorder(on_event=lambda *_: listener.close())
    listener.listen(PRINTER, TYPE, heard)
    source.open_channel(PRINTER, TYPE).send(b"page")
    heard.next(OFFER)
    with pytest.raises(BrokerClosed):
        listener.channels()
    while set(threading.enumerate()) - before:
        threading.Event().wait(0.005)


def test_channels_with_callbacks_end_with_their_broker(make: Make) -> None:
    """No task is left in a loop that is gone, and none is destroyed while it waits."""
    source = make()
    channels = [
        source.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL, callback=Recorder())
        for _ in range(3)
    ]
    channels[0].send(b"continue?")
    source.listen(PRINTER, TYPE, Recorder())
    source.close()
    gc.collect()


def test_a_call_from_the_brokers_own_loop_is_refused(make: Make) -> None:
    """It would wait for itself."""
    broker = make()

    async def call_from_inside() -> BaseException | None:
        return _error_of(broker.channels)

    assert isinstance(broker._portal.call(call_from_inside()), BrokerClosed)


def test_brokers_do_not_share_their_threads(make: Make) -> None:
    one, other = make(), make()
    one.close()
    assert ask(other).wait_closed(0) is None


# Rights and printers ----------------------------------------------------------------------------


def administers(user: str, name: Name) -> Right:
    """A rights source that is a plain function; it may wait, for it runs in a thread."""
    assert threading.current_thread().name != "tympan"
    return Right.PRINTER_ALL_ACCESS if (user, name.printer) == ("carol", "laser-3") else Right(0)


class Plainly:
    """The same as an object with a plain method."""

    def rights(self, user: str, name: Name) -> Right:
        return administers(user, name)


class Asynchronously:
    """The same as the core takes it."""

    async def rights(self, user: str, name: Name) -> Right:
        assert threading.current_thread().name == "tympan"
        is_carol = (user, name.printer) == ("carol", "laser-3")
        return Right.PRINTER_ALL_ACCESS if is_carol else Right(0)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (administers, "administers"),
        (Plainly(), "Plainly"),
        (Asynchronously(), "Asynchronously"),
    ],
)
def test_a_rights_source_may_be_plain_code(make: Make, source: Any, name: str) -> None:
    broker = make("carol", rights=source)
    broker.register(PRINTER, TYPE, user_filter=ALL_USERS)
    with pytest.raises(AccessDenied, match=f"rights source {name} says so"):
        broker.register(PRINTER, TYPE, user="dave", user_filter=ALL_USERS)
    assert [facts.source for facts in broker.registrations()] == [name]


def test_a_plain_source_that_fails_is_unavailable(make: Make) -> None:
    def fails(*_: object) -> Right:
        raise OSError("no directory today")

    with pytest.raises(RightsUnavailable, match="no directory today"):
        make(rights=fails).register(PRINTER, TYPE, user_filter=ALL_USERS)


def test_what_is_no_rights_source_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no rights source"):
        Broker.connect(rights="grants")  # type: ignore[arg-type]


def test_a_printer_is_deleted(make: Make) -> None:
    broker = make()
    channel = ask(broker)
    registration = broker.register(PRINTER, TYPE)
    deletion = broker.delete_printer(PRINTER)
    assert (deletion.channels, deletion.told) == (1, 1)
    closing = channel.wait_closed(PATIENCE)
    assert closing is not None
    assert closing.reason.is_release
    found = registration.fetch(PATIENCE)
    assert getattr(found, "is_release", False)
