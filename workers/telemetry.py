"""Telemetry: what one process counts and measures, for Prometheus.

The metrics are listed in ``docs/operating.md``. Their labels are bounded: pools, handlers,
servers, scripts, and words of fixed sets; never a channel, a user or a printer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from broker.conversation import Style
from workers.backlog import Read, backlog_record
from workers.extras import needed
from workers.verdict import Outcome

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram
    from prometheus_client.metrics_core import Metric

log = logging.getLogger("tympan")

T = TypeVar("T")
ReadInHand = Callable[[], Mapping[str, int]]
"""How much is in hand, by pool. Any thread may call it."""

LATENCIES = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    600,
    3600,
)
"""Bounds in seconds: a pool may have collected for hours."""
HANDLINGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
SCRIPTS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
OF_HANDLER = ("pool", "handler")


class Telemetry:
    """The metrics of one process: a :class:`broker.observer.Observer`, and told by its runner.

    Raises ExtraMissing.
    """

    def __init__(self) -> None:
        with needed("worker", "telemetry"):
            from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
        registry = self.registry = CollectorRegistry()
        """Where an application may add metrics of its own."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tympan_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"tympan_{name}", text, labels, buckets=buckets, registry=registry)

        self._sends = counter(
            "sends", "Notifications sent, by what Redis answered", "style", "outcome"
        )
        self._responses = counter("responses", "Responses that arrived at channels here")
        self._acquisitions = counter(
            "acquisitions", "Offers answered here: won, or lost to another listener", "outcome"
        )
        self._deliveries = counter(
            "deliveries",
            "Notifications and questions given to handlers",
            *OF_HANDLER,
            "redelivered",
        )
        self._claims = counter(
            "claims", "Deliveries that another replica or an earlier try had in hand", "pool"
        )
        self._latency = histogram(
            "latency_seconds", "From the send to the handler", LATENCIES, *OF_HANDLER
        )
        self._runs = counter("runs", "Ended runs of handlers", *OF_HANDLER, "outcome")
        self._handling = histogram(
            "handling_seconds",
            "How long a run of a handler took",
            HANDLINGS,
            *OF_HANDLER,
            "outcome",
        )
        self._retries = counter("retries", "Runs that are tried again later", *OF_HANDLER)
        self._dead = counter("dead_letters", "Deliveries put aside as dead letters", *OF_HANDLER)
        self._losses = counter(
            "lease_losses", "Leases lost: declared dead, and begun again", "server"
        )
        self._resyncs = counter(
            "resyncs", "Times that bells were missed, and streams read instead", "server"
        )
        self._calls = counter(
            "script_calls", "Calls of scripts, by the answer", "script", "outcome"
        )
        self._script = histogram(
            "script_seconds",
            "From a script's call to its answer, repeats among it",
            SCRIPTS,
            "script",
        )
        self._of_script: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._readings = Readings()
        registry.register(self._readings)
        ProcessCollector(registry=registry)

    # Told by the broker -------------------------------------------------------------------------

    def script_ended(self, script: str, seconds: float, word: str) -> None:
        """See :class:`broker.observer.Observer`."""
        found = self._of_script.get((script, word))
        if found is None:
            found = (self._calls.labels(script, _outcome(word)), self._script.labels(script))
            self._of_script[script, word] = found
        calls, times = found
        calls.inc()
        times.observe(seconds)

    def sent(self, style: Style, word: str) -> None:
        """See :class:`broker.observer.Observer`."""
        self._sends.labels(style.word, _outcome(word)).inc()

    def responded(self) -> None:
        """See :class:`broker.observer.Observer`."""
        self._responses.inc()

    def acquisition_ended(self, *, won: bool) -> None:
        """See :class:`broker.observer.Observer`."""
        self._acquisitions.labels("won" if won else "lost").inc()

    def lease_lost(self, server: str) -> None:
        """See :class:`broker.observer.Observer`."""
        self._losses.labels(server).inc()

    def resynced(self, server: str) -> None:
        """See :class:`broker.observer.Observer`."""
        self._resyncs.labels(server).inc()

    # Told by the runner -------------------------------------------------------------------------

    def delivered(
        self, pool: str, handler: str, *, redelivered: bool, latency: float | None
    ) -> None:
        """A handler is given something. ``latency`` in seconds since its send; None if unknown."""
        self._deliveries.labels(pool, handler, str(redelivered).lower()).inc()
        if redelivered:
            self._claims.labels(pool).inc()
        if latency is not None:
            self._latency.labels(pool, handler).observe(max(0.0, latency))

    def handled(self, pool: str, handler: str, outcome: Outcome, seconds: float) -> None:
        """A run of a handler ended."""
        self._runs.labels(pool, handler, outcome).inc()
        self._handling.labels(pool, handler, outcome).observe(seconds)
        if outcome is Outcome.RETRIED:
            self._retries.labels(pool, handler).inc()
        elif outcome is Outcome.DEAD:
            self._dead.labels(pool, handler).inc()

    def expect(self, pool: str, handlers: Iterable[str]) -> None:
        """Begin at zero what handlers may come to.

        A counter that is first seen at 1 did not rise, as Prometheus counts.
        """
        for handler in handlers:
            self._retries.labels(pool, handler)
            self._dead.labels(pool, handler)
            for outcome in Outcome:
                self._runs.labels(pool, handler, outcome)

    def read_in_hand(self, read: ReadInHand) -> None:
        """Ask this, each time that somebody looks, what is in hand."""
        self._readings.in_hand = read

    def read_backlog(self, read: Read) -> None:
        """Ask this, each time that somebody looks, for the pools' backlog."""
        self._readings.backlog = read

    # Looking ------------------------------------------------------------------------------------

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as an HTTP client that accepts this wants them, and the content type."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return encode(self), content_type

    def collect(self) -> Iterator[Metric]:
        """All metrics, without the times at which each was made: they double what is scraped."""
        for metric in self.registry.collect():
            kept = [each for each in metric.samples if not each.name.endswith("_created")]
            metric.samples = kept
            yield metric


class Readings:
    """What is not counted but looked at: a collector of gauges."""

    def __init__(self) -> None:
        self.in_hand: ReadInHand = dict
        self.backlog: Read = _unknown
        self._has_failed = False

    def collect(self) -> Iterator[Metric]:
        """The gauges of this moment; without samples where nothing is known."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        in_hand = GaugeMetricFamily(
            "tympan_in_hand", "Runs of handlers under way in this process", labels=["pool"]
        )
        for pool, number in (self._read(self.in_hand) or {}).items():
            in_hand.add_metric([pool], number)
        backlog = GaugeMetricFamily(
            "tympan_backlog",
            "Unfinished work of pools, waiting or in a replica's hands",
            labels=["pool", "server", "state"],
        )
        denied = CounterMetricFamily(
            "tympan_pool_denied",
            "Notifications that pools missed because their buffers were full",
            labels=["pool", "server"],
        )
        replicas = GaugeMetricFamily(
            "tympan_pool_replicas", "Processes that serve pools", labels=["pool", "server"]
        )
        known = GaugeMetricFamily(
            "tympan_backlog_known",
            "1 while the pools' backlog is known, 0 while Redis was not read lately",
        )
        facts = self._read(self.backlog)
        if self.backlog is not _unknown:
            known.add_metric([], facts is not None)
        record = backlog_record(facts or ())
        for pool, sums in record["pools"].items():
            for server, here in sums["servers"].items():
                backlog.add_metric([pool, server, "waiting"], here["waiting"])
                backlog.add_metric([pool, server, "in_hand"], here["in_hand"])
                denied.add_metric([pool, server], here["denied"])
                replicas.add_metric([pool, server], here["replicas"])
        yield from (in_hand, backlog, known, denied, replicas)

    def _read(self, read: Callable[[], T]) -> T | None:
        """What somebody else's function says; one that fails does not take the others with it."""
        try:
            return read()
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                log.exception("a gauge cannot be read; this is not logged again")
            return None


def _unknown() -> None:
    return None


def _outcome(word: str) -> str:
    """A label for a word; the name of an error's class stays as it is."""
    return word.lower() if word.isupper() else word
