"""Level 1: what is rendered is well-formed in each version of Kubernetes, unknown fields too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chart.charts import HELMS, VALUES, VERSIONS, Refused, parsed, render, text
from tests.chart.kinds import UnknownKind, faults


@pytest.mark.parametrize("file", VALUES, ids=lambda file: file.name)
def test_all_objects_are_well_formed_from_1_25_to_1_35(file: Path) -> None:
    with ThreadPoolExecutor(4) as some:
        rendered = list(some.map(lambda version: text((file,), "", HELMS[0], version), VERSIONS))
    for version, each in zip(VERSIONS, rendered, strict=True):
        objects = parsed(each)
        assert objects
        found = [fault for one in objects for fault in faults(one, version)]
        assert found == [], f"Kubernetes {version}"


def test_an_older_kubernetes_is_refused() -> None:
    with pytest.raises(Refused, match="incompatible with Kubernetes"):
        render(VALUES[0], version="1.24")


def test_faults_are_found_in_kubernetes_own_objects_and_in_custom_ones() -> None:
    objects = render(next(file for file in VALUES if file.name == "everything-values.yaml"))
    for kind, spoil, what in (
        ("Deployment", {"replica": 2}, "replica"),
        ("PodDisruptionBudget", {"maxUnavailable": True}, "True"),
        ("ScaledObject", {"cooldown": 2}, "cooldown"),
        ("PodMonitor", {"podMetricsEndpoints": [{"portName": "health"}]}, "portName"),
        ("PrometheusRule", {"groups": [{"name": "x", "rules": [{"alert": "x"}]}]}, "expr"),
    ):
        each = next(one for one in objects if one["kind"] == kind)
        each["spec"] |= spoil
        found = list(faults(each, VERSIONS[-1]))
        assert len(found) >= 1
        assert what in found[0]
    number = next(one for one in objects if one["kind"] == "ScaledObject")
    number["spec"].pop("cooldown")
    number["spec"]["triggers"][0]["metadata"]["targetValue"] = 5
    assert "5 is not of type 'string'" in " ".join(faults(number, VERSIONS[-1]))


def test_a_kind_that_nobody_knows_is_no_pass() -> None:
    unknown = {"apiVersion": "example.com/v1", "kind": "Printer", "metadata": {"name": "x"}}
    with pytest.raises(UnknownKind, match="Printer"):
        list(faults(unknown, VERSIONS[0]))
