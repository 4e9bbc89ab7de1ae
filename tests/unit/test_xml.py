"""Documents are read without trust: no definitions, no entities, nothing fetched, all bounded."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml.etree import _Element

from broker import _xml
from broker._xml import Fault, Rules
from broker.errors import NotificationTooLarge

RULES = Rules("http://example.org/ui", any_case=False)
OPEN = '<a xmlns="http://example.org/ui">'


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def parse(text: str) -> _Element:
    return _xml.parse(utf16(text))


# Encoding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        utf16("<a>Größe 𝄞</a>"),
        utf16("\ufeff<a>Größe 𝄞</a>"),
        utf16('<?xml version="1.0"?><a>Größe 𝄞</a>'),
        utf16('\ufeff<?xml version="1.0" encoding="UTF-16"?>\r\n<a>Größe 𝄞</a>\r\n'),
        utf16('<?xml version="1.0" encoding="UTF-8"?><a>Größe 𝄞</a>'),
        utf16('<?xml version="1.0" encoding="no-such"?><a>Größe 𝄞</a>'),
    ],
    ids=["plain", "with a mark", "declared", "of UTF-16", "as UTF-8", "as nonsense"],
)
def test_documents_are_utf16le_whatever_they_declare(data: bytes) -> None:
    assert _xml.parse(data).text == "Größe 𝄞"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "empty"),
        (utf16("\ufeff"), "empty"),
        (b"<a/>", "UTF-8.*UTF-16LE"),
        (b"<a/>\0", "UTF-8.*UTF-16LE"),
        (b"Out of paper", "UTF-8.*UTF-16LE"),
        (b" <a/>", "UTF-8.*UTF-16LE"),
        (b"\xef\xbb\xbf<a/>", "UTF-8.*UTF-16LE"),
        ("<a/>".encode("utf-16-be"), "UTF-16BE"),
        ("\ufeff<a/>".encode("utf-16-be"), "UTF-16BE"),
        (utf16("<a/>")[:-1], "no UTF-16LE: truncated data at byte 6"),
        (b"<\0a\0>\0\x00\xd8<\0/\0a\0>\0", "no UTF-16LE: .*surrogate at byte 6"),
        ("<a/>".encode("utf-32-le"), "no well-formed XML"),
    ],
)
def test_other_encodings_are_named_as_the_fault(data: bytes, named: str) -> None:
    with pytest.raises(Fault, match=named):
        _xml.parse(data)


# Well-formed, and no more -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Out of paper",
        "<a>",
        "<a/><b/>",
        "<a b='1' b='2'/>",
        "<a>&nbsp;</a>",
        "<a b='&x;'/>",
        "<x:a/>",
        "<a>\x01</a>",
        "<a>&#1;</a>",
        "<a>\ufffe</a>",
        "<!doctype a><a/>",
        "<a>\ufeff</a",
    ],
)
def test_what_is_not_well_formed_is_refused(text: str) -> None:
    with pytest.raises(Fault, match="no well-formed XML: "):
        parse(text)


def test_comments_and_instructions_say_nothing() -> None:
    root = parse("<?style x?><!-- a --><a>b<!-- <c/> -->c<?go now?>d</a><!-- e -->")
    assert (root.text, len(root)) == ("bcd", 0)


BOMB = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE a><a/>",
        "<!DOCTYPE a [\n<!ELEMENT a ANY>]><a/>",
        '<!DOCTYPE a SYSTEM "http://example.org/a.dtd"><a/>',
        '<!DOCTYPE a PUBLIC "-//X//Y" "file:///etc/passwd"><a/>',
        '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        '<!DOCTYPE a [<!ENTITY x "y">]><a b="&x;"/>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:1/"> %x;]><a/>',
        f'<!DOCTYPE a [<!ENTITY e0 "ha">{BOMB}]><a>&e11;</a>',
        f'<!DOCTYPE a [<!ENTITY e0 "ha">{BOMB}]><a b="&e11;"/>',
        '\ufeff<?xml version="1.0"?>\r\n\t <?go now?><!-- no --><!--> -->\n<!DOCTYPE a><a/>',
        "<!-- <a/> --><!DOCTYPE a><a/>",
        "<!DOCTYPE a",
    ],
    ids=range(13),
)
def test_a_document_type_is_refused_for_what_it_is(text: str) -> None:
    with pytest.raises(Fault, match="DOCTYPE: document type definitions and entities"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "<a><![CDATA[<!DOCTYPE a>]]></a>",
        "<!-- <!DOCTYPE a> --><a>&lt;!DOCTYPE a></a>",
        "<?go <!DOCTYPE a> ?><a>&lt;!DOCTYPE a></a>",
    ],
)
def test_talk_of_a_document_type_is_no_document_type(text: str) -> None:
    assert parse(text).text == "<!DOCTYPE a>"


@given(st.lists(st.sampled_from([" ", "\n", "<?a?>", "<!--a-->", "<!-->", "-->", "?>", "<a"])))
def test_no_prologue_hides_a_document_type(prologue: list[str]) -> None:
    text = "".join(prologue) + "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>"
    with pytest.raises(Fault):
        parse(text)


def test_the_five_entities_of_xml_and_character_references_are_read() -> None:
    assert parse("<a>&lt;&gt;&amp;&quot;&apos;&#65;&#x1D11E;</a>").text == "<>&\"'A𝄞"


def test_nothing_that_a_document_names_is_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret.xml"
    secret.write_text("<secret/>", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        for text in (
            f'<!DOCTYPE a SYSTEM "{url}"><a/>',
            f'<!DOCTYPE a [<!ENTITY x SYSTEM "{url}">]><a>&x;</a>',
            f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}">]><a>&x;</a>',
        ):
            with pytest.raises(Fault, match="DOCTYPE"):
                parse(text)
        root = parse(
            f'<?xml-stylesheet href="{url}"?><a xmlns:i="http://www.w3.org/2001/XInclude" '
            'xmlns:s="http://www.w3.org/2001/XMLSchema-instance" '
            f's:noNamespaceSchemaLocation="{url}"><i:include href="{secret.as_uri()}"/>'
            f'<i:include href="{url}"/></a>'
        )
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert [child.tag for child in root] == ["{http://www.w3.org/2001/XInclude}include"] * 2


# Bounds -----------------------------------------------------------------------------------------


def test_a_document_is_bounded_in_bytes() -> None:
    room = _xml.MAX_DOCUMENT // 2 - len("<a></a>")
    assert parse(f"<a>{'x' * room}</a>").text == "x" * room
    with pytest.raises(Fault, match=r"10485762 bytes; at most 10485760"):
        parse(f"<a>{'x' * (room + 1)}</a>")


def test_a_document_is_bounded_in_tags() -> None:
    room = _xml.MAX_TAGS - 2
    assert len(parse(f"<a>{'<b/>' * room}</a>")) == room
    with pytest.raises(Fault, match="more than 100000 tags"):
        parse(f"<a>{'<b/>' * (room + 1)}</a>")


def test_a_document_is_bounded_in_depth() -> None:
    assert parse("<a>" * 200 + "</a>" * 200) is not None
    with pytest.raises(Fault, match=r"no well-formed XML: .*depth in document: 256, line"):
        parse("<a>" * 300 + "</a>" * 300)


def test_what_is_above_the_bounds_is_not_written_either() -> None:
    root = _xml.root(RULES.namespace, "a")
    for _ in range(3):
        _xml.add(root, "b", "x" * 2_000_000)
    with pytest.raises(NotificationTooLarge, match=r"12\d{6} bytes and \d tags; at most 10485760"):
        _xml.encode(root)
    root = _xml.root(RULES.namespace, "a")
    for _ in range(_xml.MAX_TAGS):
        _xml.add(root, "b")
    with pytest.raises(NotificationTooLarge, match=r"1000\d\d tags; at most"):
        _xml.encode(root)


def test_a_text_is_written_only_where_it_can_be_read_again() -> None:
    fits = "漢" * (_xml.MAX_TEXT // 3)
    assert parse(f"<a>{_xml.expressible(fits)}</a>").text == fits
    with pytest.raises(ValueError, match="at most 10000000 bytes"):
        _xml.expressible(fits + "漢")
    with pytest.raises(Fault):
        parse(f"<a>{fits}漢</a>")


@pytest.mark.parametrize("bad", ["\0", "\x01", "\x0b", "\x1f", "\ufffe", "\uffff", "\ud800"])
def test_a_text_that_xml_cannot_hold_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=rf"cannot express U\+{ord(bad):04X}"):
        _xml.expressible(f"a{bad}b")


# NUL --------------------------------------------------------------------------------------------


@given(st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"])), st.binary())
def test_a_document_ends_at_its_first_nul_character(text: str, rest: bytes) -> None:
    assert _xml.split(utf16(text) + _xml.NUL + rest) == (utf16(text), rest)
    assert _xml.split(utf16(text)) == (utf16(text), None)


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"", (b"", None)),
        (b"\0", (b"\0", None)),
        (b"a", (b"a", None)),
        (b"\0\0", (b"", b"")),
        (b"a\0\0\x01b\0", (b"a\0\0\x01b\0", None)),
        (b"a\0\0\0\0", (b"a\0", b"\0")),
    ],
    ids=["nothing", "half", "half of another", "first", "across two characters", "odd rest"],
)
def test_a_nul_is_a_character_and_not_two_bytes(
    data: bytes, parts: tuple[bytes, bytes | None]
) -> None:
    assert _xml.split(data) == parts


@pytest.mark.parametrize("rest", [None, b"", b"\0", b"\0\0\0\0"])
def test_a_nul_may_end_a_document(rest: bytes | None) -> None:
    assert _xml.alone(b"x", rest) == b"x"


def test_nothing_follows_the_nul_of_a_document() -> None:
    with pytest.raises(Fault, match="3 bytes follow"):
        _xml.alone(b"x", b"\0\0a")


# Integers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("+12", 12),
        ("-12", -12),
        ("007", 7),
        (" \t\r\n12 ", 12),
        ("12abc", 12),
        ("12.7", 12),
        ("12 13", 12),
        ("", 0),
        ("abc", 0),
        ("<5>", 0),
        ("-", 0),
        ("+-1", 0),
        ("0x1F", 0),
        ("\N{ARABIC-INDIC DIGIT ONE}", 0),
        ("\N{NO-BREAK SPACE}12", 0),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", 0),
        ("9" * 5_000, 0),
    ],
)
def test_an_integer_is_what_a_text_begins_with_or_nought(text: str, value: int) -> None:
    assert _xml.leading(text) == value


@pytest.mark.parametrize("text", ["12", "+12", "-12", " 12\n", "-9223372036854775808"])
def test_a_whole_text_may_be_an_integer(text: str) -> None:
    assert _xml.whole(text) == int(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a",
        "12a",
        "1.0",
        "1e3",
        "0x1",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "1_0",
        "9223372036854775808",
        "9" * 5_000,
    ],
)
def test_and_otherwise_is_none(text: str) -> None:
    with pytest.raises(Fault, match="is no integer of 64 bits"):
        _xml.whole(text)


# Elements ---------------------------------------------------------------------------------------


def test_names_are_compared_as_the_rules_say() -> None:
    lax = Rules(RULES.namespace, any_case=True)
    document = utf16('<A xmlns="http://example.org/ui"/>')
    assert lax.read(document, "a").name == "A"
    with pytest.raises(Fault, match="its root is <A>, not <a>"):
        RULES.read(document, "a")


def test_only_ascii_letters_have_a_case() -> None:
    kelvin = utf16('<\N{KELVIN SIGN} xmlns="http://example.org/ui"/>')
    with pytest.raises(Fault, match="its root"):
        Rules(RULES.namespace, any_case=True).read(kelvin, "k")


@pytest.mark.parametrize(
    ("namespace", "known"),
    [
        ("http://example.org/ui", True),
        ("https://example.org/ui", True),
        ("http://example.org/ui/", False),
        ("http://example.org/UI", False),
        ("", False),
    ],
)
def test_a_namespace_may_be_spelled_with_https(namespace: str, known: bool) -> None:
    document = utf16(f'<a xmlns="{namespace}"/>')
    if known:
        assert RULES.read(document, "a").named("a")
        return
    with pytest.raises(Fault, match="of the namespace"):
        RULES.read(document, "a")


def test_long_names_and_texts_do_not_fill_the_message() -> None:
    for document in (f"<{'x' * 40_000}/>", f"{OPEN}{'x' * 40_000}<b/></a>"):
        with pytest.raises(Fault) as refused:
            RULES.read(utf16(document), "a").all("b")
        assert len(str(refused.value)) < 300
