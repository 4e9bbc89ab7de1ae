"""XML as the two built-in types have it: UTF-16LE, written by a schema, read without trust. Pure.

Nothing that a document names is ever opened: there is no DTD, no entity, no file and no network.
"""

from __future__ import annotations

import contextlib
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from lxml import etree
from lxml.etree import QName, _Element
from pydantic import AfterValidator, Field, ValidationError

from broker.errors import NotificationTooLarge, PayloadInvalid
from broker.payload import faults_of

MAX_DOCUMENT = 10_485_760
"""Bytes of a document: the documents' own limit, whatever ``max_payload`` is."""
MAX_TAGS = 100_000
"""Start and end tags of a document: a tree takes far more memory than its text."""
MAX_TEXT = 10_000_000
"""UTF-8 bytes of one text or attribute: what the parser takes without being told of huge trees."""
SPACE = " \t\r\n"
"""White space, as XML has it."""
NUL = b"\0\0"

_DECLARATION = '<?xml version="1.0"?>'
_BOM = "\ufeff".encode("utf-16-le")
_DOCTYPE = re.compile(rf"(?s)(?:[{SPACE}]|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE")
_UP_TO_NUL = re.compile(rb"(?s)(?:(?!\0\0)..)*+")
_ADVICE = re.compile(r", (?:try|use) XML_PARSE_HUGE(?: option)?")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_OF_SCHEMA = "{http://www.w3.org/2001/XMLSchema-instance}"
_LEAST, _BEYOND = -(2**63), 2**63
_SHOWN = 60

ONE, OPTIONAL, ANY = (1, 1), (0, 1), (0, None)
"""How often an element may be there: least, most."""
Count = tuple[int, int | None]


class Fault(Exception):
    """What is wrong with a document; it leaves this layer as PayloadInvalid."""


@contextlib.contextmanager
def refused(model: str, data: bytes) -> Iterator[None]:
    """Turn what is found wrong inside into PayloadInvalid, which keeps the bytes."""
    try:
        yield
    except Fault as fault:
        raise PayloadInvalid(f"no {model}: {fault}", data) from None
    except ValidationError as error:
        raise PayloadInvalid(f"no {model}: {faults_of(error)}", data) from None


# Values -----------------------------------------------------------------------------------------


def expressible(text: str) -> str:
    """The text; raises ValueError where no XML 1.0 document can hold it."""
    found = _ILLEGAL.search(text)
    if found is not None:
        raise ValueError(f"XML cannot express U+{ord(found[0]):04X}")
    if len(text) > MAX_TEXT // 4 and len(text.encode()) > MAX_TEXT:
        raise ValueError(f"a text is at most {MAX_TEXT} bytes of UTF-8")
    return text


XmlText = Annotated[str, AfterValidator(expressible)]
"""Text that an XML 1.0 document can hold."""


def fits(value: int) -> int:
    """The value; raises ValueError where it does not fit 64 bits."""
    if not _LEAST <= value < _BEYOND:
        raise ValueError("an integer has 64 bits")
    return value


Integer = Annotated[int, Field(strict=True), AfterValidator(fits)]
"""An integer of 64 bits."""


def whole(text: str) -> int:
    """The integer that a text is, white space aside. Raises Fault."""
    found = _INTEGER.fullmatch(text.strip(SPACE))
    value = None if found is None else _bounded(found[0])
    if value is None:
        raise Fault(f"'{clip(text)}' is no integer of 64 bits")
    return value


def leading(text: str) -> int:
    """The integer that a text begins with, white space aside; 0 where there is none."""
    found = _INTEGER.match(text.lstrip(SPACE))
    return 0 if found is None else _bounded(found[0]) or 0


def _bounded(digits: str) -> int | None:
    value = int(digits) if len(digits) <= _SHOWN else _BEYOND
    return value if _LEAST <= value < _BEYOND else None


def lower(text: str) -> str:
    """The text with its ASCII letters, and no others, in lower case."""
    return text.translate(_TO_LOWER)


def clip(text: str) -> str:
    """The text as far as a message needs it, on one line."""
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


# Writing ----------------------------------------------------------------------------------------


def root(namespace: str, name: str) -> _Element:
    """A document's root element, in the namespace that all its elements share."""
    return etree.Element(QName(namespace, name), nsmap={None: namespace})


def add(
    parent: _Element, name: str, text: str | None = None, /, **attributes: str | int | None
) -> _Element:
    """A further child, with those attributes that are not None."""
    given = {key: str(value) for key, value in attributes.items() if value is not None}
    element = etree.SubElement(parent, QName(QName(parent).namespace, name), given)
    element.text = text
    return element


def size(root: _Element) -> int:
    """Bytes of the document."""
    return len(_written(root).encode("utf-16-le"))


def encode(root: _Element) -> bytes:
    """The document; raises NotificationTooLarge where no reader would take it."""
    text = _written(root)
    data = text.encode("utf-16-le")
    if len(data) > MAX_DOCUMENT or text.count("<") > MAX_TAGS:
        raise NotificationTooLarge(
            f"a document of {len(data)} bytes and {text.count('<')} tags; at most {MAX_DOCUMENT} "
            f"bytes and {MAX_TAGS} tags are read"
        )
    return data


def _written(root: _Element) -> str:
    return _DECLARATION + etree.tostring(root, encoding="unicode")


# Reading ----------------------------------------------------------------------------------------


def split(data: bytes) -> tuple[bytes, bytes | None]:
    """What is before the first NUL character and what follows it; None where there is none."""
    found = _UP_TO_NUL.match(data)
    end = 0 if found is None else found.end()
    if data[end : end + 2] != NUL:
        return data, None
    return data[:end], data[end + 2 :]


def alone(document: bytes, rest: bytes | None) -> bytes:
    """A document that may end with a NUL, as a string in C does, and no more. Raises Fault."""
    if rest is not None and rest.strip(b"\0"):
        raise Fault(f"{len(rest)} bytes follow the document")
    return document


def parse(data: bytes) -> _Element:
    """The root of a document. Raises Fault."""
    if len(data) > MAX_DOCUMENT:
        raise Fault(f"a document of {len(data)} bytes; at most {MAX_DOCUMENT} are read")
    data = data.removeprefix(_BOM)
    text = _text(data)
    if _DOCTYPE.match(text):
        raise Fault("it has a DOCTYPE: document type definitions and entities are never read")
    if text.count("<") > MAX_TAGS:
        raise Fault(f"more than {MAX_TAGS} tags")
    parser = etree.XMLParser(
        encoding="UTF-16LE",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise Fault(f"no well-formed XML: {_ADVICE.sub('', error.msg)}") from None


def _text(data: bytes) -> str:
    if not data:
        raise Fault("it is empty")
    if data.startswith((b"\xfe\xff", b"\0<")):
        raise Fault("it is UTF-16BE: these documents are UTF-16LE")
    if b"\0" not in data or (data[:1] == b"<" and data[1:2] != b"\0"):
        raise Fault(
            "it is UTF-8, or another encoding of single bytes: these documents are UTF-16LE"
        )
    try:
        return data.decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise Fault(f"no UTF-16LE: {error.reason} at byte {error.start}") from None


@dataclass(frozen=True, slots=True)
class Rules:
    """How a family of documents is read."""

    namespace: str
    any_case: bool
    """Whether element names may differ in the case of ASCII letters."""

    def key(self, name: str) -> str:
        """What element names are compared by."""
        return lower(name) if self.any_case else name

    def knows(self, namespace: str | None) -> bool:
        """Whether it is this namespace; published pages spell it with https."""
        return namespace in (self.namespace, self.namespace.replace("http:", "https:", 1))

    def read(self, data: bytes, name: str) -> Node:
        """The root of a document, which has this name. Raises Fault."""
        node = Node(parse(data), self)
        if not node.named(name):
            raise Fault(f"its root is <{node.name}>, not <{name}>")
        return node


class Node:
    """An element as it is read. Elements and text that nobody asked for are a Fault."""

    def __init__(self, element: _Element, rules: Rules) -> None:
        name = QName(element)
        self._element = element
        self._rules = rules
        self._key = rules.key(name.localname)
        self.name = clip(name.localname)
        if not rules.knows(name.namespace):
            raise Fault(
                f"<{self.name}> is of the namespace '{clip(name.namespace or '')}', not of "
                f"{rules.namespace!r}"
            )

    @property
    def behind(self) -> str:
        """The text that follows it."""
        return self._element.tail or ""

    def named(self, name: str) -> bool:
        """Whether this is its name."""
        return self._key == self._rules.key(name)

    def attribute(self, name: str) -> str | None:
        """An attribute's value, None where it is missing."""
        return self._element.get(name)

    def integer(self, name: str) -> int | None:
        """The integer that an attribute begins with, or 0; None where it is missing."""
        text = self.attribute(name)
        return None if text is None else leading(text)

    def required(self, name: str) -> str:
        """An attribute's value."""
        value = self.attribute(name)
        if value is None:
            raise Fault(f"<{self.name}> lacks the attribute {name}")
        return value

    def no_attribute_but(self, *names: str) -> None:
        """Refuse others; those of XML schema itself may stand anywhere."""
        for name in map(str, self._element.attrib):
            if name not in names and not name.startswith(_OF_SCHEMA):
                raise Fault(f"<{self.name}> has no attribute '{clip(name)}'")

    def text(self) -> str:
        """The text of an element without children."""
        self._children(())
        return self._element.text or ""

    def mixed(self, name: str) -> tuple[str, list[Node]]:
        """The text before the children, and the children, all of this name."""
        children = self._children((name,))
        if any(each.behind.strip(SPACE) for each in children):
            raise Fault(f"<{self.name}> has text behind a <{name}>")
        return self._element.text or "", children

    def all(self, *names: str) -> list[Node]:
        """Its children, in the document's order."""
        children = self._children(names)
        for text in (self._element.text or "", *(each.behind for each in children)):
            if text.strip(SPACE):
                raise Fault(f"<{self.name}> has text of its own: '{clip(text)}'")
        return children

    def only(self, *names: str) -> Node:
        """Its one child."""
        children = self.all(*names)
        if len(children) != 1:
            raise Fault(f"<{self.name}> has {len(children)} children, not one of {_list(names)}")
        return children[0]

    def parts(self, **counts: Count) -> dict[str, list[Node]]:
        """Its children by name, in any order, each as often as it may be there."""
        children = self.all(*counts)
        found = {name: [each for each in children if each.named(name)] for name in counts}
        for name, (least, most) in counts.items():
            if len(found[name]) < least:
                raise Fault(f"<{self.name}> lacks <{name}>")
            if most is not None and len(found[name]) > most:
                raise Fault(f"<{self.name}> has {len(found[name])} of <{name}>; at most {most}")
        return found

    def _children(self, names: tuple[str, ...]) -> list[Node]:
        children = [Node(each, self._rules) for each in self._element]
        for each in children:
            if not any(map(each.named, names)):
                may = _list(names) if names else "no elements"
                raise Fault(f"<{self.name}> holds <{each.name}>; it may hold {may}")
        return children


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(f"<{name}>" for name in names)
