"""Bridges: what connects a print system to the farm, as other packages plug it in.

An entry point of the group ``tympan.bridges``: the name is what people type after
``tympan bridge run``, the value a class that is a :class:`Bridge`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import click

from broker import Broker, Name
from broker.extensions import Extension, Extensions, Unfit

GROUP = "tympan.bridges"
TAKEN = {"--as", "--server", "--url", "--json", "--help", "-h"}
"""Options of ``tympan bridge run`` itself, and below the names of what it hands over."""
TAKEN_NAMES = {"broker", "server", "user_as"}


class Bridge(Protocol):
    r"""A print system's side of the farm. It is made without arguments, when bridges are read.

    ::

        class TonerLog(Bridge):
            description = "Tells a user when toner runs low, from the lines of a log."
            options = (click.Argument(["log"]), click.Option(["--user"], required=True))

            async def run(self, broker, server, *, log, user):
                ...

    It need not inherit from this class; a plain attribute is as good as a property.
    """

    @property
    def description(self) -> str:
        """One line, for people."""

    @property
    def options(self) -> Sequence[click.Parameter]:
        """Its own arguments and options on the command line."""
        return ()

    def server(self, /, *_: Any, **__: Any) -> Name | None:
        """The print server that it speaks for by settings of its own, where none is typed.

        Args:
            *_: nothing.
            **__: the values of its ``options``, by their names.

        None: this host's name.
        """
        return None

    def connect(
        self, url: str | None, user: str | None, server: Name, /, *_: Any, **__: Any
    ) -> Broker:
        """The broker that it is to run with, not entered; for settings of its own.

        Args:
            url: as it was typed; None where it was not.
            user: who it is; None for who runs it.
            server: the print server that it speaks for.
            *_: nothing.
            **__: the values of its ``options``, by their names.
        """
        return Broker.connect(url, user=user, server=str(server))

    async def run(self, broker: Broker, server: Name, *_: Any, **options: Any) -> None:
        """Bridge, until there is nothing more to do or until it is cancelled (Ctrl-C, SIGTERM).

        Args:
            broker: open; it is closed afterwards, with all that was opened or registered by it.
            server: the print server that the bridge speaks for.
            *_: nothing; it lets bridges name their options.
            **options: the values of its ``options``, by their names.

        A TympanError or a ``click.ClickException`` ends the command with its message; anything
        else that is raised is reported as the bridge's fault.
        """


def _fit(_name: str, loaded: Any, _taken: Mapping[str, Extension[Bridge]]) -> Bridge:
    if not isinstance(loaded, type):
        raise Unfit("it names no class", "name a class with description, options and run()")
    kind = loaded.__name__
    try:
        bridge: Bridge = loaded()
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        raise Unfit(
            f"{kind}() raised {type(error).__name__}: {error}", "install what it needs"
        ) from error
    description = getattr(bridge, "description", None)
    if not isinstance(description, str) or not description or "\n" in description:
        raise Unfit(f"{kind}.description is no line of text", "describe the bridge in one line")
    if not inspect.iscoroutinefunction(getattr(bridge, "run", None)):
        raise Unfit(
            f"{kind}.run is no coroutine function", "write async def run(self, broker, server)"
        )
    options = getattr(bridge, "options", None)
    if not isinstance(options, Sequence) or any(
        not isinstance(option, click.Parameter) for option in options
    ):
        raise Unfit(f"{kind}.options are no click parameters", "write options = () for none")
    for option in options:
        clash = TAKEN.intersection(option.opts) | TAKEN_NAMES.intersection({option.name})
        if clash:
            raise Unfit(
                f"its option {min(clash)} is one of `tympan bridge run`", "rename the option"
            )
    return bridge


bridges: Extensions[Bridge] = Extensions(GROUP, _fit)
"""All that are installed."""
