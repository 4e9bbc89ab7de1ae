"""What Kubernetes, and the operators whose resources the chart makes, take for well-formed."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from tests.chart.charts import Object

CUSTOM = Path(__file__).parent / "schemas"
"""Strict schemas of the custom resources, written after their definitions."""


class UnknownKind(Exception):
    """Nobody says what such an object looks like."""


def faults(each: Object, version: str) -> Iterator[str]:
    """What is wrong with an object, a sentence each; unknown fields too. Raises UnknownKind."""
    for error in _validator(each["apiVersion"], each["kind"], version).iter_errors(each):
        place = ".".join(map(str, error.absolute_path))
        yield f"{each['kind']} {each['metadata']['name']}: {place}: {error.message[:300]}"


@functools.cache
def _validator(api: str, kind: str, version: str) -> Any:
    own = CUSTOM / f"{kind}.json"
    if own.exists():
        return jsonschema.Draft7Validator(json.loads(own.read_text(encoding="utf-8")))
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    try:
        schema = schema_contents(f"{_folder(version)}/{kind.lower()}-{group}.json", version)
    except FileNotFoundError:
        raise UnknownKind(f"{api} {kind} in Kubernetes {version}") from None
    registry = Resource.from_contents(schema) @ _definitions(version)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _definitions(version: str) -> Any:
    found = schema_contents(f"{_folder(version)}/_definitions.json", version)
    return Resource.from_contents(found) @ Registry()


def _folder(version: str) -> str:
    return f"kubernetes-json-schema/v{version}.0-local-strict"
