"""What a registration, or a pool, asks for, and the names that follow from it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from broker._keys import POOL, Audience, grant_field, group_name, registration_audiences
from broker._stored import checked, stored
from broker.conversation import BIDIRECTIONAL, Style, UserFilter
from broker.names import Name


@dataclass(frozen=True)
class RegistrationPlan:
    """What a registration asks for, and the names that follow from it."""

    name: Name
    type: UUID
    style: Style
    user: str
    user_filter: UserFilter
    printers: bool
    needed: int
    """Mask of the right that it stands on; 0 for none."""
    source: str = ""
    """The rights source that says so; empty for the grants in Redis."""

    @cached_property
    def audiences(self) -> tuple[Audience, ...]:
        """The streams that it listens to."""
        return registration_audiences(
            self.name, self.type, self.style, self.user, self.user_filter, printers=self.printers
        )

    @property
    def right(self) -> str:
        """The field in ``grants`` that must hold it; empty where the grants are not asked."""
        asked = self.needed and not self.source
        return grant_field(self.name.printer, self.user) if asked else ""

    @property
    def count(self) -> str:
        """Its field in ``counts``."""
        return f"{self.name.printer}|{self.type}"

    def group(self, registration: str) -> str:
        """Its consumer group."""
        return group_name(self.type, self.user, registration)

    def record(self) -> dict[str, Any]:
        """What Redis keeps of it; :meth:`of_record` reads it."""
        return {
            "printer": self.name.printer,
            "type": str(self.type),
            "style": self.style.word,
            "user": self.user,
            "filter": int(self.user_filter),
            "needed": self.needed,
            "source": self.source,
            "printers": self.printers,
        }

    @classmethod
    def of_record(cls, server: str, record: dict[str, Any]) -> RegistrationPlan:
        """The plan behind a record in ``registrations``. Raises ForeignLayout."""
        with stored(f"a record of a registration on server {server}"):
            record = {"source": "", **record}
            checked(record, printer=str, type=str, style=str, user=str, source=str)
            checked(record, filter=int, printers=bool, needed=int)
            return cls(
                Name(server, record["printer"]),
                UUID(record["type"]),
                Style.from_word(record["style"]),
                record["user"],
                UserFilter(record["filter"]),
                record["printers"],
                record["needed"],
                record["source"],
            )


@dataclass(frozen=True)
class PoolPlan:
    """What one registration of a pool asks for.

    Its id follows from what it asks for, so that every replica finds the same one.
    """

    pool: str
    plan: RegistrationPlan
    buffer: int
    everywhere: bool = False
    """Whether it is one server's part of a pool that listens on the whole farm."""

    @cached_property
    def id(self) -> str:
        """``~<pool>.<digest>``: no session's id, and no registration's of a process."""
        plan = self.plan
        asked = (plan.name.printer, plan.type, plan.style.word, plan.user, plan.user_filter)
        text = "|".join(str(part) for part in (*asked, plan.printers))
        return f"{POOL}{self.pool}.{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @cached_property
    def audiences(self) -> tuple[Audience, ...]:
        """A stream of its own, or where it is bidirectional the boards of whom it hears."""
        plan = self.plan
        if plan.style is BIDIRECTIONAL:
            return plan.audiences
        return (Audience(plan.name.printer, plan.type, plan.style, self.id),)

    @cached_property
    def group(self) -> str:
        """Its consumer group."""
        return self.plan.group(self.id)

    def concerns(self, audiences: Collection[Audience]) -> bool:
        """Whether it hears what is sent to these."""
        return any(audience in audiences for audience in self.plan.audiences)

    def record(self) -> dict[str, Any]:
        """What Redis keeps of it."""
        return {
            "pool": self.pool,
            **self.plan.record(),
            "buffer": self.buffer,
            "everywhere": self.everywhere,
        }

    @classmethod
    def of_record(cls, server: str, record: dict[str, Any]) -> PoolPlan:
        """The plan behind a record in ``pools``. Raises ForeignLayout."""
        plan = RegistrationPlan.of_record(server, record)
        with stored(f"a record of a pool on server {server}"):
            checked(record, pool=str, buffer=int, everywhere=bool)
            return cls(record["pool"], plan, record["buffer"], record["everywhere"])
