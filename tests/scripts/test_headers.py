"""Each script is what its header and its Python twin say it is.

Static: no Redis. A word that nobody knows would reach a user as noise, and arguments in another
order than the caller's would be taken for each other; so neither gets past these tests.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from broker import _outcomes, _scripts
from broker._scripts import SCRIPTS
from broker.errors import TympanError
from tests import lua_source
from tests.scripts.analysis import (
    ENTRIES,
    FILES,
    SHARED,
    bound_by_unpack,
    calls_of,
    closure,
    code_lines,
    functions_of,
    indices,
    returns_of,
    words_of,
)

CHECKOUT = Path(__file__).resolve().parents[2]
MOST_LINES = 120
MOST_COLUMNS = 120
TYPES = ("hash", "set", "stream", "string", "zset")
BY_NAME = {script.name: script for script in SCRIPTS}
LUA = frozenset(
    {
        "unpack", "tonumber", "tostring", "ipairs", "pairs", "math.max", "math.min", "math.floor",
        "string.find", "string.format", "string.gmatch", "string.match", "string.sub",
        "table.concat", "cjson.encode",
        "cjson.decode", "redis.call", "redis.pcall",
    }
)  # fmt: skip
"""What of Lua, and of Redis in it, both a real server and the in-memory double have."""

every_file = pytest.mark.parametrize("name", FILES)
every_script = pytest.mark.parametrize("name", ENTRIES)


# The shape of a file -----------------------------------------------------------------------------


@every_file
def test_a_file_is_short_enough_to_be_read_at_once(name: str) -> None:
    lines = lua_source.text_of(name).splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= MOST_COLUMNS


@every_file
def test_a_file_is_readable_to_these_tests(name: str) -> None:
    lua_source.parse(lua_source.text_of(name))


@every_file
def test_a_file_says_what_it_is_for(name: str) -> None:
    first = lua_source.text_of(name).splitlines()[0]
    title = re.escape(name.removeprefix(lua_source.SHARED))
    assert re.match(rf"^-- {title}: \S", first), f"the first line is {first!r}"


@every_file
def test_includes_name_files_that_exist(name: str) -> None:
    for included in lua_source.includes_of(name):
        assert included in SHARED, f"{name} includes {included}, which is no shared file"
    marks = re.findall(r"^.*@include.*$", lua_source.text_of(name), re.MULTILINE)
    assert marks == [f"-- @include {included}" for included in lua_source.includes_of(name)]


@every_script
def test_everything_that_is_called_is_there_and_everything_included_is_called(name: str) -> None:
    known = functions_of(name)
    own = lua_source.functions(lua_source.text_of(name))
    called = {call.function for call in calls_of(name)}
    for function in closure(called, known):
        assert function in known or not function.islower() or function in LUA, (
            f"{name} calls {function}, which neither Lua nor an included file defines"
        )
    for included in lua_source.includes_of(name):
        offered = set(lua_source.functions(lua_source.text_of(included)))
        assert offered & closure(called, known), f"{name} uses nothing of {included}"
    for function in own:
        assert function in called, f"{name} defines {function} and never calls it"


@every_file
def test_only_what_every_backend_has_is_used(name: str) -> None:
    text = lua_source.text_of(name)
    part = lua_source.tokens(text)
    used = {token.text for token in part if token.kind == "name"}
    assert not used & {"cmsgpack", "struct", "loadstring", "load", "require", "os", "io", "_G"}
    assert "bit ." not in lua_source.written(part)
    for call in lua_source.calls(part):
        if "." in call.function:
            assert call.function in LUA, f"line {call.line}: {call.function}"
    assert "XREADGROUP" not in text or name == "fetch", "everybody hears all; only a pool shares"
    assert not re.search(r"redis\.(?!call\(|pcall\()", "\n".join(code_lines(text))), (
        "redis.call and redis.pcall are called where they stand, under no other name"
    )


@every_file
def test_the_time_comes_through_the_guard(name: str) -> None:
    if name != "shared/guard":
        assert "'TIME'" not in lua_source.text_of(name)
    assert "os.time" not in lua_source.text_of(name)


@every_file
def test_an_error_is_caught_only_for_a_reason_in_words(name: str) -> None:
    lines = lua_source.text_of(name).splitlines()
    for number, line in enumerate(lines):
        if "pcall(" not in line or line.lstrip().startswith("--"):
            continue
        above = [text for text in lines[:number] if "--" in text and "pcall" in text]
        assert above, f"line {number + 1}: no comment above says why pcall"
        assert re.search(r"redis\.pcall\((bell|'XPENDING'), ", line), (
            "only the bell may fail in silence, and a look at a group that may be gone"
        )


@every_script
def test_redis_is_given_the_file_with_its_includes_put_in(name: str) -> None:
    text = _scripts.read(name)
    assert BY_NAME[name].source == text
    assert "@include" not in text
    lua_source.parse(text)
    for included in lua_source.includes_of(name):
        assert lua_source.text_of(included) in text


# The header --------------------------------------------------------------------------------------


def test_each_script_has_its_file_and_each_file_its_script() -> None:
    assert sorted(BY_NAME) == ENTRIES
    assert len(BY_NAME) == len(SCRIPTS), "two Script objects of one name"


@every_script
def test_the_header_is_complete(name: str) -> None:
    header = lua_source.header_of(name)
    assert header.name == name
    assert header.purpose.endswith((".", "?"))
    assert tuple(header.sections) == lua_source.SECTIONS, "KEYS, ARGV, RETURNS, ATOMIC, in order"
    assert " ".join(header.sections["ATOMIC"]).endswith((".", "?"))
    for key in header.keys:
        assert key.about.partition(" ")[0] in TYPES, f"{key.name} has no type"
    for arg in header.args:
        assert arg.about, f"{arg.name} is not explained"


@every_script
def test_the_header_names_what_python_binds(name: str) -> None:
    header, script = lua_source.header_of(name), BY_NAME[name]
    assert [key.name for key in header.keys] == list(script.keys)
    assert [arg.name for arg in header.args] == list(script.args)
    assert sorted(header.words) == sorted(script.words)
    assert len(set(header.words)) == len(header.words)


@every_script
def test_lists_come_last(name: str) -> None:
    for names in (BY_NAME[name].keys, BY_NAME[name].args):
        starred = [entry.endswith("*") for entry in names]
        assert starred == sorted(starred), f"{names}: a single value after a list"
    assert BY_NAME[name].args[0] == "run"


@every_script
def test_the_code_binds_the_names_of_the_header_in_their_order(name: str) -> None:
    script = BY_NAME[name]
    for table, names in (("KEYS", script.keys), ("ARGV", script.args)):
        single = [entry for entry in names if not entry.endswith("*")]
        assert bound_by_unpack(name, table) == (single, f"{table} , 1 , {len(single)}")


@every_script
def test_lists_begin_after_the_single_values(name: str) -> None:
    """KEYS[8 + 2 * i] and the like: off by one would read a neighbour's key."""
    script = BY_NAME[name]
    part = lua_source.tokens(lua_source.text_of(name))
    for table, names in (("KEYS", script.keys), ("ARGV", script.args)):
        singles = sum(not entry.endswith("*") for entry in names)
        lists = len(names) - singles
        for first, step in indices(part, table):
            assert singles < first <= singles + lists, f"{table}[{first} + ...]"
            assert step == lists, f"{table}[{first} + {step} * i] of {lists} interleaved lists"
    key_lists = sum(key.endswith("*") for key in script.keys)
    first_list = len(script.keys) - key_lists + 1
    for call in calls_of(name):
        if call.function == "boards_from":
            arguments = [lua_source.written(part) for part in call.arguments]
            first_field = 1 + sum(not arg.endswith("*") for arg in script.args)
            assert arguments[:2] == [str(first_list), str(first_field)]
    rounds = re.findall(r"\(#KEYS - (\d+)\) / (\d+) - 1 do", lua_source.text_of(name))
    for fixed, step in rounds:
        assert (int(fixed), int(step)) == (first_list - 1, key_lists)


# Words -------------------------------------------------------------------------------------------


@every_script
def test_the_words_that_are_returned_are_those_that_are_announced(name: str) -> None:
    assert words_of(name) == set(BY_NAME[name].words)


@every_script
def test_every_answer_begins_with_a_word(name: str) -> None:
    for returned in returns_of(lua_source.parse(lua_source.text_of(name))):
        text = lua_source.written(returned)
        assert re.match(
            r"^(\{ ('[A-Z_]+'|word|answer)( ,|  ?\})|refusal$|answer$|finish \()", text
        ), f"{name}: return {text}"


def test_every_word_that_python_handles_exists() -> None:
    known = {word for script in SCRIPTS for word in script.words}
    handled = handled_words()
    assert handled - known == set()
    assert len(handled) > len(known) / 2, "this test no longer finds what Python handles"


@pytest.mark.parametrize(
    "name",
    ["open", "uni_send", "offer", "follow_up", "respond", "source_close", "listener_close"],
)
def test_every_word_about_a_channel_is_a_result_or_an_error_of_its_own(name: str) -> None:
    plain = {"EPOCH", "LAPSED"}  # the server object answers these itself
    for word in set(BY_NAME[name].words) - set(_outcomes.SENT) - set(_outcomes.CLOSED) - plain:
        error = _outcomes.refusal(word, channel="c", detail="d")
        assert type(error) is not TympanError or word in compared_words(), (
            f"{word} would reach the user as {error}"
        )


# What Python handles ---------------------------------------------------------------------------


def compared_words() -> set[str]:
    """Words that Python compares an answer with."""
    found: set[str] = set()
    for file in sorted((CHECKOUT / "broker").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                left = ast.unparse(node.left)
                if re.fullmatch(r"word|answer|reply\[0\]|\w+\.word", left):
                    found |= constants(node)
    return found


def handled_words() -> set[str]:
    """Words that Python has an answer for: compared with, or a key of the outcomes' tables."""
    outcomes = {*_outcomes.SENT, *_outcomes.CLOSED, *_outcomes.NUMBERED, *_outcomes._REFUSALS}
    return outcomes | compared_words()


def constants(node: ast.AST) -> set[str]:
    found: set[str] = set()
    for leaf in ast.walk(node):
        if isinstance(leaf, ast.Constant) and isinstance(leaf.value, (str, bytes)):
            text = leaf.value.decode() if isinstance(leaf.value, bytes) else leaf.value
            found |= {text} if re.fullmatch(r"[A-Z][A-Z_]+", text) else set()
    return found
