r"""Printer configuration: what changed at a printer (the type ``printer-configuration``).

::

    tray = Schema(name=r"\Printer.Layout.InputBins.Tray2:Level", value=40)
    await channel.send(PrinterConfiguration(printer_name="laser-3", changes=[tray]))

It is a unidirectional type (R129). A message above ``max_payload`` is sent reduced (R130).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from lxml.etree import _Element
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from broker import _xml
from broker._xml import MAX_DOCUMENT, Fault, Node, Rules, XmlText
from broker.conversation import UNIDIRECTIONAL, Style
from broker.errors import NotificationTooLarge
from broker.notification import type_name
from broker.notification_type import PRINTER_CONFIGURATION
from broker.payload import Payload

DOCUMENTS = Rules("http://schemas.microsoft.com/windows/2005/03/printing/bidi", any_case=False)
_FLOAT = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([Ee][+-]?[0-9]+)?|-?INF|NaN")
_NO_SPACE = dict.fromkeys(map(ord, _xml.SPACE))
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

Value = str | int | float | bool | bytes


class Kind(StrEnum):
    """What a value is; the name of its element."""

    STRING = "BIDI_STRING"
    TEXT = "BIDI_TEXT"
    ENUM = "BIDI_ENUM"
    INT = "BIDI_INT"
    FLOAT = "BIDI_FLOAT"
    BOOL = "BIDI_BOOL"
    BLOB = "BIDI_BLOB"

    @property
    def holds(self) -> type[Value]:
        """The Python type of its values."""
        match self:
            case Kind.INT:
                return int
            case Kind.FLOAT:
                return float
            case Kind.BOOL:
                return bool
            case Kind.BLOB:
                return bytes
            case _:
                return str

    @classmethod
    def of(cls, value: object) -> Kind:
        """The first kind that holds such a value; STRING where there is none."""
        return next((kind for kind in cls if kind.holds is type(value)), cls.STRING)

    def write(self, value: Value) -> str:
        """A value as the schema has it."""
        match value:
            case bool():
                return "true" if value else "false"
            case float() if math.isinf(value):
                return "INF" if value > 0 else "-INF"
            case float() if math.isnan(value):
                return "NaN"
            case bytes():
                return base64.b64encode(value).decode()
            case _:
                return str(value)

    def read(self, text: str) -> Value:
        """The inverse. Raises Fault."""
        bare = text.strip(_xml.SPACE)
        if self is Kind.INT:
            return _xml.whole(bare)
        if self is Kind.FLOAT and _FLOAT.fullmatch(bare):
            return float(bare)
        if self is Kind.BOOL and bare in _BOOLEANS:
            return _BOOLEANS[bare]
        if self is Kind.BLOB:
            try:
                return base64.b64decode(text.translate(_NO_SPACE).encode(), validate=True)
            except binascii.Error as error:
                raise Fault(f"'{_xml.clip(bare)}' is no base64: {error}") from None
        if self.holds is not str:
            raise Fault(f"'{_xml.clip(bare)}' is no {self}")
        return text


def _are_words(*words: str) -> bool:
    r"""Whether each is ``\w+`` as XML schema means it: no punctuation, separators or others."""
    kinds = [{unicodedata.category(letter)[0] for letter in word} for word in words]
    return all(found and not found & set("PZC") for found in kinds)


def _schema_name(name: str) -> str:
    path, colon, value = name.removeprefix("\\").partition(":")
    if not (name.startswith("\\") and colon and _are_words(*path.split("."), value)):
        raise ValueError(rf"{_xml.clip(name)} is no \Path.To.Property:Value")
    return name


def _reduced_name(name: str) -> str:
    path, colon, value = name.removeprefix("\\").partition(":")
    words = [*path.split("."), value] if colon else path.split(".")
    if not (name == "\\" or (name.startswith("\\") and _are_words(*words))):
        raise ValueError(rf"{_xml.clip(name)} is no \Path.To.Property:Value, nor a part of one")
    return name


class ReducedSchema(BaseModel):
    """A setting, or a branch of settings, that changed to a value that is not told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[XmlText, AfterValidator(_reduced_name)]

    def write(self, parent: _Element) -> None:
        """Add it."""
        _xml.add(parent, "ReducedSchema", name=self.name)

    @classmethod
    def read(cls, node: Node) -> Self:
        """From an element; raises Fault, ValidationError."""
        node.no_attribute_but("name")
        node.all()
        return cls(name=node.required("name"))


class Schema(BaseModel):
    """A setting and its new value."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[XmlText, AfterValidator(_schema_name)]
    value: Value
    """An INT has 64 bits; a BLOB travels in base64."""
    kind: Kind = Kind.STRING
    """By default what the value's type says: STRING, INT, FLOAT, BOOL or BLOB."""

    @model_validator(mode="before")
    @classmethod
    def _default_kind(cls, given: object) -> object:
        if isinstance(given, Mapping) and "kind" not in given:
            return {**given, "kind": Kind.of(given.get("value"))}
        return given

    @model_validator(mode="after")
    def _is_of_its_kind(self) -> Self:
        if type(self.value) is not self.kind.holds:
            raise ValueError(
                f"a {self.kind} holds {self.kind.holds.__name__}, not {type_name(self.value)}"
            )
        if isinstance(self.value, str):
            _xml.expressible(self.value)
        elif isinstance(self.value, int):
            _xml.fits(self.value)
        return self

    @property
    def reduced(self) -> ReducedSchema:
        """The same without its value."""
        return ReducedSchema(name=self.name)

    def write(self, parent: _Element) -> None:
        """Add it."""
        own = _xml.add(parent, "Schema", name=self.name)
        _xml.add(own, self.kind, self.kind.write(self.value))

    @classmethod
    def read(cls, node: Node) -> Self:
        """From an element; raises Fault, ValidationError."""
        node.no_attribute_but("name")
        value = node.only(*Kind)
        value.no_attribute_but()
        kind = Kind(value.name)
        return cls(name=node.required("name"), value=kind.read(value.text()), kind=kind)


class PrinterConfiguration(Payload, type=PRINTER_CONFIGURATION):
    """What changed at a printer, in one document; unidirectional."""

    printer_name: XmlText
    changes: Annotated[tuple[Schema | ReducedSchema, ...], Field(min_length=1)]

    @property
    def conversation_style(self) -> Style | None:
        """Unidirectional (R129)."""
        return UNIDIRECTIONAL

    def encode(self, limit: int | None = None) -> bytes:
        """The document, reduced where it is above ``limit`` bytes; raises NotificationTooLarge."""
        if limit is not None:
            return self.within(limit).encode()
        return _xml.encode(self._root())

    def encode_within(self, limit: int) -> bytes:
        """What a channel sends (R130)."""
        return self.encode(limit)

    def within(self, limit: int) -> Self:
        """The same message, without values where its document is above ``limit`` bytes (R130).

        Settings lose their values one by one, those whose values take most bytes first and of
        equals the last one first, until the document is smaller than the limit: as few as can
        be. Raises NotificationTooLarge where it is not smaller without any value.
        """
        limit = min(limit, MAX_DOCUMENT)
        size = _xml.size(self._root())
        if size <= limit:
            return self
        savings = [
            (_size(each) - _size(each.reduced), at)
            for at, each in enumerate(self.changes)
            if isinstance(each, Schema)
        ]
        without: set[int] = set()
        for saving, at in sorted(savings, reverse=True):
            if size < limit:
                break
            size -= saving
            without.add(at)
        if size >= limit:
            raise NotificationTooLarge(
                f"{self.printer_name}: {size} bytes without any value; it has to be smaller than "
                f"{limit}: send fewer changes at once"
            )
        changes = tuple(
            each.reduced if at in without and isinstance(each, Schema) else each
            for at, each in enumerate(self.changes)
        )
        return self.model_copy(update={"changes": changes})

    def _root(self) -> _Element:
        root = _xml.root(DOCUMENTS.namespace, "Notification")
        root.set("printerName", self.printer_name)
        for change in self.changes:
            change.write(root)
        return root

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of :meth:`encode`; raises PayloadInvalid."""
        with _xml.refused(cls.__name__, data):
            root = DOCUMENTS.read(_xml.alone(*_xml.split(data)), "Notification")
            root.no_attribute_but("printerName")
            changes: list[Any] = [
                Schema.read(each) if each.named("Schema") else ReducedSchema.read(each)
                for each in root.all("Schema", "ReducedSchema")
            ]
            return cls(printer_name=root.required("printerName"), changes=tuple(changes))


def _size(change: Schema | ReducedSchema) -> int:
    root = _xml.root(DOCUMENTS.namespace, "Notification")
    change.write(root)
    return _xml.size(root)
