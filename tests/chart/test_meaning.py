"""Level 1: what the objects mean together, and to the programs that run in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest

from broker import BIDIRECTIONAL, Durability, Subscription
from broker._address import Address, Form
from broker.settings import CREDENTIALS, default_url
from tests.certificates import Certificates
from tests.chart.charts import (
    CHART,
    NAMESPACE,
    RELEASE,
    VALUES,
    Pod,
    Rendered,
    render,
    run,
    selects,
)
from workers.backlog import backlog_record
from workers.cli import tympan
from workers.cli.settings import PREFIX, settings_of
from workers.cli.worker import load
from workers.health import HealthPort, Liveness
from workers.wanted import Wanted

EVERY = {file.name.removesuffix("-values.yaml"): file for file in VALUES}
TLS = "/etc/tympan/tls"
DIGEST = f"sha256:{'2f3c0e4b' * 8}"


@pytest.fixture(params=sorted(EVERY))
def objects(request: pytest.FixtureRequest) -> Rendered:
    """What each values file makes."""
    return render(EVERY[request.param])


def of(way: str, **values: Any) -> Rendered:
    """What one values file makes, with values that go over it."""
    return render(EVERY[way], values) if values else render(EVERY[way])


def processes(objects: Rendered) -> Iterator[Pod]:
    """Pods that run Tympan."""
    yield from (pod for pod in objects.pods() if pod.owner["kind"] != "StatefulSet")


# Labels and names --------------------------------------------------------------------------------


def test_selectors_mean_their_own_pods_and_no_others(objects: Rendered) -> None:
    pods = list(objects.pods())
    for pod in pods:
        selector = pod.owner["spec"].get("selector")
        if selector is not None and pod.owner["kind"] != "Job":
            meant = [each for each in pods if selects(selector, each.labels)]
            assert meant == [pod], pod.owner["metadata"]["name"]
    for budget in objects.all("PodDisruptionBudget"):
        (found,) = (each for each in pods if selects(budget["spec"]["selector"], each.labels))
        assert found.owner["metadata"]["name"] == budget["metadata"]["name"]
    for service in objects.all("Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        (found,) = (each for each in pods if selects(selector, each.labels))
        (port,) = service["spec"]["ports"]
        assert port["targetPort"] in {each["name"] for each in found.own["ports"]}


def test_spread_constraints_mean_their_own_pods(objects: Rendered) -> None:
    seen = 0
    for pod in objects.pods():
        for each in pod.spec.get("topologySpreadConstraints", ()):
            assert selects(each["labelSelector"], pod.labels)
            seen += 1
    assert seen


def test_every_object_is_labelled_and_named_by_the_release(objects: Rendered) -> None:
    names = set()
    for each in objects:
        metadata = each["metadata"]
        assert "namespace" not in metadata
        assert (each["kind"], metadata["name"]) not in names
        names.add((each["kind"], metadata["name"]))
        assert len(metadata["name"]) <= 63
        if "labels" not in metadata:
            assert "extraObjects" in EVERY["everything"].read_text(encoding="utf-8")
            continue
        assert metadata["labels"]["app.kubernetes.io/instance"] == "farm"
        assert metadata["labels"]["helm.sh/chart"].startswith("tympan-")


def test_long_names_stay_within_what_kubernetes_takes() -> None:
    objects = of(
        "everything", fullnameOverride="a-farm-with-a-name-that-is-as-long-as-names-are-ever-made"
    )
    for each in objects:
        if "tympan-0" in each["metadata"].get("labels", {}).get("helm.sh/chart", ""):
            assert len(each["metadata"]["name"]) <= 40 + 1 + 30
    assert len(objects.all("Job")[0]["metadata"]["name"]) <= 63
    assert len(objects.all("Service")[0]["metadata"]["name"]) <= 63


def test_pods_change_with_what_they_run_and_not_with_the_chart(objects: Rendered) -> None:
    for pod in objects.pods():
        if pod.owner["kind"] != "Pod":
            assert "helm.sh/chart" not in pod.labels
            assert "app.kubernetes.io/version" not in pod.labels


def test_handlers_that_change_replace_their_replicas() -> None:
    def changed(text: str) -> str:
        pool = {"handlers": {"files": {"desk.py": text}}}
        pod = of("embedded", workers={"help-desk": pool}).pod("Deployment", "help-desk")
        return pod.annotations["checksum/handlers"]

    assert changed("one") == changed("one") != changed("another")


# The environment ---------------------------------------------------------------------------------


def enter(monkeypatch: pytest.MonkeyPatch, pod: Pod, folder: Path) -> None:
    """The environment of a pod, with its secrets and its certificates."""
    for name, value in pod.environment.items():
        text = value if isinstance(value, str) else f"{value['secretKeyRef']['key']} @/?#%"
        monkeypatch.setenv(name, text.replace(TLS, str(folder)))


@pytest.mark.parametrize(
    ("way", "form", "nodes", "rest"),
    [
        ("minimal", Form.SINGLE, [("redis.print.svc", 6379)], {"db": 0}),
        ("embedded", Form.SINGLE, [("farm-tympan-redis", 6379)], {"db": 0}),
        (
            "sentinel-tls",
            Form.SENTINEL,
            [(f"sentinel-{n}.redis", 26379) for n in range(3)],
            {"db": 0, "username": "worker", "password": "worker-password @/?#%"},
        ),
        (
            "cluster",
            Form.CLUSTER,
            [("redis-0.redis", 6379), ("redis-1.redis", 6379), ("redis-2.redis", 7002)],
            {"username": "username @/?#%", "password": "password @/?#%"},
        ),
        (
            "everything",
            Form.SINGLE,
            [("fd00::6", 6390)],
            {"db": 3, "password": "worker-password @/?#%", "username": "worker"},
        ),
    ],
)
def test_the_environment_leads_to_redis(
    way: str,
    form: Form,
    nodes: list[tuple[str, int]],
    rest: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Certificates(tmp_path)
    for name, file in zip(("ca.crt", "tls.crt", "tls.key"), (made.ca, *made.good), strict=True):
        (tmp_path / name).write_bytes(file.read_bytes())
    objects = of(way)
    enter(monkeypatch, objects.pod("Deployment", "help-desk"), tmp_path)
    address = Address.parse(default_url(), settings_of({}))
    assert address.form is form
    assert list(address.nodes) == nodes
    for name, value in rest.items():
        assert address.redis.options.get(name, 0) == value
    if way == "sentinel-tls":
        assert address.master == "farm"
        assert address.sentinel is not None
        assert address.sentinel.options["username"] == "tympan"
        assert address.sentinel.options["password"] == "sentinel-password @/?#%"
        for dialer in (address.redis, address.sentinel):
            assert dialer.options["ssl_ca_certs"] == str(tmp_path / "ca.crt")
            assert dialer.options["ssl_certfile"] == str(tmp_path / "tls.crt")
    assert address.url.startswith("rediss" if way in ("sentinel-tls", "cluster") else "redis:")


def test_the_environment_is_what_the_settings_class_reads(
    objects: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"TYMPAN_URL", *(f"TYMPAN_{name}" for name in CREDENTIALS)}
    for pod in processes(objects):
        names = {name for name in pod.environment if name.startswith("TYMPAN_")}
        assert "TYMPAN_URL" in names
        assert {name for name in names if not name.startswith(PREFIX)} <= known
        with monkeypatch.context() as patch:
            enter(patch, pod, tmp_path)
            settings_of({})


def test_settings_arrive_as_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "namespace": "farm-2",
        "max_payload": 536_870_912,
        "strict_rights": True,
        "lease": 2.5,
        "keep_closed": 1e9,
        "durability": "fsync",
    }
    pod = of("minimal", settings=given).pod("Deployment", "help-desk")
    enter(monkeypatch, pod, Path())
    settings = settings_of({})
    assert settings.durability is Durability.FSYNC
    assert {name: getattr(settings, name) for name in given} == given


def test_secrets_are_named_and_never_written(objects: Rendered) -> None:
    for pod in objects.pods():
        for name, value in pod.environment.items() if "env" in pod.own else ():
            if re.search("PASSWORD|TOKEN|SECRET", name):
                assert set(value) == {"secretKeyRef"}, f"{name} of {pod.owner['metadata']['name']}"
        assert "@" not in str(pod.own.get("env", [{}])[0].get("value", "")), "a credential in a URL"
    assert objects.all("Secret") == []


def test_the_embedded_redis_asks_for_the_password_that_the_processes_have() -> None:
    objects = of("embedded", redis={"auth": {"existingSecret": "tympan-redis"}})
    redis = objects.pod("StatefulSet", "redis")
    assert redis.own["args"][-2:] == ["--requirepass", "$(REDIS_PASSWORD)"]
    password = redis.environment["REDIS_PASSWORD"]
    assert password == {"secretKeyRef": {"name": "tympan-redis", "key": "password"}}
    for pod in processes(objects):
        assert pod.environment["TYMPAN_PASSWORD"] == password


def test_the_embedded_redis_is_one_that_the_set_up_lets_pass() -> None:
    args = of("embedded").pod("StatefulSet", "redis").own["args"]
    said = dict(zip(args[::2], args[1::2], strict=True))
    assert said["--appendonly"] == "yes"
    assert said["--maxmemory-policy"] == "noeviction"
    assert said["--maxmemory"] == "200mb"


def test_each_role_has_its_own_credential() -> None:
    objects = of("sentinel-tls")

    def who(pod: Pod) -> tuple[str, str]:
        secret = pod.environment["TYMPAN_PASSWORD"]["secretKeyRef"]
        assert secret["name"] == "tympan-redis"
        return pod.environment["TYMPAN_USERNAME"], secret["key"]

    assert who(objects.pod("Deployment", "help-desk")) == ("worker", "worker-password")
    assert who(objects.pod("Deployment", "reaper")) == ("reaper", "reaper-password")
    assert who(objects.pod("Job", "setup")) == ("operator", "operator-password")


def test_services_of_the_namespace_leave_the_environment_alone(objects: Rendered) -> None:
    for pod in objects.pods():
        assert pod.spec["enableServiceLinks"] is False, "TYMPAN_PORT would be a Service's address"


# The programs ------------------------------------------------------------------------------------


def test_the_programs_understand_their_arguments(
    objects: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = click.Context(tympan, **tympan.context_settings)
    for pod in processes(objects):
        command, *words = pod.own["args"]
        found = tympan.get_command(context, command)
        assert found is not None, command
        assert "command" not in pod.own, "the image's entry point is tympan"
        with monkeypatch.context() as patch:
            enter(patch, pod, tmp_path)
            with found.make_context(command, list(words), parent=context) as made:
                assert made.params


def test_probes_are_those_that_the_health_port_answers(objects: Rendered) -> None:
    port = HealthPort("127.0.0.1:0", Liveness(), backlog=list)
    paths = {path for path, _ in port._routes()}
    seen = 0
    for pod in processes(objects):
        if pod.owner["metadata"]["labels"]["app.kubernetes.io/component"] not in (
            "worker",
            "reaper",
        ):
            continue
        own = pod.own
        (health,) = own["ports"]
        assert f"--health=0.0.0.0:{health['containerPort']}" in own["args"]
        for probe, path in (
            ("startup", "startupz"),
            ("liveness", "livez"),
            ("readiness", "readyz"),
        ):
            asked = own[f"{probe}Probe"]["httpGet"]
            assert asked == {"path": f"/{path}", "port": health["name"]}
            assert asked["path"] in paths
        seen += 1
    assert seen >= 1
    for each in objects.all("PodMonitor"):
        (endpoint,) = each["spec"]["podMetricsEndpoints"]
        assert endpoint["path"] == "/metrics"


def test_a_start_that_waits_for_a_failover_is_given_the_time(objects: Rendered) -> None:
    for pod in objects.pods():
        probe = pod.own.get("startupProbe")
        if probe:
            settings = settings_of({})
            assert probe["periodSeconds"] * probe["failureThreshold"] > settings.operation_timeout


def test_a_stuck_loop_is_given_more_than_a_moment(objects: Rendered) -> None:
    for pod in objects.pods():
        probe = pod.own.get("livenessProbe")
        if probe and "httpGet" in probe:
            assert probe["failureThreshold"] > 1
            assert probe["periodSeconds"] * probe["failureThreshold"] > Liveness().bound


# Life --------------------------------------------------------------------------------------------


def test_the_grace_is_the_drain_and_what_comes_after(objects: Rendered) -> None:
    for pod in processes(objects):
        drains = [word for word in pod.own["args"] if word.startswith("--drain=")]
        assert bool(drains) is (pod.own["args"][0] == "worker")
        for word in drains:
            drain = float(word.removeprefix("--drain="))
            assert pod.spec["terminationGracePeriodSeconds"] >= drain + 5
            assert "preStop" not in pod.own.get("lifecycle", {}), "it would take from the drain"


def test_the_grace_follows_the_drain() -> None:
    def grace(**pool: Any) -> int:
        pod = of("minimal", workers={"help-desk": pool}).pod("Deployment", "help-desk")
        return int(pod.spec["terminationGracePeriodSeconds"])

    assert grace() == 30 + 15
    assert grace(drainSeconds=600) == 615
    assert grace(drainSeconds=0.5, shutdownMarginSeconds=5) == 6
    assert grace(drainSeconds=600, terminationGracePeriodSeconds=900) == 900


def test_who_is_scaled_says_no_number_himself(objects: Rendered) -> None:
    scalers = [*objects.all("HorizontalPodAutoscaler"), *objects.all("ScaledObject")]
    scaled = [each["spec"]["scaleTargetRef"]["name"] for each in scalers]
    assert len(scaled) == len(set(scaled)), "one scaler each"
    deployments = {each["metadata"]["name"]: each for each in objects.all("Deployment")}
    assert set(scaled) <= set(deployments)
    for name, each in deployments.items():
        assert ("replicas" in each["spec"]) is (name not in scaled), name
    assert not any(name.endswith("reaper") for name in scaled), "it sees what wakes the others"


def test_a_release_never_takes_all_replicas_away(objects: Rendered) -> None:
    for each in objects.all("Deployment"):
        strategy = each["spec"].get("strategy", {})
        if strategy:
            assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_an_override_may_be_false_zero_or_empty() -> None:
    paused = of("everything").of("Deployment", "paused")
    assert paused["spec"]["replicas"] == 0
    objects = of(
        "minimal",
        workerDefaults={"pdb": {"enabled": True}, "podAnnotations": {"a": "b"}, "drainSeconds": 9},
        workers={
            "help-desk": {
                "pdb": {"enabled": False},
                "podAnnotations": {"a": ""},
                "drainSeconds": 0,
                "minReadySeconds": 0,
            }
        },
    )
    assert [each["metadata"]["name"] for each in objects.all("PodDisruptionBudget")] == [
        "farm-tympan-reaper"
    ]
    pod = objects.pod("Deployment", "help-desk")
    assert pod.annotations["a"] == ""
    assert "--drain=0" in pod.own["args"]
    assert pod.owner["spec"]["minReadySeconds"] == 0


def test_pools_do_not_share_what_they_override() -> None:
    objects = of("everything")
    help_desk, tickets = (objects.pod("Deployment", name) for name in ("help-desk", "tickets"))
    assert "TICKETS_URL" in help_desk.environment
    assert "TICKETS_URL" not in tickets.environment
    assert tickets.own["resources"]["requests"] == {"cpu": "50m", "memory": "64Mi"}
    assert tickets.own["args"][1] == "tickets:worker"


def test_an_image_of_the_pools_own() -> None:
    objects = of("cluster")
    assert objects.pod("Deployment", "tickets").own["image"] == "registry.example/print/desk:2.1"
    assert objects.pod("Deployment", "reaper").own["image"] == "tympan:0.1.0"
    everything = of("everything")
    for pod in processes(everything):
        assert re.fullmatch(r"registry\.example/print/tympan@sha256:[0-9a-f]{64}", pod.own["image"])


@pytest.mark.parametrize(
    ("own", "common", "image"),
    [
        ({"tag": "9"}, {}, "tympan:9"),
        ({"tag": "9"}, {"digest": DIGEST, "registry": "r.example"}, "r.example/tympan:9"),
        ({"digest": DIGEST}, {"tag": "2"}, f"tympan@{DIGEST}"),
        ({"registry": "r.example"}, {"tag": "2"}, "r.example/tympan:2"),
        ({"repository": "desk", "tag": "9"}, {"digest": DIGEST, "registry": "r.example"}, "desk:9"),
        ({}, {"digest": DIGEST}, f"tympan@{DIGEST}"),
    ],
)
def test_what_a_pool_says_of_its_image_goes_over_the_charts(
    own: dict[str, str], common: dict[str, str], image: str
) -> None:
    objects = of("minimal", image=common, workers={"help-desk": {"image": own}})
    assert objects.pod("Deployment", "help-desk").own["image"] == image


# The set-up --------------------------------------------------------------------------------------


def test_the_set_up_is_one_that_the_command_reads(objects: Rendered, tmp_path: Path) -> None:
    file = tmp_path / "setup.json"
    file.write_text(objects.of("ConfigMap", "setup")["data"]["setup.json"], encoding="utf-8")
    wanted = Wanted.read(file)
    assert wanted.doctor is not None
    (job,) = objects.all("Job")
    pod = next(pod for pod in objects.pods() if pod.owner is job)
    assert pod.own["args"][:2] == ["setup", "/etc/tympan/setup/setup.json"]
    (mount,) = (each for each in pod.own["volumeMounts"] if each["name"] == "files")
    (volume,) = (each for each in pod.spec["volumes"] if each["name"] == "files")
    assert mount["mountPath"] == "/etc/tympan/setup"
    assert volume["configMap"]["name"] == objects.of("ConfigMap", "setup")["metadata"]["name"]


def test_the_set_up_comes_before_all_else_and_needs_nothing_of_it() -> None:
    objects = of("sentinel-tls")
    hooks = ("Job", "ConfigMap")
    weights = []
    for kind in hooks:
        annotations = objects.of(kind, "setup")["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        weights.append(int(annotations["helm.sh/hook-weight"]))
    assert weights[1] < weights[0], "the file before who reads it"
    pod = objects.pod("Job", "setup")
    assert pod.spec["serviceAccountName"] == "default", "the chart's own is not there yet"
    there = {volume.get("configMap", {}).get("name") for volume in pod.spec["volumes"]} - {None}
    assert there == {"farm-tympan-setup"}


@pytest.mark.parametrize("way", ["embedded", "everything"])
def test_where_it_is_no_hook_a_change_makes_another_job(way: str) -> None:
    def name(**setup: Any) -> str:
        (job,) = of(way, setup=setup).all("Job")
        assert "helm.sh/hook" not in job["metadata"].get("annotations", {})
        return str(job["metadata"]["name"])

    assert name(waitSeconds=60) == name(waitSeconds=60)
    changed = [name(waitSeconds=61), name(grants=[]), name(doctor={"accept": []}), name()]
    grants = [{"name": r"\\print01", "user": "bob", "right": "administer"}]
    assert len({name(waitSeconds=61), name(grants=grants), name(waitSeconds=60)}) == 3, changed


def test_handlers_in_the_values_listen_to_what_the_set_up_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a pool collects what nobody handles."""
    objects = of("embedded")
    for name, text in objects.of("ConfigMap", "help-desk-handlers")["data"].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    file = tmp_path / "setup.json"
    file.write_text(objects.of("ConfigMap", "setup")["data"]["setup.json"], encoding="utf-8")
    (pool,) = Wanted.read(file).pools
    pod = objects.pod("Deployment", "help-desk")
    assert pod.own["workingDir"] == "/handlers"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    worker = load(pod.own["args"][1])
    (handler,) = worker.handlers
    assert worker.pool == pool.pool
    heard, made = handler.subscription, pool.on()
    assert heard.style is made.style is BIDIRECTIONAL
    assert (str(heard.name), heard.user, heard.printers, heard.user_filter) == (
        made.name,
        made.user,
        made.printers,
        made.user_filter,
    )
    assert isinstance(made, Subscription)
    assert str(_guid(heard)) == pool.type


def _guid(subscription: Subscription) -> object:
    from broker.notification import model_of

    return model_of(subscription.type)[0]


# Who reaches whom --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "ports"),
    [
        ("sentinel-tls", {26379, 6379, 6380}),
        ("everything", {6390, 6391}),
        ("embedded", {6379}),
        ("cluster", {6379, 7002}),
    ],
)
def test_the_network_policy_lets_redis_be_reached(way: str, ports: set[int]) -> None:
    objects = of(way, networkPolicy={"enabled": True})
    policy = objects.of("NetworkPolicy", "")
    _, redis, *_ = policy["spec"]["egress"]
    assert {each["port"] for each in redis["ports"]} == ports
    for pod in objects.pods():
        is_redis = pod.owner["kind"] == "StatefulSet"
        assert selects(policy["spec"]["podSelector"], pod.labels) is not is_redis
    if way == "embedded":
        (peer,) = redis["to"]
        own = objects.of("NetworkPolicy", "redis")["spec"]
        stateful = objects.pod("StatefulSet", "redis")
        assert selects(peer["podSelector"], stateful.labels)
        assert selects(own["podSelector"], stateful.labels)
        (source,) = own["ingress"][0]["from"]
        assert all(selects(source["podSelector"], pod.labels) for pod in objects.pods())


def test_the_network_policy_lets_the_health_port_be_asked_by_those_it_names() -> None:
    policy = of("everything").of("NetworkPolicy", "")
    (ingress,) = policy["spec"]["ingress"]
    assert ingress["ports"] == [{"port": 8080, "protocol": "TCP"}]
    assert len(ingress["from"]) == 2
    everybody = of("minimal", networkPolicy={"enabled": True}).of("NetworkPolicy", "")
    assert "from" not in everybody["spec"]["ingress"][0]


def test_prometheus_scrapes_workers_and_reapers_and_nothing_else() -> None:
    objects = of("everything")
    selector = objects.of("PodMonitor", "")["spec"]["selector"]
    found = {pod.own["name"] for pod in objects.pods() if selects(selector, pod.labels)}
    assert found == {"worker", "reaper"}


def test_keda_asks_the_reaper_for_the_pool(objects: Rendered) -> None:
    for each in objects.all("ScaledObject"):
        trigger = each["spec"]["triggers"][0]
        asked = urlsplit(trigger["metadata"]["url"])
        assert asked.hostname is not None
        service, namespace, kind = asked.hostname.split(".")
        assert (namespace, kind, asked.path) == (NAMESPACE, "svc", "/backlog")
        (found,) = (one for one in objects.all("Service") if one["metadata"]["name"] == service)
        assert asked.port == found["spec"]["ports"][0]["port"]
        assert trigger["metricType"] == "AverageValue"
        assert each["spec"]["fallback"]["replicas"] >= 1, "at 0 KEDA would scale to zero when blind"
        location = trigger["metadata"]["valueLocation"]
        assert re.fullmatch(r"pools\.(?:[a-z0-9_-]|\\\.)+\.backlog", location)
        assert backlog_record([]) == {"pools": {}}


def test_a_dot_in_a_pools_name_is_no_step() -> None:
    trigger = of("keda").of("ScaledObject", "tickets")["spec"]["triggers"][0]
    assert trigger["metadata"]["valueLocation"] == r"pools.tickets\.v2.backlog"
    assert trigger["metadata"]["targetValue"] == "100"


# Without it --------------------------------------------------------------------------------------


def test_what_is_switched_off_is_not_there() -> None:
    off = {"enabled": False}
    objects = of(
        "minimal", reaper=off, setup=off, tests=off, serviceAccount={"create": False}, workers={}
    )
    assert [each["kind"] for each in objects] == ["PodDisruptionBudget", "Deployment"]
    assert objects.pod("Deployment", "help-desk").spec["serviceAccountName"] == "default"


def test_the_dashboard_travels_whole() -> None:
    shown = of("everything").of("ConfigMap", "dashboard")
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    file = CHART / "dashboards" / "tympan.json"
    assert json.loads(shown["data"]["tympan.json"]) == json.loads(file.read_text(encoding="utf-8"))


def test_objects_of_ones_own_may_use_templates() -> None:
    objects = of("everything")
    assert objects.of("ConfigMap", "extra")["data"] == {"release": "farm"}
    assert objects.of("ConfigMap", "farm-text")["data"] == {"answer": "42"}


# What the reader is told -------------------------------------------------------------------------


def notes(way: str) -> str:
    """What helm says after an installation."""
    said = run("helm4", "install", RELEASE, CHART, "--dry-run=client", "--values", EVERY[way])
    return said.partition("\nNOTES:\n")[2]


def test_the_notes_warn_of_the_embedded_redis() -> None:
    said = notes("embedded")
    assert "WARNING: the embedded Redis is for trying things out" in said
    assert "All that is open is lost when its pod goes." in said
    assert "help-desk (farm-tympan-help-desk): 1 replica\n" in said
    assert "WARNING" not in notes("minimal")


def test_the_notes_name_each_pool_and_how_it_is_scaled() -> None:
    said = notes("keda")
    assert "help-desk (farm-tympan-help-desk): 0 to 20 replicas, by KEDA\n" in said
    assert "tickets.v2 (farm-tympan-tickets): 2 to 10 replicas, by KEDA\n" in said
    assert "help-desk (farm-tympan-help-desk): 2 to 10 replicas\n" in notes("hpa")


def test_the_notes_hold_no_secret() -> None:
    said = notes("sentinel-tls")
    assert "redis+sentinel" not in said, "over TLS"
    assert "rediss+sentinel://sentinel-0.redis:26379" in said
    assert "password" not in said.lower()
