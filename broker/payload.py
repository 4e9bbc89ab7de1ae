"""Models: pydantic schemas that give a notification type's bytes their meaning."""

from __future__ import annotations

from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from broker.conversation import Style
from broker.errors import InvalidType, PayloadInvalid
from broker.notification_type import parse_type


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
