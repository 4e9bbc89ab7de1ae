"""Printer configuration is written after the schema, read strictly, and reduced where too large."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker import BIDIRECTIONAL, UNIDIRECTIONAL, Notification
from broker.errors import (
    InvalidNotificationType,
    InvalidStyle,
    NotificationTooLarge,
    PayloadInvalid,
)
from broker.memory import MemoryRedis
from broker.notification import Place, encode
from broker.notification_type import PRINTER_CONFIGURATION, check_style
from broker.printer_configuration import Kind, PrinterConfiguration, ReducedSchema, Schema
from broker.sync import Broker
from tests.farm import OTHER_TYPE, PATIENCE, PRINTER
from tests.servers import RedisServer
from tests.unit import xsd

ARABIC_ONE = "\N{ARABIC-INDIC DIGIT ONE}"
LEVEL = r"\Printer.Layout.InputBins.Tray2:Level"


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def document(
    inside: str, attributes: str = 'printerName="laser-3"', *, ns: str = xsd.BIDI
) -> bytes:
    return utf16(
        f'<?xml version="1.0"?><Notification xmlns="{ns}" {attributes}>{inside}</Notification>'
    )


def schema(kind: str, text: str, name: str = LEVEL) -> bytes:
    return document(f'<Schema name="{name}"><{kind}>{text}</{kind}></Schema>')


# Writing ----------------------------------------------------------------------------------------

WRITTEN: list[tuple[dict[str, Any], str]] = [
    ({"value": "A3 & <more>\r"}, "<BIDI_STRING>A3 &amp; &lt;more&gt;&#13;</BIDI_STRING>"),
    ({"value": "", "kind": Kind.TEXT}, "<BIDI_TEXT></BIDI_TEXT>"),
    ({"value": "Ready", "kind": Kind.ENUM}, "<BIDI_ENUM>Ready</BIDI_ENUM>"),
    ({"value": -40}, "<BIDI_INT>-40</BIDI_INT>"),
    ({"value": 2.5}, "<BIDI_FLOAT>2.5</BIDI_FLOAT>"),
    ({"value": 1e300}, "<BIDI_FLOAT>1e+300</BIDI_FLOAT>"),
    ({"value": math.inf}, "<BIDI_FLOAT>INF</BIDI_FLOAT>"),
    ({"value": -math.inf}, "<BIDI_FLOAT>-INF</BIDI_FLOAT>"),
    ({"value": True}, "<BIDI_BOOL>true</BIDI_BOOL>"),
    ({"value": False}, "<BIDI_BOOL>false</BIDI_BOOL>"),
    ({"value": b"\x00\xff"}, "<BIDI_BLOB>AP8=</BIDI_BLOB>"),
]


@pytest.mark.parametrize(("given_", "written"), WRITTEN)
def test_each_kind_of_value_has_its_element(given_: dict[str, Any], written: str) -> None:
    change = Schema(name=LEVEL, **given_)
    message = PrinterConfiguration(printer_name="laser-3", changes=[change])
    expected = document(f'<Schema name="{LEVEL}">{written}</Schema>').decode("utf-16-le")
    assert message.encode().decode("utf-16-le") == expected
    assert PrinterConfiguration.decode(message.encode()) == message
    assert not xsd.faults(message.encode(), xsd.CONFIGURATIONS)


def test_not_a_number_is_a_float_too() -> None:
    message = PrinterConfiguration(
        printer_name="laser-3", changes=[Schema(name=LEVEL, value=math.nan)]
    )
    read = PrinterConfiguration.decode(message.encode()).changes[0]
    assert isinstance(read, Schema)
    assert read.kind is Kind.FLOAT
    assert math.isnan(read.value)  # type: ignore[arg-type]


def test_a_document_keeps_the_order_of_its_changes() -> None:
    message = PrinterConfiguration(
        printer_name="\\\\print01\\laser-3",
        changes=[
            ReducedSchema(name="\\"),
            Schema(name=r"\A:b", value=1),
            ReducedSchema(name=r"\A.B"),
            Schema(name=r"\A:c", value="2"),
            ReducedSchema(name=r"\A.B:c"),
        ],
    )
    assert message.encode() == document(
        r'<ReducedSchema name="\"/><Schema name="\A:b"><BIDI_INT>1</BIDI_INT></Schema>'
        r'<ReducedSchema name="\A.B"/><Schema name="\A:c"><BIDI_STRING>2</BIDI_STRING></Schema>'
        r'<ReducedSchema name="\A.B:c"/>',
        r'printerName="\\print01\laser-3"',
    )
    assert PrinterConfiguration.decode(message.encode()) == message


# Names ------------------------------------------------------------------------------------------

FULL = [
    r"\A:b",
    r"\Printer.Layout.InputBins.Tray2:Level",
    r"\Größe.漢:٣",
    r"\a+b.$:€",
    "\\e\u0301:a",
]
BRANCHES = ["\\", r"\A", r"\Printer.Layout.InputBins"]
NONE = [
    "", "A:b", r"\A:", r"\:b", r"\A.:b", r"\.A:b", r"\A..B:c", r"\A:b:c", r"\A:b.c", r"\\A:b",
    r"\A B:c", r"\A:b ", "\\A:b\n", r"\A-B:c", r"\A_B:c", r"\A.B:c\D", r"\A/B:c", "\\A\u00adB:c",
]  # fmt: skip


@pytest.mark.parametrize("name", [*FULL, *BRANCHES, *NONE])
def test_names_are_what_the_schema_says(name: str) -> None:
    """A validator that is not ours is asked as well."""
    for kind, good, make in (
        ("Schema", name in FULL, lambda: Schema(name=name, value=1)),
        ("ReducedSchema", name in FULL or name in BRANCHES, lambda: ReducedSchema(name=name)),
    ):
        inside = "<BIDI_INT>1</BIDI_INT>" if kind == "Schema" else ""
        said = name.replace("\n", "&#10;")
        data = document(f'<{kind} name="{said}">{inside}</{kind}>')
        assert bool(xsd.faults(data, xsd.CONFIGURATIONS)) is not good
        if good:
            message = PrinterConfiguration(printer_name="laser-3", changes=[make()])
            assert PrinterConfiguration.decode(data) == message
            continue
        with pytest.raises(ValidationError, match=r"\\Path\.To\.Property"):
            make()
        with pytest.raises(PayloadInvalid, match=r"name: .*\\Path\.To\.Property"):
            PrinterConfiguration.decode(data)


# Any message ------------------------------------------------------------------------------------

letters = st.one_of(
    st.sampled_from("\t\n\r<&>'\""),
    st.characters(min_codepoint=0x20, exclude_categories=["Cs"], exclude_characters="\ufffe\uffff"),
)
texts = st.text(letters, max_size=30)
words = st.text(st.sampled_from("Aaé漢1"), min_size=1, max_size=8)
paths = st.lists(words, min_size=1, max_size=3).map(".".join)
names = st.builds(lambda path, value: f"\\{path}:{value}", paths, words)
values = st.one_of(
    texts,
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.binary(max_size=60),
)
schemas = st.builds(Schema, name=names, value=values) | st.builds(
    Schema, name=names, value=texts, kind=st.sampled_from([Kind.TEXT, Kind.ENUM])
)
reduced = st.builds(ReducedSchema, name=names | paths.map(lambda path: f"\\{path}"))
messages = st.builds(
    PrinterConfiguration,
    printer_name=texts,
    changes=st.lists(schemas | reduced, min_size=1, max_size=8),
)


@given(messages)
def test_any_message_is_valid_and_is_read_as_it_was_written(message: PrinterConfiguration) -> None:
    data = message.encode()
    assert PrinterConfiguration.decode(data) == message
    assert not xsd.faults(data, xsd.CONFIGURATIONS)


@given(messages, st.integers(0, 3_000))
def test_any_message_is_reduced_until_it_is_below_the_limit(
    message: PrinterConfiguration, limit: int
) -> None:
    """And no further: with one value more it would be too large."""
    full = message.encode()
    try:
        fitting = message.within(limit)
    except NotificationTooLarge:
        bare = [each.reduced if isinstance(each, Schema) else each for each in message.changes]
        smallest = PrinterConfiguration(printer_name=message.printer_name, changes=bare)
        assert len(full) > limit
        assert len(smallest.encode()) >= limit
        return
    data = message.encode(limit)
    assert data == fitting.encode() == message.encode_within(limit)
    assert [each.name for each in fitting.changes] == [each.name for each in message.changes]
    if len(full) <= limit:
        assert fitting == message
        return
    assert len(data) < limit
    lost = [
        at
        for at, (was, now) in enumerate(zip(message.changes, fitting.changes, strict=True))
        if was != now
    ]
    assert all(isinstance(message.changes[at], Schema) for at in lost)
    for at in lost:
        changes = list(fitting.changes)
        changes[at] = message.changes[at]
        told = PrinterConfiguration(printer_name=message.printer_name, changes=changes)
        if at == min(lost, key=lambda at: (len(encoded(message.changes[at])), -at)):
            assert len(told.encode()) >= limit, "the smallest value could have been kept"
    if lost:
        least = min(len(encoded(message.changes[at])) for at in lost)
        kept = [
            len(encoded(each))
            for at, each in enumerate(message.changes)
            if at not in lost and isinstance(each, Schema)
        ]
        assert all(size <= least for size in kept), "a larger value was kept"


def encoded(change: Schema | ReducedSchema) -> bytes:
    """What a value takes: the name is there with and without it."""
    assert isinstance(change, Schema)
    bare = change.model_copy(update={"name": "\\A:b"})
    return PrinterConfiguration(printer_name="", changes=[bare]).encode()


@given(st.text(letters, max_size=60) | st.sampled_from(["<Schema/>", "<ReducedSchema/>"]))
def test_whatever_is_inside_is_read_or_refused(inside: str) -> None:
    for data in (utf16(inside), document(inside), inside.encode()):
        with pytest.raises(PayloadInvalid) as refused:
            PrinterConfiguration.decode(data)
        assert refused.value.data == data


# The limit --------------------------------------------------------------------------------------

CHANGES = [
    Schema(name=r"\A:first", value="x" * 100),
    Schema(name=r"\A:second", value="x" * 300),
    Schema(name=r"\A:third", value="x" * 200),
    Schema(name=r"\A:fourth", value="x" * 200),
    Schema(name=r"\A:fifth", value=b"x"),
]


def kept(message: PrinterConfiguration) -> list[str]:
    """Settings that still have their values."""
    return [each.name[3:] for each in message.changes if isinstance(each, Schema)]


def test_the_largest_values_go_first_and_of_equals_the_last() -> None:
    message = PrinterConfiguration(printer_name="laser-3", changes=CHANGES)
    size, order = len(message.encode()), []
    while kept(message):
        before = set(kept(message))
        message = message.within(len(message.encode()) - 1)
        order += sorted(before - set(kept(message)))
        assert len(message.encode()) < size
        size = len(message.encode())
    assert order == ["second", "fourth", "third", "first", "fifth"]


def test_a_message_of_the_limit_is_not_reduced_and_one_byte_less_is_below_it() -> None:
    """What exceeds the limit is reduced until it is smaller than the limit (MS-PAN 2.2.8.1)."""
    message = PrinterConfiguration(printer_name="laser-3", changes=CHANGES)
    size = len(message.encode())
    assert message.encode(size) == message.encode()
    one_less = message.within(len(message.encode()) - 1)
    assert kept(one_less) == ["first", "third", "fourth", "fifth"]
    exactly = len(one_less.encode())
    assert kept(message.within(exactly)) == ["first", "third", "fifth"], "smaller, not equal"
    assert kept(message.within(exactly + 1)) == kept(one_less)


def test_what_does_not_fit_without_any_value_is_too_large() -> None:
    message = PrinterConfiguration(printer_name="laser-3", changes=CHANGES)
    bare = [ReducedSchema(name=each.name) for each in CHANGES]
    size = len(PrinterConfiguration(printer_name="laser-3", changes=bare).encode())
    assert kept(message.within(size + 1)) == []
    with pytest.raises(NotificationTooLarge, match=f"laser-3: {size} bytes without any value"):
        message.encode(size)


def test_the_documents_own_limit_counts_though_the_broker_would_take_more() -> None:
    blobs = [Schema(name=rf"\A:b{n}", value=bytes(1_500_000)) for n in range(4)]
    message = PrinterConfiguration(printer_name="laser-3", changes=blobs)
    with pytest.raises(NotificationTooLarge, match="at most 10485760"):
        message.encode()
    assert kept(message.within(100_000_000)) == ["b0", "b1"]
    assert PrinterConfiguration.decode(message.encode(100_000_000)) == message.within(10_485_760)


# Reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (schema("BIDI_STRING", " a\nb "), " a\nb "),
        (schema("BIDI_STRING", "<![CDATA[<a/>]]>"), "<a/>"),
        (schema("BIDI_TEXT", ""), ""),
        (schema("BIDI_ENUM", "Ready"), "Ready"),
        (schema("BIDI_INT", " +007\n"), 7),
        (schema("BIDI_FLOAT", " -1.5E3 "), -1500.0),
        (schema("BIDI_FLOAT", ".5"), 0.5),
        (schema("BIDI_FLOAT", "5."), 5.0),
        (schema("BIDI_FLOAT", "-INF"), -math.inf),
        (schema("BIDI_BOOL", " 1 "), True),
        (schema("BIDI_BOOL", "0"), False),
        (schema("BIDI_BLOB", " AP 8=\n"), b"\x00\xff"),
        (schema("BIDI_BLOB", ""), b""),
        (b"\xff\xfe" + schema("BIDI_INT", "7"), 7),
        (schema("BIDI_INT", "7") + b"\0\0", 7),
        (
            document(
                f'<Schema name="{LEVEL}"><BIDI_INT>7</BIDI_INT></Schema>',
                ns=xsd.BIDI.replace("http:", "https:"),
            ),
            7,
        ),
        (
            document(
                f'\n <Schema name="{LEVEL}">\n  <!-- 7 -->\n  <BIDI_INT>7</BIDI_INT>\n </Schema>\n',
                'printerName="laser-3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
                f'xsi:schemaLocation="{xsd.BIDI} bidi.xsd"',
            ),
            7,
        ),
    ],
)
def test_values_are_read_as_xml_schema_has_them(data: bytes, value: object) -> None:
    (change,) = PrinterConfiguration.decode(data).changes
    assert isinstance(change, Schema)
    assert (change.value, type(change.value)) == (value, type(value))


INT = "<BIDI_INT>1</BIDI_INT>"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (schema("BIDI_INT", "1").decode("utf-16-le").encode(), "UTF-8.*UTF-16LE"),
        (utf16("<!DOCTYPE a>") + document(""), "DOCTYPE"),
        (utf16("tray 2"), "no well-formed XML"),
        (document("", ns="urn:other"), "namespace 'urn:other'"),
        (utf16(f'<notification xmlns="{xsd.BIDI}"/>'), "its root is <notification>"),
        (document(""), "changes: .*at least 1"),
        (document(INT), "<Notification> holds <BIDI_INT>; it may hold <Schema>"),
        (document(f'<schema name="{LEVEL}">{INT}</schema>'), "holds <schema>"),
        (document(f'<Schema name="{LEVEL}">{INT}</Schema>', ""), "lacks the attribute printerName"),
        (
            document(f'<Schema name="{LEVEL}">{INT}</Schema>', 'printerName="a" colour="b"'),
            "<Notification> has no attribute 'colour'",
        ),
        (document(f"<Schema>{INT}</Schema>"), "<Schema> lacks the attribute name"),
        (document(f'<Schema name="{LEVEL}" x="1">{INT}</Schema>'), "<Schema> has no attribute 'x'"),
        (document(f'<Schema name="{LEVEL}"/>'), "<Schema> has 0 children"),
        (document(f'<Schema name="{LEVEL}">{INT}{INT}</Schema>'), "<Schema> has 2 children"),
        (document(f'<Schema name="{LEVEL}">1</Schema>'), "text of its own: '1'"),
        (schema("BIDI_NULL", ""), "<Schema> holds <BIDI_NULL>; it may hold <BIDI_STRING>"),
        (schema("bidi_int", "1"), "<Schema> holds <bidi_int>"),
        (schema("BIDI_INT", "<b/>"), "<BIDI_INT> holds <b>; it may hold no elements"),
        (document(f'<Schema name="{LEVEL}"><BIDI_INT a="">1</BIDI_INT></Schema>'), "attribute 'a'"),
        (document(r'<ReducedSchema name="\A">1</ReducedSchema>'), "text of its own"),
        (document(r'<ReducedSchema name="\A" x="1"/>'), "no attribute 'x'"),
        (document("<ReducedSchema/>"), "lacks the attribute name"),
        (schema("BIDI_INT", "12px"), "'12px' is no integer"),
        (schema("BIDI_INT", "1.0"), "'1.0' is no integer"),
        (schema("BIDI_INT", ""), "'' is no integer"),
        (schema("BIDI_INT", "9223372036854775808"), "no integer of 64 bits"),
        *((schema("BIDI_FLOAT", text), "is no BIDI_FLOAT") for text in
          ("", "a", "1,5", "inf", "nan", "+INF", "0x1p3", "1_0", "1e", ARABIC_ONE)),
        *((schema("BIDI_BOOL", text), "is no BIDI_BOOL") for text in
          ("", "True", "TRUE", "yes", "2", "-1")),
        *((schema("BIDI_BLOB", text), "is no base64") for text in
          ("A", "AP8", "AP8=AP8=", "A*8=", "\N{NO-BREAK SPACE}", "é")),
        (schema("BIDI_INT", "1") + b"\0\0more", "4 bytes follow the document"),
    ],
)  # fmt: skip
def test_what_does_not_comply_is_refused(data: bytes, named: str) -> None:
    with pytest.raises(PayloadInvalid, match=f"no PrinterConfiguration: .*{named}") as refused:
        PrinterConfiguration.decode(data)
    assert refused.value.data == data


# Models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: PrinterConfiguration(printer_name="laser-3", changes=[]),
        lambda: PrinterConfiguration(printer_name="\0", changes=[ReducedSchema(name="\\")]),
        lambda: PrinterConfiguration(changes=[ReducedSchema(name="\\")]),  # type: ignore[call-arg]
        lambda: PrinterConfiguration(printer_name="laser-3", changes=["\\A:b"]),
        lambda: Schema(name=LEVEL, value=None),  # type: ignore[arg-type]
        lambda: Schema(name=LEVEL, value=[1]),  # type: ignore[arg-type]
        lambda: Schema(name=LEVEL),  # type: ignore[call-arg]
        lambda: Schema(name=LEVEL, value="\x01"),
        lambda: Schema(name=LEVEL, value=2**63),
        lambda: Schema(name=LEVEL, value=1, kind=Kind.STRING),
        lambda: Schema(name=LEVEL, value=1, kind=Kind.FLOAT),
        lambda: Schema(name=LEVEL, value=1, kind=Kind.BOOL),
        lambda: Schema(name=LEVEL, value=True, kind=Kind.INT),
        lambda: Schema(name=LEVEL, value="1", kind=Kind.INT),
        lambda: Schema(name=LEVEL, value="x", kind=Kind.BLOB),
        lambda: Schema(name=LEVEL, value=b"x", kind=Kind.TEXT),
        lambda: Schema(name=LEVEL, value="x", kind="BIDI_NULL"),  # type: ignore[arg-type]
        lambda: Schema(name=LEVEL, value=1, unit="%"),  # type: ignore[call-arg]
        lambda: ReducedSchema(name=LEVEL, value=1),  # type: ignore[call-arg]
    ],
)
def test_a_message_that_nobody_could_read_is_not_made(make: Callable[[], object]) -> None:
    with pytest.raises(ValidationError):
        make()


def test_the_type_is_unidirectional() -> None:
    message = PrinterConfiguration(printer_name="laser-3", changes=[Schema(name=LEVEL, value=40)])
    assert message.conversation_style is UNIDIRECTIONAL
    assert PrinterConfiguration.response_model is None
    check_style(PRINTER_CONFIGURATION, UNIDIRECTIONAL)
    check_style(OTHER_TYPE, BIDIRECTIONAL)
    for refused in (
        lambda: check_style(PRINTER_CONFIGURATION, BIDIRECTIONAL),
        lambda: encode(message, PRINTER_CONFIGURATION, Place(BIDIRECTIONAL, 10_000, False)),
    ):
        with pytest.raises(InvalidStyle):
            refused()
    with pytest.raises(InvalidNotificationType):
        encode(message, OTHER_TYPE, Place(UNIDIRECTIONAL, 10_000, False))


def test_its_guid_is_that_of_the_header() -> None:
    """One page prints another digit, and forgets a dash (C2)."""
    guid = "2abad223-b994-4aca-82fc-4571b1b585ac"
    assert str(PrinterConfiguration.notification_type) == guid


# Through a broker -------------------------------------------------------------------------------

MESSAGE = PrinterConfiguration(
    printer_name="laser-3",
    changes=[Schema(name=LEVEL, value=40), Schema(name=r"\Printer:Log", value="x" * 2_000)],
)
SHORT = PrinterConfiguration(
    printer_name="laser-3",
    changes=[Schema(name=LEVEL, value=40), ReducedSchema(name=r"\Printer:Log")],
)


async def test_the_model_works_on_the_in_memory_double() -> None:
    memory = MemoryRedis()
    async with (
        memory.broker(user="alice", max_payload=2_000) as source,
        memory.broker(user="alice") as desk,
        await desk.register(PRINTER, PrinterConfiguration) as registration,
        await source.open_channel(PRINTER, PrinterConfiguration) as channel,
    ):
        await channel.send(MESSAGE)
        told = await registration.fetch(PATIENCE)
        assert isinstance(told, Notification)
        assert told.payload == SHORT


def test_the_model_works_with_plain_calls(redis_server: RedisServer) -> None:
    def process(**options: Any) -> Broker:
        space = "plain-configuration"
        return Broker.connect(redis_server.url, user="alice", namespace=space, **options)

    with (
        process(max_payload=2_000) as source,
        process() as desk,
        desk.register(PRINTER, PrinterConfiguration) as registration,
        source.open_channel(PRINTER, PrinterConfiguration) as channel,
    ):
        channel.send(MESSAGE)
        told = registration.fetch(PATIENCE)
        assert isinstance(told, Notification)
        assert told.payload == SHORT
        with pytest.raises(InvalidStyle):
            desk.register(PRINTER, PrinterConfiguration, style=BIDIRECTIONAL)
