"""Tracing: a handler's run continues the trace of what it was sent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from broker import _trace
from broker.notification import Notification
from workers.verdict import Outcome

FAULTS = (Outcome.RETRIED, Outcome.DEAD)

Mark = Callable[[Outcome], None]


def span_for(
    notification: Notification[Any], handler: str, *, pool: str = "", redelivered: bool = False
) -> AbstractContextManager[Mark]:
    """A consumer's span around a run of a handler, where OpenTelemetry is installed and set up.

    What is answered inside carries the context on: the source finds it in ``Response.trace``. The
    function that it is entered with writes down what became of the run.
    """
    more: dict[str, str | int | bool] = {
        "tympan.handler": handler,
        "tympan.redelivered": redelivered,
    }
    if pool:
        more["messaging.consumer.group.name"] = pool
    span = _trace.processing(
        notification.trace, notification.channel, notification.type, notification.name, more
    )
    return UNTRACED if type(span) is contextlib.nullcontext else _marked(span)


@contextlib.contextmanager
def _marked(entered: AbstractContextManager[object]) -> Iterator[Mark]:
    with entered as span:
        yield lambda outcome: _trace.mark(span, outcome, outcome in FAULTS)


def unmarked(outcome: Outcome) -> None:
    """Of a run that has no span."""


UNTRACED: AbstractContextManager[Mark] = contextlib.nullcontext(unmarked)
"""In place of a span where nobody traces."""
