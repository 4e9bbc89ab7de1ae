"""What tests of the documents' interfaces share: a callback that remembers, and short spellings."""

# ruff: noqa: N802 (the documents' names)

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from broker.prnasnot import (
    FACILITY_ITF,
    HRESULT,
    MAKE_HRESULT,
    S_OK,
    SEVERITY_ERROR,
    SEVERITY_SUCCESS,
    DataObject,
    Handle,
    IPrintAsyncNotifyCallback,
    IPrintAsyncNotifyChannel,
    IPrintAsyncNotifyDataObject,
    Spooler,
    kBiDirectional,
    kPerUser,
)
from broker.sync import Broker
from tests.farm import PATIENCE, PRINTER, TYPE, Backend

EVENT, CLOSED = "OnEventNotify", "ChannelClosed"
Work = Callable[[Any, Any], object]


def E(code: int) -> HRESULT:
    """The error form of a code."""
    return MAKE_HRESULT(SEVERITY_ERROR, FACILITY_ITF, code)


def S(code: int) -> HRESULT:
    """The success form of a code."""
    return MAKE_HRESULT(SEVERITY_SUCCESS, FACILITY_ITF, code)


def data(body: bytes = b"data") -> DataObject:
    """A data object of the tests' type."""
    return DataObject(TYPE, body)


def bytes_of(source: IPrintAsyncNotifyDataObject) -> bytes | None:
    """What a data object holds; None for a NOTIFICATION_RELEASE."""
    hr, found, size, _ = source.AcquireData()
    assert hr == S_OK
    assert size == len(found or b"")
    assert source.ReleaseData() == S_OK
    return found


class Callback(IPrintAsyncNotifyCallback):
    """Notes each call once ``on_event`` or ``on_closed`` has returned, in order."""

    def __init__(self, on_event: Work | None = None, on_closed: Work | None = None) -> None:
        self.calls: queue.Queue[tuple[str, Any, bytes | None]] = queue.Queue()
        self.threads: set[int] = set()
        self._on_event = on_event
        self._on_closed = on_closed

    def OnEventNotify(
        self, channel: IPrintAsyncNotifyChannel | None, data: IPrintAsyncNotifyDataObject
    ) -> Any:
        return self._note(EVENT, self._on_event, channel, data)

    def ChannelClosed(
        self, channel: IPrintAsyncNotifyChannel, data: IPrintAsyncNotifyDataObject
    ) -> Any:
        return self._note(CLOSED, self._on_closed, channel, data)

    def _note(self, call: str, work: Work | None, channel: Any, source: Any) -> object:
        self.threads.add(threading.get_ident())
        body = bytes_of(source)
        try:
            return S_OK if work is None else work(channel, source)
        except AssertionError as error:
            call = f"{call} in which {error!r}"
            raise
        finally:
            self.calls.put((call, channel, body))

    def next(self, call: str = EVENT) -> tuple[Any, bytes | None]:
        """Channel and bytes of the next call, which is one of this kind."""
        found, channel, body = self.calls.get(timeout=PATIENCE)
        assert found == call
        return channel, body

    @property
    def noted(self) -> list[str]:
        """What was called and not asked for yet."""
        return [call for call, _, _ in self.calls.queue]


@contextmanager
def on(backend: Backend) -> Iterator[Spooler]:
    """One client, in a farm of its own on this backend; payloads are up to 100 bytes."""
    namespace = f"t{secrets.token_hex(4)}"
    options = {"namespace": namespace, "max_payload": 100, "resync": 0.2}
    with Spooler(Broker(backend.broker(user="alice", **options))) as made:
        yield made


def create(
    spooler: Spooler,
    callback: IPrintAsyncNotifyCallback | None = None,
    style: Any = kBiDirectional,
    **options: Any,
) -> IPrintAsyncNotifyChannel:
    """A channel on the tests' printer, for the tests' listener."""
    hr, channel = spooler.CreatePrintAsyncNotifyChannel(
        PRINTER, TYPE, kPerUser, style, callback, **options
    )
    assert hr == S_OK
    assert channel is not None
    return channel


def register(
    spooler: Spooler, callback: IPrintAsyncNotifyCallback, style: Any = kBiDirectional
) -> Handle:
    """A registration on the tests' printer."""
    hr, handle = spooler.RegisterForPrintAsyncNotifications(
        PRINTER, TYPE, kPerUser, style, callback
    )
    assert hr == S_OK
    assert handle is not None
    return handle


def ask(
    spooler: Spooler, callback: IPrintAsyncNotifyCallback | None = None, body: bytes = b"?"
) -> IPrintAsyncNotifyChannel:
    """A channel whose question was sent, to somebody."""
    channel = create(spooler, callback)
    assert channel.SendNotification(data(body)) == S_OK
    return channel


def dialog(spooler: Spooler, source: Callback, listener: Callback) -> tuple[Any, Any]:
    """Both ends of a channel that the listener owns; the source was told the answer."""
    register(spooler, listener)
    channel = ask(spooler, source)
    handle, body = listener.next()
    assert body == b"?"
    assert handle.SendNotification(data(b"mine")) == S_OK
    end, body = source.next()
    assert end is channel
    assert body == b"mine"
    return channel, handle


@contextmanager
def violations(spooler: Spooler, count: int = 1) -> Iterator[None]:
    """So many calls in here are reported as violations."""
    before = len(spooler.violations)
    yield
    assert len(spooler.violations) - before == count, list(spooler.violations)[before:]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that rings no bell."""
    due = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if condition():
            return
        due.wait(0.005)
    raise AssertionError(f"awaited {what} for {PATIENCE:g} s")


def until_held(callback: Callback, references: int) -> None:
    """Wait until so many references are held on a callback, its maker's among them."""
    until(lambda: callback.references == references, f"{references} references")
