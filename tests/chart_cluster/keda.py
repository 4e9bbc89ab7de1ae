"""KEDA's arithmetic: from a ScaledObject and what its trigger reads to a number of replicas.

It stands in for KEDA (as it is from 2.19 on) and for the HorizontalPodAutoscaler that KEDA makes,
where neither can run: what they do with one ``metrics-api`` trigger, and nothing else. Two loops
turn at the same time:

- KEDA's own, each ``pollingInterval``: from zero when the value is above ``activationTargetValue``,
  to zero when it was not for ``cooldownPeriod``.
- The HorizontalPodAutoscaler's, each 15 s: from one on, ``ceil(value / targetValue)`` with its
  tolerance, stabilisation windows and policies.

A field that is not understood is refused, so that a chart which uses it cannot seem to work.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

SYNC = 15.0
"""Seconds between two looks of the HorizontalPodAutoscaler."""
TOLERANCE = 0.1


class NotUnderstood(Exception):
    """A ScaledObject has something that this does not do as KEDA would."""


class NoFigure(Exception):
    """What a trigger reads has no number where it should be."""


def figure(body: str, location: str) -> float:
    """The number at a path of a JSON document, as gjson finds it. Raises NoFigure."""
    plain = re.sub(r"\\.", "", location)
    if set(plain) & set("*?#@|!{}[]()=<>%\"'"):
        raise NotUnderstood(f"valueLocation {location!r} is more than names with dots between")
    names = [re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\)\.", location)]
    try:
        found = json.loads(body)
    except ValueError:
        raise NoFigure(f"no JSON: {body[:200]!r}") from None
    for name in names:
        if not isinstance(found, dict) or name not in found:
            raise NoFigure(f"nothing at {location!r} in {body[:200]}")
        found = found[name]
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise NoFigure(f"no number at {location!r} in {body[:200]}")
    return float(found)


@dataclass(frozen=True)
class Trigger:
    """One ``metrics-api`` trigger."""

    url: str
    location: str
    target: float
    activation: float

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """From a ScaledObject's list. Raises NotUnderstood."""
        if record.get("type") != "metrics-api":
            raise NotUnderstood(f"a trigger of type {record.get('type')}")
        _only(record, "trigger", "type", "name", "metadata", "metricType", "useCachedMetrics")
        if record.get("metricType", "AverageValue") != "AverageValue":
            raise NotUnderstood(f"metricType {record['metricType']}")
        given = record["metadata"]
        known = ("url", "format", "valueLocation", "targetValue", "activationTargetValue")
        _only(given, "trigger", *known)
        if not all(isinstance(value, str) for value in given.values()):
            raise NotUnderstood(f"what is no string, which KEDA refuses: {given}")
        if given.get("format", "json") != "json":
            raise NotUnderstood(f"format {given['format']}")
        activation = float(given.get("activationTargetValue", "0"))
        return cls(given["url"], given["valueLocation"], float(given["targetValue"]), activation)

    @property
    def service(self) -> tuple[str, str, str, str]:
        """Namespace ('' for the ScaledObject's own), Service, port and path that it asks."""
        parts = urlsplit(self.url)
        host, _, rest = (parts.hostname or "").partition(".")
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        return rest.partition(".")[0], host, str(port), parts.path


@dataclass(frozen=True)
class Direction:
    """How fast it goes up, or down."""

    window: float
    policies: tuple[tuple[str, int, float], ...]
    """Kind (Pods or Percent), value, and seconds."""
    select: str = "Max"

    @classmethod
    def of(cls, record: Mapping[str, Any], usual: Direction) -> Direction:
        """From the behavior of a HorizontalPodAutoscaler. Raises NotUnderstood."""
        _only(record, "behavior", "stabilizationWindowSeconds", "policies", "selectPolicy")
        given = [
            (each["type"], each["value"], float(each["periodSeconds"]))
            for each in record.get("policies", ())
        ]
        return cls(
            float(record.get("stabilizationWindowSeconds", usual.window)),
            tuple(given) or usual.policies,
            record.get("selectPolicy", usual.select),
        )


UP = Direction(0.0, (("Percent", 100, 15.0), ("Pods", 4, 15.0)))
DOWN = Direction(300.0, (("Percent", 100, 15.0),))


@dataclass(frozen=True)
class Fallback:
    """What is done when the trigger cannot be read so many times in a row."""

    failures: int
    replicas: int
    behavior: str = "static"

    def aim(self, replicas: int) -> int:
        """How many there shall be, with so many there."""
        match self.behavior:
            case "static":
                return self.replicas
            case "currentReplicas":
                return replicas
            case "currentReplicasIfHigher":
                return max(replicas, self.replicas)
            case "currentReplicasIfLower":
                return min(replicas, self.replicas)
            case other:
                raise NotUnderstood(f"fallback.behavior {other}")


@dataclass(frozen=True)
class Scaling:
    """What a ScaledObject says, with KEDA's defaults for what it does not."""

    deployment: str
    trigger: Trigger
    polling: float = 30.0
    cooldown: float = 300.0
    least: int = 0
    most: int = 100
    up: Direction = UP
    down: Direction = DOWN
    fallback: Fallback | None = None

    @classmethod
    def of(cls, scaled_object: Mapping[str, Any]) -> Self:
        """Raises NotUnderstood."""
        spec = scaled_object["spec"]
        times, counts = (
            ("pollingInterval", "cooldownPeriod"),
            ("minReplicaCount", "maxReplicaCount"),
        )
        others = ("scaleTargetRef", "fallback", "advanced", "triggers")
        _only(spec, "ScaledObject", *times, *counts, *others)
        aim = spec["scaleTargetRef"]
        if aim.get("kind", "Deployment") != "Deployment":
            raise NotUnderstood(f"scaleTargetRef.kind {aim['kind']}")
        if len(spec["triggers"]) != 1:
            raise NotUnderstood(f"{len(spec['triggers'])} triggers")
        fallback = spec.get("fallback")
        _only(fallback or {}, "fallback", "failureThreshold", "replicas", "behavior")
        advanced = spec.get("advanced", {})
        own = advanced.get("horizontalPodAutoscalerConfig", {})
        _only(
            advanced, "advanced", "horizontalPodAutoscalerConfig", "restoreToOriginalReplicaCount"
        )
        _only(own, "horizontalPodAutoscalerConfig", "behavior", "name")
        behavior = own.get("behavior", {})
        _only(behavior, "behavior", "scaleUp", "scaleDown")
        return cls(
            aim["name"],
            Trigger.of(spec["triggers"][0]),
            float(spec.get("pollingInterval", 30)),
            float(spec.get("cooldownPeriod", 300)),
            spec.get("minReplicaCount", 0),
            spec.get("maxReplicaCount", 100),
            Direction.of(behavior.get("scaleUp", {}), UP),
            Direction.of(behavior.get("scaleDown", {}), DOWN),
            fallback
            and Fallback(
                fallback["failureThreshold"],
                fallback["replicas"],
                fallback.get("behavior", "static"),
            ),
        )


def _only(record: Mapping[str, Any], what: str, *known: str) -> None:
    unknown = sorted(set(record) - set(known))
    if unknown:
        raise NotUnderstood(f"{what}: {', '.join(unknown)}")


@dataclass
class Autoscaler:
    """Both loops over one Deployment. Times are seconds of any one clock."""

    scaling: Scaling
    _active_at: float | None = None
    _failures: int = 0
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)
    """What the HorizontalPodAutoscaler did: when, and by how many."""

    def poll(self, now: float, value: float | None, replicas: int) -> int:
        """KEDA's look: how many replicas there shall be. ``value`` None: it cannot be read."""
        scaling = self.scaling
        if value is None:
            if self._fallback() is None:
                return replicas
            value = math.inf
        else:
            self._failures = 0
        if value > scaling.trigger.activation:
            self._active_at = now
            return replicas or max(1, scaling.least)
        if replicas and not scaling.least:
            cooled = self._active_at is None or now - self._active_at > scaling.cooldown
            return 0 if cooled else replicas
        return max(replicas, scaling.least)

    def sync(self, now: float, value: float | None, replicas: int) -> int:
        """The HorizontalPodAutoscaler's look, likewise; at zero replicas it does nothing."""
        if not replicas:
            return 0
        wanted = self._wanted(value, replicas)
        if wanted is None:
            return replicas
        least, most = max(1, self.scaling.least), self.scaling.most
        aim = self._stable(now, min(most, max(least, wanted)), replicas)
        aim = min(most, max(least, self._bounded(now, aim, replicas)))
        if aim != replicas:
            self._changes.append((now, aim - replicas))
        return aim

    def _wanted(self, value: float | None, replicas: int) -> int | None:
        """Without windows, policies and bounds; None where nothing is known."""
        if value is None:
            fallback = self._fallback()
            return None if fallback is None else fallback.aim(replicas)
        self._failures = 0
        target = self.scaling.trigger.target
        ratio = value / (target * replicas)
        return replicas if abs(1 - ratio) <= TOLERANCE else math.ceil(value / target)

    def _fallback(self) -> Fallback | None:
        """Count a failure; what is to be done about so many in a row, or None for nothing."""
        self._failures += 1
        fallback = self.scaling.fallback
        return fallback if fallback and self._failures > fallback.failures else None

    def _stable(self, now: float, wanted: int, replicas: int) -> int:
        """The least of what was recommended lately to go up to, the most to go down to."""
        longest = max(self.scaling.up.window, self.scaling.down.window)
        self._recommended = [one for one in self._recommended if now - one[0] < longest]
        up = min([wanted, *self._lately(now, self.scaling.up.window)])
        down = max([wanted, *self._lately(now, self.scaling.down.window)])
        self._recommended.append((now, wanted))
        return min(max(replicas, up), down)

    def _lately(self, now: float, window: float) -> Iterable[int]:
        return (wanted for at, wanted in self._recommended if now - at < window)

    def _bounded(self, now: float, aim: int, replicas: int) -> int:
        """As far as the policies let it go at once."""
        if aim == replicas:
            return aim
        rises = aim > replicas
        direction = self.scaling.up if rises else self.scaling.down
        if direction.select == "Disabled":
            return replicas
        limits = [
            self._limit(now, kind, value if rises else -value, seconds, replicas)
            for kind, value, seconds in direction.policies
        ]
        widest = (max if rises else min) if direction.select == "Max" else (min if rises else max)
        limit = widest(limits)
        return min(aim, max(replicas, limit)) if rises else max(aim, min(replicas, limit))

    def _limit(self, now: float, kind: str, value: int, seconds: float, replicas: int) -> int:
        start = replicas - sum(by for at, by in self._changes if now - at < seconds)
        match kind:
            case "Pods":
                return start + value
            case "Percent":
                moved = start * (1 + value / 100)
                return math.ceil(moved) if value > 0 else math.floor(moved)
            case other:
                raise NotUnderstood(f"a policy of type {other}")


def reversals(counts: Sequence[int]) -> int:
    """How often a series of replica counts turned from rising to falling, or back."""
    steps = [after - before for before, after in itertools.pairwise(counts)]
    signs = [step > 0 for step in steps if step]
    return sum(one != other for one, other in itertools.pairwise(signs))
