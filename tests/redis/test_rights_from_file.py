"""The example of a rights source: a file of groups and rights, read again when it changed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from broker import ALL_USERS, Name, Right
from broker.errors import (
    AccessDenied,
    InvalidArgument,
    InvalidName,
    RegistrationEnded,
    RightsUnavailable,
)
from tests.farm import PATIENCE, PRINTER, SERVER, TYPE, Farm

FOLDER = Path(__file__).parents[2] / "examples" / "rights_from_file"
HELPDESK = Right.PRINTER_ACCESS_ADMINISTER


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example's module, as it is."""
    spec = importlib.util.spec_from_file_location("example", FOLDER / "rights_from_file.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A copy of its file, to change."""
    copy = tmp_path / "rights.toml"
    copy.write_bytes((FOLDER / "rights.toml").read_bytes())
    return copy


def change(file: Path, text: str) -> None:
    """Other rights, at another time, whatever the clock of the file system is good for."""
    before = file.stat().st_mtime_ns
    file.write_text(text, encoding="utf-8")
    os.utime(file, ns=(before + 1_000_000_000,) * 2)


def remove(file: Path) -> None:
    file.unlink()


def make_empty(file: Path) -> None:
    file.write_bytes(b"")


async def test_users_have_their_own_rights_and_those_of_their_groups(
    example: ModuleType, file: Path
) -> None:
    source = example.RightsFromFile(file)
    printer, server = Name.parse(PRINTER), Name.parse(SERVER)
    for user in ("carol", r"corp\dave"):
        assert await source.rights(user, printer) == HELPDESK
        assert await source.rights(user, server) == Right.SERVER_ACCESS_ADMINISTER
        assert await source.rights(user, Name("print01", "laser-4")) == Right(0), "a name is exact"
    assert await source.rights("alice", printer) == (Right.PRINTER_ACCESS_USE | Right.READ_CONTROL)
    assert await source.rights("alice", server) == Right(0)
    assert await source.rights("mallory", printer) == Right(0)


async def test_a_change_counts(example: ModuleType, file: Path) -> None:
    source = example.RightsFromFile(str(file))
    assert await source.rights("carol", Name.parse(PRINTER)) == HELPDESK
    change(file, rf"""rights.'{PRINTER}'.carol = "all" """)
    assert await source.rights("carol", Name.parse(PRINTER)) == Right.PRINTER_ALL_ACCESS
    change(file, "")
    assert await source.rights("carol", Name.parse(PRINTER)) == Right(0)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"rights": {"laser-3": {"carol": "administer"}}}, InvalidName),
        ({"rights": {PRINTER: {"*": "administer"}}}, InvalidName),
        ({"rights": {PRINTER: {"carol": "rule-the-world"}}}, InvalidArgument),
        ({"rights": {PRINTER: {"@nobody": "administer"}}}, KeyError),
    ],
)
def test_a_fault_in_the_file_is_no_right(
    example: ModuleType, content: dict[str, Any], fault: type[Exception]
) -> None:
    with pytest.raises(fault):
        example.read(content)


async def test_it_serves_a_broker(farm: Farm, example: ModuleType, file: Path) -> None:
    source = example.RightsFromFile(file)
    broker = await farm.broker("carol", rights=source, lease=1.0, resync=0.1)
    registration = await broker.register(PRINTER, TYPE, user_filter=ALL_USERS)
    with pytest.raises(AccessDenied, match="RightsFromFile"):
        await broker.register(PRINTER, TYPE, user="alice", user_filter=ALL_USERS)

    change(file, "[[[")
    with pytest.raises(RightsUnavailable, match="TOMLDecodeError"):
        await broker.register(PRINTER, TYPE, user_filter=ALL_USERS)
    remove(file)
    with pytest.raises(RightsUnavailable, match="FileNotFoundError"):
        await broker.register(PRINTER, TYPE, user_filter=ALL_USERS)
    assert registration.is_registered, "a fault ends nothing"

    make_empty(file)
    with pytest.raises(RegistrationEnded, match="carol lacks the right"):
        await registration.fetch(PATIENCE)
