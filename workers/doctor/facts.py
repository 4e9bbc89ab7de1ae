"""Facts: all that one examination of the Redis behind a farm found. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from broker._address import Form
from workers.doctor.credential import CredentialFacts
from workers.doctor.ensemble import ClusterFacts, SentinelFacts
from workers.doctor.node import NodeFacts


class Tls(StrEnum):
    """How a connection is protected."""

    NONE = "none"
    UNVERIFIED = "unverified"
    """Encrypted, but whoever answers is believed."""
    VERIFIED = "verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How this client gets to Redis."""

    form: Form = Form.SINGLE
    tls: Tls = Tls.NONE
    is_local: bool = True
    """Whether nothing leaves this host: loopback interface, or a socket."""
    has_password: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmFacts:
    """The way, the processes at its end, and what they are together."""

    way: Way
    nodes: tuple[NodeFacts, ...]
    cluster: ClusterFacts | None = None
    sentinel: SentinelFacts | None = None
    servers: tuple[str, ...] | None = None
    """Print servers that the directory lists; None where it could not be read."""
    credentials: tuple[CredentialFacts, ...] = ()
    untried: str = ""
    """Why it is not known what the credential may do."""
    is_named: bool = True
    """Whether somebody said on which print servers it was to be tried."""
    outside: tuple[str, ...] = ()
    """Print servers that the ACL keeps it from, where it is meant for others."""

    @property
    def reached(self) -> tuple[NodeFacts, ...]:
        """The processes that answered."""
        return tuple(node for node in self.nodes if node.unreachable is None)

    @property
    def primaries(self) -> tuple[NodeFacts, ...]:
        """Those of them that take writes."""
        return tuple(node for node in self.reached if node.is_primary)
