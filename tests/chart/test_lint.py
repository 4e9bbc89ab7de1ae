"""Level 0: both helms take the chart and all values files; YAML, schema, package are in order."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.chart.charts import CHART, HELMS, VALUES, VERSIONS, run, text

STYLE = YamlLintConfig(
    "{extends: default, rules: {line-length: {max: 160}, document-start: disable, braces: disable,"
    " comments: {min-spaces-from-content: 1}}}"
)
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("helm", HELMS)
def test_each_values_file_passes_the_strict_lint(helm: str) -> None:
    with ThreadPoolExecutor(4) as some:
        said = some.map(lambda file: run(helm, "lint", "--strict", CHART, "-f", file), VALUES)
    for file, words in zip(VALUES, said, strict=True):
        assert "0 chart(s) failed" in words, f"{file.name}: {words}"
        assert "[WARNING]" not in words, f"{file.name}: {words}"


def test_there_is_a_values_file_for_each_way_to_run_it() -> None:
    ways = {file.name.removesuffix("-values.yaml") for file in VALUES}
    assert ways == {
        *("minimal", "embedded", "sentinel-tls", "cluster", "keda", "hpa", "everything"),
    }


@pytest.mark.parametrize("file", VALUES, ids=lambda file: file.name)
def test_both_helms_render_the_same(file: Path) -> None:
    three, four = (text((file,), "", helm, VERSIONS[-1]) for helm in HELMS)
    assert yaml_of(three) == yaml_of(four)


def yaml_of(rendered: str) -> list[Any]:
    """In one order: the helms sort hooks differently."""
    found = [each for each in yaml.load_all(rendered, yaml.CSafeLoader) if each]
    return sorted(found, key=lambda each: (each["kind"], each["metadata"]["name"]))


@pytest.mark.parametrize(
    "file",
    [*VALUES, *(CHART / name for name in ("Chart.yaml", "values.yaml", "alerts.yaml"))],
    ids=lambda file: file.name,
)
def test_yaml_is_tidy(file: Path) -> None:
    found = linter.run(file.read_text(encoding="utf-8"), STYLE, str(file))
    assert [str(each) for each in found] == []


def test_what_is_rendered_is_tidy() -> None:
    for file in VALUES:
        for number, line in enumerate(text((file,), "", HELMS[0], VERSIONS[-1]).splitlines(), 1):
            assert line == line.rstrip() or not line.strip(), f"{file.name}:{number}: {line!r}"
            assert "<no value>" not in line
            assert "<nil>" not in line


def test_the_schema_is_a_draft_07_schema() -> None:
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    newer = {"$defs", "dependentRequired", "dependentSchemas", "unevaluatedProperties"}
    assert not newer & {key for part in parts(SCHEMA) for key in part}


def test_the_schema_is_closed() -> None:
    for part in parts(SCHEMA):
        if "properties" in part and part is not SCHEMA["properties"]["global"]:
            assert part.get("additionalProperties") is False, part["properties"].keys()


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Each object in a schema."""
    if isinstance(schema, dict):
        yield schema
    children = schema.values() if isinstance(schema, dict) else schema
    if isinstance(children, list) or isinstance(schema, dict):
        for child in children:
            if isinstance(child, dict | list):
                yield from parts(child)


def test_the_package_holds_what_the_chart_needs_and_no_more(tmp_path: Path) -> None:
    run("helm4", "package", CHART, "--destination", tmp_path)
    (archive,) = tmp_path.glob("tympan-*.tgz")
    with tarfile.open(archive) as package:
        held = {name.partition("/")[2] for name in package.getnames()}
    kept = {
        str(file.relative_to(CHART))
        for file in CHART.rglob("*")
        if file.is_file() and file.parent != CHART / "ci" and file.name != ".helmignore"
    }
    assert held - {".helmignore"} == kept
