"""Metrics: each is counted where it happens, bounded in its labels, and stands in the manual."""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Observer
from broker._scripts import SCRIPTS
from broker.memory import MemoryRedis
from broker.pool import PoolFacts
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.unit.test_health import facts
from workers.extras import ExtraMissing
from workers.telemetry import Telemetry
from workers.verdict import Outcome

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "operating.md"
BOUNDED = {"pool", "handler", "outcome", "server", "script", "style", "state", "redelivered"}
"""Labels of which a farm has few: servers are the most."""


def value(telemetry: Telemetry, name: str, **labels: str) -> float:
    """A sample as Prometheus reads it; nan where there is none."""
    body, _ = telemetry.exposition()
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return float("nan")


def everything() -> Telemetry:
    """Telemetry that was told of each thing once."""
    telemetry = Telemetry()
    telemetry.script_ended("uni_send", 0.002, "OK")
    telemetry.sent(UNIDIRECTIONAL, "NO_LISTENERS")
    telemetry.responded()
    telemetry.acquisition_ended(won=True)
    telemetry.lease_lost("print01")
    telemetry.resynced("print01")
    telemetry.delivered("desk", "paper", redelivered=True, latency=0.02)
    for outcome in Outcome:
        telemetry.handled("desk", "paper", outcome, 0.005)
    telemetry.read_in_hand(lambda: {"desk": 3})
    telemetry.read_backlog(lambda: [facts("desk", "print01", 7, 2, "host.1.aa", denied=5)])
    return telemetry


# Counting ---------------------------------------------------------------------------------------


def test_what_a_handler_may_come_to_begins_at_zero() -> None:
    telemetry = Telemetry()
    telemetry.expect("desk", ["paper", "supply"])
    for handler in ("paper", "supply"):
        labels = {"pool": "desk", "handler": handler}
        assert value(telemetry, "tympan_dead_letters_total", **labels) == 0
        assert value(telemetry, "tympan_retries_total", **labels) == 0
        for outcome in Outcome:
            assert value(telemetry, "tympan_runs_total", **labels, outcome=outcome) == 0
    telemetry.handled("desk", "paper", Outcome.DEAD, 0.1)
    telemetry.expect("desk", ["paper"])
    labels = {"pool": "desk", "handler": "paper"}
    assert value(telemetry, "tympan_dead_letters_total", **labels) == 1


def test_whether_the_backlog_is_known_is_said_by_who_looks_for_it() -> None:
    telemetry = Telemetry()
    assert math.isnan(value(telemetry, "tympan_backlog_known"))
    known: list[PoolFacts] | None = None
    telemetry.read_backlog(lambda: known)
    assert value(telemetry, "tympan_backlog_known") == 0
    known = []
    assert value(telemetry, "tympan_backlog_known") == 1, "no pool is known, too"


def test_telemetry_is_an_observer() -> None:
    observer: Observer = Telemetry()
    assert observer is not None


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("tympan_script_calls_total", {"script": "uni_send", "outcome": "ok"}, 1),
        ("tympan_script_seconds_sum", {"script": "uni_send"}, 0.002),
        ("tympan_sends_total", {"style": "uni", "outcome": "no_listeners"}, 1),
        ("tympan_responses_total", {}, 1),
        ("tympan_acquisitions_total", {"outcome": "won"}, 1),
        ("tympan_lease_losses_total", {"server": "print01"}, 1),
        ("tympan_resyncs_total", {"server": "print01"}, 1),
        (
            "tympan_deliveries_total",
            {"pool": "desk", "handler": "paper", "redelivered": "true"},
            1,
        ),
        ("tympan_claims_total", {"pool": "desk"}, 1),
        ("tympan_latency_seconds_sum", {"pool": "desk", "handler": "paper"}, 0.02),
        ("tympan_runs_total", {"pool": "desk", "handler": "paper", "outcome": "lost"}, 1),
        (
            "tympan_handling_seconds_sum",
            {"pool": "desk", "handler": "paper", "outcome": "done"},
            0.005,
        ),
        ("tympan_retries_total", {"pool": "desk", "handler": "paper"}, 1),
        ("tympan_dead_letters_total", {"pool": "desk", "handler": "paper"}, 1),
        ("tympan_in_hand", {"pool": "desk"}, 3),
        ("tympan_backlog", {"pool": "desk", "server": "print01", "state": "waiting"}, 7),
        ("tympan_backlog", {"pool": "desk", "server": "print01", "state": "in_hand"}, 2),
        ("tympan_pool_denied_total", {"pool": "desk", "server": "print01"}, 5),
        ("tympan_pool_replicas", {"pool": "desk", "server": "print01"}, 1),
    ],
)
def test_what_happened_once_is_one(name: str, labels: dict[str, str], expected: float) -> None:
    assert value(everything(), name, **labels) == expected


def test_a_first_delivery_is_no_claim() -> None:
    telemetry = Telemetry()
    telemetry.delivered("desk", "paper", redelivered=False, latency=0.1)
    telemetry.delivered("desk", "paper", redelivered=True, latency=None)
    of_handler = {"pool": "desk", "handler": "paper"}
    for redelivered in ("true", "false"):
        labels = {**of_handler, "redelivered": redelivered}
        assert value(telemetry, "tympan_deliveries_total", **labels) == 1
    assert value(telemetry, "tympan_claims_total", pool="desk") == 1
    assert value(telemetry, "tympan_latency_seconds_count", **of_handler) == 1, "one was not known"


def test_clocks_that_disagree_make_no_latency_below_zero() -> None:
    telemetry = Telemetry()
    telemetry.delivered("desk", "paper", redelivered=False, latency=-0.5)
    labels = {"pool": "desk", "handler": "paper"}
    assert value(telemetry, "tympan_latency_seconds_sum", **labels) == 0


@pytest.mark.parametrize("outcome", Outcome)
def test_retries_and_dead_letters_are_counted_by_their_outcome_alone(outcome: Outcome) -> None:
    telemetry = Telemetry()
    telemetry.handled("desk", "paper", outcome, 0.5)
    of_handler = {"pool": "desk", "handler": "paper"}
    assert value(telemetry, "tympan_runs_total", **of_handler, outcome=outcome.value) == 1
    for name, its_own in (("retries", Outcome.RETRIED), ("dead_letters", Outcome.DEAD)):
        counted = value(telemetry, f"tympan_{name}_total", **of_handler)
        assert (counted == 1) is (outcome is its_own)


def test_an_error_is_told_by_its_class() -> None:
    telemetry = Telemetry()
    telemetry.script_ended("fetch", 5.0, "RedisUnreachable")
    labels = {"script": "fetch", "outcome": "RedisUnreachable"}
    assert value(telemetry, "tympan_script_calls_total", **labels) == 1


async def test_a_broker_that_it_watches_is_counted() -> None:
    telemetry = Telemetry()
    memory = MemoryRedis()
    async with (
        memory.broker(user="alice", observer=telemetry) as broker,
        await broker.register(PRINTER, TYPE, style=BIDIRECTIONAL) as questions,
        await broker.open_channel(PRINTER, TYPE, style=BIDIRECTIONAL) as channel,
    ):
        await channel.send(b"go on?")
        offer = await questions.fetch(PATIENCE)
        await offer.respond(b"yes")  # type: ignore[union-attr]
        await channel.response(PATIENCE)
    assert value(telemetry, "tympan_sends_total", style="bi", outcome="ok") == 1
    assert value(telemetry, "tympan_acquisitions_total", outcome="won") == 1
    assert value(telemetry, "tympan_responses_total") == 1
    for script in ("register", "open", "offer", "respond", "source_close"):
        assert value(telemetry, "tympan_script_calls_total", script=script, outcome="ok") >= 1


# Gauges -----------------------------------------------------------------------------------------


def test_gauges_are_read_each_time_that_somebody_looks() -> None:
    telemetry, in_hand = Telemetry(), {"desk": 1}
    telemetry.read_in_hand(lambda: in_hand)
    assert value(telemetry, "tympan_in_hand", pool="desk") == 1
    in_hand["desk"] = 5
    assert value(telemetry, "tympan_in_hand", pool="desk") == 5


def test_a_backlog_that_is_not_known_has_no_figure() -> None:
    """A zero would pass for a pool that is done."""
    telemetry = Telemetry()
    telemetry.read_backlog(lambda: None)
    body, _ = telemetry.exposition()
    assert "tympan_backlog{" not in body.decode()


def test_a_gauge_that_cannot_be_read_does_not_take_the_others_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry = everything()

    def fail() -> dict[str, int]:
        raise ZeroDivisionError

    telemetry.read_in_hand(fail)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert value(telemetry, "tympan_sends_total", style="uni", outcome="no_listeners") == 1
            labels = {"pool": "desk", "server": "print01", "state": "waiting"}
            assert value(telemetry, "tympan_backlog", **labels) == 7
    assert len(caplog.records) == 1


# The registry -----------------------------------------------------------------------------------


def test_two_of_one_process_do_not_meet() -> None:
    first, second = Telemetry(), Telemetry()
    first.responded()
    assert value(first, "tympan_responses_total") == 1
    assert value(second, "tympan_responses_total") == 0


def test_an_application_can_add_its_own() -> None:
    telemetry = Telemetry()
    Counter("tickets", "Tickets opened", registry=telemetry.registry).inc()
    assert value(telemetry, "tickets_total") == 1


def test_the_process_itself_is_measured_and_no_series_doubled() -> None:
    body, _ = everything().exposition()
    text = body.decode()
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text


def test_without_the_extra_it_says_which_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ExtraMissing, match=r"telemetry .*'tympan\[worker\]'"):
        Telemetry()


# The manual -------------------------------------------------------------------------------------


class Described(NamedTuple):
    """A metric, as the registry has it or the manual tells it."""

    kind: str
    labels: frozenset[str]
    text: str


def registered() -> dict[str, Described]:
    """By name, as it is written in queries."""
    found: dict[str, Described] = {}
    for family in everything().collect():
        if not family.name.startswith("tympan_"):
            continue
        assert family.samples, f"nothing tells {family.name}"
        labels = frozenset(label for each in family.samples for label in each.labels) - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = Described(family.type, labels, family.documentation)
    return found


def told() -> Iterator[tuple[str, Described]]:
    """The rows of the manual's table of metrics."""
    row = re.compile(r"^\| `(tympan_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", re.MULTILINE)
    for name, kind, labels, text in row.findall(MANUAL.read_text("utf-8")):
        yield name, Described(kind, frozenset(re.findall(r"`(\w+)`", labels)), text)


def test_the_manual_has_each_metric_and_no_other() -> None:
    rows = list(told())
    assert len(dict(rows)) == len(rows), "a metric stands there twice"
    assert dict(rows) == registered()


def test_names_and_labels_are_as_prometheus_advises() -> None:
    for name, metric in registered().items():
        assert name.endswith("_total") == (metric.kind == "counter")
        assert name.endswith("_seconds") == (metric.kind == "histogram"), "base units"
        assert metric.labels <= BOUNDED
        assert metric.text


def test_the_manual_has_each_outcome_of_a_run() -> None:
    text = MANUAL.read_text("utf-8")
    for outcome in Outcome:
        assert f"`{outcome}`" in text


def test_scripts_are_few_enough_to_be_labels() -> None:
    assert len(SCRIPTS) < 100
