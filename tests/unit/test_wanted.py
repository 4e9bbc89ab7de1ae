"""What a farm is to have, as a file says it: read whole, or refused by the place that is wrong."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from broker import ALL_USERS, BIDIRECTIONAL, PER_USER, UNIDIRECTIONAL, Durability, Name, Right
from workers.doctor.findings import Check
from workers.wanted import InvalidFile, Wanted

CHECKOUT = Path(__file__).resolve().parents[2]


def read(folder: Path, text: str, name: str = "farm.toml") -> Wanted:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return Wanted.read(file)


def test_nothing_is_asked_for_where_nothing_is_said(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Wanted()
    assert Wanted().doctor is None


def test_json_says_the_same_as_toml(tmp_path: Path) -> None:
    toml = read(
        tmp_path,
        "[doctor]\ndurability = 'replica'\n[[servers]]\nname = 'print01'\naliases = ['p1']\n"
        "[[grants]]\nname = '\\\\print01'\nuser = 'ann'\nright = 'administer'\n",
    )
    json = read(
        tmp_path,
        '{"doctor": {"durability": "replica"}, "servers": [{"name": "print01", "aliases": ["p1"]}],'
        ' "grants": [{"name": "\\\\\\\\print01", "user": "ann", "right": "administer"}]}',
        "farm.json",
    )
    assert toml == json
    assert toml.doctor is not None
    assert toml.doctor.durability is Durability.REPLICA
    assert toml.grants[0].mask is Right.SERVER_ACCESS_ADMINISTER


def test_a_pool_is_what_a_listener_would_say(tmp_path: Path) -> None:
    plain, wide = read(
        tmp_path,
        "[[pools]]\npool = 'a'\nname = '\\\\print01\\laser-3'\ntype = 'sample-ui'\n"
        "[[pools]]\npool = 'b'\neverywhere = true\ntype = 'asyncui'\nuser = 'ann'\n"
        "all_users = true\nbidirectional = true\nprinters = true\nbuffer = 5\n",
    ).pools
    one = plain.on()
    assert (one.name, one.user, one.buffer) == (r"\\print01\laser-3", None, None)
    assert (one.user_filter, one.style, one.everywhere) == (PER_USER, UNIDIRECTIONAL, False)
    other = wide.on(Name("print02"))
    assert (other.name, other.user, other.buffer) == (Name("print02"), "ann", 5)
    assert (other.user_filter, other.style, other.everywhere) == (ALL_USERS, BIDIRECTIONAL, True)
    assert other.printers


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[pool]]", "pool: nothing of this name is known here"),
        ("servers = 3", "servers: "),
        ("[[servers]]\nname = 7", "servers.0.name: "),
        ("[[servers]]\nname = '\\\\print01\\laser-3'", "servers.0.name: "),
        ("[[grants]]\nname = 'print01'\nuser = 'a'\nright = 'all'", "grants.0.name: 'print01' is"),
        (
            "[[grants]]\nname = '\\\\print01'\nuser = 'a'\nright = 'king'",
            "grants.0: 'king' is no right of a server",
        ),
        ("[[pools]]\npool = 'a'\ntype = 'sample-ui'", "pools.0: say where it listens: name, or"),
        (
            "[[pools]]\npool = 'a'\ntype = 'paper'\nname = '\\\\print01'",
            "pools.0.type: 'paper' is no GUID and no known type",
        ),
        (
            "[[pools]]\npool = 'a'\ntype = 'sample-ui'\nname = '\\\\a\\b'\nprinters = true",
            "pools.0: printers needs a server's name",
        ),
        (
            "[[pools]]\npool = 'a'\ntype = 'sample-ui'\nname = '\\\\a'\nbuffer = 0",
            "pools.0.buffer: ",
        ),
        ("[doctor]\naccept = ['memory']", "doctor: memory is nothing that can be accepted: "),
        ("[doctor]\naccept = ['all']", "doctor.accept.0: "),
        ("pools", "cannot be read: "),
    ],
)
def test_what_is_wrong_is_refused_by_its_place(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile) as refused:
        read(tmp_path, text)
    assert "farm.toml" in str(refused.value)
    assert sentence in str(refused.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"pool: nothing .*; printer: nothing "):
        read(tmp_path, "[[pool]]\n[[printer]]")


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"{"])
def test_what_is_no_text_and_no_json_is_refused(bad: bytes, tmp_path: Path) -> None:
    file = tmp_path / "farm.json"
    file.write_bytes(bad)
    with pytest.raises(InvalidFile, match="cannot be read"):
        Wanted.read(file)


@pytest.mark.parametrize(
    ("document", "language"),
    [("docs/farm.md", "```toml\n(.*?)```"), ("workers/wanted.py", r"::\n\n(.*?)\n\nA file")],
)
def test_the_files_in_the_manual_are_good_ones(
    document: str, language: str, tmp_path: Path
) -> None:
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    (found,) = re.findall(language, text, re.DOTALL)
    wanted = read(tmp_path, textwrap.dedent(found))
    assert wanted.doctor is not None
    assert wanted.doctor.accept == [Check.FSYNC]
    assert (wanted.servers[0].name, wanted.grants[0].name, wanted.pools[0].name) == (
        *(r"\\print01",) * 3,
    )
