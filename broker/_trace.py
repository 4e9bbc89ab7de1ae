"""Trace context: what ties a listener's spans to the sender's, where OpenTelemetry is installed.

A notification, and a response, carries the W3C ``traceparent`` of the span in which it was sent,
and behind a space the ``tracestate`` where there is one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from uuid import UUID

from broker.names import Name

Span = AbstractContextManager[object]
_NO_SPAN = contextlib.nullcontext()


def _no_context() -> str:
    return ""


def _no_ids() -> tuple[str, str] | None:
    return None


def _not_sending(_operation: str, _channel: str, _type: UUID, _name: Name) -> Span:
    return _NO_SPAN


def _not_processing(
    _sender: str, _channel: str, _type: UUID, _name: Name, _more: Mapping[str, str | int | bool]
) -> Span:
    return _NO_SPAN


def _no_mark(_span: object, _outcome: str, _is_fault: bool) -> None:
    return


current: Callable[[], str] = _no_context
"""The context of the present span; empty without one."""
ids: Callable[[], tuple[str, str] | None] = _no_ids
"""Trace and span that are current; see :mod:`broker._spans`."""
sending: Callable[[str, str, UUID, Name], Span] = _not_sending
"""A producer's span; likewise."""
processing: Callable[[str, str, UUID, Name, Mapping[str, str | int | bool]], Span] = _not_processing
"""A consumer's span; likewise."""
mark: Callable[[object, str, bool], None] = _no_mark
"""What came of a span; likewise."""

try:
    from broker import _spans
except ImportError:  # OpenTelemetry is not installed: nothing is traced, and nothing costs
    pass
else:
    current, ids = _spans.current, _spans.ids
    sending, processing, mark = _spans.sending, _spans.processing, _spans.mark
