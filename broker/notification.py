"""Notifications and responses: typed byte blobs, and the models that give them meaning.

The broker never looks into a payload (R48, R134). A *model* binds a pydantic schema to a type
GUID; the listener's end validates what arrives by it. Raw bytes are always possible.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar, overload
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

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


class Payload(BaseModel):
    """A schema bound to a notification type.

    ::

        class Answer(Payload, type="9e0b...-..."):
            proceed: bool

        class OutOfPaper(Payload, type="9e0b...-...", response=Answer):
            tray: int

    Both ends of a channel speak the channel's one type (R90), so a response model names the same
    GUID. The encoding is JSON; a model of another encoding overrides :meth:`encode` and
    :meth:`decode`.
    """

    model_config = ConfigDict(frozen=True)

    notification_type: ClassVar[UUID]
    response_model: ClassVar[type[Payload] | None] = None
    ends_dialog: ClassVar[bool] = False
    """Whether it is a close reason only (R131)."""

    def __init_subclass__(
        cls,
        *,
        type: str | UUID | None = None,
        response: type[Payload] | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes the class keywords; they mean something once pydantic has made the class."""
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        type: str | UUID | None = None,
        response: type[Payload] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if type is not None:
            cls.notification_type = parse_type(type)
        own = getattr(cls, "notification_type", None)
        if response is not None:
            if own is None or getattr(response, "notification_type", None) != own:
                raise InvalidType(
                    f"{response.__name__} answers {cls.__name__} and must be of the same type"
                )
            cls.response_model = response
        elif cls.response_model is not None and cls.response_model.notification_type != own:
            cls.response_model = None

    @property
    def conversation_style(self) -> Style | None:
        """The one style that it may travel in; None for both."""
        return None

    def encode(self) -> bytes:
        """The bytes that travel."""
        return self.model_dump_json().encode()

    def encode_within(self, limit: int) -> bytes:  # noqa: ARG002 - only some can be reduced
        """The bytes for a channel that takes so many; a model that can leave things out, does."""
        return self.encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of :meth:`encode`; raises PayloadInvalid, which keeps the bytes."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise PayloadInvalid(f"no {cls.__name__}: {faults_of(error)}", data) from None


def faults_of(error: ValidationError) -> str:
    """What a schema found, in one line."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'payload'}: {fault['msg']}"
        for fault in error.errors()
    )


def type_name(value: object) -> str:
    """The name of a value's class."""
    return type(value).__name__


P = TypeVar("P", bound=Payload)
M = TypeVar("M", bound=Payload)


@dataclass(frozen=True, slots=True)
class Data:
    """Raw bytes of a type; with NOTIFICATION_RELEASE a close without a reason (R103)."""

    type: UUID
    body: bytes = b""

    def __post_init__(self) -> None:
        if not isinstance(self.body, bytes):
            raise InvalidArgument(f"Data holds bytes, not {type_name(self.body)}")


Body = bytes | str | Payload | Data
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
    elif isinstance(body, Payload):
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
        case Payload():
            return body.encode() if place is None else _placed(body, place)
        case _:
            raise InvalidArgument(
                f"a notification is bytes, text, a Payload or Data, not {type_name(body)}"
            )


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
