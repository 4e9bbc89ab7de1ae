"""docs/cups.md says what the code does: its settings, its questions, its words."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click

from workers.cli.cups import cups
from workers.cups.dialogs.questions import FIELDS, Question, parse_questions
from workers.cups.settings import HostSettings, RedisSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs/cups.md").read_text("utf-8")


def samples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def table(heading: str) -> list[str]:
    """What the first cells of a table name, in code."""
    behind = PAGE.split(heading, 1)[1]
    rows = behind.split("\n\n", 2)[1 if behind.startswith("\n\n") else 0].splitlines()
    first = [row.split("|")[1] for row in rows if row.startswith("|") and "---" not in row]
    return [name for cell in first for name in re.findall(r"`([a-z_]+)`", cell)]


def test_its_questions_are_questions() -> None:
    (sample,) = samples("toml")
    questions = parse_questions(tomllib.loads(sample)["question"])
    assert [question.name for question in questions] == ["paper", "expensive"]
    assert [question.is_before for question in questions] == [False, True]


def test_every_setting_of_a_question_is_explained() -> None:
    explained = set(table("| Setting of a question"))
    assert explained == set(Question.model_fields) - {"name"}
    for name in FIELDS:
        assert f"`{{{name}}}`" in PAGE, name


def test_every_setting_of_a_host_is_explained() -> None:
    explained = set(table("| `/etc/tympan/cups.toml`"))
    for name in set(HostSettings.model_fields) - {"redis", "question", "without_bridge"}:
        assert name in explained, name
    assert "without_bridge" in PAGE
    for name in RedisSettings.model_fields:
        assert f"`{name}`" in PAGE or name == "settings", name


def test_its_commands_are_commands() -> None:
    context = click.Context(cups)
    used = set(re.findall(r"tympan cups ([a-z]+)", PAGE))
    assert used == set(cups.list_commands(context))
    for name in used:
        command = cups.get_command(context, name)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        for line in re.findall(rf"^\S*tympan cups {name}( [^#\n`]*)", PAGE, re.MULTILINE):
            for option in re.findall(r"--[a-z-]+", line):
                assert option in known, f"{name} {option}"
