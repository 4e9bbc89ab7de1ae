"""Parts of AsyncUI messages: texts with their parameters, buttons, a bitmap, an action. Pure.

The files and entry points that they name are names here and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from lxml.etree import _Element
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from broker import _xml
from broker._xml import Integer, Node, XmlText

FORBIDDEN = '\\/?*<>"|:'
"""Characters that no name of a driver's file contains."""
NUMBERS = {"IDOK": 1, "IDCANCEL": 2}
"""What replies call the buttons that have names (R132)."""


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


def _file_name(name: str) -> str:
    found = [each for each in FORBIDDEN if each in name]
    if found:
        raise ValueError(f"the name of a driver's file does not contain {' '.join(found)}")
    return name


FileName = Annotated[XmlText, AfterValidator(_not_empty), AfterValidator(_file_name)]
"""The name of a file of the driver, without a path."""


class Part(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Parameter(Part):
    """What stands for ``%1`` in a string: the printer's name, another string, or a text.

    With a ``string_id`` the text is for clients that do not find the string.
    """

    text: Annotated[XmlText, AfterValidator(_not_empty)] | None = None
    type: Literal["PrinterName", "Document"] | None = None
    """MS-PAN knows PrinterName only, the driver kit Document too."""
    string_id: Integer | None = None
    resource_dll: FileName | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.type is not None and self.text is not None:
            raise ValueError("a parameter with a type has no text")
        if self.type is None and self.string_id is None and self.text is None:
            raise ValueError("a parameter needs a type, a string_id or a text")
        return self

    def write(self, parent: _Element) -> None:
        """Add it."""
        key, file = self.string_id, self.resource_dll
        _xml.add(parent, "parameter", self.text, type=self.type, stringID=key, resourceDll=file)

    @classmethod
    def read(cls, node: Node) -> Self:
        """From an element; raises Fault, ValidationError."""
        text, type_, key = node.text(), node.attribute("type"), node.integer("stringID")
        is_layout = not text.strip(_xml.SPACE) and not (type_ is None and key is None)
        return cls(
            text=None if is_layout else text or None,
            type=type_,
            string_id=key,
            resource_dll=node.attribute("resourceDll"),
        )


class Text(Part):
    """A title or a body: a text, or the key of a string in a file, and parameters for either."""

    text: XmlText | None = None
    string_id: Integer | None = None
    resource_dll: FileName | None = None
    """Where the string is; without it among the client's own strings."""
    parameters: tuple[Parameter, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.text is None) is (self.string_id is None):
            raise ValueError("either a text or a string_id")
        if self.text is not None and not self.text.strip(_xml.SPACE):
            raise ValueError("the text is empty")
        return self

    def write(self, parent: _Element, name: str) -> None:
        """Add it under this name."""
        key, file = self.string_id, self.resource_dll
        own = _xml.add(parent, name, self.text, stringID=key, resourceDll=file)
        for parameter in self.parameters:
            parameter.write(own)

    @classmethod
    def read(cls, node: Node) -> Self:
        """From an element; raises Fault, ValidationError."""
        text, parameters = node.mixed("parameter")
        return cls(
            text=text if text.strip(_xml.SPACE) else None,
            string_id=node.integer("stringID"),
            resource_dll=node.attribute("resourceDll"),
            parameters=tuple(map(Parameter.read, parameters)),
        )


def _as_text(given: object) -> object:
    return Text(text=given) if isinstance(given, str) else given


def _as_texts(given: object) -> object:
    if isinstance(given, Sequence) and not isinstance(given, str):
        return tuple(map(_as_text, given))
    return (_as_text(given),)


Title = Annotated[Text, BeforeValidator(_as_text)]
"""A Text; a plain string will do."""
Bodies = Annotated[tuple[Text, ...], BeforeValidator(_as_texts)]
"""One Text or several, shown with a space between them; what was received may have none."""


class Bitmap(Part):
    """A picture in a resource file."""

    bitmap_id: Integer
    resource_dll: FileName | None = None

    def write(self, parent: _Element) -> None:
        """Add it."""
        _xml.add(parent, "bitmap", bitmapID=self.bitmap_id, resourceDll=self.resource_dll)

    @classmethod
    def read(cls, node: Node) -> Self:
        """From an element; raises Fault, ValidationError."""
        node.all()
        node.required("bitmapID")
        return cls(bitmap_id=node.integer("bitmapID"), resource_dll=node.attribute("resourceDll"))


class Button(Part):
    """A button of a message box."""

    id: Literal["IDOK", "IDCANCEL"] | Integer
    string_id: Integer | None = None
    """The key of its caption; OK and Cancel have captions of their own."""
    resource_dll: FileName | None = None

    @model_validator(mode="after")
    def _has_a_caption(self) -> Self:
        if self.string_id is None and not isinstance(self.id, str):
            raise ValueError("a button other than IDOK and IDCANCEL needs a string_id")
        return self

    @property
    def number(self) -> int:
        """What a reply calls it: 1 for OK, 2 for Cancel, otherwise its own id (R132)."""
        return NUMBERS[self.id] if isinstance(self.id, str) else self.id

    def write(self, parent: _Element) -> None:
        """Add it."""
        key, file = self.string_id, self.resource_dll
        _xml.add(parent, "button", stringID=key, resourceDll=file, buttonID=self.id)

    @classmethod
    def read(cls, node: Node) -> Self:
        """From an element; raises Fault, ValidationError."""
        node.all()
        return cls(
            id=button_name(node.required("buttonID")) or node.integer("buttonID"),
            string_id=node.integer("stringID"),
            resource_dll=node.attribute("resourceDll"),
        )


def button_name(text: str) -> str | None:
    """IDOK or IDCANCEL, in whatever case it is written; None for anything else."""
    return next((name for name in NUMBERS if _xml.lower(name) == _xml.lower(text)), None)


OK = Button(id="IDOK")
CANCEL = Button(id="IDCANCEL")


class Action(Part):
    """What the button of a balloon would call at the client."""

    dll: FileName
    entrypoint: XmlText
    text: XmlText = ""
    """What would be passed to it."""

    def write(self, parent: _Element) -> None:
        """Add it."""
        _xml.add(parent, "action", self.text, dll=self.dll, entrypoint=self.entrypoint)

    @classmethod
    def read(cls, node: Node) -> Self:
        """From an element; raises Fault, ValidationError."""
        dll, entrypoint = node.required("dll"), node.required("entrypoint")
        return cls(dll=dll, entrypoint=entrypoint, text=node.text())
