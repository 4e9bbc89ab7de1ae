"""AsyncUI messages are written exactly after the schema, and read as tolerantly as is advised."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from pydantic import ValidationError

from broker import BIDIRECTIONAL, NOTIFICATION_RELEASE, UNIDIRECTIONAL, Name, Notification, Style
from broker.async_ui import (
    CANCEL,
    OK,
    Action,
    AsyncUIReply,
    AsyncUIRequest,
    Balloon,
    Bitmap,
    Button,
    CloseRequest,
    CustomData,
    CustomUI,
    CustomUIReply,
    MessageBox,
    MessageBoxReply,
    Parameter,
    Text,
    read,
    request_of,
)
from broker.errors import (
    BodyGone,
    InvalidArgument,
    InvalidNotificationType,
    InvalidStyle,
    NotificationTooLarge,
    PayloadInvalid,
)
from broker.memory import MemoryRedis
from broker.notification import Place, encode
from broker.notification_type import ASYNC_UI
from broker.offer import Offer as AsyncOffer
from broker.sync import Broker, Offer
from tests.farm import PATIENCE, PRINTER, TYPE
from tests.servers import RedisServer
from tests.unit import xsd

DECLARED = '<?xml version="1.0"?>'


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def request(inside: str, namespace: str = xsd.REQUEST) -> bytes:
    """A request that opens this."""
    return utf16(
        f'{DECLARED}<asyncPrintUIRequest xmlns="{namespace}"><v1><requestOpen>{inside}'
        "</requestOpen></v1></asyncPrintUIRequest>"
    )


def reply(inside: str, namespace: str = xsd.RESPONSE) -> bytes:
    """A reply that says this."""
    return utf16(
        f'{DECLARED}<asyncPrintUIResponse xmlns="{namespace}"><v1><requestClose>{inside}'
        "</requestClose></v1></asyncPrintUIResponse>"
    )


def balloon(inside: str, attributes: str = "") -> bytes:
    return request(f"<balloonUI {attributes}>{inside}</balloonUI>")


def box(buttons: str, more: str = "") -> bytes:
    return request(
        f"<messageBoxUI><title>T</title>{more}<body>B</body><buttons>{buttons}</buttons>"
        "</messageBoxUI>"
    )


# Documents as they are published ----------------------------------------------------------------

PUBLISHED: dict[str, tuple[bytes, AsyncUIRequest]] = {
    "a balloon of MS-PAN 4.2": (
        utf16(
            '<?xml version="1.0" ?>\r\n <asyncPrintUIRequest xmlns=\r\n '
            f'"{xsd.REQUEST}">\r\n  <v1>\r\n   <requestOpen>\r\n'
            '    <balloonUI iconID="1" resourceDll="IHV.dll">\r\n'
            '     <title stringID="1234" resourceDll="IHV.dll" />\r\n'
            '     <body stringID="100" resourceDll="IHV.dll" />\r\n'
            "    </balloonUI>\r\n   </requestOpen>\r\n  </v1>\r\n </asyncPrintUIRequest>\r\n"
        ),
        Balloon(
            title=Text(string_id=1234, resource_dll="IHV.dll"),
            body=Text(string_id=100, resource_dll="IHV.dll"),
            icon_id=1,
            resource_dll="IHV.dll",
        ),
    ),
    "a message box of MS-PAN 4.4": (
        utf16(
            f'<asyncPrintUIRequest xmlns=\n "{xsd.REQUEST}">\n <v1>\n  <requestOpen>\n'
            '   <messageBoxUI>\n    <title stringID="100" resourceDll="IHV.dll" />\n'
            '    <body stringID="101" resourceDll="IHV.dll" />\n    <buttons>\n'
            '     <button stringID="102" resourceDll="IHV.dll" buttonID="3"/>\n'
            '     <button stringID="103" resourceDll="IHV.dll" buttonID="4"/>\n'
            "    </buttons>\n   </messageBoxUI>\n  </requestOpen>\n </v1>\n"
            "</asyncPrintUIRequest>"
        ),
        MessageBox(
            title=Text(string_id=100, resource_dll="IHV.dll"),
            body=Text(string_id=101, resource_dll="IHV.dll"),
            buttons=[
                Button(id=3, string_id=102, resource_dll="IHV.dll"),
                Button(id=4, string_id=103, resource_dll="IHV.dll"),
            ],
        ),
    ),
    "a message box of the driver kit": (
        request(
            '\n<messageBoxUI>\n <title stringID="1234" resourceDll="IHV.dll" />\n'
            ' <body stringID="100" resourceDll="IHV.dll">\n  <parameter stringID="5" />\n'
            '  <parameter stringID="1002" resourceDll="IHV.dll" />\n </body>\n <buttons>\n'
            '  <button stringID="1" resourceDll="IHV.dll" buttonID="IDOK"/>\n'
            '  <button stringID="2" resourceDll="IHV.dll" buttonID="IDCANCEL"/>\n </buttons>\n'
            "</messageBoxUI>\n",
            xsd.REQUEST.replace("http:", "https:"),
        ),
        MessageBox(
            title=Text(string_id=1234, resource_dll="IHV.dll"),
            body=Text(
                string_id=100,
                resource_dll="IHV.dll",
                parameters=(
                    Parameter(string_id=5),
                    Parameter(string_id=1002, resource_dll="IHV.dll"),
                ),
            ),
            buttons=[
                Button(id="IDOK", string_id=1, resource_dll="IHV.dll"),
                Button(id="IDCANCEL", string_id=2, resource_dll="IHV.dll"),
            ],
        ),
    ),
    "the sample's balloon, with the NUL that ends its string": (
        balloon("<title>AsyncUI sample</title><body>This text is a sample.</body>") + b"\0\0",
        Balloon(title="AsyncUI sample", body="This text is a sample."),
    ),
    "a driver's change of configuration": (
        balloon(
            '<title stringID="1"/><body stringID="2"/>'
            '<action dll="PrintConfig.dll" entrypoint="NotifyEntry">'
            '<![CDATA[<Envelope printer="p"/>]]></action>'
        ),
        Balloon(
            title=Text(string_id=1),
            body=Text(string_id=2),
            action=Action(
                dll="PrintConfig.dll", entrypoint="NotifyEntry", text='<Envelope printer="p"/>'
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_documents_are_read(name: str) -> None:
    data, message = PUBLISHED[name]
    assert AsyncUIRequest.decode(data) == message
    assert type(message).decode(data) == message


def test_published_replies_are_read() -> None:
    spaced = "\n<messageBoxUI>\n <buttonID>4</buttonID>\n</messageBoxUI >\n"
    assert AsyncUIReply.decode(reply(spaced)) == MessageBoxReply(button=4)
    by_name = reply(spaced.replace("4", "IDOK"), xsd.RESPONSE.replace("http:", "https:"))
    assert AsyncUIReply.decode(by_name) == MessageBoxReply(button=1), "as the driver kit has it"


# Writing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "document"),
    [
        (
            Balloon(title="Tray 2 <empty> & more", body=["Load\r\nA3.", "𝄞"]),
            balloon(
                "<title>Tray 2 &lt;empty&gt; &amp; more</title><body>Load&#13;\nA3.</body>"
                "<body>𝄞</body>"
            ).replace(utf16("balloonUI >"), utf16("balloonUI>")),
        ),
        (
            Balloon(
                title="T",
                body=Text(
                    text="%1 %2 %3",
                    parameters=(
                        Parameter(type="PrinterName"),
                        Parameter(text=" "),
                        Parameter(text="five", string_id=5, resource_dll="a.dll"),
                    ),
                ),
                action=Action(dll="b.dll", entrypoint="Entry", text="passed"),
                icon_id=1,
                resource_dll="c.dll",
            ),
            request(
                '<balloonUI iconID="1" resourceDll="c.dll"><title>T</title><body>%1 %2 %3'
                '<parameter type="PrinterName"/><parameter> </parameter>'
                '<parameter stringID="5" resourceDll="a.dll">five</parameter></body>'
                '<action dll="b.dll" entrypoint="Entry">passed</action></balloonUI>'
            ),
        ),
        (
            MessageBox(
                title=Text(string_id=1),
                bitmap=Bitmap(bitmap_id=2, resource_dll="a.dll"),
                body="B",
                buttons=[OK, CANCEL, Button(id=-7, string_id=3)],
            ),
            request(
                '<messageBoxUI><title stringID="1"/><bitmap bitmapID="2" resourceDll="a.dll"/>'
                '<body>B</body><buttons><button buttonID="IDOK"/><button buttonID="IDCANCEL"/>'
                '<button stringID="3" buttonID="-7"/></buttons></messageBoxUI>'
            ),
        ),
        (
            CustomUI(dll="a.dll", entrypoint="Entry", bidi=True, text="<x/>\t"),
            request('<customUI dll="a.dll" entrypoint="Entry" bidi="true">&lt;x/&gt;\t</customUI>'),
        ),
        (
            CustomData(dll="a.dll", entrypoint="Entry", bidi=False, data=b"\0\0\xff"),
            request('<customData dll="a.dll" entrypoint="Entry" bidi="false"/>') + b"\0\0\0\0\xff",
        ),
        (MessageBoxReply(button=2), reply("<messageBoxUI><buttonID>2</buttonID></messageBoxUI>")),
        (CustomUIReply(text="a & b"), reply("<CustomUI>a &amp; b</CustomUI>")),
    ],
    ids=lambda given: type(given).__name__ if not isinstance(given, bytes) else "",
)
def test_messages_are_written_as_the_schema_has_them(
    message: AsyncUIRequest | AsyncUIReply, document: bytes
) -> None:
    assert message.encode().decode("utf-16-le", "replace") == document.decode(
        "utf-16-le", "replace"
    )
    assert type(message).decode(document) == message


def test_close_request_is_written_as_the_driver_kit_has_it() -> None:
    written = CloseRequest().encode().decode("utf-16-le")
    assert written.endswith("<v1><requestClose/></v1></asyncPrintUIRequest>")
    assert AsyncUIRequest.decode(utf16(written)) == CloseRequest()


# Any message ------------------------------------------------------------------------------------

letters = st.one_of(
    st.sampled_from("\t\n\r<&>'\"%"),
    st.characters(min_codepoint=0x20, exclude_categories=["Cs"], exclude_characters="\ufffe\uffff"),
)
texts = st.text(letters, max_size=20)
shown = texts.filter(lambda text: text.strip(" \t\r\n"))
integers = st.integers(-(2**63), 2**63 - 1)
file_names = st.text(letters.filter(lambda c: c not in '\\/?*<>"|:'), min_size=1, max_size=12)
maybe_file = st.none() | file_names


@st.composite
def parameters(draw: st.DrawFn) -> Parameter:
    type_ = draw(st.sampled_from([None, "PrinterName", "Document"]))
    key = draw(st.none() | integers)
    text = None
    if type_ is None:
        text = draw(shown if key is None else st.none() | shown)
    return Parameter(type=type_, string_id=key, text=text, resource_dll=draw(maybe_file))


@st.composite
def titles(draw: st.DrawFn) -> Text:
    text = draw(st.none() | shown)
    return Text(
        text=text,
        string_id=draw(integers) if text is None else None,
        resource_dll=draw(maybe_file),
        parameters=tuple(draw(st.lists(parameters(), max_size=3))),
    )


bodies = st.lists(titles(), min_size=1, max_size=3).map(tuple)
actions = st.builds(Action, dll=file_names, entrypoint=texts, text=texts)
buttons = st.one_of(
    st.builds(Button, id=st.sampled_from(["IDOK", "IDCANCEL"]), string_id=st.none() | integers),
    st.builds(Button, id=integers, string_id=integers, resource_dll=maybe_file),
)
balloons = st.builds(
    Balloon,
    title=titles(),
    body=bodies,
    action=st.none() | actions,
    icon_id=st.none() | integers,
    resource_dll=file_names,
)
boxes = st.builds(
    MessageBox,
    title=titles(),
    body=bodies,
    bitmap=st.none() | st.builds(Bitmap, bitmap_id=integers, resource_dll=maybe_file),
    buttons=st.lists(buttons, min_size=1, max_size=5),
)
customs = st.builds(
    CustomUI, dll=file_names, entrypoint=texts, bidi=st.booleans(), text=texts
) | st.builds(
    CustomData, dll=file_names, entrypoint=texts, bidi=st.booleans(), data=st.binary(max_size=9)
)
requests = st.one_of(balloons, boxes, customs)
replies = st.builds(MessageBoxReply, button=integers) | st.builds(CustomUIReply, text=texts)


@given(requests)
def test_any_request_is_valid_and_is_read_as_it_was_written(message: AsyncUIRequest) -> None:
    data = message.encode()
    assert AsyncUIRequest.decode(data) == type(message).decode(data) == message
    document = data[: -2 - len(message.data)] if isinstance(message, CustomData) else data
    assert not xsd.faults(document, xsd.REQUESTS)


@given(replies)
def test_any_reply_is_valid_and_is_read_as_it_was_written(message: AsyncUIReply) -> None:
    data = message.encode()
    assert AsyncUIReply.decode(data) == type(message).decode(data) == message
    assert not xsd.faults(data, xsd.REPLIES)


CONTAINERS = {"asyncprintuirequest", "v1", "requestopen", "balloonui", "messageboxui", "buttons"}


def disfigured(data: bytes, chance: random.Random) -> bytes:
    """The same document as no schema has it, and every client should understand it."""
    root = etree.fromstring(data, etree.XMLParser(encoding="UTF-16LE"))
    namespace = chance.choice([xsd.REQUEST, xsd.REQUEST.replace("http:", "https:")])

    def any_case(text: str) -> str:
        return "".join(chance.choice([letter.lower(), letter.upper()]) for letter in text)

    def copied(element: etree._Element) -> etree._Element:
        name = etree.QName(element).localname
        copy = etree.Element(etree.QName(namespace, any_case(name)))
        for key, value in element.attrib.items():
            known = key == "bidi" or (key == "buttonID" and value.startswith("ID"))
            copy.set(key, any_case(value) if known else value)
        copy.set(chance.choice(["StringID", "more", "{urn:x}stringID"]), "1")
        copy.text = element.text
        children = [copied(child) for child in element]
        if name.lower() in CONTAINERS:
            by_name: dict[str, list[etree._Element]] = {}
            for child in children:
                by_name.setdefault(etree.QName(child).localname.lower(), []).append(child)
            order = [key for key, several in by_name.items() for _ in several]
            chance.shuffle(order)
            children = [by_name[key].pop(0) for key in order]
            copy.text = "\r\n\t "
            copy.append(etree.Comment("a comment"))
        for child in children:
            child.tail = chance.choice([None, "\n  "])
            copy.append(child)
        return copy

    mark = chance.choice(["", "\ufeff"])
    written = etree.tostring(copied(root), encoding="unicode")
    return utf16(f'{mark}<?xml version="1.0" encoding="utf-16"?>\r\n{written}\n')


@given(st.one_of(balloons, boxes, customs), st.randoms(use_true_random=False))
def test_any_request_is_read_though_disfigured(
    message: AsyncUIRequest, chance: random.Random
) -> None:
    data = message.encode()
    rest = b""
    if isinstance(message, CustomData):
        rest = b"\0\0" + message.data
        data = data.removesuffix(rest)
    assert AsyncUIRequest.decode(disfigured(data, chance) + rest) == message


@given(
    st.text(letters, max_size=60) | st.sampled_from(["<title>", "<body/>", '<button bidi="1"/>'])
)
def test_whatever_is_inside_is_read_or_refused(inside: str) -> None:
    for read_it in (AsyncUIRequest.decode, AsyncUIReply.decode):
        for data in (utf16(inside), request(inside), reply(inside), inside.encode()):
            with contextlib.suppress(PayloadInvalid):
                read_it(data).encode()


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read_it in (AsyncUIRequest.decode, AsyncUIReply.decode):
        with pytest.raises(PayloadInvalid) as refused:
            read_it(data)
        assert refused.value.data == data


# What is tolerated, one by one ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(
            balloon("<TITLE>T</TITLE><Body>B</Body>").replace(
                utf16("balloonUI"), utf16("BALLOONui")
            ),
            Balloon(title="T", body="B"),
            id="the case of element names",
        ),
        pytest.param(
            request('<customUI dll="a.dll" entrypoint="E" bidi="TRUE"/>'),
            CustomUI(dll="a.dll", entrypoint="E", bidi=True),
            id="the case of bidi",
        ),
        *(
            pytest.param(
                request(f'<customUI dll="a.dll" entrypoint="E" bidi="{bidi}"/>'),
                CustomUI(dll="a.dll", entrypoint="E", bidi=False),
                id=f"bidi {bidi!r} means false",
            )
            for bidi in ("false", "False", "", "1", "yes", " true", "true ", "nonsense")
        ),
        pytest.param(
            box('<button buttonID="idOK"/><button buttonID="IdCancel"/>'),
            MessageBox(title="T", body="B", buttons=[OK, CANCEL]),
            id="the case of buttonID",
        ),
        pytest.param(
            request(
                '<messageBoxUI><buttons><button buttonID="IDOK"/></buttons><body>1</body>'
                '<bitmap bitmapID="1"/><body>2</body><title>T</title></messageBoxUI>'
            ),
            MessageBox(title="T", body=["1", "2"], buttons=[OK], bitmap=Bitmap(bitmap_id=1)),
            id="the order of siblings",
        ),
        pytest.param(
            balloon('<title color="red">T</title><body lang="en">B</body>', 'timeout="5"'),
            Balloon(title="T", body="B"),
            id="unknown attributes",
        ),
        *(
            pytest.param(
                balloon(f'<title stringID="{said}"/><body>B</body>'),
                Balloon(title=Text(string_id=number), body="B"),
                id=f"stringID {said!r} means {number}",
            )
            for said, number in {"12px": 12, " 12": 12, "12 13": 12, "&lt;5&gt;": 0, "": 0}.items()
        ),
        pytest.param(
            balloon("<title>T</title><body>B</body>", 'iconID="x" resourceDll="a.dll"'),
            Balloon(title="T", body="B", icon_id=0, resource_dll="a.dll"),
            id="iconID",
        ),
        pytest.param(
            box('<button buttonID="no" stringID="1"/>', '<bitmap bitmapID="no"/>'),
            MessageBox(
                title="T",
                body="B",
                buttons=[Button(id=0, string_id=1)],
                bitmap=Bitmap(bitmap_id=0),
            ),
            id="buttonID and bitmapID",
        ),
        pytest.param(
            balloon("<title>T</title>"), Balloon(title="T", body=()), id="a balloon without a body"
        ),
        pytest.param(
            request(
                '<messageBoxUI><title>T</title><buttons><button buttonID="IDOK"/></buttons>'
                "</messageBoxUI>"
            ),
            MessageBox(title="T", body=(), buttons=[OK]),
            id="a message box without a body",
        ),
        pytest.param(
            request(
                "<balloonUI><title>T</title><body>B</body></balloonUI>", "https" + xsd.REQUEST[4:]
            ),
            Balloon(title="T", body="B"),
            id="the namespace with https",
        ),
        pytest.param(
            b"\xff\xfe" + balloon("<title>T</title><body>B</body>"),
            Balloon(title="T", body="B"),
            id="a byte order mark",
        ),
        pytest.param(
            balloon("<title>T</title><body>B</body>") + bytes(4),
            Balloon(title="T", body="B"),
            id="NULs at the end",
        ),
        pytest.param(
            utf16(
                f'<asyncPrintUIRequest xmlns="{xsd.REQUEST}"><v1><requestClose/></v1>'
                "</asyncPrintUIRequest>"
            ),
            CloseRequest(),
            id="requestClose in v1",
        ),
        pytest.param(
            utf16(
                f'<asyncPrintUIRequest xmlns="{xsd.REQUEST}"><requestClose/></asyncPrintUIRequest>'
            ),
            CloseRequest(),
            id="requestClose where the driver kit has it",
        ),
        pytest.param(
            balloon(
                '<title>T</title><body stringID="1">\n<parameter type="PrinterName"> '
                '</parameter>\n<parameter stringID="1">\n</parameter></body>'
            ),
            Balloon(
                title="T",
                body=Text(
                    string_id=1,
                    parameters=(Parameter(type="PrinterName"), Parameter(string_id=1)),
                ),
            ),
            id="white space that lays out",
        ),
        pytest.param(
            balloon('<title>T</title><body>%1<parameter type="Document"/></body>'),
            Balloon(title="T", body=Text(text="%1", parameters=(Parameter(type="Document"),))),
            id="a parameter of the driver kit",
        ),
    ],
)
def test_what_clients_should_accept(data: bytes, message: AsyncUIRequest) -> None:
    assert AsyncUIRequest.decode(data) == message


@pytest.mark.parametrize("spelling", ["IDOK", "idok", "1", " 1 ", "+1"])
def test_a_reply_may_name_its_button(spelling: str) -> None:
    said = reply(f"<messageBoxUI><buttonID>{spelling}</buttonID></messageBoxUI>")
    assert AsyncUIReply.decode(said) == MessageBoxReply(button=1)


# What is not ------------------------------------------------------------------------------------

PLAIN = "<title>T</title><body>B</body>"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (balloon(PLAIN).decode("utf-16-le").encode(), "UTF-8.*UTF-16LE"),
        (balloon(PLAIN).decode("utf-16-le").encode("utf-16-be"), "UTF-16BE"),
        (utf16("<!DOCTYPE a>") + balloon(PLAIN).removeprefix(utf16(DECLARED)), "DOCTYPE"),
        (utf16("Out of paper"), "no well-formed XML"),
        (reply("<CustomUI/>"), "root is <asyncPrintUIResponse>|of the namespace"),
        (request("<balloonUI/>", "urn:other"), "namespace 'urn:other'"),
        (
            request("<balloonUI/>", "http://schemas.microsoft.com/2003/print/asyncui/1.0"),
            "asyncui/1",
        ),
        (request(""), "<requestOpen> has 0 children, not one of <balloonUI>, <messageBoxUI>"),
        (request("text"), "<requestOpen> has text of its own: 'text'"),
        (request("<windowUI/>"), "<requestOpen> holds <windowUI>; it may hold <balloonUI>"),
        (request('<b:balloonUI xmlns:b="urn:b"/>'), "<balloonUI> is of the namespace 'urn:b'"),
        (request(f"<balloonUI>{PLAIN}</balloonUI><balloonUI>{PLAIN}</balloonUI>"), "2 children"),
        (balloon("<body>B</body>"), "<balloonUI> lacks <title>"),
        (balloon(PLAIN + "<title>T</title>"), "<balloonUI> has 2 of <title>; at most 1"),
        (balloon(PLAIN + "<icon/>"), "<balloonUI> holds <icon>; it may hold <title>, <body>"),
        (balloon(PLAIN + "<buttons/>"), "<balloonUI> holds <buttons>"),
        (balloon("stray" + PLAIN), "text of its own: 'stray'"),
        (balloon(PLAIN + "stray"), "text of its own: 'stray'"),
        (balloon(PLAIN, 'iconID="1"'), "icon_id needs the resource_dll"),
        (balloon("<title/><body>B</body>"), "either a text or a string_id"),
        (balloon("<title> \n</title><body>B</body>"), "either a text or a string_id"),
        (balloon('<title stringID="1">T</title><body>B</body>'), "either a text or a string_id"),
        (
            balloon("<title>T<b/></title><body>B</body>"),
            "<title> holds <b>; it may hold <parameter>",
        ),
        (
            balloon('<title>T</title><body>%1<parameter type="PrinterName"/>!</body>'),
            "<body> has text behind a <parameter>",
        ),
        (
            balloon("<title>T</title><body>B<parameter/></body>"),
            "needs a type, a string_id or a text",
        ),
        (
            balloon('<title>T</title><body>B<parameter type="Job"/></body>'),
            "'PrinterName' or 'Document'",
        ),
        (
            balloon('<title>T</title><body>B<parameter type="printername"/></body>'),
            "'PrinterName' or 'Document'",
        ),
        (
            balloon('<title>T</title><body>B<parameter type="Document">x</parameter></body>'),
            "with a type has no text",
        ),
        (
            balloon("<title>T</title><body>B<parameter><b/></parameter></body>"),
            "<parameter> holds <b>; it may hold no elements",
        ),
        (balloon(PLAIN + '<action dll="a.dll"/>'), "<action> lacks the attribute entrypoint"),
        (balloon(PLAIN + '<action entrypoint="E"/>'), "<action> lacks the attribute dll"),
        (balloon(PLAIN + '<action dll="a.dll" entrypoint="E"><b/></action>'), "<action> holds <b>"),
        (balloon(PLAIN + '<action dll="" entrypoint="E"/>'), "dll: .*empty"),
        *(
            (
                balloon(PLAIN + f'<action dll="a{bad}b" entrypoint="E"/>'),
                "name of a driver's file does not contain",
            )
            for bad in ("\\", "/", "?", "*", "&lt;", ">", "&quot;", "|", ":")
        ),
        (balloon('<title stringID="1" resourceDll="..\\a"/>'), "driver's file does not contain"),
        (box(""), "buttons: .*at least 1"),
        (box('<button buttonID="IDOK"/>' * 6), "buttons: .*at most 5"),
        (box("<button/>"), "<button> lacks the attribute buttonID"),
        (box('<button buttonID="3"/>'), "other than IDOK and IDCANCEL needs a string_id"),
        (box('<button buttonID=" IDOK"/>'), "other than IDOK and IDCANCEL needs a string_id"),
        (box('<button buttonID="IDO\N{KELVIN SIGN}"/>'), "other than IDOK and IDCANCEL"),
        (box('<button buttonID="IDOK">OK</button>'), "<button> has text of its own: 'OK'"),
        (box('<button buttonID="IDOK"/>', "<bitmap/>"), "<bitmap> lacks the attribute bitmapID"),
        (box('<button buttonID="IDOK"/>', "<bitmap bitmapID='1'>x</bitmap>"), "<bitmap> has text"),
        (request("<messageBoxUI><title>T</title><body>B</body></messageBoxUI>"), "lacks <buttons>"),
        (request('<customUI dll="a.dll" entrypoint="E"/>'), "<customUI> lacks the attribute bidi"),
        (request('<customUI dll="a.dll" bidi="true"/>'), "lacks the attribute entrypoint"),
        (request('<customUI dll="a/b" entrypoint="E" bidi="true"/>'), "does not contain /"),
        (request('<customUI dll="a" entrypoint="E" bidi="true"><x/></customUI>'), "holds <x>"),
        (request('<customData dll="a" entrypoint="E" bidi="true"/>'), "a NUL has to end"),
        (
            request('<customData dll="a" entrypoint="E" bidi="true">x</customData>') + b"\0\0",
            "<customData> has text of its own",
        ),
        (balloon(PLAIN) + b"\0\0data", "4 bytes follow the document"),
        (utf16(f'<asyncPrintUIRequest xmlns="{xsd.REQUEST}"/>'), "0 children, not one of <v1>"),
        (
            utf16(f'<asyncPrintUIRequest xmlns="{xsd.REQUEST}"><v2/></asyncPrintUIRequest>'),
            "holds <v2>; it may hold <v1>",
        ),
        (
            utf16(
                f'<asyncPrintUIRequest xmlns="{xsd.REQUEST}"><requestClose><x/></requestClose>'
                "</asyncPrintUIRequest>"
            ),
            "<requestClose> holds <x>; it may hold no elements",
        ),
    ],
)
def test_what_no_client_should_act_upon(data: bytes, named: str) -> None:
    with pytest.raises(PayloadInvalid, match=f"no AsyncUIRequest: .*({named})") as refused:
        AsyncUIRequest.decode(data)
    assert refused.value.data == data


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (request("<balloonUI/>"), "namespace"),
        (reply(""), "0 children, not one of <messageBoxUI>, <CustomUI>"),
        (reply("<messageBoxUI/>"), "0 children, not one of <buttonID>"),
        (reply("<messageBoxUI><buttonID/></messageBoxUI>"), "'' is no integer"),
        (reply("<messageBoxUI><buttonID>Yes</buttonID></messageBoxUI>"), "'Yes' is no integer"),
        (reply("<messageBoxUI><buttonID>1.0</buttonID></messageBoxUI>"), "'1.0' is no integer"),
        (reply("<CustomUI><x/></CustomUI>"), "<CustomUI> holds <x>"),
        (reply("<CustomUI/>") + b"\0\0x", "1 bytes follow"),
        (b"1", "UTF-16LE"),
    ],
)
def test_what_is_no_reply(data: bytes, named: str) -> None:
    with pytest.raises(PayloadInvalid, match=f"no AsyncUIReply: .*{named}") as refused:
        AsyncUIReply.decode(data)
    assert refused.value.data == data


def test_a_message_of_another_kind_is_said_to_be_one() -> None:
    with pytest.raises(PayloadInvalid, match="no Balloon: it is a MessageBox"):
        Balloon.decode(box('<button buttonID="IDOK"/>'))
    with pytest.raises(PayloadInvalid, match="no CustomUIReply: it is a MessageBoxReply"):
        CustomUIReply.decode(MessageBoxReply(button=1).encode())


# Models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Balloon(title="", body="B"),
        lambda: Balloon(title="\n", body="B"),
        lambda: Balloon(title="T\0", body="B"),
        lambda: Balloon(title="T", body=5),
        lambda: Balloon(title="T"),  # type: ignore[call-arg]
        lambda: Balloon(title="T", body="B", icon_id=1),
        Text,
        lambda: Text(text="T", string_id=1),
        lambda: Text(string_id="1"),
        lambda: Text(string_id=True),
        lambda: Text(string_id=2**63),
        lambda: Text(text="T", colour="red"),  # type: ignore[call-arg]
        Parameter,
        lambda: Parameter(text=""),
        lambda: Parameter(type="PrinterName", text="laser-3"),
        lambda: Parameter(type="Job"),
        lambda: Button(id=3),
        lambda: Button(id="OK"),
        lambda: Button(id="IDYES", string_id=1),
        lambda: MessageBox(title="T", body="B", buttons=[]),
        lambda: MessageBox(title="T", body="B", buttons=[OK] * 6),
        lambda: CustomUI(dll="a:b", entrypoint="E", bidi=True),
        lambda: CustomUI(dll="", entrypoint="E", bidi=True),
        lambda: CustomData(dll="a", entrypoint="E", bidi=True, data="text"),
        lambda: MessageBoxReply(button="Yes"),
        lambda: MessageBoxReply(button=1.0),
        lambda: CustomUIReply(text="\x01"),
    ],
)
def test_a_message_that_nobody_could_read_is_not_made(make: Callable[[], object]) -> None:
    with pytest.raises(ValidationError):
        make()


def test_a_message_without_a_body_is_received_but_not_sent() -> None:
    received = AsyncUIRequest.decode(balloon("<title>T</title>"))
    with pytest.raises(InvalidArgument, match="needs a body"):
        received.encode()


def test_any_message_is_none_in_particular() -> None:
    for anything in (AsyncUIRequest(), AsyncUIReply()):
        with pytest.raises(InvalidArgument, match="is any"):
            anything.encode()


@pytest.mark.parametrize(
    ("button", "number"),
    [(OK, 1), (CANCEL, 2), (Button(id=3, string_id=1), 3), ("IDOK", 1), ("IDCANCEL", 2), (-4, -4)],
)
def test_buttons_have_numbers_in_replies(button: Button | str | int, number: int) -> None:
    assert MessageBoxReply(button=button).button == number
    if isinstance(button, Button):
        assert button.number == number


@pytest.mark.parametrize(
    ("message", "style", "answer"),
    [
        (Balloon(title="T", body="B"), UNIDIRECTIONAL, None),
        (MessageBox(title="T", body="B", buttons=[OK]), BIDIRECTIONAL, MessageBoxReply),
        (CustomUI(dll="a", entrypoint="E", bidi=True), BIDIRECTIONAL, CustomUIReply),
        (CustomUI(dll="a", entrypoint="E", bidi=False), UNIDIRECTIONAL, CustomUIReply),
        (CustomData(dll="a", entrypoint="E", bidi=True), BIDIRECTIONAL, CustomUIReply),
        (CustomData(dll="a", entrypoint="E", bidi=False), UNIDIRECTIONAL, CustomUIReply),
        (CloseRequest(), None, None),
    ],
)
def test_each_message_has_its_style_and_its_reply(
    message: AsyncUIRequest, style: Style | None, answer: type[AsyncUIReply] | None
) -> None:
    assert message.conversation_style is style
    assert type(message).response_model is answer
    for each in Style:
        place = Place(each, 10_000, is_reason=False)
        if style in (None, each):
            assert encode(message, ASYNC_UI, place) == message.encode()
        else:
            with pytest.raises(InvalidStyle, match=f"not for a {each.name.lower()} channel"):
                encode(message, ASYNC_UI, place)


def test_a_reply_is_a_close_reason_and_nothing_else() -> None:
    said = MessageBoxReply(button=OK)
    assert encode(said, ASYNC_UI, Place(BIDIRECTIONAL, 10_000, is_reason=True)) == said.encode()
    with pytest.raises(InvalidArgument, match=r"MessageBoxReply ends the dialog.*close\(\)"):
        encode(said, ASYNC_UI, Place(BIDIRECTIONAL, 10_000, is_reason=False))
    with pytest.raises(InvalidStyle):
        encode(said, ASYNC_UI, Place(UNIDIRECTIONAL, 10_000, is_reason=True))
    with pytest.raises(InvalidNotificationType):
        encode(said, TYPE, Place(BIDIRECTIONAL, 10_000, is_reason=True))


def test_a_message_above_the_limit_is_too_large() -> None:
    with pytest.raises(NotificationTooLarge):
        encode(Balloon(title="T", body="B" * 50), ASYNC_UI, Place(UNIDIRECTIONAL, 100, False))


# Nothing is run ---------------------------------------------------------------------------------

QUIET = ("object", "sys", "code")
"""Audit events of attributes and of the interpreter itself."""

WATCHED = """
import sys
from broker.async_ui import AsyncUIRequest

sys.path.insert(0, ".")
documents = [bytes.fromhex(each) for each in sys.argv[1:]]
AsyncUIRequest.decode(documents[0])
touched = []
sys.addaudithook(lambda event, args: touched.append((event, args)))
read = [AsyncUIRequest.decode(each) for each in documents]
sent = [each.encode() for each in read]
sys.stdout.write(repr([event for event, _ in touched if event.partition(".")[0] not in QUIET]))
"""


def test_what_a_message_names_is_neither_opened_nor_loaded_nor_run(tmp_path: Path) -> None:
    """The interpreter itself tells what it was asked to open, import, run or connect to."""
    (tmp_path / "evil.py").write_text("def entry(*_): raise SystemExit('run')\nentry()\n")
    (tmp_path / "evil.dll").write_bytes(b"MZ")
    documents = [
        Balloon(
            title=Text(string_id=1, resource_dll=file),
            body="B",
            icon_id=1,
            resource_dll=file,
            action=Action(dll=file, entrypoint="entry", text="__import__('evil')"),
        ).encode()
        for file in ("evil.py", "evil.dll", "evil")
    ] + [
        CustomUI(dll="evil", entrypoint="entry", bidi=True, text="evil.py").encode(),
        CustomData(dll="evil.dll", entrypoint="entry", bidi=True, data=b"evil").encode(),
    ]
    run = subprocess.run(
        [sys.executable, "-c", WATCHED.replace("QUIET", repr(QUIET)), *map(bytes.hex, documents)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "[]", "")


# Listening --------------------------------------------------------------------------------------

MINE = Balloon(title="T", body="B").encode()
QUESTION = MessageBox(title="T", body="B", buttons=[OK, CANCEL])


def notification(data: bytes | None, type_: UUID = ASYNC_UI) -> Notification[Any]:
    return Notification(type_, data, "c0ffee", Name("print01", "laser-3"), "alice", 1.5)


def test_a_notification_is_read_for_the_style_that_it_came_in() -> None:
    assert request_of(notification(MINE), UNIDIRECTIONAL) == Balloon.decode(MINE)
    assert request_of(notification(QUESTION.encode()), BIDIRECTIONAL) == QUESTION
    for style in Style:
        assert request_of(notification(CloseRequest().encode()), style) == CloseRequest()


@pytest.mark.parametrize(
    ("data", "style", "named"),
    [
        (MINE, BIDIRECTIONAL, "Balloon on a bidirectional channel"),
        (QUESTION.encode(), UNIDIRECTIONAL, "MessageBox on a unidirectional channel"),
        (
            CustomUI(dll="a", entrypoint="E", bidi=True).encode(),
            UNIDIRECTIONAL,
            "CustomUI on a unidirectional channel",
        ),
        (b"Continue?", BIDIRECTIONAL, "UTF-16LE"),
        (b"", UNIDIRECTIONAL, "empty"),
    ],
)
def test_a_message_of_the_other_style_is_as_good_as_none(
    data: bytes, style: Style, named: str
) -> None:
    with pytest.raises(PayloadInvalid, match=named) as refused:
        request_of(notification(data), style)
    assert refused.value.data == data


async def test_what_cannot_be_read_is_skipped() -> None:
    assert await read(notification(MINE)) == Balloon.decode(MINE)
    for nothing in (notification(b"Printed."), notification(QUESTION.encode()), notification(None)):
        assert await read(nothing) is None
    assert await read(notification(None, NOTIFICATION_RELEASE)) is None
    with pytest.raises(BodyGone):
        request_of(notification(None), UNIDIRECTIONAL)


async def test_a_notification_of_another_type_is_not_ours_to_skip() -> None:
    with pytest.raises(InvalidNotificationType, match=str(TYPE)):
        await read(notification(MINE, TYPE))


async def test_the_models_work_on_the_in_memory_double() -> None:
    memory = MemoryRedis()
    async with memory.broker(user="alice") as source, memory.broker(user="alice") as desk:
        questions = await desk.register(PRINTER, AsyncUIRequest, style=BIDIRECTIONAL)
        async with await source.open_channel(PRINTER, MessageBox, style=BIDIRECTIONAL) as channel:
            await channel.send(QUESTION)
            offer = await questions.fetch(PATIENCE)
            assert isinstance(offer, AsyncOffer)
            asked = await read(offer)
            assert asked == QUESTION == offer.payload
            await offer.close(MessageBoxReply(button=QUESTION.buttons[1]))
            answer = await channel.response(PATIENCE)
            assert (answer.payload, answer.is_final) == (MessageBoxReply(button=2), True)


def test_the_models_work_with_plain_calls(redis_server: RedisServer) -> None:
    def process() -> Broker:
        return Broker.connect(redis_server.url, user="alice", namespace="plain-async-ui")

    with process() as source, process() as desk:
        alerts = desk.register(PRINTER, AsyncUIRequest)
        questions = desk.register(PRINTER, AsyncUIRequest, style=BIDIRECTIONAL)
        with source.open_channel(PRINTER, Balloon) as channel:
            channel.send(Balloon(title="Printed", body="Tray 1"))
            with pytest.raises(InvalidStyle):
                channel.send(QUESTION)
        told = alerts.fetch(PATIENCE)
        assert isinstance(told, Notification)
        assert request_of(told, UNIDIRECTIONAL) == Balloon(title="Printed", body="Tray 1")
        with source.open_channel(PRINTER, MessageBox, style=BIDIRECTIONAL) as channel:
            channel.send(QUESTION)
            offer = questions.fetch(PATIENCE)
            assert isinstance(offer, Offer)
            assert request_of(offer.notification, BIDIRECTIONAL) == QUESTION
            with pytest.raises(InvalidArgument, match="ends the dialog"):
                offer.respond(MessageBoxReply(button=OK))
            offer.close(MessageBoxReply(button=OK))
            assert channel.response(PATIENCE).payload == MessageBoxReply(button=1)
        alerts.unregister()
        questions.unregister()
