"""Who scales: KEDA, where the cluster has it, and otherwise a stand-in that does as KEDA says."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.chart_cluster.keda import SYNC, Autoscaler, NoFigure, Scaling, figure
from tests.chart_cluster.kubernetes import Cluster, CommandFailed, Record

GROUP = "keda.sh"
CRD: Record = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"scaledobjects.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}
"""Enough for an API server to keep ScaledObjects, where KEDA itself is not installed."""


@dataclass(frozen=True)
class Look:
    """What there was at one time."""

    at: float
    value: float | None
    """What the trigger reads; None where that is unknown."""
    replicas: int


@dataclass
class Watch:
    """Looks at a Deployment and at what its ScaledObject reads, and where need be scales it."""

    cluster: Cluster
    scaling: Scaling
    stands_in: bool
    looks: list[Look] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)

    def value(self) -> float | None:
        """What the trigger reads, at the very address and place that it names."""
        _, service, port, path = self.scaling.trigger.service
        try:
            return figure(self.cluster.through(service, port, path), self.scaling.trigger.location)
        except (CommandFailed, NoFigure):
            return None

    def replicas(self) -> int:
        """How many there are to be."""
        return int(self.cluster.get("deployment", self.scaling.deployment)["spec"]["replicas"])

    def run(self) -> None:
        """Until the block of :meth:`running` ends."""
        autoscaler = Autoscaler(self.scaling)
        poll_at = sync_at = time.monotonic()
        while not self._end.is_set():
            try:
                now, value, replicas = time.monotonic(), self.value(), self.replicas()
                self.looks.append(Look(now, value, replicas))
                aim = replicas
                if now >= poll_at:
                    poll_at = now + self.scaling.polling
                    aim = autoscaler.poll(now, value, replicas)
                if now >= sync_at:
                    sync_at = now + SYNC
                    aim = autoscaler.sync(now, value, aim) if aim == replicas else aim
                if self.stands_in and aim != replicas:
                    self.cluster.scale(self.scaling.deployment, aim)
            except (CommandFailed, ValueError) as error:
                self.faults.append(str(error))
            self._end.wait(0.3)

    @contextmanager
    def running(self) -> Iterator[Watch]:
        """It looks, and scales, in a thread of its own meanwhile."""
        thread = threading.Thread(target=self.run, name="autoscaling", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._end.set()
            thread.join()

    def counts(self, since: float = 0.0) -> list[int]:
        """The series of replica counts."""
        return [look.replicas for look in self.looks if look.at >= since]


@contextmanager
def scaled_objects(cluster: Cluster) -> Iterator[bool]:
    """Whether KEDA is there; where it is not, ScaledObjects can be made meanwhile all the same."""
    name = CRD["metadata"]["name"]
    is_there = cluster.kubectl("get", "customresourcedefinition", name).status == 0
    if not is_there:
        cluster.apply(CRD)
        cluster.kubectl(
            "wait", "--for=condition=Established", f"customresourcedefinition/{name}",
            "--timeout=60s",
        ).ok()  # fmt: skip
    try:
        yield is_there
    finally:
        if not is_there:
            with contextlib.suppress(CommandFailed):
                cluster.kubectl("delete", "customresourcedefinition", name, "--timeout=60s").ok()
