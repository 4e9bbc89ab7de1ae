r"""Workers: listeners as services, in any number of replicas.

::

    worker = Worker(pool="helpdesk")

    @worker.listen(r"\\print01", OutOfPaper, style=BIDIRECTIONAL, printers=True)
    async def out_of_paper(question: OutOfPaper, printer: Name) -> Answer:
        return Answer(proceed=question.tray == 2)

``tympan worker farm:worker`` runs it. All replicas of one pool share what comes: each notification,
and each question, is handled by one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import EllipsisType
from typing import Any, TypeVar
from uuid import UUID

from tenacity import wait_random_exponential
from tenacity.wait import wait_base

from broker import PER_USER, UNIDIRECTIONAL, Name, Payload, Style, UserFilter
from broker.conversation import parse_style, parse_user_filter
from broker.errors import InvalidArgument
from broker.names import parse_pool
from broker.notification import model_of
from broker.notification_type import check_style
from broker.pool import Subscription
from workers.handler import Function, Handler, HandlerFault

F = TypeVar("F", bound=Function)

EVERYWHERE = "*"
"""In the place of a name: every print server of the farm, and those that are added later."""


class Worker:
    """Handlers that share a pool, and what holds for all of them.

    Args:
        pool: the pool's name. Workers of one name share what comes; of several names, each hears
            everything.
        user: who listens; default whom the command line names, else the login name.
        max_deliveries: how often something is delivered before it is put aside as a dead letter;
            Redis counts, so a process that was killed counts, too, and so does a drain.
        retry_wait: tenacity's wait between deliveries, by their number; default random, up to
            2, 4, 8 ... and at the most 60 seconds.
        timeout: seconds that one run of a handler may take; None for no limit.

    Raises InvalidName, InvalidArgument.
    """

    def __init__(
        self,
        pool: str,
        *,
        user: str | None = None,
        max_deliveries: int = 5,
        retry_wait: wait_base | None = None,
        timeout: float | None = 60.0,
    ) -> None:
        if type(max_deliveries) is not int or max_deliveries < 1:
            raise InvalidArgument(f"max_deliveries={max_deliveries!r}: it is a number from 1 on")
        _check_timeout(timeout)
        self.pool = parse_pool(pool)
        self.user = user
        self.max_deliveries = max_deliveries
        self.retry_wait: wait_base = retry_wait or wait_random_exponential(multiplier=2, max=60)
        self.timeout = timeout
        self.handlers: list[Handler] = []
        self.startup: list[Function] = []
        self.drain: list[Function] = []
        self.shutdown: list[Function] = []
        self.state: dict[str, Any] = {}
        """The application's own, such as what its hooks open."""

    def listen(
        self,
        name: str | Name | None,
        type: str | UUID | type[Payload],
        *,
        user: str | None = None,
        user_filter: UserFilter = PER_USER,
        style: Style = UNIDIRECTIONAL,
        printers: bool = False,
        buffer: int | None = None,
        timeout: float | EllipsisType | None = ...,
    ) -> Callable[[F], F]:
        r"""Have a function handle what a listener would hear.

        Coroutine functions run in the event loop, plain ones in threads. Parameters are filled by
        their annotations: the payload's model, Notification, Offer (bidirectional), Delivery
        (unidirectional), Name (of the channel), Replica (the registration) and Broker. What the
        function returns is the response. It may raise what :mod:`workers.verdict` has instead.

        Args:
            name: ``\\server\printer``, ``\\server``, EVERYWHERE, or None for the client's server.
            type: a GUID, a known alias, or a model, by which payloads are validated.
            user: who listens; default the worker's user.
            user_filter: ALL_USERS hears everybody's; the user must administer the name.
            style: BIDIRECTIONAL to answer questions.
            printers: with a server's name: hear all its printers, too.
            buffer: unfinished notifications that the pool holds; default the setting
                ``pool_buffer``.
            timeout: seconds that one run may take; default the worker's.

        Raises HandlerFault where the function cannot be called so, InvalidName, InvalidType,
        InvalidStyle.
        """
        everywhere = name == EVERYWHERE
        guid, _ = model_of(type)
        check_style(guid, parse_style(style))
        if name is not None and not everywhere:
            name = Name.parse(name)
            if printers and name.printer:
                raise InvalidArgument(
                    f"printers=True hears all printers of a server; {name} is a printer"
                )
        subscription = Subscription(
            None if everywhere else name,
            type,
            user or self.user,
            parse_user_filter(user_filter),
            parse_style(style),
            printers,
            buffer,
            everywhere,
        )
        seconds = self.timeout if isinstance(timeout, EllipsisType) else timeout
        _check_timeout(seconds)

        def register(function: F) -> F:
            handler = Handler.of(function, subscription, everywhere=everywhere, timeout=seconds)
            for other in self.handlers:
                if _alike(other, handler):
                    raise HandlerFault(
                        f"handlers {other.name} and {handler.name} listen to the same: one pool "
                        "hands each notification to one handler; give one of them another pool"
                    )
            self.handlers.append(handler)
            return function

        return register

    def on_startup(self, function: F) -> F:
        """Have a function called before anything is handled; it may take a Broker and a Worker."""
        self.startup.append(function)
        return function

    def on_drain(self, function: F) -> F:
        """Have a function called when nothing new is taken any more, and what is in hand goes on.

        Handlers that wait for something else than their work can be told so. It may take a Broker
        and a Worker.
        """
        self.drain.append(function)
        return function

    def on_shutdown(self, function: F) -> F:
        """Have a function called when nothing is handled any more, in reverse order of these."""
        self.shutdown.append(function)
        return function

    def __repr__(self) -> str:
        return f"<Worker of pool {self.pool}: {', '.join(each.name for each in self.handlers)}>"


def _check_timeout(seconds: float | None) -> None:
    if seconds is not None and not seconds > 0:
        raise InvalidArgument(f"timeout={seconds!r}: seconds above 0, or None for no limit")


def _alike(one: Handler, other: Handler) -> bool:
    return (one.everywhere, _asked(one)) == (other.everywhere, _asked(other))


def _asked(handler: Handler) -> Subscription:
    subscription = handler.subscription
    return replace(subscription, type=model_of(subscription.type)[0], buffer=None)
