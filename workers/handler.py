"""Handlers: functions that a worker calls, and how their parameters are filled."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Union
from uuid import UUID

from broker import BIDIRECTIONAL, Broker, Name, Notification, Offer, Payload
from broker.errors import InvalidArgument
from broker.notification import Data, model_of
from broker.pool import Subscription
from broker.pooled_offer import PooledOffer
from broker.replica import Delivery, Replica

Function = Callable[..., Any]
ANSWERS = (bytes, str, Payload, Data)
KINDS: tuple[type, ...] = (Notification, Delivery, PooledOffer, Offer, Replica, Name, Broker)
Value = Callable[[Any, Notification[Any], Broker], Any]
"""What fills a parameter: of the delivery or offer, its notification, and the broker."""
VALUES: Mapping[type, Value] = {
    Payload: lambda _item, notification, _broker: notification.payload,
    Notification: lambda _item, notification, _broker: notification,
    Name: lambda _item, notification, _broker: notification.name,
    Broker: lambda _item, _notification, broker: broker,
    Replica: lambda item, _notification, _broker: item.replica,
    **dict.fromkeys((Delivery, PooledOffer, Offer), lambda item, _notification, _broker: item),
}
ONE_WAY_ONLY = (Delivery,)
TWO_WAY_ONLY = (Offer, PooledOffer)


class HandlerFault(InvalidArgument):
    """A handler, or what it returned, is not what a worker can use."""


@dataclass(frozen=True)
class Handler:
    """A function, what its pool listens to for it, and how it is called."""

    function: Function
    subscription: Subscription
    everywhere: bool
    """Whether it listens on every server of the farm, in the place of the subscription's name."""
    timeout: float | None
    """Seconds that one run may take."""
    parameters: Mapping[str, type]
    """What each parameter takes: one of the kinds of :func:`_kinds`."""

    @classmethod
    def of(
        cls,
        function: Function,
        subscription: Subscription,
        *,
        everywhere: bool,
        timeout: float | None,
    ) -> Handler:
        """Read a function's parameters. Raises HandlerFault, InvalidType."""
        guid, model = model_of(subscription.type)
        is_two_way = subscription.style is BIDIRECTIONAL
        parameters = {
            name: _kind(function, name, hint, model, guid, is_two_way=is_two_way)
            for name, hint in _hints(function).items()
        }
        return cls(function, subscription, everywhere, timeout, parameters)

    @cached_property
    def name(self) -> str:
        """The function's name: what logs and metrics call it."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @cached_property
    def is_two_way(self) -> bool:
        """Whether it answers questions."""
        return self.subscription.style is BIDIRECTIONAL

    @cached_property
    def is_coroutine(self) -> bool:
        """Whether it runs in the event loop; otherwise it runs in a thread."""
        return is_coroutine(self.function)

    def start(
        self,
        item: Delivery[Any] | PooledOffer[Any],
        notification: Notification[Any],
        broker: Broker,
        threads: Executor,
    ) -> Awaitable[Any]:
        """Call the function. Raises PayloadInvalid, BodyGone before anything of it ran."""
        filled = {name: value(item, notification, broker) for name, value in self._values}
        if self.is_coroutine:
            running: Awaitable[Any] = self.function(**filled)
            return running
        return call_in_thread(self.function, filled, threads)

    @cached_property
    def _values(self) -> tuple[tuple[str, Value], ...]:
        """What fills each parameter."""
        return tuple((name, VALUES[kind]) for name, kind in self.parameters.items())

    def check(self, answer: object, *, is_answered: bool) -> None:
        """Raises HandlerFault where the function returned what cannot be sent."""
        if not self.is_two_way:
            if answer is None:
                return
            raise HandlerFault(
                f"handler {self.name} returned {type(answer).__name__}, but a unidirectional "
                "notification cannot be answered: return None, or listen with style=BIDIRECTIONAL"
            )
        if answer is None and not is_answered:
            raise HandlerFault(
                f"handler {self.name} returned None without an answer: return one, or raise "
                "Decline or CloseDialog"
            )
        if answer is not None and not isinstance(answer, ANSWERS):
            raise HandlerFault(
                f"handler {self.name} returned {type(answer).__name__}: an answer is bytes, text, "
                "a Payload or Data"
            )


def is_coroutine(function: Function) -> bool:
    """Whether a function is to be awaited; an object with a coroutine ``__call__`` is, too."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - its kind is asked, not whether it is there
    )


def call(function: Function, filled: Mapping[str, Any], threads: Executor) -> Awaitable[Any]:
    """Call a function in the event loop, or a plain one in a thread, with the same context."""
    if is_coroutine(function):
        awaitable: Awaitable[Any] = function(**filled)
        return awaitable
    return call_in_thread(function, filled, threads)


def call_in_thread(
    function: Function, filled: Mapping[str, Any], threads: Executor
) -> Awaitable[Any]:
    """Call a plain function there, with the present context."""
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    return loop.run_in_executor(threads, lambda: context.run(function, **filled))


def hook_values(function: Function, given: Mapping[type, Any]) -> dict[str, Any]:
    """What a start-up or shut-down hook's parameters take. Raises HandlerFault."""
    filled = {}
    for name, hint in _hints(function).items():
        found = next((kind for kind in given if hint is kind), None)
        if found is None:
            kinds = ", ".join(sorted(kind.__name__ for kind in given))
            raise HandlerFault(
                f"{_where(function, name)}: a hook's parameters are annotated with one of {kinds}"
            )
        filled[name] = given[found]
    return filled


def _hints(function: Function) -> dict[str, Any]:
    """Its parameters and what they are annotated with; None without an annotation."""
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        hints = typing.get_type_hints(target)
        signature = inspect.signature(function)
    except (NameError, TypeError, ValueError) as error:
        raise HandlerFault(
            f"handler {getattr(function, '__qualname__', function)!s}: its annotations cannot be "
            f"read: {error}"
        ) from error
    found: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise HandlerFault(f"{_where(function, name)}: * and ** parameters cannot be filled")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise HandlerFault(f"{_where(function, name)}: it is positional only; drop the slash")
        if parameter.default is parameter.empty or name in hints:
            found[name] = hints.get(name)
    return found


def _kind(
    function: Function,
    name: str,
    hint: Any,
    model: type[Payload] | None,
    guid: UUID,
    *,
    is_two_way: bool,
) -> type:
    """The kind of value that an annotation asks for."""
    asked = typing.get_origin(hint) or hint
    found: type | None = next((kind for kind in KINDS if kind is asked), None)
    if found in (ONE_WAY_ONLY if is_two_way else TWO_WAY_ONLY):
        style = "bidirectional" if is_two_way else "unidirectional"
        raise HandlerFault(
            f"{_where(function, name)}: there is no {asked.__name__} for a {style} handler"
        )
    if found is not None:
        return found
    wanted = _members(hint)
    if model is not None and (hint is None or any(_takes(one, model) for one in wanted)):
        return Payload
    if hint is None:
        return Notification
    said = model.__name__ if model is not None else f"no model is known for type {guid}"
    raise HandlerFault(
        f"{_where(function, name)}: nothing to fill it with. It may be the payload ({said}), "
        "Notification, Offer or PooledOffer (bidirectional), Delivery (unidirectional), Replica, "
        "Name or Broker"
    )


def _members(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _takes(hint: Any, model: type[Payload]) -> bool:
    return isinstance(hint, type) and issubclass(model, hint) and issubclass(hint, Payload)


def _where(function: Function, name: str) -> str:
    return f"handler {getattr(function, '__qualname__', function)!s}, parameter {name!r}"
