r"""Names have one canonical form, whatever spelling they came in, and nothing else is a name.

The canonical server is the hash tag of every key of that server, so two spellings of one server
must not differ, and no spelling may end the tag early.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.errors import InvalidName
from broker.names import (
    MAX_PRINTER,
    MAX_SERVER,
    MAX_USER,
    Name,
    fold,
    parse_server,
    parse_user,
)

CONTROLS = ("\x00", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\x9f", "\u2028", "\u2029")
LONE_SURROGATES = ("\ud800", "\udc80", "\udfff")

HOSTS = st.one_of(
    st.from_regex(r"\w([\w.-]{0,30}\w)?", fullmatch=True),
    st.ip_addresses().map(str),
)
PRINTERS = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="\\,"), max_size=40
).map(lambda text: f"a{text}b")


@pytest.mark.parametrize(
    ("text", "server", "printer"),
    [
        pytest.param(r"\\print01\laser-3", "print01", "laser-3", id="printer"),
        pytest.param(r"\\print01", "print01", "", id="server"),
        pytest.param(r"\\PRINT01\Laser-3", "print01", "laser-3", id="case is folded"),
        pytest.param(r"\\print01.Example.COM\p", "print01.example.com", "p", id="DNS name"),
        pytest.param(r"\\PRINT_01\p", "print_01", "p", id="NetBIOS name"),
        pytest.param(r"\\10.0.0.7\p", "10.0.0.7", "p", id="IPv4"),
        pytest.param(r"\\2001:DB8:0:0:0:0:0:7\p", "2001:db8::7", "p", id="IPv6 is shortened"),
        pytest.param(r"\\[2001:db8::7]\p", "2001:db8::7", "p", id="IPv6 in brackets"),
        pytest.param(r"\\[::1]", "::1", "", id="IPv6 server"),
        pytest.param(r"\\::ffff:10.0.0.7", "::ffff:a00:7", "", id="mapped IPv4, one form for all"),
        pytest.param(r"\\p\Straße", "p", "strasse", id="full case folding"),
        pytest.param("\\\\p\\cafe\u0301", "p", "caf\u00e9", id="composed (NFC)"),
        pytest.param("\\\\cafe\u0301\\p", "caf\u00e9", "p", id="server composed (NFC)"),
        pytest.param(r"\\p\Floor 3 | east {new}", "p", "floor 3 | east {new}", id="bars, braces"),
        pytest.param(r"\\p\}{", "p", "}{", id="braces alone in a printer"),
        pytest.param(r"\\p\*", "p", "*", id="a printer called star"),
        pytest.param("\\\\p\\" + "x" * MAX_PRINTER, "p", "x" * MAX_PRINTER, id="longest printer"),
        pytest.param("\\\\" + "x" * MAX_SERVER, "x" * MAX_SERVER, "", id="longest server"),
    ],
)
def test_a_name_has_one_canonical_form(text: str, server: str, printer: str) -> None:
    assert Name.parse(text) == Name(server, printer)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("laser-3", id="no backslashes"),
        pytest.param(r"\print01\laser-3", id="one backslash"),
        pytest.param("//print01/laser-3", id="slashes"),
        pytest.param(r"\\", id="no server"),
        pytest.param(r"\\\laser-3", id="no server before the printer"),
        pytest.param("\\\\print01\\", id="ends without a printer"),
        pytest.param(r"\\print01\a\b", id="backslash in the printer"),
        pytest.param(r"\\print01\a,b", id="comma in the printer"),
        pytest.param(r"\\print01\ laser", id="space before the printer"),
        pytest.param("\\\\print01\\laser ", id="space after the printer"),
        pytest.param(r"\\print 01\p", id="space in the server"),
        pytest.param(r"\\-print01\p", id="server begins with a hyphen"),
        pytest.param(r"\\print01.\p", id="server ends with a dot"),
        pytest.param(r"\\print:01\p", id="colon in the server"),
        pytest.param(r"\\print|01\p", id="bar in the server"),
        pytest.param(r"\\*\p", id="star as the server"),
        pytest.param(r"\\pr{int01\p", id="opening brace in the server"),
        pytest.param(r"\\pr}int01\p", id="closing brace in the server"),
        pytest.param(r"\\{print01}\p", id="server in braces"),
        pytest.param(r"\\fe80::1%}x{\p", id="braces in the zone of an IPv6 address"),
        pytest.param("\\\\fe80::1%\n\\p", id="control character in the zone of an IPv6 address"),
        pytest.param(r"\\[::1\p", id="bracket never closed"),
        pytest.param(r"\\::1]\p", id="bracket never opened"),
        pytest.param(r"\\[[::1]]\p", id="brackets twice"),
        pytest.param(r"\\[print01]\p", id="brackets around a host name"),
        pytest.param(r"\\1:2:3\p", id="broken IPv6"),
        pytest.param("\\\\p\\" + "x" * (MAX_PRINTER + 1), id="overlong printer"),
        pytest.param("\\\\" + "x" * (MAX_SERVER + 1), id="overlong server"),
        pytest.param("\\\\" + "x" * 1_000_000, id="a megabyte"),
        *(pytest.param(f"\\\\p\\a{c}b", id=f"{ord(c):#x} in the printer") for c in CONTROLS),
        *(pytest.param(f"\\\\p\\a{c}", id=f"{ord(c):#x} after the printer") for c in CONTROLS),
        *(pytest.param(f"\\\\a{c}b\\p", id=f"{ord(c):#x} in the server") for c in CONTROLS),
        *(pytest.param(f"\\\\a{c}", id=f"{ord(c):#x} after the server") for c in CONTROLS),
        *(pytest.param(f"\\\\p\\a{c}", id=f"{ord(c):#x} in a printer") for c in LONE_SURROGATES),
        *(pytest.param(f"\\\\a{c}b\\p", id=f"{ord(c):#x} in a server") for c in LONE_SURROGATES),
    ],
)
def test_anything_else_is_no_name(text: str) -> None:
    with pytest.raises(InvalidName) as refused:
        Name.parse(text)
    assert refused.value.result.hresult == 0x8007007B
    assert not refused.value.retryable, "a malformed name never becomes right (R126)"


@pytest.mark.parametrize("value", [5, 1.5, b"\\\\print01\\p", [r"\\print01"], object()])
def test_what_is_no_text_is_no_name(value: Any) -> None:
    with pytest.raises(InvalidName):
        Name.parse(value)


@pytest.mark.parametrize("default", ["PRINT01", r"\\print01"])
def test_no_name_means_the_clients_own_server(default: str) -> None:
    assert Name.parse(None, default) == Name("print01")


@pytest.mark.parametrize("default", [None, ""])
def test_no_name_needs_a_server_that_the_client_is_bound_to(default: str | None) -> None:
    with pytest.raises(InvalidName, match="server="):
        Name.parse(None, default)


def test_an_empty_name_is_not_the_clients_own_server() -> None:
    """A name that was lost on its way must not turn into another one."""
    with pytest.raises(InvalidName):
        Name.parse("", "print01")


def test_a_parsed_name_is_taken_as_it_is() -> None:
    name = Name("print01", "laser-3")
    assert Name.parse(name, "other") is name


def test_names_compare_and_sort_by_server_then_printer() -> None:
    names = [Name("b"), Name("a", "z"), Name("a")]
    assert sorted(names) == [Name("a"), Name("a", "z"), Name("b")]
    assert Name("a", "z").of_server == Name("a") == Name("a").of_server


def test_zones_of_ipv6_addresses_do_not_make_two_servers_of_one() -> None:
    """A zone names an interface of one host: it means nothing to a farm, or is folded."""
    forms = set()
    for text in (r"\\fe80::1%ETH0", r"\\FE80::1%eth0"):
        try:
            forms.add(Name.parse(text))
        except InvalidName:
            forms.add(Name("refused"))
    assert len(forms) == 1


@pytest.mark.parametrize("printer", ["ß" * MAX_PRINTER, "\u0390" * MAX_PRINTER])
def test_a_name_that_grows_by_folding_is_refused_or_reads_as_itself(printer: str) -> None:
    """Canonical names are given out by the inventory, and must go in again."""
    try:
        name = Name.parse(f"\\\\p\\{printer}")
    except InvalidName:
        return
    assert Name.parse(str(name)) == name


@given(HOSTS, PRINTERS)
def test_a_canonical_name_reads_as_itself(server: str, printer: str) -> None:
    try:
        name = Name.parse(f"\\\\{server}\\{printer}")
    except InvalidName:
        assume(False)
    assert Name.parse(str(name)) == name
    assert not set("{}\\|*:") & set(name.server) or ":" in server, "the server is a hash tag"
    assert name.printer, "a name with a second backslash is a printer's"


@given(st.text(max_size=40))
def test_folding_is_done_once(text: str) -> None:
    folded = fold(text)
    assert fold(folded) == folded
    assert unicodedata.is_normalized("NFC", folded)


@pytest.mark.parametrize(
    ("user", "folded"),
    [
        pytest.param("alice", "alice", id="name"),
        pytest.param("Alice", "alice", id="case is folded"),
        pytest.param("  alice ", "alice", id="spaces around"),
        pytest.param("ADATUM\\Alice", "adatum\\alice", id="domain"),
        pytest.param("alice@Adatum.com", "alice@adatum.com", id="principal"),
        pytest.param("S-1-5-21-1004336348", "s-1-5-21-1004336348", id="SID"),
        pytest.param("Bjo\u0308rn Groß", "bj\u00f6rn gross", id="composed and folded"),
        pytest.param("=+,:{}", "=+,:{}", id="marks that keys use elsewhere"),
        pytest.param("x" * MAX_USER, "x" * MAX_USER, id="longest"),
    ],
)
def test_a_user_has_one_canonical_form(user: str, folded: str) -> None:
    assert parse_user(user) == folded
    assert parse_user(folded) == folded


@pytest.mark.parametrize(
    "user",
    [
        pytest.param("", id="empty"),
        pytest.param("   ", id="spaces"),
        pytest.param("*", id="star: everybody"),
        pytest.param(" * ", id="star in spaces"),
        pytest.param("a|b", id="bar"),
        pytest.param("x" * (MAX_USER + 1), id="overlong"),
        pytest.param("ß" * MAX_USER, id="overlong once folded"),
        *(pytest.param(f"a{c}b", id=f"{ord(c):#x}") for c in (*CONTROLS, *LONE_SURROGATES)),
    ],
)
def test_anything_else_is_no_user(user: str) -> None:
    with pytest.raises(InvalidName, match="no user"):
        parse_user(user)


@pytest.mark.parametrize("value", [None, 5, b"alice", ["alice"]])
def test_what_is_no_text_is_no_user(value: Any) -> None:
    with pytest.raises(InvalidName, match="no user"):
        parse_user(value)


# Servers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "server"),
    [
        (r"\\PRINT01", "print01"),
        ("Print01.Farm.Example", "print01.farm.example"),
        ("2001:DB8::0:7", "2001:db8::7"),
        (Name("print01"), "print01"),
    ],
)
def test_a_server_is_written_with_or_without_backslashes(text: str | Name, server: str) -> None:
    assert parse_server(text) == server


@pytest.mark.parametrize(
    "text", [r"\\print01\laser-3", r"print01\laser-3", "", r"\\", "a b", None, 7, Name("a", "b")]
)
def test_what_is_no_server_is_refused(text: Any) -> None:
    with pytest.raises(InvalidName):
        parse_server(text)
