r"""The chart on a cluster: ``python -m tests.chart_cluster --image tympan:0.1.0``.

It works in a namespace of its own on the cluster that kubectl points at, with an image of Tympan
and one of Redis that the cluster can pull, or has:

- *server*: the API server takes what the chart renders of each of its ``ci`` values.
- *install*: with a real Redis; pools are there, pods ready, and locked up as they claim.
- *helm test*: a whole dialog between two pods.
- *refused*: an upgrade with a secret that is not there, or on a Redis that evicts, changes nothing,
  and helm shows the reason.
- *upgrade*, *rollback*, *failed upgrade*, *eviction*: a source sends and asks meanwhile. All that
  it sent is handled once, all that it asked is answered once.
- *kill*, *crash*: pods die. Nothing is lost; what is handled again is marked as redelivered.
- *keda*: from zero on one notification, never to zero while work is in hand, up and down by the
  backlog without flapping. Where KEDA is not installed, a stand-in does its arithmetic on the
  chart's own ScaledObject (``tests.chart_cluster.keda``).
- *embedded*: the chart with a Redis of its own, as somebody tries it out.
- *uninstall*: nothing is left, neither objects nor keys.

It prints a table, and ends with status 1 where something was not as it must be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.chart_cluster import figures
from tests.chart_cluster.autoscaling import Watch, scaled_objects
from tests.chart_cluster.farm import POOL, PYTHON, WORKERS, Farm, names_of, worker
from tests.chart_cluster.keda import NotUnderstood, Scaling, reversals
from tests.chart_cluster.kubernetes import (
    Cluster,
    CommandFailed,
    Helm,
    NeverHappened,
    Record,
    until,
)
from tests.farm import PERMANENT

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "helm"
RELEASE = "farm"
DESK = f"{RELEASE}-tympan-desk"
HELD = 8
"""Notifications that both replicas of the pool have in hand when one of them is killed."""
RECOVERED_WITHIN = 15.0
"""Seconds from a death until what was in hand is in other hands: a lease and a sweep."""
GONE = 120.0
"""Seconds in which Kubernetes has ended pods that drain, and whatever belonged to them."""


class Wrong(Exception):
    """Something is not as it must be."""


def expect(holds: object, sentence: str) -> None:
    """Raises Wrong."""
    if not holds:
        raise Wrong(sentence)


@dataclass
class Stage:
    """Where it is played."""

    cluster: Cluster
    helm: Helm
    farm: Farm
    folder: Path
    given: list[Path]
    """Further files of values, which the cluster needs."""
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What became of what each source sent."""
    _files: int = 0

    def values(self, **more: Any) -> list[Path]:
        """Files with the chart's values."""
        return [*self.given, self.file_of(self.farm.values(**more))]

    def file_of(self, values: Record) -> Path:
        """A file with some values."""
        self._files += 1
        file = self.folder / f"values-{self._files}.json"
        file.write_text(json.dumps(values), encoding="utf-8")
        return file

    def workers(self) -> set[str]:
        """The names of the pool's ready pods."""
        return names_of(self.cluster.pods(f"{self.helm.instance},{WORKERS}"))

    def settled(self, many: int) -> None:
        """Wait until so many workers are ready, and none besides is there."""
        selector = f"{self.helm.instance},{WORKERS}"
        until(
            lambda: len(self.workers()) == len(self.cluster.all("pods", selector)) == many,
            self.cluster.troubles,
        )

    def figures(self, name: str, report: dict[str, Any], *, once: bool = True) -> str:
        """The figures of a source, as a line. Raises Wrong where something was lost, or twice."""
        self.reports[name] = report
        found = figures.faults(report, once=once)
        expect(not found, f"{'; '.join(found)}: {figures.line(report)}")
        return figures.line(report)


# The parts ---------------------------------------------------------------------------------------


def server(stage: Stage) -> str:
    """The API server takes what the chart renders."""
    files = sorted((CHART / "ci").glob("*.yaml"))
    taken, unknown = 0, set[str]()
    for file in files:
        documents = yaml.safe_load_all(stage.helm.template(file))
        objects: list[Record] = [each for each in documents if each]
        known = [each for each in objects if _is_known(stage.cluster, each["apiVersion"])]
        unknown |= {each["kind"] for each in objects} - {each["kind"] for each in known}
        accounts = [each for each in known if each["kind"] == "ServiceAccount"]
        stage.cluster.apply(*accounts)  # a pod is taken only where its account is there
        stage.cluster.apply(*known, dry_run=True)
        for account in accounts:
            stage.cluster.kubectl("delete", "serviceaccount", account["metadata"]["name"]).ok()
        taken += len(known)
    without = f", without {', '.join(sorted(unknown))}, which it does not know" if unknown else ""
    return f"{taken} objects of {len(files)} values files taken{without}"


def _is_known(cluster: Cluster, version: str) -> bool:
    path = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return cluster.kubectl("get", "--raw", path).status == 0


def install(stage: Stage) -> str:
    """The chart with a real Redis."""
    began = time.monotonic()
    stage.helm.install(*stage.values()).ok()
    seconds = time.monotonic() - began
    stage.settled(2)
    pools = json.loads(stage.farm.tympan("pool", "list", "--json").splitlines()[0])
    expect(pools["pool"] == POOL, f"the first pool is {pools}")
    name = min(stage.workers())
    for place in ("/", "/opt/tympan", "/handlers"):
        done = stage.cluster.run_in(name, PYTHON, "-c", f"open('{place}/x', 'w')")
        expect(done.status and "Read-only" in done.complaint, f"{place} can be written")
    said = stage.cluster.run_in(name, PYTHON, "-c", "print(open('/proc/1/status').read())").ok()
    status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    expect(status["Uid"].split() == ["10001"] * 4, f"its user ids are {status['Uid']}")
    expect(int(status["CapEff"], 16) == 0, f"it has capabilities {status['CapEff']}")
    expect(status["Seccomp"].strip() == "2", "no seccomp filter is on")
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    done = stage.cluster.run_in(name, PYTHON, "-c", f"open('{token}')")
    expect("No such file" in done.complaint, "it has a token of the service account")
    return f"ready after {seconds:.0f} s; uid 10001, root read-only, no capabilities, no token"


def test(stage: Stage) -> str:
    """A whole dialog between two pods."""
    done = stage.helm.test()
    said = done.output + done.complaint
    expect(done.status == 0, f"helm test failed: {said[-2000:]} {stage.cluster.troubles()}")
    answered = re.search(r"helm-test answered: [^\n\\\"]+", said)
    expect(answered, f"it shows no answer: {said[-2000:]}")
    assert answered is not None
    labels = f"{stage.helm.instance},app.kubernetes.io/component in (test-listener, test-source)"
    until(lambda: not stage.cluster.everything(labels), "the test's pods stay", 60)
    return answered[0]


def refused(stage: Stage) -> str:
    """A secret that is not there, a Redis that evicts: it is said, and all goes on as it was."""
    before = stage.workers()
    redis = {"addresses": ["redis:6379"], "auth": {"existingSecret": "missing"}}
    done = stage.helm.upgrade(*stage.values(redis=redis))
    absent = re.search(r"redis.auth.existingSecret is missing, and [^:\n]*", done.complaint)
    expect(done.status, "an upgrade with a secret that is not there went through")
    expect(absent, f"helm does not say why: {done.output + done.complaint}")
    assert absent is not None
    stage.farm.python("print(json.dumps(store.config_set('maxmemory-policy', 'allkeys-lru')))")
    try:
        done = stage.helm.upgrade(*stage.values(workers={"desk": worker(concurrency=3)}))
    finally:
        stage.farm.python("print(json.dumps(store.config_set('maxmemory-policy', 'noeviction')))")
    expect(done.status, "an upgrade on a Redis that evicts went through")
    said = re.search(r"nothing was set up[^\n]*?noeviction[^\n\\\"]*", done.output + done.complaint)
    expect(said, f"helm does not say why: {done.output + done.complaint}")
    assert said is not None
    expect(stage.workers() == before, "other pods serve")
    return f"{absent[0]}; {said[0]}"


def upgrade(stage: Stage) -> str:
    """New pods in the place of the old ones, under load."""
    before = stage.workers()
    with stage.farm.load("upgrade") as report:
        stage.helm.upgrade(*stage.values(workers={"desk": worker(concurrency=6)})).ok()
        until(lambda: not before & stage.workers() and len(stage.workers()) == 2, "old pods stay")
    return stage.figures("upgrade", report)


def rollback(stage: Stage) -> str:
    """The same way back."""
    before = stage.workers()
    with stage.farm.load("rollback") as report:
        stage.helm.rollback(stage.helm.previous()).ok()
        until(lambda: not before & stage.workers() and len(stage.workers()) == 2, "old pods stay")
    return stage.figures("rollback", report)


def failed_upgrade(stage: Stage) -> str:
    """One whose pods never come up: helm goes back, and the old pods serve on."""
    before = stage.workers()
    with stage.farm.load("failed-upgrade") as report:
        broken = stage.values(workers={"desk": worker(target="no_such_desk:worker")})
        done = stage.helm.upgrade(*broken, wait=30, or_back=True)
        expect(done.status != 0, "an upgrade whose pods cannot start is said to have gone well")
        stage.settled(2)
    expect(before == stage.workers(), f"other pods serve: {before} before, {stage.workers()} now")
    words = [each["description"] for each in stage.helm.history()]
    expect(words[-1].startswith("Rollback"), f"the last revision is: {words[-1]}")
    return f"rolled back; {stage.figures('failed upgrade', report)}"


def eviction(stage: Stage) -> str:
    """Every pod is evicted as a drain does it, and the budget has them go one by one."""
    before = stage.workers()
    refused = 0
    with stage.farm.load("eviction") as report:
        for name in sorted(before):
            while (done := stage.cluster.evict(name)).status:
                expect("disruption budget" in done.complaint, done.complaint)
                refused += 1
                time.sleep(0.5)
        until(lambda: not before & stage.workers() and len(stage.workers()) == 2, "old pods stay")
    expect(refused, "the budget let both go at once")
    said = stage.figures("eviction", report)
    return f"{len(before)} evicted, {refused} tries refused meanwhile; {said}"


def kill(stage: Stage) -> str:
    """A pod is deleted by force, with more in hand than it has time for."""
    victim = min(stage.workers())
    with stage.farm.load("kill") as report:
        stage.farm.tell(HELD, "held", 8.0)
        until(lambda: len(stage.farm.noted("begun", "held")) == HELD, "they are not in hand")
        stage.cluster.kubectl("delete", "pod", victim, "--grace-period=0", "--force").ok()
        until(lambda: victim not in stage.workers() and len(stage.workers()) == 2, "no new pod")
        until(
            lambda: len({note.number for note in stage.farm.noted("ended", "held")}) == HELD,
            "not all that it had in hand is done again",
        )
    return stage.figures("kill", report, once=False)


def crash(stage: Stage) -> str:
    """A process ends in the middle of what it does; another one does it again."""
    with stage.farm.load("crash") as report:
        stage.farm.tell(1, "dies", 0.1, dies=True)
        ended = until(lambda: stage.farm.noted("ended", "dies"), "it is not done again", 60)
        begun = stage.farm.noted("begun", "dies")
        stage.settled(2)
    seconds = ended[0].at - begun[0].at
    expect(seconds < RECOVERED_WITHIN, f"it was done again after {seconds:.1f} s only")
    said = stage.figures("crash", report, once=False)
    return f"done again within {seconds:.1f} s; {said}"


def keda(stage: Stage) -> str:
    """From zero, and back, by the backlog."""
    scaling = {
        "minReplicas": 0,
        "maxReplicas": 4,
        "keda": {"enabled": True, "cooldownPeriod": COOLDOWN},
    }
    desk = worker(concurrency=2, autoscaling=scaling)
    with scaled_objects(stage.cluster) as is_keda:
        try:
            stage.helm.upgrade(*stage.values(workers={"desk": desk})).ok()
            watch = Watch(
                stage.cluster, Scaling.of(stage.cluster.get("scaledobject", DESK)), not is_keda
            )
            with watch.running():
                said = _scaled(stage, watch)
            expect(not watch.faults, f"not all went well: {watch.faults[:3]}")
        finally:
            stage.helm.upgrade(*stage.values()).ok()
            stage.settled(2)
    return f"{'by KEDA' if is_keda else 'by the stand-in'}: {said}"


COOLDOWN = 15
LONG = 40.0
"""Seconds that a notification takes, while which nothing else is there."""
STEADY = 45.0
"""Seconds of a steady load."""


def _scaled(stage: Stage, watch: Watch) -> str:
    until(lambda: watch.looks and watch.looks[-1].replicas == 0, "it does not go to zero", 120)
    stage.settled(0)
    stage.farm.forget_notes()
    began = time.monotonic()
    stage.farm.tell(1, "wakes", 1.0)
    until(lambda: watch.looks[-1].replicas, "one that waits does not wake it", 60)
    woken = time.monotonic() - began
    until(lambda: stage.farm.noted("ended", "wakes"), stage.cluster.troubles)
    handled = time.monotonic() - began

    stage.farm.tell(1, "long", LONG)
    since = time.monotonic()
    until(lambda: stage.farm.noted("ended", "long"), "the long one never ends", 90)
    expect(min(watch.counts(since)) >= 1, "it went to zero while work was in hand")
    expect(len(stage.farm.noted("begun", "long")) == 1, "the long one was begun twice")

    stage.farm.forget_notes()
    since = time.monotonic()
    with stage.farm.load("keda", rate=10, dialogs=2) as report:
        until(lambda: watch.looks[-1].replicas >= 2, "it does not rise", 90)
        steady = time.monotonic()
        until(lambda: time.monotonic() - steady > STEADY, "a while", STEADY + 5)
        most = max(watch.counts(since))
        turns = reversals(watch.counts(since))
    said = stage.figures("keda", report)
    expect(turns == 0, f"it flaps under a steady load: {watch.counts(since)}")
    until(lambda: watch.looks[-1].replicas == 0, "it does not go back to zero", 180)
    expect(reversals(watch.counts(since)) == 1, f"it flaps: {watch.counts(since)}")
    return (
        f"woken {woken:.1f} s after one notification, handled after {handled:.1f} s; "
        f"1 while {LONG:g} s of work were in hand; 0 to {most} to 0 without flapping; {said}"
    )


def embedded(stage: Stage) -> str:
    """The chart with a Redis of its own, by the values that are kept for it."""
    file = CHART / "ci" / "embedded-values.yaml"
    repository, _, tag = stage.farm.image.rpartition(":")
    redis, _, redis_tag = stage.farm.redis_image.rpartition(":")
    tried = Helm(stage.cluster, "tried", stage.helm.chart, stage.helm.program)
    images = {
        "image": {"repository": repository, "tag": tag},
        "redis": {"embedded": {"image": {"repository": redis, "tag": redis_tag}}},
    }
    began = time.monotonic()
    tried.install(*stage.given, file, stage.file_of(images)).ok()
    seconds = time.monotonic() - began
    ask = (
        "send", r"\\print01\laser-3", "--type", "7c1d8a50-52c1-4b8e-9a55-0f3a1c6f2a01",
        "--user", "helpdesk", "--wait", "30", "--text", '{"tray": 2}',
    )  # fmt: skip
    words = ("exec", "deployment/tried-tympan-reaper", "--", "/opt/tympan/bin/tympan", *ask)
    said = stage.cluster.kubectl(*words, within=60).ok()
    expect('{"proceed":true}' in said.replace(" ", ""), f"the answer: {said}")
    tried.uninstall().ok()
    until(lambda: not stage.cluster.everything(tried.instance), "it leaves objects", GONE)
    return f"ready after {seconds:.0f} s, and the first dialog answered"


def uninstall(stage: Stage) -> str:
    """Neither objects nor keys are left."""
    stage.farm.forget_notes()
    stage.helm.uninstall().ok()
    until(
        lambda: not stage.cluster.everything(stage.helm.instance),
        lambda: f"left: {stage.cluster.everything(stage.helm.instance)}",
        GONE,
    )
    kept = stage.farm.held()
    stage.farm.tympan("pool", "delete", POOL, "--yes")
    left = [key for key in stage.farm.held() if key.rsplit(":", 1)[-1] not in PERMANENT]
    expect(not left, f"keys are left: {left}")
    return f"no object; {len(kept)} keys hold the pool until it is deleted, and none after"


PARTS: dict[str, Callable[[Stage], str]] = {
    "server": server,
    "install": install,
    "helm test": test,
    "refused": refused,
    "upgrade": upgrade,
    "rollback": rollback,
    "failed upgrade": failed_upgrade,
    "eviction": eviction,
    "kill": kill,
    "crash": crash,
    "keda": keda,
    "embedded": embedded,
    "uninstall": uninstall,
}
FAULTS = (Wrong, CommandFailed, NeverHappened, NotUnderstood, subprocess.TimeoutExpired)


# The command -------------------------------------------------------------------------------------


@contextlib.contextmanager
def stage_of(given: argparse.Namespace) -> Iterator[Stage]:
    """The namespace with Redis, and all of it away at the end."""
    cluster = Cluster(given.namespace or f"tympan-{secrets.token_hex(3)}", given.context)
    helm = Helm(cluster, RELEASE, given.chart, given.helm)
    farm = Farm(cluster, given.image, given.redis_image)
    with tempfile.TemporaryDirectory() as folder:
        cluster.begin()
        try:
            farm.begin()
            yield Stage(cluster, helm, farm, Path(folder), given.values)
        finally:
            if given.keep:
                print(f"kept: namespace {cluster.namespace}")
            else:
                helm.uninstall()
                cluster.end()


def helm_at_hand() -> str:
    """The one on PATH, or that of the chart's tests."""
    return shutil.which("helm") or str(CHECKOUT / ".tools" / "helm4")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chart_cluster", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--image", required=True, metavar="NAME:TAG", help="Tympan's")
    parser.add_argument("--redis-image", default="redis:7.4-bookworm", metavar="NAME:TAG")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--context", help="of kubectl's configuration; default the current one")
    parser.add_argument("--namespace", help="one that is not there yet; default a new name")
    parser.add_argument("--helm", default=helm_at_hand(), help="the program, of Helm 3 or 4")
    parser.add_argument("--chart", type=Path, default=CHART, help="default that of this checkout")
    parser.add_argument(
        "--values", type=Path, action="append", default=[], metavar="FILE",
        help="what the cluster needs besides, such as pull secrets",
    )  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="leave the namespace at the end")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play all parts; the exit status."""
    given = parse(arguments)
    wrong = 0
    with stage_of(given) as stage:
        major, minor = stage.cluster.version
        print(f"Kubernetes {major}.{minor}, Helm {stage.helm.version}, {given.image}", flush=True)
        for name in given.parts:
            began = time.monotonic()
            try:
                verdict, said = "ok", PARTS[name](stage)
            except FAULTS as error:
                verdict, said = "WRONG", str(error)
                wrong += 1
            print(f"{verdict:5}  {name:14}  {time.monotonic() - began:4.0f} s  {said}", flush=True)
            if verdict == "WRONG" and name == "install":
                break
        if stage.reports:
            print(figures.table(stage.reports))
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
