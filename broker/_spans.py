"""Spans of sends, by OpenTelemetry: imported where its API is installed.

A span is made where somebody set up a tracer provider; without one the context of whatever span
is current still travels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import lru_cache
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from broker.names import Name
from broker.notification_type import describe_type

MOST = 1024
"""Bytes of a context that travels; a longer one is left out."""
FIELDS = ("traceparent", "tracestate")

_PROPAGATOR = TraceContextTextMapPropagator()
_NO_SPAN = contextlib.nullcontext()


@lru_cache(maxsize=1)
def _tracer_of(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("tympan")


def tracer() -> Tracer | None:
    """The tracer of the provider that was set up; None without one."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else _tracer_of(provider)


def current() -> str:
    """The context of the present span; empty without one."""
    span = trace.get_current_span()
    if span is trace.INVALID_SPAN or not span.get_span_context().is_valid:
        return ""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    context = " ".join(carrier[field] for field in FIELDS if carrier.get(field))
    return context if len(context) <= MOST else carrier.get("traceparent", "")


def ids() -> tuple[str, str] | None:
    """Trace and span that are current, in hexadecimal digits."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def sending(
    operation: str, channel: str, type_: UUID, name: Name
) -> contextlib.AbstractContextManager[object]:
    """A producer's span around a send or a response, if somebody traces."""
    found = tracer()
    if found is None:
        return _NO_SPAN
    described = describe_type(type_)
    return found.start_as_current_span(
        f"{operation} {described}",
        kind=SpanKind.PRODUCER,
        attributes=attributes(operation, "send", channel, described, name),
    )


def processing(
    sender: str, channel: str, type_: UUID, name: Name, more: Mapping[str, str | int | bool]
) -> contextlib.AbstractContextManager[object]:
    """A consumer's span that continues the sender's trace, or begins one of its own.

    ``sender`` is the context that came along, if any. Where nobody traces here, it is passed on.
    """
    if not sender and tracer() is None:
        return _NO_SPAN
    parent, _, state = sender.partition(" ")
    carrier = dict(zip(FIELDS, (parent, state), strict=True))
    context = _PROPAGATOR.extract(carrier, Context())
    described = describe_type(type_)
    return _tracer_of(trace.get_tracer_provider()).start_as_current_span(
        f"process {described}",
        context=context,
        kind=SpanKind.CONSUMER,
        attributes={**attributes("process", "process", channel, described, name), **more},
    )


def mark(span: object, outcome: str, is_fault: bool) -> None:
    """Say on a span, if there is one, what came of it."""
    if not isinstance(span, Span):
        return
    span.set_attribute("tympan.outcome", outcome)
    if is_fault:
        span.set_status(StatusCode.ERROR)


def attributes(
    operation: str, kind: str, channel: str, described: str, name: Name
) -> dict[str, str]:
    """What a span says, in the words of the conventions for messaging."""
    return {
        "messaging.system": "tympan",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": described,
        "messaging.message.conversation_id": channel,
        "tympan.name": str(name),
    }
