"""Traces: one from the source's send through the handler to the response, and no cost without."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)

from broker import BIDIRECTIONAL, Name, Notification, _trace
from broker.errors import ChannelAcquired
from broker.pool import Subscription
from broker.pooled_offer import PooledOffer
from broker.replica import Delivery, ReplicaListener
from tests.farm import PATIENCE, PRINTER, TYPE, Farm
from tests.redis.scenes import until
from workers.testing import TestFarm
from workers.tracing import FAULTS, span_for
from workers.verdict import Decline, Outcome
from workers.worker import Worker

FAR = SpanContext(
    0x0AF7651916CD43DD8448EB211C80319C,
    0xB7AD6B7169203331,
    is_remote=True,
    trace_flags=TraceFlags(TraceFlags.SAMPLED),
    trace_state=TraceState([("rojo", "00f067aa0ba902b7")]),
)
"""The span of some request that made a print component send."""
FAR_WORDS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 rojo=00f067aa0ba902b7"

Spans = InMemorySpanExporter


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """What is recorded by a provider that somebody set up in this process."""
    exporter = Spans()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.fixture
def within() -> Iterator[None]:
    """The caller's span, which is not recorded here."""
    with trace.use_span(NonRecordingSpan(FAR)):
        yield


def named(spans: Spans, name: str) -> ReadableSpan:
    """The one ended span of this name."""
    (found,) = [span for span in spans.get_finished_spans() if span.name == name]
    return found


def context_of(span: ReadableSpan) -> SpanContext:
    context: SpanContext | None = span.context
    assert context is not None
    return context


def words(span: ReadableSpan) -> str:
    """The context as it travels."""
    context = context_of(span)
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def notified(sender: str = "") -> Notification[Any]:
    return Notification(TYPE, b"x", "c1", Name.parse(PRINTER), "alice", 1.0, trace=sender)


# One trace --------------------------------------------------------------------------------------


async def test_one_trace_goes_from_the_send_through_the_handler_to_the_response(
    farm: Farm, spans: Spans
) -> None:
    source, listener = await farm.broker(), await farm.broker()
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    tracer = trace.get_tracer("application")
    with tracer.start_as_current_span("job"):
        channel = await farm.question(source)
    offer = await farm.offered(registration)
    with span_for(offer.notification, "paper", pool="desk"):
        await offer.respond(b"yes")
    response = await channel.response(PATIENCE)

    job, send = named(spans, "job"), named(spans, f"send {TYPE}")
    process, respond = named(spans, f"process {TYPE}"), named(spans, f"respond {TYPE}")
    assert send.parent == context_of(job)
    assert offer.notification.trace == words(send)
    assert process.parent is not None
    assert process.parent.span_id == context_of(send).span_id
    assert process.parent.is_remote
    assert respond.parent == context_of(process)
    assert response.trace == words(respond)
    assert len({context_of(span).trace_id for span in spans.get_finished_spans()}) == 1


async def test_spans_say_what_they_are_in_the_words_of_the_conventions(
    farm: Farm, spans: Spans
) -> None:
    source = await farm.broker()
    channel = await farm.question(source)
    with span_for(notified(), "paper", pool="desk", redelivered=True):
        pass
    send, process = named(spans, f"send {TYPE}"), named(spans, f"process {TYPE}")
    assert send.kind is SpanKind.PRODUCER
    assert process.kind is SpanKind.CONSUMER
    assert dict(send.attributes or {}) == {
        "messaging.system": "tympan",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": str(TYPE),
        "messaging.message.conversation_id": channel.id,
        "tympan.name": PRINTER,
    }
    assert dict(process.attributes or {}) == {
        "messaging.system": "tympan",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": str(TYPE),
        "messaging.message.conversation_id": "c1",
        "messaging.consumer.group.name": "desk",
        "tympan.name": PRINTER,
        "tympan.handler": "paper",
        "tympan.redelivered": True,
    }


async def test_a_send_outside_any_span_begins_a_trace_where_somebody_traces(
    farm: Farm, spans: Spans
) -> None:
    source, listener = await farm.broker(), await farm.broker()
    registration = await listener.register(PRINTER, TYPE)
    channel = await source.open_channel(PRINTER, TYPE)
    await channel.send(b"empty")
    heard = await registration.fetch(PATIENCE)
    assert isinstance(heard, Notification)
    send = named(spans, f"send {TYPE}")
    assert send.parent is None
    assert heard.trace == words(send)


async def test_each_turn_of_a_dialog_has_its_own_context(farm: Farm, spans: Spans) -> None:
    source, listener = await farm.broker(), await farm.broker()
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    await offer.respond(b"yes")
    first = await channel.response(PATIENCE)
    await channel.send(b"sure?")
    again = await offer.follow_up(PATIENCE)
    await offer.respond(b"sure")
    second = await channel.response(PATIENCE)
    said = [offer.notification.trace, first.trace, again.trace, second.trace]
    assert said == [words(span) for span in spans.get_finished_spans()]
    assert len(set(said)) == 4


async def test_an_answer_that_came_late_is_no_fault_of_its_span(farm: Farm, spans: Spans) -> None:
    source = await farm.broker()
    registrations = [
        await (await farm.broker()).register(PRINTER, TYPE, style=BIDIRECTIONAL) for _ in range(2)
    ]
    await farm.question(source)
    offers = [await farm.offered(registration) for registration in registrations]
    await offers[0].respond(b"yes")
    with pytest.raises(ChannelAcquired):
        await offers[1].respond(b"no")
    responded = [span for span in spans.get_finished_spans() if span.name == f"respond {TYPE}"]
    assert [span.status.status_code for span in responded] == [StatusCode.UNSET] * 2


# Pools ------------------------------------------------------------------------------------------


async def test_what_a_pool_collected_continues_the_senders_trace(farm: Farm, spans: Spans) -> None:
    source, worker = await farm.broker(), await farm.broker()
    subscription = Subscription(PRINTER, TYPE)
    await source.pools.create("desk", subscription)
    channel = await source.open_channel(PRINTER, TYPE)
    await channel.send(b"empty")
    replica = await worker.pools.join("desk", subscription, ReplicaListener())
    (delivery,) = await replica.take(1)
    assert isinstance(delivery, Delivery)
    with span_for(delivery.notification, "paper", pool="desk"):
        await delivery.done()
    send, process = named(spans, f"send {TYPE}"), named(spans, f"process {TYPE}")
    assert context_of(process).trace_id == context_of(send).trace_id
    await source.pools.delete("desk", PRINTER)


async def test_a_dialog_that_another_replica_carries_on_stays_in_its_trace(
    farm: Farm, spans: Spans
) -> None:
    source, one, other = [await farm.broker() for _ in range(3)]
    subscription = Subscription(PRINTER, TYPE, style=BIDIRECTIONAL)
    first = await one.pools.join("desk", subscription, ReplicaListener())
    second = await other.pools.join("desk", subscription, ReplicaListener())
    channel = await farm.question(source)
    (offer,) = await first.take(1)
    assert isinstance(offer, PooledOffer)
    await offer.respond(b"yes", ends_turn=True)
    await channel.response(PATIENCE)
    await channel.send(b"sure?")
    assert (await offer.follow_up(PATIENCE)).data == b"sure?"
    await first.leave()

    (taken_over,) = await second.take(1)
    assert isinstance(taken_over, PooledOffer)
    asked, _, sure = spans.get_finished_spans()
    assert taken_over.notification.trace == words(asked)
    assert taken_over.begin_turn().trace == words(sure)
    await channel.close()
    await source.pools.delete("desk", PRINTER)


# A worker ---------------------------------------------------------------------------------------


async def test_what_a_handler_returns_is_answered_inside_its_span(spans: Spans) -> None:
    worker = Worker("desk")
    inside: list[str] = []

    @worker.listen(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    def paper(question: Notification[Any]) -> bytes:
        inside.append(_trace.current())
        return question.body

    async with TestFarm(worker) as farm:
        channel = await farm.question(PRINTER, b"go on?", TYPE)
        response = await channel.response(PATIENCE)
        await channel.close()

    send, process, respond = (
        named(spans, f"{operation} {TYPE}") for operation in ("send", "process", "respond")
    )
    assert process.parent is not None
    assert process.parent.span_id == context_of(send).span_id
    assert inside == [words(process)], "a plain function in its thread is inside, too"
    assert respond.parent == context_of(process)
    assert response.trace == words(respond)
    assert (process.attributes or {})["tympan.outcome"] == "responded"
    assert (process.attributes or {})["messaging.consumer.group.name"] == "desk"


async def test_a_handler_that_declines_is_no_fault_and_one_that_fails_is(spans: Spans) -> None:
    worker = Worker("desk", max_deliveries=1)

    @worker.listen(PRINTER, TYPE, user="alice")
    async def tell(notification: Notification[Any]) -> None:
        if notification.body == b"bad":
            raise ZeroDivisionError

    @worker.listen(PRINTER, TYPE, user="alice", style=BIDIRECTIONAL)
    async def ask(_question: Notification[Any]) -> bytes:
        raise Decline

    with trace.get_tracer("test").start_as_current_span("test"):
        async with TestFarm(worker) as farm:
            await farm.notify(PRINTER, b"good", TYPE)
            await farm.notify(PRINTER, b"bad", TYPE)
            channel = await farm.question(PRINTER, b"go on?", TYPE)

            async def are_all_done() -> bool:
                return len(farm.outcomes) == 3

            await until(are_all_done)
            await channel.close()

    processed = [span for span in spans.get_finished_spans() if span.name == f"process {TYPE}"]
    assert [
        ((span.attributes or {})["tympan.outcome"], span.status.status_code) for span in processed
    ] == [
        ("done", StatusCode.UNSET),
        ("dead", StatusCode.ERROR),
        ("declined", StatusCode.UNSET),
    ]
    assert "tympan.outcome" not in (named(spans, "test").attributes or {})


# What is not there, or not fit ------------------------------------------------------------------


@pytest.mark.usefixtures("within")
async def test_without_a_provider_the_callers_context_travels_on(farm: Farm) -> None:
    source, listener = await farm.broker(), await farm.broker()
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    assert offer.notification.trace == FAR_WORDS, "no span was made, and the state is there"
    with trace.use_span(trace.INVALID_SPAN), span_for(offer.notification, "paper"):
        await offer.respond(b"yes")
    assert (await channel.response(PATIENCE)).trace == FAR_WORDS, "it went through the handler"


async def test_without_a_provider_and_a_span_nothing_travels(farm: Farm) -> None:
    source, listener = await farm.broker(), await farm.broker()
    registration = await listener.register(PRINTER, TYPE, style=BIDIRECTIONAL)
    channel = await farm.question(source)
    offer = await farm.offered(registration)
    await offer.respond(b"yes")
    assert offer.notification.trace == (await channel.response(PATIENCE)).trace == ""
    server = await source.server(PRINTER)
    log: Any = await farm.client.xrange(server.keys.log(channel.id))
    assert not any(b"trace" in fields for _, fields in log), "and nothing is stored of it"


async def test_what_the_sender_does_not_sample_the_handler_does_not(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    with span_for(notified(FAR_WORDS.replace("-01", "-00")), "paper"):
        assert not trace.get_current_span().is_recording()
    assert spans.get_finished_spans() == ()
    provider = TracerProvider(sampler=ALWAYS_OFF)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    with _trace.sending("send", "c1", TYPE, Name.parse(PRINTER)):
        assert int(_trace.current()[-2:], 16) & TraceFlags.SAMPLED == 0


def test_what_came_without_a_context_begins_a_trace_of_its_own(spans: Spans) -> None:
    """Not one of whatever span the runner was started in."""
    with trace.get_tracer("runner").start_as_current_span("start"), span_for(notified(), "paper"):
        pass
    assert named(spans, f"process {TYPE}").parent is None


NO_CONTEXTS = ("nonsense", "00-zz-zz-01", " ", "00-" + "0" * 32, "\x00 \x00=,")


@pytest.mark.parametrize("sender", NO_CONTEXTS)
def test_a_context_that_is_none_begins_a_trace_too(spans: Spans, sender: str) -> None:
    with span_for(notified(sender), "paper"):
        pass
    assert named(spans, f"process {TYPE}").parent is None


def test_the_state_comes_with_the_context(spans: Spans) -> None:
    with span_for(notified(FAR_WORDS), "paper"):
        pass
    process = context_of(named(spans, f"process {TYPE}"))
    assert process.trace_id == FAR.trace_id
    assert process.trace_state.get("rojo") == "00f067aa0ba902b7"


def test_a_state_that_is_too_long_stays_at_home() -> None:
    entries = [(f"vendor{number}", "x" * 200) for number in range(10)]
    context = SpanContext(
        FAR.trace_id,
        FAR.span_id,
        is_remote=True,
        trace_flags=FAR.trace_flags,
        trace_state=TraceState(entries),
    )
    with trace.use_span(NonRecordingSpan(context)):
        assert _trace.current() == FAR_WORDS.partition(" ")[0]


def test_a_handler_that_raises_marks_its_span(spans: Spans) -> None:
    with pytest.raises(ZeroDivisionError), span_for(notified(), "paper"):
        raise ZeroDivisionError("no paper")
    process = named(spans, f"process {TYPE}")
    assert process.status.status_code is StatusCode.ERROR
    assert [event.name for event in process.events] == ["exception"]


@pytest.mark.parametrize("outcome", Outcome)
def test_a_span_says_what_became_of_the_run(spans: Spans, outcome: Outcome) -> None:
    with span_for(notified(), "paper") as mark:
        mark(outcome)
    process = named(spans, f"process {TYPE}")
    assert (process.attributes or {})["tympan.outcome"] == outcome.value
    assert (process.status.status_code is StatusCode.ERROR) is (outcome in FAULTS)


def test_a_name_for_the_type_is_the_spans_too(spans: Spans) -> None:
    with span_for(
        Notification(
            UUID("0b20806a-328a-4e1c-931c-0250308574c7"), b"", "c1", Name("p"), "alice", 1.0
        ),
        "paper",
    ):
        pass
    assert named(spans, "process sample-ui").kind is SpanKind.CONSUMER


# Without OpenTelemetry --------------------------------------------------------------------------


def test_without_opentelemetry_nothing_is_traced_and_everything_works() -> None:
    script = """
        import asyncio, sys

        sys.modules["opentelemetry"] = None  # as if it were not installed
        from broker import BIDIRECTIONAL, Offer, _trace
        from broker.memory import MemoryRedis
        from workers.tracing import span_for
        from workers.verdict import Outcome

        async def main():
            memory = MemoryRedis()
            name, kind = r"\\\\print01\\laser-3", "sample-ui"
            async with (
                memory.broker(user="alice") as broker,
                await broker.register(name, kind, style=BIDIRECTIONAL) as questions,
                await broker.open_channel(name, kind, style=BIDIRECTIONAL) as channel,
            ):
                await channel.send(b"go on?")
                offer = await questions.fetch(10)
                with span_for(offer.notification, "paper") as mark:
                    await offer.respond(b"yes")
                    mark(Outcome.RESPONDED)
                response = await channel.response(10)
                assert (response.data, response.trace, offer.notification.trace) == (b"yes", "", "")
            one = _trace.sending("send", "c", offer.type, offer.name)
            assert one is _trace.sending("respond", "d", offer.type, offer.name), "made once"
            assert _trace.ids() is None
            assert not any(module.startswith("opentelemetry.") for module in sys.modules)

        asyncio.run(main())
        print("works")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("works\n", "")
