"""Level 2: alerts fire when they should, on metrics that there are, and each has its runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.charts import CHART, CHECKOUT, VALUES, Refused, render, run
from tests.unit.test_telemetry import everything

DASHBOARD = CHART / "dashboards" / "tympan.json"
RUNBOOK = CHECKOUT / "docs" / "kubernetes.md"
SELECTOR = 'namespace="print", job="print/farm-tympan"'
CASES = Path(__file__).parent / "alerts.test.yaml"
OF_PROMETHEUS = {"namespace", "job", "pod", "le"}
"""Labels that the scrape adds, or a histogram has."""
FUNCTIONS = {
    *("absent", "and", "by", "histogram_quantile", "increase", "max", "offset", "on", "or", "rate"),
    *("sum", "unless", "label_values"),
}


def rules(**values: Any) -> list[dict[str, Any]]:
    """The alerts as they are rendered."""
    metrics = {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True, **values}}
    rendered = render({"redis": {"addresses": ["redis:6379"]}, "metrics": metrics})
    (group,) = rendered.of("PrometheusRule", "")["spec"]["groups"]
    return list(group["rules"])


ALERTS = [each["alert"] for each in yaml.safe_load((CHART / "alerts.yaml").read_text("utf-8"))]


def test_promtool_takes_the_rules_of_each_values_file(tmp_path: Path) -> None:
    seen = 0
    for file in VALUES:
        for each in render(file).all("PrometheusRule"):
            made = tmp_path / f"{file.name}"
            made.write_text(yaml.safe_dump(each["spec"]), encoding="utf-8")
            assert "SUCCESS" in run("promtool", "check", "rules", made)
            seen += 1
    assert seen


def test_each_alert_fires_when_it_should_and_not_otherwise(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "tympan", "rules": rules()}]}), encoding="utf-8"
    )
    cases = CASES.read_text(encoding="utf-8").replace('farm="this"', SELECTOR)
    (tmp_path / CASES.name).write_text(cases, encoding="utf-8")
    assert "SUCCESS" in run("promtool", "test", "rules", tmp_path / CASES.name)


def test_each_alert_is_tried() -> None:
    tried = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    each = [one for case in tried for one in case["alert_rule_test"]]
    assert {one["alertname"] for one in each if one["exp_alerts"]} == set(ALERTS), "fires"
    assert {one["alertname"] for one in each if not one["exp_alerts"]} == set(ALERTS), "is silent"


def test_promtool_notices_a_case_that_fails(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "tympan", "rules": rules(disabled=ALERTS[:1])}]}),
        encoding="utf-8",
    )
    cases = CASES.read_text(encoding="utf-8").replace('farm="this"', SELECTOR)
    (tmp_path / CASES.name).write_text(cases, encoding="utf-8")
    with pytest.raises(Refused, match=ALERTS[0]):
        run("promtool", "test", "rules", tmp_path / CASES.name)


# What they are made of ---------------------------------------------------------------------------


def exported() -> dict[str, set[str]]:
    """Each sample's name, and its labels, of processes that did everything once."""
    found: dict[str, set[str]] = {}
    for family in everything().collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def asked(expression: str) -> tuple[set[str], set[str]]:
    """The metrics and the labels of an expression."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    matched = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", plain))
    matched |= {
        name
        for group in re.findall(r"(?:by|on|without)\s*\(([^)]*)\)", plain)
        for name in re.findall(r"\w+", group)
    }
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|(?:by|on|without)\s*\([^)]*\)", " ", plain)
    names = set(re.findall(r"[a-z_]{3,}", bare)) - FUNCTIONS
    return names, matched


def expressions() -> Iterator[tuple[str, str]]:
    """Where each is, and what it says."""
    for each in rules():
        yield each["alert"], each["expr"]
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])
            assert found is not None
            yield f"variable {variable['name']}", found[1]


def test_metrics_and_labels_are_those_that_processes_export() -> None:
    known = exported()
    for where, expression in expressions():
        names, labels = asked(expression)
        assert names, f"{where}: {expression}"
        assert names <= set(known), f"{where}: {names - set(known)}"
        have = set.union(*(known[name] for name in names)) | OF_PROMETHEUS
        assert labels <= have, f"{where}: {labels - have}"


def test_every_metric_of_tympans_is_on_the_dashboard() -> None:
    shown = set.union(*(asked(text)[0] for where, text in expressions() if "panel" in where))
    parts = ("_bucket", "_sum", "_count")
    families = {re.sub("|".join(f"{part}$" for part in parts), "", name) for name in shown}
    own = {name for name in exported() if name.startswith("tympan_")}
    assert {re.sub("|".join(f"{part}$" for part in parts), "", name) for name in own} <= families


def test_the_expressions_are_read_as_they_are() -> None:
    text = 'sum by (pool) (rate(tympan_runs_total{outcome=~"a|b", x!="sum(y)"}[15m])) > 0.1'
    assert asked(text) == ({"tympan_runs_total"}, {"pool", "outcome", "x"})


def test_the_dashboard_has_an_id_for_each_panel_and_no_data_source_of_ones_own() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    sources = re.findall(r'"uid": "([^"]+)"', DASHBOARD.read_text(encoding="utf-8"))
    assert set(sources) == {"tympan", "${datasource}"}
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


# What they say -----------------------------------------------------------------------------------


def test_each_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() -> None:
    sections = re.findall(r"^### (Tympan\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == ALERTS
    for each in rules():
        page, _, anchor = each["annotations"]["runbook_url"].partition("#")
        assert (CHECKOUT / page) == RUNBOOK
        assert anchor == each["alert"].lower()


def test_each_alert_says_how_bad_it_is_and_what_it_is_about() -> None:
    for each in rules():
        assert each["labels"]["severity"] in ("critical", "warning")
        for text in ("summary", "description"):
            assert each["annotations"][text].endswith(".")


def test_no_reaper_is_missed_where_none_is_to_run() -> None:
    metrics = {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}
    redis = {"addresses": ["redis:6379"]}
    rendered = render({"redis": redis, "metrics": metrics, "reaper": {"enabled": False}})
    (group,) = rendered.of("PrometheusRule", "")["spec"]["groups"]
    assert [each["alert"] for each in group["rules"]] == ALERTS[1:]


def test_values_reach_the_rules() -> None:
    found = rules(
        latencySeconds=2.5, failureRatio=0.25, selector='farm="north"', disabled=ALERTS[:2],
        alertLabels={"team": "print"}, runbookUrl="https://runbooks.example/tympan",
    )  # fmt: skip
    by_name = {each["alert"]: each for each in found}
    assert set(by_name) == set(ALERTS[2:])
    assert by_name["TympanPoolBehind"]["expr"].endswith("> 2.5")
    assert by_name["TympanRunsFail"]["expr"].endswith("> 0.25")
    for each in found:
        assert 'farm="north"' in each["expr"]
        assert each["labels"]["team"] == "print"
        assert each["annotations"]["runbook_url"].startswith("https://runbooks.example/tympan#")
    whole = " ".join(each["expr"] for each in found)
    assert "LATENCY" not in whole
    assert "RATIO" not in whole
