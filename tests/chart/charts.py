"""The chart as helm renders it: objects, and the pods in them."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "helm"
TOOLS = CHECKOUT / ".tools"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
"""A file for each way to run it."""
VERSIONS = tuple(f"1.{minor}" for minor in range(25, 36))
"""Of Kubernetes."""
HELMS = ("helm3", "helm4")
RELEASE = "farm"
NAMESPACE = "print"
WITHIN = 60.0
"""Seconds that one run of a tool may take."""

Object = dict[str, Any]


class Refused(Exception):
    """helm did not render it; the message is what it said."""


class Pod(NamedTuple):
    """The pods of one object."""

    owner: Object
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Object

    @property
    def own(self) -> Object:
        """The container that is Tympan's, or Redis's."""
        component = self.owner["metadata"]["labels"]["app.kubernetes.io/component"]
        (found,) = (each for each in self.spec["containers"] if each["name"] == component)
        return dict(found)

    @property
    def environment(self) -> dict[str, Any]:
        """Of that container: text, or where a secret has it."""
        return {each["name"]: each.get("value", each.get("valueFrom")) for each in self.own["env"]}


class Rendered(list[Object]):
    """All objects of a release, hooks among them."""

    def of(self, kind: str, name: str | None = None) -> Object:
        """The one of a kind; ``name`` is what follows the release's."""
        found = [each for each in self.all(kind) if name is None or _suffix(each) == name]
        assert len(found) == 1, f"{len(found)} {kind} {name}: {[_suffix(one) for one in found]}"
        return found[0]

    def all(self, kind: str) -> list[Object]:
        """Those of a kind."""
        return [each for each in self if each["kind"] == kind]

    def pods(self) -> Iterator[Pod]:
        """The pods that they make, those of hooks and tests too."""
        for each in self:
            if each["kind"] == "Pod":
                template = each
            elif "template" in each.get("spec", {}):
                template = each["spec"]["template"]
            else:
                continue
            metadata = template["metadata"]
            yield Pod(
                each, metadata.get("labels", {}), metadata.get("annotations", {}), template["spec"]
            )

    def pod(self, kind: str, name: str) -> Pod:
        """The pods of one object."""
        owner = self.of(kind, name)
        return next(pod for pod in self.pods() if pod.owner is owner)


def _suffix(each: Object) -> str:
    name = str(each["metadata"]["name"])
    return name.removeprefix(f"{RELEASE}-tympan").removeprefix("print-farm").removeprefix("-")


def tool(name: str) -> str:
    """Where a program is: on PATH, or where tests/chart/prepare brought it."""
    found = shutil.which(name) or shutil.which(TOOLS / name)
    assert found, f"{name} is missing: run tests/chart/prepare"
    return found


def run(*words: str | Path, stdin: str = "") -> str:
    """What a tool says on standard output. Raises Refused."""
    done = subprocess.run(
        [tool(str(words[0])), *map(str, words[1:])],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def render(
    *values: Path | Mapping[str, Any], helm: str = "helm3", version: str = VERSIONS[-1]
) -> Rendered:
    """What helm makes of files and of values that go over them. Raises Refused."""
    files = tuple(each for each in values if isinstance(each, Path))
    others = [each for each in values if not isinstance(each, Path)]
    assert len(others) < 2, "helm reads one standard input"
    return parsed(text(files, json.dumps(others[0]) if others else "", helm, version))


@functools.cache
def text(files: tuple[Path, ...], values: str, helm: str, version: str) -> str:
    """The same as YAML."""
    given: list[str | Path] = [word for file in files for word in ("--values", file)]
    given += ["--values", "-"] if values else []
    where = ("--namespace", NAMESPACE, "--kube-version", version)
    return run(helm, "template", RELEASE, CHART, *where, *given, stdin=values)


@functools.cache
def _objects(rendered: str) -> str:
    found = [each for each in yaml.load_all(rendered, yaml.CSafeLoader) if each]
    return json.dumps(found)


def parsed(rendered: str) -> Rendered:
    """The objects in YAML; each time new ones."""
    return Rendered(json.loads(_objects(rendered)))


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector of labels means these."""
    for name, value in selector.get("matchLabels", {}).items():
        if labels.get(name) != value:
            return False
    for each in selector.get("matchExpressions", ()):
        is_in = labels.get(each["key"]) in each["values"]
        if is_in is not {"In": True, "NotIn": False}[each["operator"]]:
            return False
    return True
