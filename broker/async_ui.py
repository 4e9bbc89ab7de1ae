"""AsyncUI: what a driver shows a user, and what the user answers (the type ``asyncui``).

::

    async with await broker.open_channel(PRINTER, MessageBox, style=BIDIRECTIONAL) as channel:
        await channel.send(MessageBox(title="Tray 2 is empty", body="Print on A3?", buttons=[OK]))
        reply = (await channel.response()).payload             # MessageBoxReply(button=1)

    async for offer in await broker.register(PRINTER, AsyncUIRequest, style=BIDIRECTIONAL):
        match await async_ui.read(offer):
            case MessageBox() as box:
                await offer.close(MessageBoxReply(button=box.buttons[0]))

Messages are written after the published schema, and read as tolerantly as clients should read
them (MS-PAN 3.2.3.4.1). The files and entry points that they name are names here and no more:
nothing is ever loaded, opened or run.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self, TypeVar

from lxml.etree import _Element
from pydantic import BeforeValidator, Field, model_validator

from broker import _xml
from broker._ui_parts import (
    CANCEL,
    NUMBERS,
    OK,
    Action,
    Bitmap,
    Bodies,
    Button,
    FileName,
    Parameter,
    Text,
    Title,
    button_name,
)
from broker._xml import ANY, ONE, OPTIONAL, Fault, Integer, Node, Rules, XmlText
from broker.conversation import BIDIRECTIONAL, UNIDIRECTIONAL, Style
from broker.errors import (
    BodyGone,
    ChannelAlreadyClosed,
    InvalidArgument,
    InvalidNotificationType,
    PayloadInvalid,
)
from broker.notification import Notification
from broker.notification_type import ASYNC_UI, NOTIFICATION_RELEASE, describe_type
from broker.offer import Offer
from broker.payload import Payload

__all__ = [
    "CANCEL",
    "OK",
    "Action",
    "AsyncUIReply",
    "AsyncUIRequest",
    "Balloon",
    "Bitmap",
    "Button",
    "CloseRequest",
    "CustomData",
    "CustomUI",
    "CustomUIReply",
    "MessageBox",
    "MessageBoxReply",
    "Parameter",
    "Text",
    "read",
    "request_of",
]

REQUESTS = Rules("http://schemas.microsoft.com/2003/print/asyncui/v1/request", any_case=True)
REPLIES = Rules("http://schemas.microsoft.com/2003/print/asyncui/v1/response", any_case=True)

M = TypeVar("M", bound=Payload)
log = logging.getLogger("tympan")


def _of_kind(kind: type[M], message: Payload) -> M:
    if not isinstance(message, kind):
        raise Fault(f"it is a {type(message).__name__}")
    return message


# Replies ----------------------------------------------------------------------------------------


class AsyncUIReply(Payload, type=ASYNC_UI):
    """Any reply. It is a close reason, and ends the dialog: ``await offer.close(reply)``."""

    ends_dialog: ClassVar[bool] = True

    @property
    def conversation_style(self) -> Style | None:
        """Bidirectional: only then can anybody reply."""
        return BIDIRECTIONAL

    def _write(self, _: _Element, /) -> None:
        raise InvalidArgument("AsyncUIReply is any reply: make a MessageBoxReply, a CustomUIReply")

    def encode(self) -> bytes:
        """The document; raises NotificationTooLarge where no reader would take it."""
        root = _xml.root(REPLIES.namespace, "asyncPrintUIResponse")
        self._write(_xml.add(_xml.add(root, "v1"), "requestClose"))
        return _xml.encode(root)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """A reply of this kind, of AsyncUIReply any; raises PayloadInvalid."""
        with _xml.refused(cls.__name__, data):
            root = REPLIES.read(_xml.alone(*_xml.split(data)), "asyncPrintUIResponse")
            node = root.only("v1").only("requestClose").only("messageBoxUI", "CustomUI")
            if node.named("CustomUI"):
                return _of_kind(cls, CustomUIReply(text=node.text()))
            # By number after MS-PAN; by name as the driver kit's example has it (C21).
            text = node.only("buttonID").text().strip(_xml.SPACE)
            button = button_name(text) or _xml.whole(text)
            return _of_kind(cls, MessageBoxReply(button=button))


def _number(given: object) -> object:
    if isinstance(given, Button):
        return given.number
    return NUMBERS.get(given, given) if isinstance(given, str) else given


class MessageBoxReply(AsyncUIReply):
    """Which button of a message box was pressed."""

    button: Annotated[Integer, BeforeValidator(_number)]
    """Its number: 1 is OK, 2 Cancel (R132). A Button, IDOK or IDCANCEL may be given instead."""

    def _write(self, parent: _Element, /) -> None:
        _xml.add(_xml.add(parent, "messageBoxUI"), "buttonID", str(self.button))


class CustomUIReply(AsyncUIReply):
    """What the code that a custom message names returned."""

    text: XmlText

    def _write(self, parent: _Element, /) -> None:
        _xml.add(parent, "CustomUI", self.text)


# Requests ---------------------------------------------------------------------------------------


class AsyncUIRequest(Payload, type=ASYNC_UI, response=AsyncUIReply):
    """Any message of a source. Register for this one to hear all of them."""

    def _write(self, _: _Element, /) -> None:
        raise InvalidArgument("AsyncUIRequest is any message: make a Balloon, a MessageBox...")

    def encode(self) -> bytes:
        """The document; raises NotificationTooLarge where no reader would take it.

        Raises InvalidArgument where it has no body: one that was received so is not sent on.
        """
        root = _xml.root(REQUESTS.namespace, "asyncPrintUIRequest")
        self._write(_xml.add(root, "v1"))
        return _xml.encode(root)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """A message of this kind, of AsyncUIRequest any; raises PayloadInvalid."""
        with _xml.refused(cls.__name__, data):
            document, rest = _xml.split(data)
            node = REQUESTS.read(document, "asyncPrintUIRequest").only("v1", "requestClose")
            if node.named("v1"):
                node = node.only("requestOpen", "requestClose")
            if node.named("requestOpen"):
                node = node.only(*KINDS)
            message = _read(node)
            if not isinstance(message, CustomData):
                _xml.alone(document, rest)
            elif rest is None:
                raise Fault("a NUL has to end the document, and the data to follow")
            else:
                message = message.model_copy(update={"data": rest})
            return _of_kind(cls, message)


def _write_bodies(parent: _Element, bodies: tuple[Text, ...]) -> None:
    if not bodies:
        raise InvalidArgument("a message needs a body, though one may be received without")
    for body in bodies:
        body.write(parent, "body")


class Balloon(AsyncUIRequest):
    """A message that wants no answer; unidirectional."""

    response_model: ClassVar[type[Payload] | None] = None

    title: Title
    body: Bodies
    action: Action | None = None
    icon_id: Integer | None = None
    """The key of an icon in ``resource_dll``."""
    resource_dll: FileName | None = None

    @model_validator(mode="after")
    def _has_its_icon(self) -> Self:
        if self.icon_id is not None and self.resource_dll is None:
            raise ValueError("an icon_id needs the resource_dll that holds the icon")
        return self

    @property
    def conversation_style(self) -> Style | None:
        """Unidirectional."""
        return UNIDIRECTIONAL

    def _write(self, parent: _Element, /) -> None:
        opened = _xml.add(parent, "requestOpen")
        key, file = self.icon_id, self.resource_dll
        balloon = _xml.add(opened, "balloonUI", iconID=key, resourceDll=file)
        self.title.write(balloon, "title")
        _write_bodies(balloon, self.body)
        if self.action is not None:
            self.action.write(balloon)

    @classmethod
    def read_from(cls, node: Node) -> Self:
        """From its element."""
        parts = node.parts(title=ONE, body=ANY, action=OPTIONAL)
        return cls(
            title=Text.read(parts["title"][0]),
            body=tuple(map(Text.read, parts["body"])),
            action=next(map(Action.read, parts["action"]), None),
            icon_id=node.integer("iconID"),
            resource_dll=node.attribute("resourceDll"),
        )


class MessageBox(AsyncUIRequest, response=MessageBoxReply):
    """A question with buttons; bidirectional. Its answer is a MessageBoxReply (R131)."""

    title: Title
    body: Bodies
    buttons: Annotated[tuple[Button, ...], Field(min_length=1, max_length=5)]
    bitmap: Bitmap | None = None

    @property
    def conversation_style(self) -> Style | None:
        """Bidirectional."""
        return BIDIRECTIONAL

    def _write(self, parent: _Element, /) -> None:
        box = _xml.add(_xml.add(parent, "requestOpen"), "messageBoxUI")
        self.title.write(box, "title")
        if self.bitmap is not None:
            self.bitmap.write(box)
        _write_bodies(box, self.body)
        buttons = _xml.add(box, "buttons")
        for button in self.buttons:
            button.write(buttons)

    @classmethod
    def read_from(cls, node: Node) -> Self:
        """From its element."""
        parts = node.parts(title=ONE, bitmap=OPTIONAL, body=ANY, buttons=ONE)
        return cls(
            title=Text.read(parts["title"][0]),
            body=tuple(map(Text.read, parts["body"])),
            buttons=tuple(map(Button.read, parts["buttons"][0].all("button"))),
            bitmap=next(map(Bitmap.read, parts["bitmap"]), None),
        )


class _Custom(AsyncUIRequest, response=CustomUIReply):
    dll: FileName
    entrypoint: XmlText
    bidi: bool
    """Whether it wants an answer; the style is accordingly."""

    @property
    def conversation_style(self) -> Style | None:
        """Bidirectional with ``bidi``, unidirectional without."""
        return BIDIRECTIONAL if self.bidi else UNIDIRECTIONAL

    def _add(self, parent: _Element, name: str, text: str | None = None) -> None:
        opened, bidi = _xml.add(parent, "requestOpen"), "true" if self.bidi else "false"
        _xml.add(opened, name, text, dll=self.dll, entrypoint=self.entrypoint, bidi=bidi)

    @staticmethod
    def _named(node: Node) -> dict[str, Any]:
        bidi = _xml.lower(node.required("bidi")) == "true"
        return {
            "dll": node.required("dll"),
            "entrypoint": node.required("entrypoint"),
            "bidi": bidi,
        }


class CustomUI(_Custom):
    """Text for code of the driver at the client."""

    text: XmlText = ""

    def _write(self, parent: _Element, /) -> None:
        self._add(parent, "customUI", self.text)

    @classmethod
    def read_from(cls, node: Node) -> Self:
        """From its element."""
        return cls(text=node.text(), **cls._named(node))


class CustomData(_Custom):
    """Bytes for code of the driver at the client; they follow the document and a NUL."""

    data: Annotated[bytes, Field(strict=True)] = b""

    def encode(self) -> bytes:
        """The document, a NUL and the bytes; raises NotificationTooLarge."""
        return super().encode() + _xml.NUL + self.data

    def _write(self, parent: _Element, /) -> None:
        self._add(parent, "customData")

    @classmethod
    def read_from(cls, node: Node) -> Self:
        """From its element."""
        node.all()
        return cls(**cls._named(node))


class CloseRequest(AsyncUIRequest):
    """What was shown may go; in either style. The driver kit has it, MS-PAN has not."""

    response_model: ClassVar[type[Payload] | None] = None

    def _write(self, parent: _Element, /) -> None:
        _xml.add(parent, "requestClose")


KINDS: dict[str, Callable[[Node], AsyncUIRequest]] = {
    "balloonUI": Balloon.read_from,
    "messageBoxUI": MessageBox.read_from,
    "customUI": CustomUI.read_from,
    "customData": CustomData.read_from,
}
"""By the element that makes a message one."""


def _read(node: Node) -> AsyncUIRequest:
    for name, read_from in KINDS.items():
        if node.named(name):
            return read_from(node)
    node.all()
    return CloseRequest()


# Listening --------------------------------------------------------------------------------------


def request_of(notification: Notification[Any], style: Style) -> AsyncUIRequest:
    """The message of a notification that came in this style; for code that cannot await.

    Raises PayloadInvalid where it is none, or not one for this style; BodyGone;
    InvalidNotificationType where the notification is of another type.
    """
    if notification.type not in (ASYNC_UI, NOTIFICATION_RELEASE):
        kind = describe_type(notification.type)
        raise InvalidNotificationType(f"a notification of type {kind}, not asyncui")
    request = AsyncUIRequest.decode(notification.body)
    if request.conversation_style not in (None, style):
        kind = type(request).__name__
        raise PayloadInvalid(f"a {kind} on a {style.name.lower()} channel", notification.body)
    return request


async def read(item: Offer[Any] | Notification[Any]) -> AsyncUIRequest | None:
    """The message, or None where it is not to be acted upon; then all is done about it (R133).

    An offer is closed with NOTIFICATION_RELEASE, which leaves it to other listeners; a
    unidirectional notification is skipped. What cannot be read any more (BodyGone) is treated
    alike. In a callback: ``await async_ui.read(channel or notification)``.
    """
    try:
        if isinstance(item, Notification):
            return request_of(item, UNIDIRECTIONAL)
        return request_of(item.notification, BIDIRECTIONAL)
    except (PayloadInvalid, BodyGone) as error:
        log.info("asyncui: %s", error)
    if isinstance(item, Offer):
        with contextlib.suppress(ChannelAlreadyClosed):  # its source was faster
            await item.close()
    return None
