r"""Wanted: what a farm is to have before anything runs on it, as a file says it.

::

    [doctor]                                  # refuse a Redis that can lose data silently
    accept = ["fsync"]                        # but for this

    [[servers]]
    name = '\\print01'
    aliases = ['\\print01.farm.example']

    [[grants]]
    name = '\\print01'
    user = "helpdesk"
    right = "administer"

    [[pools]]
    pool = "help-desk"
    name = '\\print01'                        # or: everywhere = true
    type = "7c1d8a50-52c1-4b8e-9a55-0f3a1c6f2a01"
    user = "helpdesk"
    all_users = true
    printers = true

A file that ends with ``.json`` has the same in JSON.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker import (
    ALL_USERS,
    BIDIRECTIONAL,
    PER_USER,
    UNIDIRECTIONAL,
    Durability,
    Name,
    Right,
    Subscription,
)
from broker.errors import InvalidArgument
from broker.names import parse_pool, parse_server, parse_user
from broker.notification import model_of
from broker.registration import MAX_BUFFER
from broker.rights import parse_right
from workers.doctor.findings import ACCEPTABLE, Check


class InvalidFile(InvalidArgument):
    """A file that does not say what a farm is to have; the message names the place in it."""


def _parsed(parse: Callable[[str], object]) -> AfterValidator:
    """What was given has to be one of these; it stays as it was given."""

    def check(value: str) -> str:
        try:
            parse(value)
        except InvalidArgument as error:
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(check)


Server = Annotated[str, _parsed(parse_server)]
AnyName = Annotated[str, _parsed(Name.parse)]
Pool = Annotated[str, _parsed(parse_pool)]
User = Annotated[str, _parsed(parse_user)]
Type = Annotated[str, _parsed(model_of)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Examination(_Part):
    """What ``tympan doctor`` is asked."""

    durability: Annotated[Durability | None, Field(strict=False)] = None
    """What brokers ask for; None for what the environment says."""
    accept: list[Annotated[Check, Field(strict=False)]] = []
    """Losses that are known and wanted."""

    @model_validator(mode="after")
    def _loses(self) -> Self:
        for one in self.accept:
            if one not in ACCEPTABLE:
                raise ValueError(
                    f"{one} is nothing that can be accepted: {', '.join(ACCEPTABLE)} are"
                )
        return self


class WantedServer(_Part):
    """A print server that is to be known, and its other names."""

    name: Server
    aliases: list[Server] = []


class WantedGrant(_Part):
    """A right that a user is to have."""

    name: AnyName
    user: User
    right: str

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            parse_right(self.right, Name.parse(self.name))
        except InvalidArgument as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def mask(self) -> Right:
        """The right."""
        return parse_right(self.right, Name.parse(self.name))


class WantedPool(_Part):
    """One registration of a pool."""

    pool: Pool
    name: AnyName | None = None
    everywhere: bool = False
    type: Type
    user: User | None = None
    all_users: bool = False
    bidirectional: bool = False
    printers: bool = False
    buffer: Annotated[int, Field(ge=1, le=MAX_BUFFER)] | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.everywhere is (self.name is not None):
            raise ValueError("say where it listens: name, or everywhere = true in its place")
        if self.printers and self.name is not None and Name.parse(self.name).printer:
            raise ValueError("printers needs a server's name")
        return self

    def on(self, name: Name | None = None) -> Subscription:
        """What it listens to; ``name`` is a server, where it does so everywhere."""
        return Subscription(
            name or self.name,
            model_of(self.type)[1] or self.type,
            self.user,
            ALL_USERS if self.all_users else PER_USER,
            BIDIRECTIONAL if self.bidirectional else UNIDIRECTIONAL,
            self.printers,
            self.buffer,
            self.everywhere,
        )


class Wanted(_Part):
    """What a farm is to have."""

    doctor: Examination | None = None
    """None: Redis is taken as it is."""
    servers: list[WantedServer] = []
    grants: list[WantedGrant] = []
    pools: list[WantedPool] = []

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file. Raises InvalidFile."""
        try:
            text = file.read_text(encoding="utf-8")
            record = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
            return cls.model_validate(record)
        except OSError as error:
            raise InvalidFile(f"{file} cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise InvalidFile(f"{file}: {'; '.join(map(_fault, error.errors()))}") from None
        except ValueError as error:  # no JSON, no TOML, no UTF-8
            raise InvalidFile(f"{file} cannot be read: {error}") from None


def _fault(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    what = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        what = "nothing of this name is known here"
    return f"{where}: {what}" if where else str(what)
