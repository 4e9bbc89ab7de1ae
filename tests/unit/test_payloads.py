"""A model binds a schema to a notification type; bytes it refuses are kept, and named as its fault.

The broker never looks into a payload: everything here is done at an end of a channel.
"""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, ValidationError

from broker import NOTIFICATION_RELEASE, Data, Name, Notification, Payload, Response
from broker.errors import (
    BodyGone,
    InvalidArgument,
    InvalidNotificationType,
    InvalidType,
    NotificationError,
    PayloadInvalid,
)
from broker.notification import encode, model_of

GUID = "9e0b6c4e-1d2f-4a55-8c1f-0123456789ab"
TYPE = UUID(GUID)
OTHER_TYPE = UUID("9e0b6c4e-1d2f-4a55-8c1f-0123456789ac")
NAME = Name("print01", "laser-3")


class Answer(Payload, type=GUID):
    proceed: bool


class OutOfPaper(Payload, type=TYPE, response=Answer):
    tray: int = Field(ge=0)
    question: str = "Continue on A3?"


class OutOfToner(OutOfPaper):
    colour: str = "black"


class Untyped(Payload):
    tray: int


class Text(Payload, type=TYPE):
    """A model of another encoding."""

    text: str

    def encode(self) -> bytes:
        return self.text.encode("utf-16-le")

    @classmethod
    def decode(cls, data: bytes) -> Text:
        return cls(text=data.decode("utf-16-le"))


def notification(
    data: bytes | None, model: type[Payload] | None = OutOfPaper, type_: UUID = TYPE
) -> Notification[Any]:
    return Notification(type_, data, "c0ffee", NAME, "alice", 1.5, model)


# Class keywords ---------------------------------------------------------------------------------


def test_a_model_names_its_type_and_its_response() -> None:
    assert Answer.notification_type == OutOfPaper.notification_type == TYPE
    assert OutOfPaper.response_model is Answer
    assert Answer.response_model is None


def test_a_type_may_be_named_by_its_alias() -> None:
    class Balloon(Payload, type="asyncui"):
        text: str

    assert str(Balloon.notification_type) == "f6853f92-eb31-4e23-b6e7-fd69056153f0"


def test_a_subclass_inherits_type_and_response() -> None:
    assert OutOfToner.notification_type == TYPE
    assert OutOfToner.response_model is Answer
    assert OutOfToner.decode(b'{"tray": 2, "colour": "cyan"}').colour == "cyan"


def test_a_subclass_may_name_its_own() -> None:
    class Elsewhere(OutOfPaper, type=OTHER_TYPE):
        pass

    assert Elsewhere.notification_type == OTHER_TYPE
    assert OutOfPaper.notification_type == TYPE, "the parent stays as it was"


def test_a_subclass_of_another_type_does_not_inherit_a_response_that_cannot_be_sent() -> None:
    """Both ends of a channel speak its one type (R90)."""

    class Elsewhere(OutOfPaper, type=OTHER_TYPE):
        pass

    inherited = Elsewhere.response_model
    assert inherited is None or inherited.notification_type == OTHER_TYPE


def test_a_response_of_another_type_is_refused() -> None:
    class Elsewhere(Payload, type=OTHER_TYPE):
        proceed: bool

    with pytest.raises(InvalidType, match=r"Elsewhere answers Question.*same type"):

        class Question(Payload, type=TYPE, response=Elsewhere):
            tray: int


def test_a_response_without_a_type_is_refused() -> None:
    with pytest.raises(InvalidType):

        class Question(Payload, type=TYPE, response=Untyped):
            tray: int


def test_a_response_to_what_has_no_type_is_refused() -> None:
    with pytest.raises(InvalidType):

        class Question(Payload, response=Answer):
            tray: int


@pytest.mark.parametrize("bad", ["balloon", str(NOTIFICATION_RELEASE), 5])
def test_a_type_that_is_none_is_refused_at_the_class(bad: Any) -> None:
    with pytest.raises(InvalidType):

        class Question(Payload, type=bad):
            tray: int


def test_models_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        OutOfPaper(tray=1).tray = 2  # type: ignore[misc]


# Types as the caller may name them --------------------------------------------------------------


def test_a_model_a_guid_and_an_alias_name_a_type() -> None:
    assert model_of(OutOfPaper) == (TYPE, OutOfPaper)
    assert model_of(TYPE) == model_of(GUID) == (TYPE, None)
    assert model_of("port-monitor")[1] is None


@pytest.mark.parametrize("value", [Untyped, Payload, BaseModel, int])
def test_a_class_without_a_type_names_none(value: type[Payload]) -> None:
    with pytest.raises(InvalidType, match=f"{value.__name__} names no type"):
        model_of(value)


@pytest.mark.parametrize("value", [None, 5, b"asyncui", OutOfPaper(tray=1)])
def test_what_is_no_type_names_none(value: Any) -> None:
    with pytest.raises(InvalidType):
        model_of(value)


# Encoding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (b"", b""),
        ("Größe", "Größe".encode()),
        (Data(TYPE, b"raw"), b"raw"),
        (Data(TYPE), b""),
        (Answer(proceed=True), b'{"proceed":true}'),
        (Text(text="Öl"), "Öl".encode("utf-16-le")),
    ],
)
def test_what_can_be_sent(body: Any, data: bytes) -> None:
    assert encode(body, TYPE) == data


@pytest.mark.parametrize(
    "body", [None, 5, 1.5, ["a"], {"tray": 2}, object(), bytearray(b"a"), OutOfPaper, TYPE]
)
def test_anything_else_cannot(body: Any) -> None:
    with pytest.raises(InvalidArgument, match="bytes, text, a Payload or Data"):
        encode(body, TYPE)


@pytest.mark.parametrize("body", [None, "text", 5])
def test_raw_data_holds_bytes(body: Any) -> None:
    with pytest.raises(InvalidArgument):
        encode(Data(TYPE, body), TYPE)


def test_text_that_is_no_unicode_cannot_be_sent() -> None:
    with pytest.raises(InvalidArgument):
        encode("half a pair \ud83d", TYPE)


@pytest.mark.parametrize("body", [Data(OTHER_TYPE, b"raw"), Data(NOTIFICATION_RELEASE)])
def test_a_body_of_another_type_does_not_belong_here(body: Data) -> None:
    with pytest.raises(InvalidNotificationType, match=str(TYPE)) as refused:
        encode(body, TYPE)
    assert refused.value.result.hresult == 0x80040014


def test_a_model_of_another_type_does_not_belong_here() -> None:
    with pytest.raises(InvalidNotificationType):
        encode(Answer(proceed=True), OTHER_TYPE)


def test_a_model_without_a_type_belongs_nowhere() -> None:
    with pytest.raises((InvalidType, InvalidNotificationType)):
        encode(Untyped(tray=1), TYPE)


# Decoding ---------------------------------------------------------------------------------------


def test_a_payload_reads_as_it_was_sent() -> None:
    sent = OutOfPaper(tray=2, question="Größe?")
    received = notification(encode(sent, TYPE))
    assert received.payload == received.decode() == sent
    assert received.decode(OutOfToner).colour == "black"
    assert received.body == received.data


@pytest.mark.parametrize(
    ("data", "named"),
    [
        pytest.param(b'{"tray": -1}', r"tray: .*greater than or equal to 0", id="out of range"),
        pytest.param(b'{"tray": "many"}', "tray: .*integer", id="of another kind"),
        pytest.param(b"{}", "tray: .*required", id="a field missing"),
        pytest.param(b"[]", "payload: .*object", id="no object"),
        pytest.param(b"{", "JSON", id="torn"),
        pytest.param(b"", "JSON", id="empty"),
        pytest.param(b"\xff\xfe", "JSON", id="no text"),
        pytest.param(b"[" * 100_000, "JSON", id="nested without end"),
    ],
)
def test_bytes_that_the_schema_refuses_are_kept(data: bytes, named: str) -> None:
    received = notification(data)
    with pytest.raises(PayloadInvalid, match=f"no OutOfPaper: .*{named}") as refused:
        _ = received.payload
    assert refused.value.data == data
    assert isinstance(refused.value, NotificationError)
    assert received.data == data, "the bytes stay readable"


def test_all_faults_of_a_payload_are_named() -> None:
    with pytest.raises(PayloadInvalid, match=r"tray: .*; question: "):
        OutOfPaper.decode(b'{"tray": -1, "question": 5}')


def test_without_a_model_the_bytes_are_for_the_caller() -> None:
    received = notification(b"raw", None)
    with pytest.raises(InvalidType, match="model"):
        _ = received.payload
    assert (received.data, received.text) == (b"raw", "raw")


def test_text_that_is_none_is_a_fault_of_the_payload() -> None:
    with pytest.raises(PayloadInvalid, match="UTF-8") as refused:
        _ = notification(b"\xff").text
    assert refused.value.data == b"\xff"


def test_a_notification_release_has_no_payload() -> None:
    release = notification(None, OutOfPaper, NOTIFICATION_RELEASE)
    assert release.is_release
    assert release.acquire_data() == (None, 0, NOTIFICATION_RELEASE)
    assert release.text == ""
    for read in (
        lambda: release.payload,
        release.decode,
        lambda: release.decode(OutOfToner),
    ):
        with pytest.raises(InvalidType, match=r"this is NOTIFICATION_RELEASE .*ask is_release"):
            read()


def test_a_payload_that_redis_lost_is_said_to_be_gone() -> None:
    """Neither an empty payload nor a NOTIFICATION_RELEASE: the channel goes on without it."""
    lost = notification(None)
    assert not lost.is_release
    for read in (
        lambda: lost.body,
        lambda: lost.text,
        lambda: lost.payload,
        lost.decode,
        lambda: lost.decode(OutOfToner),
        lost.acquire_data,
    ):
        with pytest.raises(BodyGone, match=r"c0ffee.*no longer in Redis"):
            read()
    assert lost.references == 0, "nothing was acquired"


# Data objects -----------------------------------------------------------------------------------


def test_acquired_data_counts_until_it_is_released() -> None:
    received = notification(b"raw")
    assert received.acquire_data() == received.acquire_data() == (b"raw", 3, TYPE)
    assert received.references == 2
    received.release_data()
    received.release_data()
    assert received.references == 0
    with pytest.raises(InvalidArgument, match="without acquire_data"):
        received.release_data()


def test_a_response_says_whose_it_is() -> None:
    fields = {field.name for field in dataclasses.fields(Response)}
    assert {"by", "registration", "is_final"} <= fields
    response: Response[Any] = Response(TYPE, b"yes", "c0ffee", NAME, "alice", 1.5, by="bob")
    assert (response.by, response.is_final, response.is_release) == ("bob", False, False)
