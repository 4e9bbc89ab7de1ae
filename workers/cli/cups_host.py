"""Options of ``tympan cups`` that say which host is meant, and where its things are."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.errors import InvalidSettings
from workers.cups.file import DEFAULT as SETTINGS
from workers.cups.file import SPOOL
from workers.cups.installation.host import SERVER_ROOT, Host, NotInstalled
from workers.cups.settings import HostSettings

C = TypeVar("C", bound=Callable[..., Any])

SETTLED = ("spool", "cups")
"""Options that the settings file decides, once it is there."""


def whole_path(value: str | Path) -> Path:
    """A path from the root of the file system: what is placed is read by others, elsewhere.

    Raises BadParameter.
    """
    path = Path(value)
    if not path.is_absolute():
        raise click.BadParameter(f"{value} does not begin with a slash: write {path.absolute()}")
    return path


def host_options(command: C) -> C:
    """Where things are, for a host that is not as its files say."""
    for option in (
        click.option("--spool", type=whole_path, metavar="DIR",
                     help="Where the journal and the sockets are; default what the settings file "
                     f"says, {SPOOL} where there is none."),
        click.option("--settings", type=whole_path, default=SETTINGS, show_default=True,
                     metavar="FILE",
                     help="The settings file."),
        click.option("--cups", metavar="ADDRESS",
                     help="Where cupsd answers: its socket's path or host:port; default what the "
                     "settings file says, or else cupsd.conf."),
        click.option("--user", metavar="USER",
                     help="Whom cupsd runs its programs as; default what cups-files.conf says."),
        click.option("--server-bin", type=whole_path, metavar="DIR",
                     help="Where cupsd's programs are; default what cups-files.conf says."),
        click.option("--config", type=whole_path, default=SERVER_ROOT, show_default=True,
                     metavar="DIR",
                     help="Where cupsd.conf and cups-files.conf are. A cupsd with files elsewhere "
                     "gets neither a service nor a profile."),
        click.option("--root", type=click.Path(path_type=Path), default=Path("/"),
                     show_default=True, metavar="DIR",
                     help="Begin all paths here: a host that is being made, or a test."),
    ):  # fmt: skip
        command = option(command)
    return command


def host_from(options: dict[str, Any]) -> Host:
    """The host, by its settings file where that can be used. Raises NotInstalled."""
    host = _told(options)
    try:
        HostSettings.read(host.at(host.settings))
    except InvalidSettings:
        return host
    return settled_from(options)


def _told(options: dict[str, Any]) -> Host:
    """By the options, and cupsd's own files."""
    _check_private(options)
    return Host.read(
        root=options["root"],
        server_root=options["config"],
        server_bin=options["server_bin"],
        user=options["user"],
        cups=options["cups"],
        settings=options["settings"],
        spool=options["spool"] or SPOOL,
    )


def _check_private(options: dict[str, Any]) -> None:
    """Raises NotInstalled where a cupsd of its own would share what the host's cupsd has."""
    config, settings = options["config"], options["settings"]
    if config == SERVER_ROOT:
        return
    lacking = ["--settings"] if settings == SETTINGS else []
    is_written = settings != SETTINGS and os.access(f"{options['root']}/{settings}", os.F_OK)
    if (options["spool"] or SPOOL) == SPOOL and not is_written:
        lacking.append("--spool")
    if lacking:
        raise NotInstalled(
            f"--config {config} names a cupsd with files of its own, and {' and '.join(lacking)} "
            f"would be those of this host's cupsd ({SETTINGS}, {SPOOL}): give it a settings file "
            "by --settings and a folder by --spool; nothing was done"
        )


def settled_from(options: dict[str, Any]) -> Host:
    """The host; where its settings file is there, with the spool and the cupsd that it names.

    Raises:
        NotInstalled: the file cannot be read, or an option contradicts it.
    """
    host = _told(options)
    path = host.at(host.settings)
    try:
        if not path.is_file():
            return host
        # Whoever may have written it: install mends its mode, and the bridge then obeys it.
        table = tomllib.loads(path.read_text("utf-8"))
        settings = HostSettings.of({name: table[name] for name in SETTLED if name in table})
    except OSError as error:
        raise NotInstalled(f"{path}: {error.strerror}: run this as root") from error
    except (ValueError, InvalidSettings) as error:
        raise NotInstalled(
            f"{path} does not say where things are, mend it or move it away: {error}"
        ) from error
    for name in SETTLED:
        given, said = options[name], getattr(settings, name)
        if given is not None and given != said:
            raise NotInstalled(
                f"--{name} is {given}, and {path} says {said}, which counts: leave the option out, "
                "or write it there; nothing was done"
            )
    return replace(host, spool=settings.spool, cups=settings.cups)
