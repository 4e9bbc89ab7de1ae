"""Level 2: the restricted Pod Security Standard, and what careful operators ask beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.charts import VALUES, Object, Pod, render

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
    *("projected", "secret"),
}
"""Kinds that the restricted standard allows."""


def violations(pod: Pod) -> Iterator[str]:
    """What the restricted Pod Security Standard forbids, as its controls call it."""
    spec = pod.spec
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"host namespaces: {field}"
    for volume in spec.get("volumes", ()):
        if not VOLUMES & set(volume):
            yield f"volume types: {volume}"
    own = spec.get("securityContext", {})
    if own.get("sysctls"):
        yield "sysctls"
    for container in containers(spec):
        yield from (f"{container['name']}: {what}" for what in _violations(own, container))


def _violations(of_pod: Object, container: Object) -> Iterator[str]:
    own = container.get("securityContext", {})
    both = {**of_pod, **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "privilege escalation"
    if own.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "capabilities are not dropped"
    if set(own.get("capabilities", {}).get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
        yield "may run as root"
    if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccomp"
    if both.get("procMount", "Default") != "Default":
        yield "procMount"
    for port in container.get("ports", ()):
        if port.get("hostPort"):
            yield "host port"


def containers(spec: Object) -> Iterator[Object]:
    yield from spec["containers"]
    yield from spec.get("initContainers", ())


@pytest.fixture(params=VALUES, ids=lambda file: file.name)
def pods(request: pytest.FixtureRequest) -> list[Pod]:
    return list(render(request.param).pods())


def test_pods_are_restricted(pods: list[Pod]) -> None:
    assert pods
    for pod in pods:
        assert list(violations(pod)) == [], pod.owner["metadata"]["name"]


def test_pods_have_no_token_and_a_root_file_system_to_read(pods: list[Pod]) -> None:
    for pod in pods:
        assert pod.spec["automountServiceAccountToken"] is False
        for container in containers(pod.spec):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
        writable = [each for each in pod.spec["volumes"] if each["name"] == "tmp"]
        assert writable == [{"name": "tmp", "emptyDir": {}}]


def test_tympan_runs_as_the_user_of_its_image(pods: list[Pod]) -> None:
    dockerfile = (Path(__file__).parents[2] / "Dockerfile").read_text(encoding="utf-8")
    assert "USER 10001:10001" in dockerfile
    for pod in pods:
        if pod.owner["kind"] != "StatefulSet":
            context = pod.spec["securityContext"]
            assert (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)


def test_nothing_starts_a_shell(pods: list[Pod]) -> None:
    for pod in pods:
        words = [*pod.own.get("command", ()), *pod.own["args"]]
        assert not {"sh", "bash", "/bin/sh", "-c"} & set(words)


def test_what_runs_says_what_it_takes(pods: list[Pod]) -> None:
    for pod in pods:
        resources = pod.own["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        assert "cpu" not in resources.get("limits", {}), "a throttled loop loses its lease"


def test_images_are_of_one_version(pods: list[Pod]) -> None:
    for pod in pods:
        for container in containers(pod.spec):
            image = container["image"]
            assert "@sha256:" in image or ":" in image.rpartition("/")[2]
            assert not image.endswith(":latest")


def test_ports_say_their_protocol() -> None:
    """Applying on the server takes it for a part of the key, at first without a default."""
    for file in VALUES:
        for each in render(file):
            for port in _ports(each):
                assert port.get("protocol") in ("TCP", "UDP"), f"{each['kind']}: {port}"


def _ports(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "ports" and isinstance(value, list):
                yield from value
            else:
                yield from _ports(value)
    elif isinstance(part, list):
        for value in part:
            yield from _ports(value)


@pytest.mark.parametrize(
    ("spoil", "violation"),
    [
        ({"hostNetwork": True}, "host namespaces: hostNetwork"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volume types"),
        ({"securityContext": {"runAsNonRoot": True}}, "seccomp"),
        ({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}, "may run as root"),
    ],
)
def test_a_pod_that_is_not_restricted_is_noticed(spoil: dict[str, Any], violation: str) -> None:
    pod = render(VALUES[0]).pod("Deployment", "reaper")
    pod.spec.update(spoil)
    assert any(violation in each for each in violations(pod))


@pytest.mark.parametrize(
    ("spoil", "violation"),
    [
        ({"allowPrivilegeEscalation": True}, "privilege escalation"),
        ({"capabilities": {}}, "capabilities are not dropped"),
        ({"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}, "capabilities are added"),
        ({"privileged": True}, "privileged"),
        ({"runAsUser": 0}, "may run as root"),
    ],
)
def test_a_container_that_is_not_restricted_is_noticed(
    spoil: dict[str, Any], violation: str
) -> None:
    pod = render(VALUES[0]).pod("Deployment", "reaper")
    pod.own["securityContext"].update(spoil)
    assert any(violation in each for each in violations(pod))
