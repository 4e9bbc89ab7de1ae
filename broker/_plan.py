"""What a registration asks for, and the names that follow from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from broker._keys import Audience, grant_field, group_name, registration_audiences
from broker.conversation import Style, UserFilter
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

    @classmethod
    def of_record(cls, server: str, record: dict[str, Any]) -> RegistrationPlan:
        """The plan behind a record in ``registrations``."""
        return cls(
            Name(server, record["printer"]),
            UUID(record["type"]),
            Style.from_word(record["style"]),
            record["user"],
            UserFilter(record["filter"]),
            record["printers"],
            record["needed"],
            record.get("source", ""),
        )
