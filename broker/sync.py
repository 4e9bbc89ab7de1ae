r"""The synchronous API: the same core, run in a thread of its own.

::

    from broker.sync import Broker

    with Broker.connect("redis://localhost", user="alice") as broker:
        with broker.register(r"\\print01\laser-3", OutOfPaper, style=BIDIRECTIONAL) as questions:
            for offer in questions:
                offer.respond(Answer(proceed=True))

Every method waits for the asynchronous one of the same name; arguments, results and errors are
its. Objects may be used from any thread. Callbacks run one at a time for each handle, in a thread
of their own.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload
from uuid import UUID
from weakref import WeakValueDictionary

from broker import broker as _async
from broker._end import End
from broker.callback import Callback, check_callback
from broker.channel import Channel as AsyncChannel
from broker.conversation import PER_USER, UNIDIRECTIONAL, Style, UserFilter
from broker.deletion import Deletion
from broker.errors import (
    AlreadyUnregistered,
    BrokerClosed,
    ChannelAlreadyClosed,
    RegistrationEnded,
    TympanError,
)
from broker.farm import FarmRegistration as AsyncFarmRegistration
from broker.inventory import ChannelFacts, Grant, RegistrationFacts, ServerFacts, Utterance
from broker.names import Name
from broker.notification import Body, Closing, Notification, Response
from broker.offer import Offer as AsyncOffer
from broker.registration import Registration as AsyncRegistration
from broker.results import Result
from broker.rights import Right, RightsSource

if TYPE_CHECKING:
    from broker.payload import Payload

P = TypeVar("P", bound="Payload")
T = TypeVar("T")
E = TypeVar("E", bound=End[Any])
PlainRights = Callable[[str, Name], Right]

CALLBACKS = 10_000
"""Callbacks that may run at once: as many as there may be channels by default."""


_calling: ContextVar[_Portal | None] = ContextVar("_calling", default=None)
"""Whose callback runs in this context."""


class _Portal:
    """An event loop in a thread, and the way into it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(CALLBACKS, "tympan-callback"))
        self._thread = threading.Thread(target=self._run, name="tympan", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine over there, and wait for it here; an interrupt here cancels it there."""
        if not self._thread.is_alive():
            work.close()
            raise BrokerClosed("this broker is closed")
        if threading.current_thread() is self._thread:
            work.close()
            raise BrokerClosed("a synchronous call inside the broker's own event loop")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop, its thread, and callbacks that run; one that calls this goes on."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        if _calling.get() is self:
            threading.Thread(target=self._finish, name="tympan").start()
        else:
            self._finish()

    def _finish(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class _Both(Generic[E]):
    """What a channel's two ends have in common."""

    def __init__(self, portal: _Portal, end: E) -> None:
        self._portal = portal
        self._end = end

    @property
    def id(self) -> str:
        """The channel's id."""
        return self._end.id

    @property
    def name(self) -> Name:
        """The printer or server that it is bound to."""
        return self._end.name

    @property
    def type(self) -> UUID:
        """Its one notification type."""
        return self._end.type

    @property
    def closing(self) -> Closing | None:
        """How it ended for this end, once it was told."""
        return self._end.closing

    def close(self, reason: Body | None = None) -> Result:
        """See :meth:`broker.Channel.close`, :meth:`broker.Offer.close`."""
        return self._portal.call(self._end.close(reason))

    def release(self) -> Result:
        """See :meth:`broker.Channel.release`."""
        return self._portal.call(self._end.release())

    def add_ref(self) -> int:
        """One explicit reference more."""
        return self._end.add_ref()

    def wait_closed(self, timeout: float | None = None) -> Closing | None:
        """How it ended; None after the timeout."""
        return self._portal.call(self._end.wait_closed(timeout))


class Channel(_Both[AsyncChannel]):
    """See :class:`broker.Channel`."""

    def send(self, body: Body, *, lossless: bool = False, timeout: float | None = None) -> Result:
        """See :meth:`broker.Channel.send`."""
        return self._portal.call(self._end.send(body, lossless=lossless, timeout=timeout))

    def response(self, timeout: float | None = None) -> Response[Any]:
        """See :meth:`broker.Channel.response`."""
        return self._portal.call(self._end.response(timeout))

    def responses(self) -> Iterator[Response[Any]]:
        """Responses as they come, until the channel closes."""
        while True:
            try:
                yield self.response()
            except ChannelAlreadyClosed:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._portal.call(self._end.__aexit__(kind, error, trace))


class Offer(_Both[AsyncOffer[P]], Generic[P]):
    """See :class:`broker.Offer`."""

    @property
    def notification(self) -> Notification[P]:
        """The initial notification."""
        return self._end.notification

    @property
    def payload(self) -> P:
        """The initial notification's validated model; raises PayloadInvalid."""
        return self._end.payload

    @property
    def is_mine(self) -> bool:
        """Whether this listener owns the dialog."""
        return self._end.is_mine

    @property
    def is_lost(self) -> bool:
        """Whether another listener was first, as far as this end was told."""
        return self._end.is_lost

    def respond(self, body: Body) -> Result:
        """See :meth:`broker.Offer.respond`."""
        return self._portal.call(self._end.respond(body))

    def decline(self) -> Result:
        """See :meth:`broker.Offer.decline`."""
        return self._portal.call(self._end.decline())

    def follow_up(self, timeout: float | None = None) -> Notification[P]:
        """See :meth:`broker.Offer.follow_up`."""
        return self._portal.call(self._end.follow_up(timeout))

    def follow_ups(self) -> Iterator[Notification[P]]:
        """The source's further notifications, until the dialog ends."""
        while True:
            try:
                yield self.follow_up()
            except ChannelAlreadyClosed:
                return


class _Listener(Generic[P]):
    """What listening to one server and to the farm have in common."""

    def __init__(
        self, portal: _Portal, registration: AsyncRegistration[P] | AsyncFarmRegistration[P]
    ) -> None:
        self._portal = portal
        self._heard = registration

    def fetch(self, timeout: float | None = None) -> Notification[P] | Offer[P] | None:
        """See :meth:`broker.Registration.fetch`."""
        item = self._portal.call(self._heard.fetch(timeout))
        return Offer(self._portal, item) if isinstance(item, AsyncOffer) else item

    def unregister(self) -> Result:
        """See :meth:`broker.Registration.unregister`."""
        return self._portal.call(self._heard.unregister())

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                item = self.fetch()
            except (AlreadyUnregistered, RegistrationEnded):
                if self._heard.was_unregistered:
                    return
                raise
            if item is not None:
                yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._portal.call(self._heard.__aexit__(kind, error, trace))


class Registration(_Listener[P]):
    """See :class:`broker.Registration`."""

    def __init__(self, portal: _Portal, registration: AsyncRegistration[P]) -> None:
        super().__init__(portal, registration)
        self._registration = registration

    @property
    def id(self) -> str:
        """Its id."""
        return self._registration.id

    @property
    def name(self) -> Name:
        """Where it listens."""
        return self._registration.name

    def fetch_offers(self, timeout: float | None = None) -> list[Offer[P]]:
        """See :meth:`broker.Registration.fetch_offers`."""
        offers = self._portal.call(self._registration.fetch_offers(timeout))
        return [Offer(self._portal, offer) for offer in offers]


class FarmRegistration(_Listener[P]):
    """See :class:`broker.FarmRegistration`."""

    def __init__(self, portal: _Portal, registration: AsyncFarmRegistration[P]) -> None:
        super().__init__(portal, registration)
        self._registration = registration

    @property
    def reached(self) -> tuple[str, ...]:
        """The servers on which it stands now."""
        return self._registration.reached

    @property
    def missing(self) -> dict[str, TympanError]:
        """The servers on which it does not stand now, and why."""
        return self._registration.missing

    @property
    def result(self) -> Result:
        """S_OK, or which side alone is reached now (R137)."""
        return self._registration.result

    def retry(self) -> Result:
        """See :meth:`broker.FarmRegistration.retry`."""
        return self._portal.call(self._registration.retry())


class _InThread:
    """A callback whose plain methods run in a thread: they may wait for the broker.

    Raises InvalidArgument for what is no callback.
    """

    def __init__(self, portal: _Portal, callback: Callback) -> None:
        check_callback(callback)
        self._portal = portal
        self._callback = callback
        self._ends: WeakValueDictionary[int, Channel | Offer[Any]] = WeakValueDictionary()

    def _wrapped(self, end: End[Any]) -> Channel | Offer[Any]:
        """The same object for the same handle, as long as somebody holds it (R116)."""
        known = self._ends.get(id(end))
        if known is None:
            known = (
                Channel(self._portal, end)
                if isinstance(end, AsyncChannel)
                else Offer[Any](self._portal, end)  # type: ignore[arg-type]
            )
            self._ends[id(end)] = known
        return known

    async def on_event_notify(
        self, channel: End[Any] | None, notification: Notification[Any]
    ) -> None:
        """Data arrived."""
        end = None if channel is None else self._wrapped(channel)
        _calling.set(self._portal)
        call: Callable[..., object] = self._callback.on_event_notify
        await asyncio.to_thread(call, end, notification)

    async def channel_closed(self, channel: End[Any], reason: Notification[Any]) -> None:
        """The other end closed."""
        _calling.set(self._portal)
        call: Callable[..., object] = self._callback.channel_closed
        await asyncio.to_thread(call, self._wrapped(channel), reason)


class _AskedInThread:
    """A rights source that is plain code, and may wait for what it reads."""

    def __init__(self, name: str, ask: PlainRights) -> None:
        self.__name__ = name
        self._ask = ask

    async def rights(self, user: str, name: Name) -> Right:
        """Ask it in a thread."""
        return await asyncio.to_thread(self._ask, user, name)


def _asynchronous(source: RightsSource | PlainRights) -> RightsSource:
    """A rights source for the core, from one that may be a function, or have a plain method."""
    ask: Any = getattr(source, "rights", source)
    if not callable(ask) or inspect.iscoroutinefunction(ask):
        return source  # type: ignore[return-value] # the core refuses what is no source
    return _AskedInThread(getattr(source, "__name__", type(source).__name__), ask)


class Broker:
    """See :class:`broker.Broker`."""

    def __init__(self, broker: _async.Broker) -> None:
        self._broker = broker
        self._started: _Portal | None = None

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        rights: RightsSource | PlainRights | None = None,
        **options: Any,
    ) -> Self:
        """Arguments and errors as of :meth:`broker.Broker.connect`; enter it to connect.

        ``rights`` may also be a plain function of user and name, or have a plain method; it runs
        in a thread.
        """
        source = None if rights is None else _asynchronous(rights)
        return cls(_async.Broker.connect(url, rights=source, **options))

    @property
    def _portal(self) -> _Portal:
        if self._started is None:
            raise BrokerClosed("this broker is not open: with Broker.connect(...) as broker")
        return self._started

    def start(self) -> Self:
        """Connect."""
        if self._started is not None:
            raise BrokerClosed("a broker object starts once")
        portal = _Portal()
        try:
            portal.call(self._broker.start())
        except BaseException:
            portal.close()
            raise
        self._started = portal
        return self

    def close(self) -> None:
        """End everything that is held here."""
        portal, self._started = self._started, None
        if portal is not None:
            portal.call(self._broker.close())
            portal.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open_channel(
        self,
        name: str | Name | None,
        type: str | UUID | type[Payload],
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        callback: Callback | None = None,
    ) -> Channel:
        """See :meth:`broker.Broker.open_channel`."""
        portal = self._portal
        opened = self._broker.open_channel(
            name,
            type,
            user=user,
            user_filter=user_filter,
            style=style,
            callback=None if callback is None else _InThread(portal, callback),
        )
        return Channel(portal, portal.call(opened))

    @overload
    def register(
        self,
        name: str | Name | None,
        type: type[P],
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        printers: bool = False,
        buffer: int | None = None,
    ) -> Registration[P]: ...
    @overload
    def register(
        self,
        name: str | Name | None,
        type: str | UUID,
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        printers: bool = False,
        buffer: int | None = None,
    ) -> Registration[Payload]: ...
    def register(
        self,
        name: str | Name | None,
        type: str | UUID | type[Payload],
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        printers: bool = False,
        buffer: int | None = None,
    ) -> Registration[Any]:
        """See :meth:`broker.Broker.register`."""
        portal = self._portal
        made = self._broker.register(
            name,
            type,
            user=user,
            user_filter=user_filter,
            style=style,
            printers=printers,
            buffer=buffer,
        )
        return Registration(portal, portal.call(made))

    def listen(
        self,
        name: str | Name | None,
        type: str | UUID | type[Payload],
        callback: Callback,
        **options: Any,
    ) -> Registration[Any]:
        """See :meth:`broker.Broker.listen`; the callback runs in threads."""
        portal = self._portal
        inside = callback if callback is None else _InThread(portal, callback)
        made = self._broker.listen(name, type, inside, **options)
        return Registration(portal, portal.call(made))

    def register_everywhere(
        self, type: str | UUID | type[Payload], **options: Any
    ) -> FarmRegistration[Any]:
        """See :meth:`broker.Broker.register_everywhere`."""
        portal = self._portal
        made = self._broker.register_everywhere(type, **options)
        return FarmRegistration(portal, portal.call(made))

    def listen_everywhere(
        self, type: str | UUID | type[Payload], callback: Callback, **options: Any
    ) -> FarmRegistration[Any]:
        """See :meth:`broker.Broker.listen_everywhere`; the callback runs in threads."""
        portal = self._portal
        inside = callback if callback is None else _InThread(portal, callback)
        made = self._broker.listen_everywhere(type, inside, **options)
        return FarmRegistration(portal, portal.call(made))

    def grant(self, name: str | Name, user: str, right: str | Right) -> Right:
        """See :meth:`broker.Broker.grant`."""
        return self._portal.call(self._broker.grant(name, user, right))

    def revoke(self, name: str | Name, user: str, right: str | Right) -> Right:
        """See :meth:`broker.Broker.revoke`."""
        return self._portal.call(self._broker.revoke(name, user, right))

    def delete_printer(self, name: str | Name) -> Deletion:
        """See :meth:`broker.Broker.delete_printer`."""
        return self._portal.call(self._broker.delete_printer(name))

    @property
    def user(self) -> str:
        """Who this client acts as now."""
        return self._broker.user

    @user.setter
    def user(self, user: str) -> None:
        self._broker.user = user

    def servers(self) -> list[str]:
        """See :meth:`broker.Broker.servers`."""
        return self._portal.call(self._broker.servers())

    def overview(self) -> list[ServerFacts]:
        """See :meth:`broker.Broker.overview`."""
        return self._portal.call(self._broker.overview())

    def aliases(self) -> dict[str, str]:
        """See :meth:`broker.Broker.aliases`."""
        return self._portal.call(self._broker.aliases())

    def add_alias(self, alias: str | Name, server: str | Name) -> str:
        """See :meth:`broker.Broker.add_alias`."""
        return self._portal.call(self._broker.add_alias(alias, server))

    def remove_alias(self, alias: str | Name) -> str:
        """See :meth:`broker.Broker.remove_alias`."""
        return self._portal.call(self._broker.remove_alias(alias))

    def forget_server(self, name: str | Name) -> list[str]:
        """See :meth:`broker.Broker.forget_server`."""
        return self._portal.call(self._broker.forget_server(name))

    def grants(self, name: str | Name | None = None) -> list[Grant]:
        """See :meth:`broker.Broker.grants`."""
        return self._portal.call(self._broker.grants(name))

    def channels(self, name: str | Name | None = None) -> list[ChannelFacts]:
        """See :meth:`broker.Broker.channels`."""
        return self._portal.call(self._broker.channels(name))

    def registrations(self, name: str | Name | None = None) -> list[RegistrationFacts]:
        """See :meth:`broker.Broker.registrations`."""
        return self._portal.call(self._broker.registrations(name))

    def show(self, channel: str) -> tuple[ChannelFacts, list[Utterance]] | None:
        """See :meth:`broker.Broker.show`."""
        return self._portal.call(self._broker.show(channel))

    def run_down(self, name: str | Name | None = None) -> int:
        """See :meth:`broker.Broker.run_down`."""
        return self._portal.call(self._broker.run_down(name))
