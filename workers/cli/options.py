"""What is typed: options that commands share, and the types of their values."""

from __future__ import annotations

import getpass
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import click

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Name, Payload, Style, names
from broker.errors import InvalidName
from broker.notification import model_of

C = TypeVar("C", bound=Callable[..., Any])


class Kind(NamedTuple):
    """A notification type as it was typed: a GUID, or an alias that may stand for a model."""

    guid: UUID
    model: type[Payload] | None

    @classmethod
    def parse(cls, text: str) -> Kind:
        """Raises InvalidType, ExtensionInvalid."""
        return cls(*model_of(text))

    @property
    def response_model(self) -> type[Payload] | None:
        """The model of a response, where one is known."""
        return self.model.response_model if self.model else None


def parse_name(text: str) -> Name:
    """A name. Raises InvalidName, with a word about shells, which eat backslashes."""
    _refuse_eaten(text)
    try:
        return Name.parse(text)
    except InvalidName as error:
        raise InvalidName(f"{error} (in a shell, in single quotes)") from None


def parse_server(text: str) -> str:
    """The name of a server. Raises InvalidName, likewise."""
    _refuse_eaten(text)
    return names.parse_server(text)


def _refuse_eaten(text: str) -> None:
    if text.startswith("\\") and not text.startswith(r"\\"):
        shown = repr(text)[1:-1].replace(r"\\", "\\")
        raise InvalidName(
            f"{shown} is no name: the shell has eaten a backslash; put names in single quotes, "
            r"as '\\server\printer' or '\\server'"
        )


def parse_style(text: str) -> Style:
    """A conversation style. Raises BadParameter."""
    if text not in ("uni", "bi"):
        raise click.BadParameter(f"{text!r} is no conversation style: write uni or bi")
    return Style.from_word(text)


def parse_seconds(text: str) -> float:
    """A time, not negative and not endless. Raises BadParameter."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"{text!r} is no time in seconds: write 30 or 0.5")
    return value


type_option = click.option(
    "--type",
    "kind",
    type=Kind.parse,
    required=True,
    metavar="TYPE",
    help="Notification type: a GUID or a known alias. By the alias of an extension, what is sent "
    "has to fit its model; by the GUID, any bytes may be sent.",
)
name_argument = click.argument("name", type=parse_name, metavar="NAME")
optional_name_argument = click.argument("name", type=parse_name, metavar="[NAME]", required=False)


def style_option(implied_by: str) -> Callable[[C], C]:
    """``--style``, which some other options imply."""
    return click.option(
        "--style",
        type=parse_style,
        metavar="uni|bi",
        help=f"Conversation style; default uni, but bi with {implied_by}.",
    )


def settle_style(style: Style | None, answering: Mapping[str, object]) -> Style:
    """The style, where options that only make sense with answers imply ``bi``.

    Raises UsageError where such an option meets ``--style uni``.
    """
    given = [option for option, value in answering.items() if value not in (None, False)]
    if given and style is UNIDIRECTIONAL:
        raise click.UsageError(
            f"{given[0]} needs --style bi: nobody can answer a unidirectional notification"
        )
    if style is not None:
        return style
    return BIDIRECTIONAL if given else UNIDIRECTIONAL


def at_most_one(options: Mapping[str, object]) -> None:
    """Raises UsageError where more than one of these options was given."""
    given = [option for option, value in options.items() if value not in (None, False)]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other: give one of them")


def login_name() -> str | None:
    """Who runs this process; None where this host has no name for the user id."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
