"""The command line itself: what is understood before and after every command, and how help looks.

It is all that ``tympan --help`` needs, so nothing of the broker is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])


class OutputClosed(Exception):
    """Whoever read standard output went away: there is nobody to write to."""


@dataclass
class CommandLine:
    """What ``--url`` and ``--json`` say, before or after the command, and which command it is."""

    url: str | None = None
    as_json: bool = False
    command: str = "tympan"


def _keep_url(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    line = ctx.ensure_object(CommandLine)
    line.command = ctx.command_path  # this is called for each command, before its words are read
    if value is not None:
        line.url = value


def _keep_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(CommandLine).as_json = True


def farm_options(command: C) -> C:
    """``--url`` and ``--json``, which are understood before and after the command."""
    for option in (
        click.option(
            "--json",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_keep_json,
            help="One JSON object a line on standard output, all else on standard error.",
        ),
        click.option(
            "--url",
            metavar="URL",
            is_eager=True,
            expose_value=False,
            callback=_keep_url,
            help="The farm's Redis: redis://host:port/0, unix:///path, "
            "redis+sentinel://host:port,.../name or redis+cluster://host:port,...; with rediss for "
            "TLS. Default: TYMPAN_URL, otherwise redis://127.0.0.1:6379/0.",
        ),
    ):
        command = option(command)
    return command


def verbatim(text: str) -> str:
    """Help text whose lines click leaves as they are."""
    return "\n\n".join("\b\n" + paragraph for paragraph in text.strip("\n").split("\n\n"))


def in_json(error: Exception, words: Sequence[str]) -> bool:
    """Whether a command line that could not be read asks for JSON."""
    if not isinstance(error, click.ClickException):
        return False
    return "--json" in words[: words.index("--")] if "--" in words else "--json" in words
