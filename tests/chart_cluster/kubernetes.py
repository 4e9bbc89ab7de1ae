"""The cluster that kubectl points at, and helm, as commands that are run."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Record = dict[str, Any]
STILL = ("Scheduled", "Pulled", "Created", "Started", "Killing", "SuccessfulCreate")
"""Events that say nothing about a fault."""


class CommandFailed(Exception):
    """A command ended with another status than 0; the message has its last words."""


class NeverHappened(Exception):
    """Something that was waited for did not happen in time."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    command: str
    status: int
    output: str
    complaint: str

    def ok(self) -> str:
        """Its output. Raises CommandFailed."""
        if self.status:
            said = (self.complaint or self.output).strip()[-4000:]
            raise CommandFailed(f"{self.command} ended with status {self.status}: {said}")
        return self.output


def run(*command: str | Path, given: str | None = None, within: float = 600) -> Done:
    """Run a command to its end. Raises subprocess.TimeoutExpired, FileNotFoundError."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, input=given, capture_output=True, text=True, timeout=within, check=False
    )
    return Done(" ".join(words[:6]), done.returncode, done.stdout, done.stderr)


def until(
    condition: Callable[[], T | None], what: str | Callable[[], str], within: float = 120
) -> T:
    """What the condition is once it holds; it is looked at all the time. Raises NeverHappened."""
    due = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() > due:
            said = what if isinstance(what, str) else what()
            raise NeverHappened(f"not within {within:g} s: {said}")
        time.sleep(0.2)
    return found


class Cluster:
    """One namespace of the cluster.

    Args:
        namespace: is made by :meth:`begin`, and deleted by :meth:`end`.
        context: of kubectl's configuration; default the current one.
    """

    def __init__(self, namespace: str, context: str | None = None) -> None:
        self.namespace = namespace
        self.context = context

    def kubectl(self, *words: str, given: str | None = None, within: float = 600) -> Done:
        """Run kubectl in the namespace."""
        context = ("--context", self.context) if self.context else ()
        command = ("kubectl", *context, "--namespace", self.namespace, *words)
        return run(*command, given=given, within=within)

    def begin(self) -> None:
        """Make the namespace, for restricted pods only. Raises CommandFailed where it is there."""
        self.kubectl("create", "namespace", self.namespace).ok()
        restricted = "pod-security.kubernetes.io/enforce=restricted"
        self.kubectl("label", "namespace", self.namespace, restricted).ok()
        until(
            lambda: self.kubectl("get", "serviceaccount", "default").status == 0,
            f"namespace {self.namespace} has no service account",
        )

    def end(self) -> None:
        """Delete the namespace with all that is in it."""
        words = ("delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=120s")
        self.kubectl(*words).ok()

    @property
    def version(self) -> tuple[int, int]:
        """Of its API server, as (1, 30)."""
        found = json.loads(self.kubectl("get", "--raw", "/version").ok())
        return int(found["major"]), int(found["minor"].rstrip("+"))

    def apply(self, *objects: Mapping[str, Any], dry_run: bool = False) -> None:
        """Make these objects; ``dry_run``: have the API server say whether it would."""
        everything = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        words = ["apply", "--filename", "-", *(["--dry-run=server"] if dry_run else [])]
        if objects:
            self.kubectl(*words, given=json.dumps(everything)).ok()

    def get(self, kind: str, name: str) -> Record:
        """One object. Raises CommandFailed."""
        found: Record = json.loads(self.kubectl("get", kind, name, "--output", "json").ok())
        return found

    def all(self, kind: str, selector: str = "") -> list[Record]:
        """All of a kind, or those with these labels."""
        done = self.kubectl("get", kind, "--selector", selector, "--output", "json")
        found: list[Record] = json.loads(done.ok())["items"]
        return found

    def raw(self, path: str) -> str:
        """What the API server answers. Raises CommandFailed."""
        return self.kubectl("get", "--raw", path, within=30).ok()

    def through(self, service: str, port: str, path: str) -> str:
        """What a Service answers, asked by way of the API server. Raises CommandFailed."""
        base = f"/api/v1/namespaces/{self.namespace}/services/{service}:{port}"
        return self.raw(f"{base}/proxy/{path.lstrip('/')}")

    def pods(self, selector: str) -> list[Record]:
        """The pods with these labels that are not on their way out."""
        found = self.all("pods", selector)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, selector: str) -> list[str]:
        """The names of those that are ready."""
        return [pod["metadata"]["name"] for pod in self.pods(selector) if is_ready(pod)]

    def run_in(self, pod: str, *command: str, within: float = 60) -> Done:
        """Run a command in a pod's container."""
        return self.kubectl("exec", pod, "--", *command, within=within)

    def logs(self, pod: str) -> str:
        """What a pod's containers have said so far."""
        done = self.kubectl("logs", pod, "--all-containers")
        return done.output if done.status == 0 else ""

    def evict(self, pod: str) -> Done:
        """Ask for a pod's eviction once, as a drain does; refused where a budget forbids it."""
        resources = json.loads(self.raw("/api/v1"))["resources"]
        (version,) = [each["version"] for each in resources if each["name"] == "pods/eviction"]
        eviction = {
            "apiVersion": f"policy/{version}",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        return self.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))

    def scale(self, deployment: str, replicas: int) -> None:
        """Set how many replicas a Deployment is to have, by its scale subresource."""
        self.kubectl("scale", f"deployment/{deployment}", f"--replicas={replicas}").ok()

    def everything(self, selector: str) -> list[str]:
        """The names of all objects with these labels, of every kind that can be listed."""
        known = self.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").ok()
        kinds = [
            kind
            for kind in known.split()
            if not kind.startswith(("events", "endpoints")) and ".metrics.k8s.io" not in kind
        ]
        words = ("get", ",".join(kinds), "--selector", selector, "--output=name")
        return self.kubectl(*words).ok().split()

    def troubles(self) -> str:
        """What a reader wants to know of the namespace when something did not happen."""
        events = self.kubectl("get", "events", "--output", "json").output
        said = [
            f"{each['involvedObject']['name']}: {each['reason']}: {each.get('message', '')}"
            for each in (json.loads(events)["items"] if events else ())
            if each["reason"] not in STILL
        ]
        lines = [*self.kubectl("get", "pods").output.splitlines(), *said[-12:]]
        for pod in self.all("pods"):
            if not is_ready(pod) and pod["status"]["phase"] != "Succeeded":
                name = pod["metadata"]["name"]
                lines += [f"{name}: {line}" for line in self.logs(name).splitlines()[-12:]]
        return "\n".join(lines)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready."""
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


class Helm:
    """helm, 3 or 4, on one release of a cluster's namespace."""

    def __init__(self, cluster: Cluster, release: str, chart: Path, program: str = "helm") -> None:
        self.release = release
        self.chart = chart
        self._cluster = cluster
        self.program = program
        said = run(program, "version", "--short").ok().strip()
        self.version = said.split("+")[0].lstrip("v")

    @property
    def instance(self) -> str:
        """The label of the release's objects."""
        return f"app.kubernetes.io/instance={self.release}"

    def run(self, *words: str | Path, within: float = 600) -> Done:
        """Run helm in the namespace."""
        where: list[str] = ["--namespace", self._cluster.namespace]
        if self._cluster.context:
            where += ["--kube-context", self._cluster.context]
        return run(self.program, *words, *where, within=within)

    def install(self, *values: Path, wait: float = 180) -> Done:
        """Install the chart, and wait for its pods."""
        return self._put("install", values, wait)

    def upgrade(self, *values: Path, wait: float = 180, or_back: bool = False) -> Done:
        """Upgrade it likewise; ``or_back``: have helm roll back what does not come up."""
        back = "--rollback-on-failure" if self.version.startswith("4.") else "--atomic"
        return self._put("upgrade", values, wait, *((back,) if or_back else ()))

    def _put(self, verb: str, values: Sequence[Path], wait: float, *more: str) -> Done:
        given = (*_given(values), "--wait", *more)
        return self.run(
            verb, self.release, self.chart, *given, "--timeout", f"{wait:g}s", within=2 * wait + 60
        )

    def template(self, *values: Path, within: float = 60) -> str:
        """What the chart renders."""
        return self.run("template", self.release, self.chart, *_given(values), within=within).ok()

    def rollback(self, revision: int, wait: float = 180) -> Done:
        """Go back to a revision, and wait for its pods."""
        words = ("rollback", self.release, str(revision), "--wait", "--timeout", f"{wait:g}s")
        return self.run(*words, within=wait + 60)

    def previous(self) -> int:
        """The revision that was deployed before the present one."""
        before = [each["revision"] for each in self.history() if each["status"] == "superseded"]
        return int(before[-1])

    def history(self) -> list[Record]:
        """The revisions, the oldest first."""
        words = ("history", self.release, "--output", "json")
        found: list[Record] = json.loads(self.run(*words).ok())
        return found

    def test(self, wait: float = 120) -> Done:
        """Run the chart's own tests."""
        words = ("test", self.release, "--timeout", f"{wait:g}s")
        return self.run(*words, within=wait + 60)

    def uninstall(self, wait: float = 180) -> Done:
        """Take it away, and wait until it is."""
        words = ("uninstall", self.release, "--wait", "--timeout", f"{wait:g}s")
        return self.run(*words, within=wait + 60)


def _given(values: Sequence[Path]) -> Iterator[str]:
    for file in values:
        yield "--values"
        yield str(file)
