"""KEDA's arithmetic, by hand: what the stand-in of the cluster's test says of a Deployment."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart_cluster.keda import (
    Autoscaler,
    NoFigure,
    NotUnderstood,
    Scaling,
    figure,
    reversals,
)


def scaled_object(metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    trigger = {
        "url": "http://tympan-reaper.farm.svc:8080/backlog",
        "valueLocation": "pools.helpdesk.backlog",
        "targetValue": "8",
    }
    return {
        "spec": {
            "scaleTargetRef": {"name": "tympan-helpdesk"},
            "triggers": [{"type": "metrics-api", "metadata": trigger | (metadata or {})}],
            **spec,
        }
    }


def autoscaler(metadata: dict[str, Any] | None = None, **spec: Any) -> Autoscaler:
    return Autoscaler(Scaling.of(scaled_object(metadata, **spec)))


def test_kedas_defaults() -> None:
    scaling = Scaling.of(scaled_object())
    assert (scaling.polling, scaling.cooldown, scaling.least, scaling.most) == (30, 300, 0, 100)
    assert (scaling.trigger.target, scaling.trigger.activation) == (8, 0)
    assert scaling.trigger.service == ("farm", "tympan-reaper", "8080", "/backlog")


@pytest.mark.parametrize(
    "faulty",
    [
        scaled_object(idleReplicaCount=0),
        scaled_object({"unsafeSsl": "true"}),
        scaled_object({"targetValue": 8}),
        scaled_object(triggers=[]),
        scaled_object(triggers=[{"type": "redis-streams", "metadata": {}}]),
        scaled_object(advanced={"scalingModifiers": {"formula": "a + b"}}),
    ],
)
def test_what_it_does_not_do_is_refused(faulty: dict[str, Any]) -> None:
    with pytest.raises(NotUnderstood):
        Scaling.of(faulty)


def test_the_number_is_found_by_its_path() -> None:
    body = '{"pools": {"help.desk": {"backlog": 11, "full": false}}}'
    assert figure(body, r"pools.help\.desk.backlog") == 11
    for location in ("pools.help.desk.backlog", r"pools.help\.desk", r"pools.help\.desk.full"):
        with pytest.raises(NoFigure):
            figure(body, location)
    with pytest.raises(NoFigure):
        figure("503", "pools")
    with pytest.raises(NotUnderstood):
        figure(body, "pools.*.backlog")


def test_one_that_waits_wakes_it() -> None:
    keda = autoscaler()
    assert keda.poll(0, 0, 0) == 0
    assert keda.poll(30, 1, 0) == 1
    assert autoscaler(minReplicaCount=3).poll(0, 0, 0) == 3


def test_it_wakes_above_the_activation_only() -> None:
    keda = autoscaler({"activationTargetValue": "2"})
    assert keda.poll(0, 2, 0) == 0
    assert keda.poll(1, 2.5, 0) == 1


def test_it_goes_to_zero_when_it_was_idle_for_the_cooldown() -> None:
    keda = autoscaler(cooldownPeriod=60)
    assert keda.poll(0, 1, 1) == 1
    assert keda.poll(60, 0, 1) == 1
    assert keda.poll(61, 0, 1) == 0


def test_it_never_goes_to_zero_while_the_figure_is_above() -> None:
    keda = autoscaler(cooldownPeriod=1)
    assert [keda.poll(at, 1, 2) for at in range(100)] == [2] * 100


def test_the_autoscaler_leaves_zero_alone() -> None:
    assert autoscaler().sync(0, 1000, 0) == 0


def test_so_many_that_each_has_the_target() -> None:
    assert autoscaler().sync(0, 18, 2) == 3
    assert autoscaler().sync(0, 17, 2) == 2, "within a tenth nothing is done"
    assert autoscaler(maxReplicaCount=2).sync(0, 100, 1) == 2


def test_it_rises_by_four_or_by_twice_in_fifteen_seconds() -> None:
    keda = autoscaler()
    assert keda.sync(0, 800, 1) == 5
    assert keda.sync(5, 800, 5) == 5, "the first rise counts within the same 15 s"
    assert keda.sync(15, 800, 5) == 10


def test_it_falls_to_the_most_that_was_wanted_in_five_minutes() -> None:
    keda = autoscaler()
    assert keda.sync(0, 40, 5) == 5
    assert keda.sync(15, 0, 5) == 5
    assert keda.sync(299, 16, 5) == 5
    assert keda.sync(301, 8, 5) == 2
    assert keda.sync(600, 8, 2) == 1


def test_windows_and_policies_of_ones_own() -> None:
    down = {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    }
    behavior = {"scaleDown": down, "scaleUp": {"selectPolicy": "Disabled"}}
    keda = autoscaler(advanced={"horizontalPodAutoscalerConfig": {"behavior": behavior}})
    assert keda.sync(0, 800, 4) == 4
    assert keda.sync(15, 1, 4) == 3
    assert keda.sync(30, 1, 3) == 3
    assert keda.sync(75, 1, 3) == 2


def test_what_cannot_be_read_leaves_it_as_it_is() -> None:
    keda = autoscaler()
    assert keda.poll(0, None, 0) == 0
    assert keda.poll(1000, None, 3) == 3
    assert keda.sync(1000, None, 3) == 3


def test_after_some_failures_it_falls_back() -> None:
    fallback = {"failureThreshold": 2, "replicas": 4, "behavior": "currentReplicasIfHigher"}
    keda = autoscaler(fallback=fallback)
    assert [keda.sync(15 * i, None, 2) for i in range(3)] == [2, 2, 4]
    assert keda.sync(60, None, 6) == 6
    assert keda.sync(75, 16, 6) == 6
    assert keda.sync(90, None, 2) == 2, "one that was read begins the count again"


def test_it_falls_back_from_zero_too() -> None:
    keda = autoscaler(fallback={"failureThreshold": 2, "replicas": 4})
    assert [keda.poll(5 * i, None, 0) for i in range(3)] == [0, 0, 1]
    assert keda.sync(15, None, 1) == 4


def settled(load: float, target: int, concurrency: int = 8) -> tuple[int, int]:
    """Reversals in an hour, and replicas at its end, of work that keeps ``load`` replicas busy."""
    down = {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
    }
    keda = autoscaler(
        {"targetValue": str(target)},
        advanced={"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": down}}},
    )
    backlog, counts = 0.0, [1]
    for second in range(3600):
        for _ in range(10):  # what is in hand takes a second
            backlog += (load * concurrency - min(backlog, concurrency * counts[-1])) / 10
        if second % 15 == 0:
            counts.append(keda.sync(second, int(backlog), counts[-1]))
    return reversals(counts), counts[-1]


@pytest.mark.parametrize(("load", "replicas"), [(0.3, 1), (0.7, 1), (1.2, 2), (1.7, 2), (2.5, 3)])
def test_a_steady_load_settles_where_the_target_is_what_a_replica_runs_at_once(
    load: float, replicas: int
) -> None:
    turns, found = settled(load, target=8)
    assert (found, turns <= 1) == (replicas, True), "at the most it overshoots once"


@pytest.mark.parametrize("load", [1.2, 1.7, 2.5])
def test_it_swings_for_ever_where_the_target_is_twice_that(load: float) -> None:
    turns, _ = settled(load, target=16)
    assert turns > 10, "as many as the work needs never have a backlog that keeps them"


def test_reversals() -> None:
    assert reversals([]) == 0
    assert reversals([0, 1, 1, 4, 8, 8]) == 0
    assert reversals([0, 4, 1, 1, 0]) == 1
    assert reversals([0, 4, 1, 4, 0]) == 3
