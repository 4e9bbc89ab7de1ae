"""Notifications and responses: typed byte blobs, and what of them the ends are handed.

The broker never looks into a payload (R48, R134). A *model* binds a pydantic schema to a type
GUID; the listener's end validates what arrives by it. Raw bytes are always possible, and whoever
sends and takes only these needs no pydantic.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeGuard, TypeVar, overload
from uuid import UUID

from broker.conversation import Style
from broker.errors import (
    BodyGone,
    InvalidArgument,
    InvalidNotificationType,
    InvalidStyle,
    InvalidType,
    NotificationTooLarge,
    PayloadInvalid,
)
from broker.names import Name
from broker.notification_type import NOTIFICATION_RELEASE, as_guid, describe_type, parse_type

if TYPE_CHECKING:
    from broker.payload import Payload


def type_name(value: object) -> str:
    """The name of a value's class."""
    return type(value).__name__


P = TypeVar("P", bound="Payload")
M = TypeVar("M", bound="Payload")


@dataclass(frozen=True, slots=True)
class Data:
    """Raw bytes of a type; with NOTIFICATION_RELEASE a close without a reason (R103)."""

    type: UUID
    body: bytes = b""

    def __post_init__(self) -> None:
        if not isinstance(self.body, bytes):
            raise InvalidArgument(f"Data holds bytes, not {type_name(self.body)}")


Body: TypeAlias = "bytes | str | Payload | Data"
"""What can be sent: bytes, text (as UTF-8), a model, or bytes with a type of their own."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a body goes."""

    style: Style
    limit: int
    """The most bytes that a channel takes: ``max_payload``."""
    is_reason: bool
    """Whether it closes the channel."""


def encode(body: Body, type_: UUID, place: Place | None = None) -> bytes:
    """The bytes of a body on a channel of this type, and at this place.

    Raises InvalidNotificationType where the body is of another one (R90), NotificationTooLarge
    (R91), InvalidStyle where it is not for this style, InvalidArgument where it is nothing that
    can be sent there.
    """
    own = type_
    if isinstance(body, Data):
        own = body.type
    elif not isinstance(body, bytes | str) and _is_model(body):
        own, _ = model_of(type(body))
    if own != type_:
        raise InvalidNotificationType(
            f"a payload of type {describe_type(own)} does not belong on a channel of type "
            f"{describe_type(type_)}"
        )
    data = _bytes(body, place)
    if place is not None and len(data) > place.limit:
        raise NotificationTooLarge(f"{len(data)} bytes; the limit max_payload is {place.limit}")
    return data


def _bytes(body: Body, place: Place | None) -> bytes:
    match body:
        case bytes():
            return body
        case str():
            try:
                return body.encode()
            except UnicodeEncodeError as error:
                raise InvalidArgument(f"the text is no Unicode: {error}") from None
        case Data():
            return body.body
    if _is_model(body):
        return body.encode() if place is None else _placed(body, place)
    raise InvalidArgument(
        f"a notification is bytes, text, a Payload or Data, not {type_name(body)}"
    )


def _is_model(body: object) -> TypeGuard[Payload]:
    from broker.payload import Payload  # whoever gives one has it

    return isinstance(body, Payload)


def _placed(body: Payload, place: Place) -> bytes:
    if body.conversation_style not in (None, place.style):
        raise InvalidStyle(f"a {type_name(body)} is not for a {place.style.name.lower()} channel")
    if body.ends_dialog and not place.is_reason:
        raise InvalidArgument(f"a {type_name(body)} ends the dialog: give it to close() (R131)")
    return body.encode_within(place.limit)


def model_of(type_: str | UUID | type[Payload]) -> tuple[UUID, type[Payload] | None]:
    """A type as the caller may name it: GUID, alias or model; and the model, where it is known.

    A GUID stands for bytes, an alias for the model that the catalogue has for it.
    """
    if isinstance(type_, type):
        from broker.payload import Payload  # whoever names one has it

        guid: UUID | None = getattr(type_, "notification_type", None)
        if not issubclass(type_, Payload) or guid is None:
            raise InvalidType(f"{type_.__name__} names no type: class ...(Payload, type='<GUID>')")
        return guid, type_
    guid = parse_type(type_)
    if isinstance(type_, UUID) or as_guid(type_):
        return guid, None
    from broker import catalogue  # it knows models, which are made here

    return guid, catalogue.find(type_.strip().lower())


@dataclass(slots=True)
class Notification(Generic[P]):
    """What arrived: bytes, their type, and where they come from.

    For a unidirectional listener there is no channel to answer on (R51, R52); ``channel`` is the
    id only. ``data`` is None for a NOTIFICATION_RELEASE, and for a large payload that outlived
    its time in Redis; then :attr:`body` and what builds on it raise BodyGone.
    """

    type: UUID
    data: bytes | None
    channel: str
    name: Name
    user: str | None
    """The channel's target user; None where it speaks to all."""
    at: float
    """When Redis took it, in seconds of its clock."""
    model: builtins.type[P] | None = field(default=None, repr=False)
    references: int = field(default=0, compare=False)
    """Open acquire_data calls."""
    trace: str = field(default="", compare=False, repr=False)
    """The sender's trace context (W3C), where OpenTelemetry is installed there."""

    @property
    def is_release(self) -> bool:
        """Whether this is NOTIFICATION_RELEASE."""
        return self.type == NOTIFICATION_RELEASE

    @property
    def body(self) -> bytes:
        """The bytes, empty for a NOTIFICATION_RELEASE; raises BodyGone where Redis lost them."""
        if self.data is None and not self.is_release:
            raise BodyGone(
                f"channel {self.channel}: the payload was kept by reference and is no longer in "
                "Redis (see the setting keep_body)"
            )
        return self.data or b""

    @property
    def text(self) -> str:
        """The bytes as UTF-8; raises PayloadInvalid where they are none, BodyGone."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise PayloadInvalid(f"the payload is no UTF-8 text: {error}", self.body) from None

    @property
    def payload(self) -> P:
        """The validated model that the registration named; raises PayloadInvalid, BodyGone.

        Raises InvalidType where this is NOTIFICATION_RELEASE, or no model was named.
        """
        self._refuse_release()
        if self.model is None:
            raise InvalidType("no model was named at registration: use .data, or .decode(Model)")
        return self.model.decode(self.body)

    @overload
    def decode(self, model: builtins.type[M]) -> M: ...
    @overload
    def decode(self) -> P: ...
    def decode(self, model: builtins.type[Payload] | None = None) -> Payload:
        """The payload as this model; raises PayloadInvalid, and as :attr:`payload`."""
        if model is None:
            return self.payload
        self._refuse_release()
        return model.decode(self.body)

    def _refuse_release(self) -> None:
        if self.is_release:
            why = (
                "the channel ended without a reason" if self.channel else "its printer was deleted"
            )
            raise InvalidType(f"this is NOTIFICATION_RELEASE ({why}): ask is_release first")

    def acquire_data(self) -> tuple[bytes | None, int, UUID]:
        """Bytes, size and type; counts as a reference until :meth:`release_data` (R119, R120)."""
        size = len(self.body)
        self.references += 1
        return self.data, size, self.type

    def release_data(self) -> None:
        """Undo one :meth:`acquire_data`; without one it raises InvalidArgument."""
        if self.references == 0:
            raise InvalidArgument("release_data without acquire_data")
        self.references -= 1


@dataclass(slots=True)
class Response(Notification[P]):
    """What the owner of a dialog answered."""

    by: str = ""
    """The owner's user."""
    registration: str = ""
    is_final: bool = False
    """Whether it closed the channel: it was given as the close reason."""


@dataclass(frozen=True, slots=True)
class Closing:
    """How a channel ended, as one end is told (R95, R96)."""

    channel: str
    reason: Notification[Any]
    """The closer's data unchanged, or a NOTIFICATION_RELEASE without bytes."""
    by: str | None
    """``source``, the user who closed or acquired it, or None where the other end died."""
    acquired: bool = False
    """Whether this end lost the race: somebody else owns the dialog."""
