r"""The settings of a print host: ``/etc/tympan/cups.toml``.

::

    server = '\\print01'              # default: the ServerName of cupsd
    cups = "/run/cups/cups.sock"      # or "localhost:631"
    user = "root"                     # who the bridge says it is to cupsd
    spool = "/var/spool/tympan"       # the journal and the sockets
    max_events = 100000
    poll = 60                         # seconds; 0: never
    without_bridge = "print"          # or "hold"

    [redis]
    url = "rediss://redis.example:6379/0"
    username = "print01"
    password_file = "/etc/tympan/redis-password"
    ca = "/etc/tympan/ca.pem"
    [redis.settings]                  # the broker's, by their names
    lease = 5

    [[question]]                      # see workers.cups.dialogs.questions

The file, and the one with the password, count only where nobody but root, or who runs this, may
have written them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from broker.errors import InvalidName, InvalidSettings
from broker.names import parse_server
from broker.settings import DEFAULT_URL
from broker.settings import Settings as BrokerSettings
from workers.cups import file
from workers.cups.dialogs.questions import Question, parse_questions
from workers.cups.file import MAX_EVENTS, SPOOL, Place

CUPS = "/run/cups/cups.sock"
USER = "root"
_FILES = {"ca": "ssl_ca_certs", "certificate": "ssl_certfile", "key": "ssl_keyfile"}
"""Settings that are options of a URL."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RedisSettings(_Closed):
    """Where the farm's Redis is, and who this host is to it."""

    url: str = DEFAULT_URL
    username: str = ""
    password_file: Path | None = None
    """Its first line is the password."""
    ca: Path | None = None
    """Of the authority that signed Redis's certificate; for ``rediss`` only."""
    certificate: Path | None = None
    key: Path | None = None
    sentinel_username: str = ""
    sentinel_password_file: Path | None = None
    settings: Mapping[str, str | int | float | bool] = Field(default_factory=dict)
    """Settings of the broker, by their names."""

    @field_validator("settings")
    @classmethod
    def _are_the_brokers(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            BrokerSettings.of(**value)
        except InvalidSettings as error:
            raise ValueError(str(error).removeprefix("settings: ")) from None
        return value

    def address(self) -> str:
        """The URL with all of this in it. Passwords are read now. Raises InvalidSettings."""
        scheme, separator, rest = self.url.partition("://")
        where, _, query = rest.partition("?")
        own, at, host = where.rpartition("@")
        password = _password(self.password_file)
        if self.username or password:
            if at:
                raise InvalidSettings(
                    "redis: the url has a credential in it, and username or password_file is set: "
                    "leave one of them out"
                )
            own = quote(self.username, safe="") + (password and f":{quote(password, safe='')}")
        options = {_FILES[name]: str(getattr(self, name)) for name in _FILES if getattr(self, name)}
        sentinel = {
            "sentinel_username": self.sentinel_username,
            "sentinel_password": _password(self.sentinel_password_file),
        }
        options |= {name: value for name, value in sentinel.items() if value}
        query = "&".join(filter(None, (query, urlencode(options))))
        return f"{scheme}{separator}{own}{'@' * bool(own)}{host}{'?' * bool(query)}{query}"


class HostSettings(_Closed):
    """Everything that can be set for one print host. Times are seconds."""

    server: str | None = None
    r"""The print server that it is to the farm, as ``\\server``; None: by its ServerName."""
    cups: str = CUPS
    """cupsd's UNIX socket, or ``host:port``."""
    user: str = Field(default=USER, min_length=1, max_length=256)
    """Who the bridge says it is to cupsd, which tells whose a job is only to its administrators. A
    cupsd that believes nobody wants who runs the bridge, in one of its SystemGroups."""
    spool: Path = SPOOL
    max_events: int = Field(default=MAX_EVENTS, ge=100, le=10_000_000)
    """Events that wait while Redis is away; then the oldest are dropped, and reported."""
    poll: float = Field(default=60.0, ge=0, le=86_400)
    """How often idle printers are asked themselves; 0 for never."""
    without_bridge: Literal["print", "hold"] = "print"
    """What becomes of jobs that are to be asked about while no bridge runs."""
    redis: RedisSettings = RedisSettings()
    question: tuple[Question, ...] = ()

    @field_validator("server")
    @classmethod
    def _is_server(cls, value: str | None) -> str | None:
        try:
            return value and parse_server(value)
        except InvalidName as error:
            raise ValueError(str(error)) from None

    @field_validator("cups")
    @classmethod
    def _is_address(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if value.startswith("/") or (host and colon and port.isdecimal()):
            return value
        raise ValueError(f"{value!r} is neither a path nor host:port")

    @field_validator("spool")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError(f"{str(value)!r} has to begin with a slash")
        return value

    @property
    def place(self) -> Place:
        """Where its parts meet."""
        return Place(self.spool, self.max_events, self.without_bridge)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What may be used and is likely a mistake, a sentence each."""
        return tuple(
            f"question {question.name!r}: when: {doubt}"
            for question in self.question
            for doubt in question.doubts
        )

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> HostSettings:
        """From a table of TOML. Raises InvalidSettings, which names each setting that is off."""
        plain = {name: value for name, value in table.items() if name != "question"}
        faults: list[str] = []
        questions: tuple[Question, ...] = ()
        try:
            questions = parse_questions(table.get("question", ()))
        except InvalidSettings as error:
            faults.append(str(error))
        try:
            settings = cls.model_validate(plain)
        except ValidationError as error:
            faults += _sentences(error)
        if faults:
            raise InvalidSettings("; ".join(faults))
        return settings.model_copy(update={"question": questions})

    @classmethod
    def read(cls, path: str | os.PathLike[str] = file.DEFAULT) -> HostSettings:
        """From the file. Raises InvalidSettings."""
        try:
            return cls.of(file.read_table(path))
        except file.SettingsFault as fault:
            raise InvalidSettings(str(fault)) from None
        except InvalidSettings as error:
            raise InvalidSettings(f"{path}: {error}") from None


def _password(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return file.read_text(path).partition("\n")[0].rstrip("\r")
    except file.SettingsFault as fault:
        raise InvalidSettings(str(fault)) from None


def _sentences(error: ValidationError) -> list[str]:
    said = []
    for fault in error.errors():
        *within, name = (str(part) for part in fault["loc"])
        where = ".".join((*within, name))
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            model = RedisSettings if within == ["redis"] else HostSettings
            message = f"there is no such setting; known: {', '.join(model.model_fields)}"
        said.append(f"{where}: {message}")
    return said
