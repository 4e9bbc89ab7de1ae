"""What can be said of the image without building it."""

from __future__ import annotations

import re
import tomllib

from tests.chart_image import CHECKOUT, version

DOCKERFILE = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")


def test_it_is_of_this_version_where_none_is_said() -> None:
    assert set(re.findall(r"^ARG VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)) == {version()}


def test_it_gets_what_the_wheel_is_built_from_and_nothing_else() -> None:
    lines = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*", "all that is not named stays away"
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    built = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    said = {project["project"]["readme"], *project["project"]["license-files"]}
    needed = {*built, *said, "constraints.txt", "pyproject.toml"}
    assert {line[1:] for line in lines if line.startswith("!")} == needed


def test_both_stages_stand_on_one_image() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2
    assert "USER 10001:10001" in DOCKERFILE
