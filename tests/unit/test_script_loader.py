"""The loader gives Redis each script with its includes put in once, and binds what the header says.

A call with a value too many or too few never leaves the process.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from broker import _scripts
from broker._scripts import DROP, SCRIPTS, Call, Script, lua_folder, read


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Lua files of the test's own."""
    monkeypatch.setattr(_scripts, "lua_folder", lambda: tmp_path)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "one.lua").write_text("local one = 1\n")
    (tmp_path / "shared" / "two.lua").write_text("local two = 2\n")
    return tmp_path


def script(keys: str = "meta stream* room*", args: str = "run epoch session op field*") -> Script:
    return Script("some", tuple(keys.split()), tuple(args.split()), ("OK",))


def test_a_script_without_includes_is_its_file(folder: Path) -> None:
    (folder / "plain.lua").write_text("return { 'OK' }\n")
    assert read("plain") == "return { 'OK' }\n"


def test_includes_are_put_in_where_they_stand(folder: Path) -> None:
    (folder / "some.lua").write_text("-- @include shared/two\n-- @include shared/one\nreturn one\n")
    assert read("some") == "local two = 2\n\nlocal one = 1\n\nreturn one\n"


def test_an_include_is_put_in_once(folder: Path) -> None:
    (folder / "some.lua").write_text(
        "-- @include shared/one\n-- @include shared/one\n-- @include shared/two\n"
    )
    text = read("some")
    assert (text.count("local one"), text.count("local two")) == (1, 1)
    assert "@include" not in text


def test_an_include_in_a_sentence_is_none(folder: Path) -> None:
    (folder / "some.lua").write_text("local x = 1 -- @include shared/one\n")
    assert "local one" not in read("some")


@pytest.mark.parametrize("text", ["-- @include shared/three\n", None])
def test_a_missing_file_is_an_error(folder: Path, text: str | None) -> None:
    if text is not None:
        (folder / "some.lua").write_text(text)
    with pytest.raises(FileNotFoundError):
        read("some")


def test_the_address_of_a_script_is_what_redis_makes_of_it(folder: Path) -> None:
    (folder / "some.lua").write_text("-- Grüße\n-- @include shared/one\nreturn one\n", "utf-8")
    whole = "-- Grüße\nlocal one = 1\n\nreturn one\n".encode()
    assert script().sha == hashlib.sha1(whole, usedforsecurity=False).hexdigest()


def test_arguments_are_counted_without_those_of_the_session_and_without_lists() -> None:
    assert script().arity == (1, 1)
    assert script("meta leases", "run epoch session").arity == (2, 0)
    assert script("meta", "run session lease").arity == (1, 2), "hello has no epoch yet"


def test_lists_are_interleaved_behind_the_single_values() -> None:
    call = script().call(
        ("m",),
        (7,),
        key_lists=(["s1", "s2"], ["r1", "r2"]),
        arg_lists=(["f1", "f2"],),
    )
    assert call == Call(script(), ("m", "s1", "r1", "s2", "r2"), (7, "f1", "f2"))


def test_empty_lists_add_nothing() -> None:
    call = script().call(("m",), (7,), key_lists=([], []), arg_lists=([],))
    assert (call.keys, call.args) == (("m",), (7,))


@pytest.mark.parametrize(
    ("keys", "args"),
    [((), (7,)), (("m", "l"), (7,)), (("m",), ()), (("m",), (7, 8))],
    ids=["a key too few", "a key too many", "an argument too few", "an argument too many"],
)
def test_a_wrong_number_of_values_is_refused(keys: tuple[str, ...], args: tuple[int, ...]) -> None:
    with pytest.raises(TypeError, match="some takes"):
        script().call(keys, args)


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        script().call(("m",), (7,), key_lists=(["s1", "s2"], ["r1"]))


# The scripts themselves -------------------------------------------------------------------------


@pytest.fixture(params=SCRIPTS, ids=lambda each: each.name)
def each(request: pytest.FixtureRequest) -> Script:
    found: Script = request.param
    return found


def test_every_script_is_there_and_whole(each: Script) -> None:
    source = each.source
    assert "-- @include" not in source
    assert source.count("local function guard(") == (each is not DROP), "it needs no session"
    for name in ("append", "withdraw", "has"):
        assert source.count(f"local function {name}(") <= 1


def test_every_script_has_an_address_of_its_own() -> None:
    assert len({each.sha for each in SCRIPTS}) == len({each.name for each in SCRIPTS})


def test_every_script_refuses_a_wrong_number_of_values(each: Script) -> None:
    keys, args = each.arity
    with pytest.raises(TypeError, match=each.name):
        each.call(("k",) * (keys + 1), ("a",) * args)
    with pytest.raises(TypeError, match=each.name):
        each.call(("k",) * keys, ("a",) * (args + 1))


def test_the_folder_holds_the_scripts() -> None:
    names = {each.name for each in lua_folder().iterdir() if each.name.endswith(".lua")}
    assert names == {f"{each.name}.lua" for each in SCRIPTS}
