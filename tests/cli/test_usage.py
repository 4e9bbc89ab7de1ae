r"""Wrong usage ends with status 2 and a sentence that says how to write it; nothing is sent.

Most cases call ``main`` in this process: nothing is connected before the words are understood, so
the URL leads nowhere.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import click
import pytest

import workers
from broker import TympanError
from tests.cli.commands import TYPE, Place, Tympan
from workers.cli import COMMANDS, main, tympan
from workers.cli.failures import code_of, status_of

NOWHERE = "redis://127.0.0.1:1/0"
NAME = r"\\print01\laser-3"
SEND = ("send", NAME, "--type", TYPE)
LISTEN = ("listen", NAME, "--type", TYPE, "--as", "alice")

WRONG: dict[str, tuple[tuple[str, ...], str, str]] = {
    "bad name": (("send", "laser-3", "--type", TYPE, "--text", "x"), r"\\server\printer", "NAME"),
    "name that a shell ate": (
        ("channels", r"\print01laser-3"),
        r"\print01laser-3 is no name: the shell has eaten a backslash; put names in single quotes",
        "NAME",
    ),
    "server that a shell ate": (
        ("server", "forget", r"\print01"),
        "the shell has eaten a backslash",
        "NAME",
    ),
    "bad GUID": (("send", NAME, "--type", "x", "--text", "x"), "known: asyncui", "ARGUMENT"),
    "reserved GUID": (
        ("send", NAME, "--type", "ba9a5027-a70e-4ae7-9b7d-eb3e06ad4157", "--text", "x"),
        "reserved",
        "ARGUMENT",
    ),
    "no type": (("send", NAME, "--text", "x"), "--type", "ARGUMENT"),
    "bad URL": (("--url", "http://x", *SEND, "--text", "x"), "redis://host:port/0", "ARGUMENT"),
    "bad user": ((*SEND, "--text", "x", "--user", "*"), "is no user", "NAME"),
    "user and all users": (
        (*SEND, "--text", "x", "--user", "bob", "--all-users"),
        "--user and --all-users",
        "ARGUMENT",
    ),
    "two payloads": ((*SEND, "--text", "x", "--file", __file__), "--text and --file", "ARGUMENT"),
    "text and standard input": ((*SEND, "--text", "x", "-"), "--text and -", "ARGUMENT"),
    "a source of no server": (("acl", "source"), r"--server '\\print01'", "ARGUMENT"),
    "no role": (("acl",), "Missing argument 'ROLE...'", "ARGUMENT"),
    "bad role": (("acl", "root"), "'source', 'listener', 'worker'", "ARGUMENT"),
    "bad Redis user": (("acl", "worker", "--user", "a b"), "is no Redis user", "ARGUMENT"),
    "bad namespace": (("acl", "worker", "--namespace", "a:b"), "namespace", "ARGUMENT"),
    "no payload": (SEND, "--text TEXT, --file FILE or -", "ARGUMENT"),
    "payload as a word": ((*SEND, "hello"), "--text TEXT", "ARGUMENT"),
    "missing file": ((*SEND, "--file", "/nowhere"), "does not exist", "ARGUMENT"),
    "bad style": ((*SEND, "--text", "x", "--style", "tri"), "write uni or bi", "ARGUMENT"),
    "uni and wait": ((*SEND, "--text", "x", "--style", "uni", "--wait", "1"), "bi", "ARGUMENT"),
    "bad time": ((*SEND, "--text", "x", "--wait", "soon"), "write 30 or 0.5", "ARGUMENT"),
    "negative time": ((*SEND, "--text", "x", "--wait", "-1"), "write 30 or 0.5", "ARGUMENT"),
    "endless time": ((*SEND, "--text", "x", "--wait", "nan"), "write 30 or 0.5", "ARGUMENT"),
    "listener without a user": (("listen", NAME, "--type", TYPE), "--as", "ARGUMENT"),
    "two ways to answer": ((*LISTEN, "--respond", "x", "--decline"), "exclude", "ARGUMENT"),
    "uni and ask": ((*LISTEN, "--style", "uni", "--ask"), "--style bi", "ARGUMENT"),
    "printers of a printer": ((*LISTEN, "--printers"), "server's name", "ARGUMENT"),
    "nowhere to listen": (
        ("listen", "--type", TYPE, "--as", "alice"),
        "NAME, or --everywhere",
        "ARGUMENT",
    ),
    "a name and everywhere": ((*LISTEN, "--everywhere"), "NAME, or --everywhere", "ARGUMENT"),
    "a printer as an alias": (("server", "alias", NAME, "print01"), "is a printer", "NAME"),
    "a server that is none": (("server", "forget", "a b"), "no DNS name", "NAME"),
    "count of nothing": ((*LISTEN, "--count", "0"), "0", "ARGUMENT"),
    "unknown right": (("grant", NAME, "carol", "fly"), "known: administer", "ARGUMENT"),
    "a server's right on a printer": (
        ("grant", NAME, "carol", "SERVER_ACCESS_ADMINISTER"),
        "no right of a printer",
        "ARGUMENT",
    ),
    "pool without a name": (
        ("pool", "create", "desk", "--type", TYPE),
        "NAME, or --everywhere",
        "ARGUMENT",
    ),
    "bad pool": (("pool", "create", "a b", NAME, "--type", TYPE), "no name of a pool", "NAME"),
    "pool of a printer's printers": (
        ("pool", "create", "desk", NAME, "--type", TYPE, "--printers"),
        "server's name",
        "ARGUMENT",
    ),
    "pool that holds nothing": (
        ("pool", "create", "desk", NAME, "--type", TYPE, "--buffer", "0"),
        "0",
        "ARGUMENT",
    ),
    "no letter": (("dead", "replay"), "LETTER..., or --all", "ARGUMENT"),
    "a letter and all": (("dead", "drop", "1-0", "--all"), "LETTER..., or --all", "ARGUMENT"),
    "a letter of a pool": (
        ("dead", "drop", "1-0", "--pool", "desk"),
        "--pool goes with --all",
        "ARGUMENT",
    ),
    "top without a terminal": (("top",), "tympan workers", "ARGUMENT"),
    "two lengths": (("prove", "--quick", "--seconds", "9"), "--seconds and --quick", "ARGUMENT"),
    "too short a play": (("prove", "--seconds", "1"), "from 3 to 600", "ARGUMENT"),
    "no patience": (("prove", "--patience", "0"), "above 0", "ARGUMENT"),
    "bad namespace of a play": (("prove", "--namespace", "a:b"), "namespace", "ARGUMENT"),
    "bad port": (("up", "--port", "70000"), "70000", "ARGUMENT"),
    "unknown command": (("fly",), "fly", "ARGUMENT"),
    "unknown option": ((*SEND, "--fly"), "--fly", "ARGUMENT"),
}


@pytest.mark.parametrize(("words", "says", "code"), WRONG.values(), ids=WRONG.keys())
def test_wrong_usage(
    words: tuple[str, ...],
    says: str,
    code: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TYMPAN_URL", NOWHERE)
    assert main(words) == 2
    for_people = capsys.readouterr()
    assert says in for_people.err
    assert "--help" in for_people.err, "it says where to read on"
    assert for_people.out == ""

    assert main([*words, "--json"]) == 2
    for_programs = capsys.readouterr()
    record = json.loads(for_programs.out)
    assert record["error"] == f"INVALID_{code}"
    assert record["hresult"] == {"NAME": "0x8007007B", "ARGUMENT": "0x80070057"}[code]
    assert says in record["message"]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("send", "laser-3", "--type", TYPE, "--text", "x"), "tympan send"),
        ((*SEND, "--text", "x", "--url", "http://x"), "tympan send"),
        (("pool", "create", "a b", NAME, "--type", TYPE), "tympan pool create"),
        (("--json", "grant", NAME, "carol", "fly"), "tympan grant"),
        (("send", "--fly"), "tympan send"),
        (("bridge", "run", "fly"), "tympan bridge run"),
        (("fly",), "tympan"),
        (("--url", "http://x"), "tympan"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_the_command_that_was_typed_is_the_one_to_read_about(
    words: tuple[str, ...], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{command}: ")
    assert said.endswith(f"\nHow to use it: {command} --help\n")


def test_every_error_has_an_exit_status_and_a_name() -> None:
    kinds: list[type[TympanError]] = [TympanError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    assert len(kinds) > 30
    for kind in kinds:
        error = kind.__new__(kind)
        assert status_of(error) in (2, 3, 4, 5)
        assert code_of(error).name not in ("UNEXPECTED", ""), f"{kind.__name__} has a code to name"


async def test_url_and_json_before_and_after_the_command(tympan: Tympan, place: Place) -> None:
    send = ("send", place.printer, "--type", TYPE, "--text", "hi")
    url = ("--url", tympan.url)
    processes = await asyncio.gather(
        tympan.run("--json", *url, *send, url=NOWHERE),
        tympan.run(*send, "--json", *url, url=NOWHERE),
        tympan.run("--json", *send, *url, url=NOWHERE),
        tympan.run("--url", NOWHERE, *send, *url, "--json", url=NOWHERE),
        tympan.run(*send, "--json"),
    )
    for process in processes:
        assert process.answer["result"] == "NO_LISTENERS", f"{process}"


async def test_wrong_usage_of_the_installed_command(tympan: Tympan) -> None:
    wrong = await tympan.run("send", "laser-3", "--type", TYPE, "--json", status=2)
    assert wrong.answer["error"] == "INVALID_NAME"
    assert "Traceback" not in wrong.notes


@pytest.mark.parametrize(
    "words",
    [
        *((), ("--help",), ("-h",), ("send", "--help"), ("listen", "-h"), ("up", "--help")),
        *(("pool", "--help"), ("dead", "--help"), ("workers", "--help")),
    ],
    ids=" ".join,
)
def test_help_has_examples(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text
    assert "\n    tympan " in text, "examples keep their lines"


def test_help_says_what_the_exit_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 done" in text
    assert "5 Redis unreachable" in text
    main(["listen", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "default uni, but bi with --respond, --decline and --ask" in text
    for form in ("redis://", "unix://", "redis+sentinel://", "redis+cluster://", "rediss"):
        assert form in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tympan ")


def test_help_knows_each_command_by_its_own_words() -> None:
    context = click.Context(tympan)
    for name, known in COMMANDS.items():
        command = tympan.get_command(context, name)
        assert command is not None
        assert (command.name, command.get_short_help_str(200)) == (name, known.what)


def test_all_names_of_workers_are_there() -> None:
    assert {name: getattr(workers, name) for name in workers.__all__}.keys() == set(workers.__all__)


def test_help_needs_nothing_of_the_broker() -> None:
    code = "import sys; from workers.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = done.stdout.splitlines()[-1].split()
    assert not {"broker", "redis", "pydantic", "rich"} & set(imported)
