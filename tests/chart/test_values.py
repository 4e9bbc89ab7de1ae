"""Values explain themselves: a table, a closed schema, a sentence where two of them disagree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
import yaml

from broker import Settings
from tests.chart.charts import CHART, HELMS, VALUES, Refused, render
from tests.chart.table import README, readme, rows
from tests.chart.table import VALUES as DEFAULTS
from tests.chart.test_lint import SCHEMA
from workers.doctor.findings import ACCEPTABLE

REDIS = {"redis": {"addresses": ["redis:6379"]}}
OPEN = {"workers", "settings"}
"""Maps whose keys are the reader's, or the programs' own."""


def desk(**pool: Any) -> dict[str, Any]:
    """A pool, and where Redis is."""
    return {**REDIS, "workers": {"desk": {"target": "desk:worker", **pool}}}


def scaled(**autoscaling: Any) -> dict[str, Any]:
    return desk(autoscaling=autoscaling)


def redis(**values: Any) -> dict[str, Any]:
    return {"redis": {"addresses": ["redis:6379"], **values}}


# What they are -----------------------------------------------------------------------------------


def test_the_table_in_the_readme_is_that_of_the_values() -> None:
    written = README.read_text(encoding="utf-8")
    assert written == readme(), "run: python -m tests.chart.table"


def test_every_value_is_described() -> None:
    described = {row.path for row in rows()}
    values = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
    missing = [path for path in leaves(values) if not any(path[:n] in described for n in range(9))]
    assert missing == []
    for row in rows():
        assert row.text.endswith("."), f"{'.'.join(row.path)}: {row.text}"


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from leaves(value, (*path, name))
    else:
        yield path


def test_the_schema_has_each_value_and_no_other() -> None:
    values = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(SCHEMA).validate(values)
    described = {row.path for row in rows()}
    known = {
        path for path in properties(SCHEMA) if not any(path[:n] in described for n in range(9))
    }
    assert known == set(), "in the schema, and not in values.yaml"


def properties(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths that a schema lets be set, as far as it names them."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    inner = schema.get("properties") if path[:1] not in {(name,) for name in OPEN} else None
    if not inner:
        yield path
        return
    for name, each in inner.items():
        yield from properties(each, (*path, name))


def test_settings_are_those_of_the_settings_class() -> None:
    known = SCHEMA["definitions"]["settings"]["properties"]
    real = Settings.model_json_schema()["properties"]
    assert set(known) == set(real) - {"role"}, "what a process may be is not for values to say"
    for name, each in known.items():
        if "enum" in each:
            assert set(each["enum"]) == {"memory", "replica", "fsync"}
            continue
        for bound in ("type", "minimum", "maximum", "exclusiveMinimum", "pattern"):
            assert each.get(bound) == real[name].get(bound), f"{name}: {bound}"


def test_losses_that_can_be_accepted_are_those_of_the_doctor() -> None:
    accepted = SCHEMA["properties"]["setup"]["properties"]["doctor"]["properties"]["accept"]
    assert set(accepted["items"]["enum"]) == {str(one) for one in ACCEPTABLE}


def test_alerts_that_can_be_left_out_are_those_there_are() -> None:
    rule = SCHEMA["properties"]["metrics"]["properties"]["prometheusRule"]["properties"]
    alerts = yaml.safe_load((CHART / "alerts.yaml").read_text(encoding="utf-8"))
    assert rule["disabled"]["items"]["enum"] == [each["alert"] for each in alerts]


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (CHART.parent / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    assert chart["version"] == chart["appVersion"] == version[1]


# What is refused ---------------------------------------------------------------------------------

MISSPELT: list[tuple[dict[str, Any], str]] = [
    ({**REDIS, "replicas": 2}, "replicas"),
    ({**REDIS, "worker": {}}, "worker"),
    (redis(address="redis:6379"), "address"),
    (redis(mode="replicated"), "mode"),
    (redis(addresses=["redis://redis:6379"]), "addresses"),
    (redis(auth={"password": "open sesame"}), "password"),
    (redis(db="0"), "db"),
    (desk(concurency=4), "concurency"),
    (desk(concurrency=0), "concurrency"),
    (desk(target="desk.py"), "target"),
    (desk(pool="a pool"), "pool"),
    (desk(drainSeconds=-1), "drainSeconds"),
    (desk(drainSeconds="30s"), "drainSeconds"),
    (desk(pdb={"minAvailable": 1}), "minAvailable"),
    (desk(extraEnv={"A B": "x"}), "A B"),
    (desk(extraEnv={"TOKEN": {"secret": "x"}}), "TOKEN"),
    (desk(server=r"\\print01\laser-3"), "server"),
    (desk(handlers={"files": {"../desk.py": ""}}), "desk.py"),
    (scaled(mode="keda"), "mode"),
    (scaled(keda={"enabled": "yes"}), "enabled"),
    ({**REDIS, "workers": {"Desk": {}}}, "Desk"),
    ({**REDIS, "workers": {"x" * 31: {}}}, "x" * 31),
    ({**REDIS, "workerDefaults": {"replica": 3}}, "replica"),
    ({**REDIS, "reaper": {"replicas": 0}}, "replicas"),
    ({**REDIS, "reaper": {"everySeconds": 0}}, "everySeconds"),
    ({**REDIS, "reaper": {"autoscaling": {}}}, "autoscaling"),
    ({**REDIS, "settings": {"leese": 5}}, "leese"),
    ({**REDIS, "settings": {"lease": 0.1}}, "lease"),
    ({**REDIS, "settings": {"durability": "disk"}}, "durability"),
    ({**REDIS, "settings": {"namespace": "a:b"}}, "namespace"),
    ({**REDIS, "logFormat": "xml"}, "logFormat"),
    ({**REDIS, "image": {"digest": "2f3c"}}, "digest"),
    ({**REDIS, "health": {"port": 80}}, "port"),
    ({**REDIS, "setup": {"grants": [{"name": "print01", "user": "a", "right": "all"}]}}, "name"),
    ({**REDIS, "setup": {"grants": [{"name": r"\\print01", "user": "a"}]}}, "right"),
    ({**REDIS, "setup": {"pools": [{"pool": "desk", "type": "sample-ui"}]}}, "pools"),
    (
        {
            **REDIS,
            "setup": {
                "pools": [{"pool": "d", "type": "t", "name": r"\\print01", "everywhere": True}]
            },
        },
        "pools",
    ),
    ({**REDIS, "setup": {"doctor": {"accept": ["everything"]}}}, "accept"),
    ({**REDIS, "metrics": {"serviceMonitor": {}}}, "serviceMonitor"),
    ({**REDIS, "metrics": {"prometheusRule": {"disabled": ["PoolBehind"]}}}, "disabled"),
]


@pytest.mark.parametrize("helm", HELMS)
def test_a_value_that_is_misspelt_or_out_of_range_is_refused_by_its_name(helm: str) -> None:
    for values, named, said in refusals(MISSPELT, helm):
        assert "values don't meet the specifications of the schema" in said, f"{values}: {said}"
        assert named in said, f"{values}: {said}"


def refusals(
    cases: list[tuple[dict[str, Any], str]], helm: str
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Values, what is to be said of them, and what helm says, on one line."""

    def said(values: dict[str, Any]) -> str:
        with pytest.raises(Refused) as refused:
            render(values, helm=helm)
        return " ".join(str(refused.value).split())

    with ThreadPoolExecutor(4) as some:
        every = list(some.map(said, [values for values, _ in cases]))
    for (values, sentence), each in zip(cases, every, strict=True):
        yield values, sentence, each


DISAGREEING: list[tuple[dict[str, Any], str]] = [
    ({}, "redis.addresses is empty: name your Redis, as in redis.addresses={redis:6379}"),
    (
        {"redis": {"addresses": ["a:1", "b:1"]}},
        "redis.addresses names several hosts: set redis.mode to sentinel or cluster",
    ),
    (redis(mode="cluster", db=2), "redis.db is for standalone and sentinel"),
    (redis(embedded={"enabled": True}), "redis.embedded is a Redis of its own"),
    (
        {
            "redis": {
                "embedded": {"enabled": True},
                "auth": {"username": "a", "existingSecret": "s"},
            }
        },
        "redis.embedded has Redis's user default only",
    ),
    (
        redis(auth={"username": "worker"}),
        (
            "redis.auth.username is given and no secret is: name the one with the password as "
            "redis.auth.existingSecret"
        ),
    ),
    (
        redis(auth={"sentinelPasswordKey": "x"}),
        "redis.auth.sentinelPasswordKey is given and no secret is",
    ),
    (
        {**REDIS, "reaper": {"redisAuth": {"username": "reaper"}}},
        "reaper.redisAuth.username is given and no secret is",
    ),
    (
        {**REDIS, "setup": {"redisAuth": {"username": "operator"}}},
        "setup.redisAuth.username is given and no secret is",
    ),
    (
        {**REDIS, "tests": {"redisAuth": {"username": "tester"}}},
        "tests.redisAuth.username is given and no secret is",
    ),
    (
        desk(redisAuth={"username": "desk"}),
        "workers.desk.redisAuth.username is given and no secret is",
    ),
    (
        redis(auth={"username": "a", "usernameKey": "b", "existingSecret": "s"}),
        "redis.auth.username and redis.auth.usernameKey exclude each other",
    ),
    (
        redis(auth={"sentinelUsername": "a", "existingSecret": "s"}),
        "redis.auth.sentinelUsername needs a password: set redis.auth.sentinelPasswordKey",
    ),
    (redis(tls={"existingSecret": "s"}), "redis.tls.enabled is false: set it to true"),
    (
        redis(tls={"enabled": True, "existingSecret": "s", "certKey": "tls.crt"}),
        "redis.tls.certKey and redis.tls.keyKey belong together",
    ),
    (
        redis(tls={"enabled": True, "certKey": "tls.crt", "keyKey": "tls.key"}),
        "redis.tls.certKey is a key of redis.tls.existingSecret, which is empty",
    ),
    (
        {**REDIS, "workers": {"desk": {}}},
        "workers.desk.target is empty: name the worker, as in workers.desk.target=desk:worker",
    ),
    (
        {**REDIS, "workers": {"reaper": {"target": "a:b"}}},
        "workers.reaper: the chart has a reaper of its own; call the pool something else",
    ),
    (
        desk(handlers={"files": {"a.py": "x"}, "existingConfigMap": "b"}),
        "workers.desk.handlers.existingConfigMap exclude each other: leave one of them out",
    ),
    (desk(image={"repository": "desk"}), "workers.desk.image.repository is another image"),
    (
        desk(drainSeconds=60, terminationGracePeriodSeconds=60),
        (
            "workers.desk.terminationGracePeriodSeconds is 60, and drainSeconds with "
            "shutdownMarginSeconds are 75: raise it to that, leave it out, or shorten the drain"
        ),
    ),
    (
        scaled(hpa={"enabled": True}, keda={"enabled": True}),
        (
            "workers.desk.autoscaling.hpa and workers.desk.autoscaling.keda exclude each other: "
            "enable one of them"
        ),
    ),
    (
        scaled(minReplicas=5, maxReplicas=4, hpa={"enabled": True}),
        "workers.desk.autoscaling.minReplicas is above maxReplicas",
    ),
    (
        scaled(minReplicas=0, hpa={"enabled": True}),
        "workers.desk.autoscaling.minReplicas is 0, to which only KEDA scales: set it to 1",
    ),
    (
        scaled(hpa={"enabled": True, "cpuUtilization": None}),
        "workers.desk.autoscaling.hpa has nothing to scale by",
    ),
    (
        scaled(minReplicas=0, keda={"enabled": True}),
        (
            "a pool that no replica ever served collects nothing: have it made, with pool: desk "
            "under setup.pools, or set minReplicas to 1"
        ),
    ),
    (
        {**scaled(keda={"enabled": True}), "reaper": {"enabled": False}},
        "workers.desk.autoscaling.keda asks the reaper for the backlog: set reaper.enabled=true",
    ),
    (
        {**REDIS, "metrics": {"prometheusRule": {"enabled": True}}},
        (
            "metrics.prometheusRule.enabled needs metrics of this release: set "
            "metrics.podMonitor.enabled=true"
        ),
    ),
]


@pytest.mark.parametrize("helm", HELMS)
def test_values_that_disagree_are_refused_with_a_sentence_that_says_what_to_change(
    helm: str,
) -> None:
    for values, sentence, said in refusals(DISAGREEING, helm):
        assert sentence in said, f"{values}: {said}"
        assert "nil pointer" not in said


def test_global_values_of_a_chart_around_it_are_let_pass() -> None:
    objects = render({**REDIS, "global": {"imageRegistry": "registry.example", "farm": "north"}})
    assert objects.pod("Deployment", "reaper").own["image"].startswith("registry.example/tympan:")


def test_each_values_file_meets_the_schema_as_others_read_it() -> None:
    check = jsonschema.Draft7Validator(SCHEMA)
    for file in VALUES:
        check.validate(yaml.safe_load(file.read_text(encoding="utf-8")))
