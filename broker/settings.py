"""Settings: one frozen object; each field says its unit and its default's reason."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Flag, StrEnum
from typing import Any, Self
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker.errors import InvalidSettings, InvalidUrl

DEFAULT_URL = "redis://127.0.0.1:6379/0"


def default_url() -> str:
    """``TYMPAN_URL`` where it is set, otherwise a Redis on this host's usual port.

    ``TYMPAN_USERNAME`` and ``TYMPAN_PASSWORD`` are its credential, ``TYMPAN_SENTINEL_USERNAME`` and
    ``TYMPAN_SENTINEL_PASSWORD`` that of its Sentinels, as they are: nothing in them is escaped.
    Raises InvalidUrl where the URL has one of its own, or no Sentinels.
    """
    url = os.environ.get("TYMPAN_URL") or DEFAULT_URL
    given = {name: os.environ.get(f"TYMPAN_{name}", "") for name in CREDENTIALS}
    return _with_credentials(url, given) if any(given.values()) else url


CREDENTIALS = ("USERNAME", "PASSWORD", "SENTINEL_USERNAME", "SENTINEL_PASSWORD")


def _with_credentials(url: str, given: Mapping[str, str]) -> str:
    scheme, separator, rest = url.partition("://")
    where, _, query = rest.partition("?")
    before, _, host = where.rpartition("@")
    user, _, password = before.partition(":")
    own = ("USERNAME", user), ("PASSWORD", password)
    twice = next((name for name, value in own if value and given[name]), None)
    if twice is not None:
        raise InvalidUrl(
            f"TYMPAN_URL has a {twice.lower()} in it, and TYMPAN_{twice} is set: "
            "leave one of them out"
        )
    options = {
        name.lower(): given[name]
        for name in CREDENTIALS
        if name.startswith("SENTINEL_") and given[name]
    }
    if options and not scheme.endswith("+sentinel"):
        raise InvalidUrl(
            f"TYMPAN_{next(iter(options)).upper()} is set, and TYMPAN_URL names no Sentinels: "
            "leave it out, or write redis+sentinel://host:port/name"
        )
    user = user or quote(given["USERNAME"], safe="")
    password = password or quote(given["PASSWORD"], safe="")
    credential = f"{user}{':' * bool(password)}{password}{'@' * bool(user or password)}"
    query = "&".join(filter(None, (query, urlencode(options))))
    return f"{scheme}{separator}{credential}{host}{'?' * bool(query)}{query}"


class Role(Flag):
    """What this client may be: R1 lets only sources open channels."""

    SOURCE = 1
    LISTENER = 2
    BOTH = SOURCE | LISTENER


class Durability(StrEnum):
    """What a success means.

    ``memory``: the Redis process has it. ``replica``: as many replicas as ``replicas`` have it
    too (WAIT). ``fsync``: it is on the disk of that Redis (WAITAOF, Redis 7.2 or later, or a
    server that runs with ``appendfsync always``).
    """

    MEMORY = "memory"
    REPLICA = "replica"
    FSYNC = "fsync"


class Settings(BaseModel):
    """Everything that can be set. Times are seconds, sizes bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    namespace: str = Field(default="tympan", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """First part of every key: several installations can share one Redis."""
    role: Role = Role.BOTH

    max_payload: int = Field(default=10_485_760, ge=1, le=512 * 1024 * 1024)
    """Largest notification, response or close reason (the documents' 10 MB)."""
    buffer: int = Field(default=100, ge=1, le=1_000_000)
    """Unread notifications that each unidirectional registration holds for each of its audiences
    (100 after MS-PAN; the SDK's compatibility value is 10)."""
    max_registrations: int = Field(default=10_000, ge=0)
    """Registrations of one name and type."""
    max_channels: int = Field(default=10_000, ge=0)
    """Open channels of one server."""
    strict_rights: bool = False
    """Ask for the whole ALL_ACCESS mask, not only the administer bit, where all users are named."""
    require_use: bool = False
    """Ask for PRINTER_ACCESS_USE (on a server: ENUMERATE) of whoever listens for himself."""

    durability: Durability = Durability.MEMORY
    replicas: int = Field(default=1, ge=1, le=16)
    """How many replicas ``durability=replica`` waits for."""
    durability_timeout: float = Field(default=2.0, gt=0, le=60)
    """How long one call waits for replicas or disk before it says NotDurable."""

    lease: float = Field(default=10.0, ge=0.2, le=600)
    """How long a silent process is taken to be alive; it renews at a third of this."""
    keep_closed: float = Field(default=600.0, ge=1)
    """How long a closed channel still tells late callers who acquired or closed it."""
    resync: float = Field(default=5.0, gt=0, le=300)
    """How often a process reads its streams although no bell rang: the price of a lost bell."""
    body_by_reference: int = Field(default=16_384, ge=0)
    """Bodies above this size are stored once, under a key of their own."""
    keep_body: float = Field(default=86_400.0, ge=60)
    """How long such a body waits at the most for the processes that were told of it."""

    pool_buffer: int = Field(default=10_000, ge=1, le=1_000_000)
    """Unfinished notifications that each unidirectional registration of a pool holds."""
    keep_pooled: float = Field(default=604_800.0, ge=60)
    """How long a body that is stored apart waits for a pool, or lies with a dead letter."""
    dead_letters: int = Field(default=10_000, ge=1, le=1_000_000)
    """Dead letters that a server keeps; the oldest go first."""

    connect_timeout: float = Field(default=5.0, gt=0)
    reply_timeout: float = Field(default=5.0, gt=0)
    """A connection that owes an answer for longer is given up; the call asks again on a new one."""
    operation_timeout: float = Field(default=30.0, gt=0)
    """After this a call that got no answer raises RedisUnreachable or OutcomeUnknown."""
    retry_least: float = Field(default=1.0, gt=0)
    """First pause before registering again after Redis lost a registration (R125: at least 1 s)."""
    retry_most: float = Field(default=60.0, gt=0)
    """Longest such pause (R125: at most 1 min)."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.keep_closed < self.lease:
            raise ValueError("keep_closed must not be below lease: late callers are owed an answer")
        if self.retry_most < self.retry_least:
            raise ValueError("retry_most must not be below retry_least")
        return self

    @property
    def is_source(self) -> bool:
        """Whether this client may open channels."""
        return Role.SOURCE in self.role

    @classmethod
    def of(cls, **values: Any) -> Settings:
        """Settings from keywords; raises InvalidSettings, which names each setting that is off."""
        try:
            return cls(**values)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}"
                for fault in error.errors()
            )
            raise InvalidSettings(f"settings: {faults}") from None
