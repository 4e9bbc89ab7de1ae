"""The demonstration: one source, three listeners, two print servers, every one its own process.

``python -m workers.demo`` (or ``make demo``) starts a private redis-server, runs the ``tympan``
command as its users would, tells what happens, and checks what it tells: its exit status is 0
when everything was as promised, otherwise 1.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.text import Text

from workers.embedded import EmbeddedRedis, EmbeddedRedisError

LASER = r"\\print01\laser-3"
PLOTTER = r"\\print02\plotter-1"
DOCUMENTS = Path(__file__).parent / "demo_documents"
QUESTION = DOCUMENTS / "message_box.xml"
CHANGE = DOCUMENTS / "configuration.xml"
PATIENCE = 30.0
"""Seconds after which something that did not happen is a broken promise."""
COLOURS = {"spooler": "magenta", "alice": "cyan", "bob": "green", "carol": "yellow"}

Event = dict[str, Any]


class BrokenPromise(Exception):
    """Something was not as the demonstration says."""


def check(holds: object, promise: str) -> None:
    """Raises BrokenPromise, which quotes the promise, where it does not hold."""
    if not holds:
        raise BrokenPromise(promise)


class Transcript:
    """What a newcomer reads. In colour on a terminal only."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)

    def title(self, text: str) -> None:
        """A new scene."""
        self._print(Text(f"\n{text}", "bold"))

    def say(self, text: str = "") -> None:
        """Prose."""
        self._print(Text(text))

    def command(self, who: str, words: list[str]) -> None:
        """What somebody types."""
        line = Text(f"{who:>9} $ ", COLOURS.get(who, ""))
        self._print(line.append("tympan " + shlex.join(words), "bold"))

    def happened(self, who: str, text: str) -> None:
        """What somebody sees."""
        self._print(Text.assemble((f"{who:>9}   ", COLOURS.get(who, "")), text))

    def failed(self, text: str) -> None:
        """A promise that was not kept."""
        self._print(Text(f"\nNOT AS PROMISED: {text}", "bold red"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


class Command:
    """One ``tympan`` command of one user, in a process of its own."""

    def __init__(self, who: str, words: list[str]) -> None:
        self.who = who
        self.words = words
        self.events: list[Event] = []
        self.notes = ""
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    async def start(self, url: str) -> None:
        """Start the process."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "workers.cli", *self.words, "--json"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"TYMPAN_URL": url},
            limit=2**24,
        )
        for stream, take in (
            (self._process.stdout, self._take_event),
            (self._process.stderr, self._take_note),
        ):
            assert stream is not None
            self._readers.append(asyncio.create_task(self._read(stream, take)))

    async def _read(self, stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
        async for line in stream:
            take(line.decode())
            self._news.set()
        self._news.set()

    def _take_event(self, line: str) -> None:
        self.events.append(json.loads(line))

    def _take_note(self, line: str) -> None:
        self.notes += line

    def type(self, line: str) -> None:
        """What the user types on the keyboard."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def event(self, kind: str) -> Event:
        """The first event of this kind."""
        await self._until(lambda: any(self._of(kind)), f"tells of {kind!r}")
        return next(self._of(kind))

    async def note(self, beginning: str) -> None:
        """Wait for a remark to people."""
        await self._until(lambda: beginning in self.notes, f"says {beginning!r}")

    async def ended(self) -> int:
        """The exit status."""
        assert self._process is not None
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*self._readers)
                return await self._process.wait()
        except TimeoutError:
            raise BrokenPromise(f"{self} ends") from None

    async def stop(self) -> None:
        """End the process if it still runs."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def _of(self, kind: str) -> Iterator[Event]:
        return (event for event in self.events if event.get("event") == kind)

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    check(not all(reader.done() for reader in self._readers), f"{self} {what}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise BrokenPromise(f"{self} {what} within {PATIENCE:g} s") from None

    def __str__(self) -> str:
        return f"{self.who}'s `tympan {shlex.join(self.words)}`"


class Demonstration:
    """The scenes, on one Redis."""

    def __init__(self, url: str, transcript: Transcript) -> None:
        self._url = url
        self._out = transcript
        self._commands: list[Command] = []

    async def run(self) -> None:
        """All scenes. Raises BrokenPromise."""
        try:
            await self.first_answer_wins()
            await self.everybody_hears()
            await self.late_administrator()
        except BrokenPromise as broken:
            raise BrokenPromise(f"{broken}{self._what_was_said()}") from None
        finally:
            for command in self._commands:
                await command.stop()

    def _what_was_said(self) -> str:
        said = [
            f"\n  {command}\n    reported {command.events}\n    remarked {command.notes!r}"
            for command in self._commands
        ]
        return "".join(said)

    async def _start(self, who: str, *words: str) -> Command:
        command = Command(who, list(words))
        self._out.command(who, command.words)
        self._commands.append(command)
        await command.start(self._url)
        return command

    async def _done(self, who: str, *words: str) -> Command:
        command = await self._start(who, *words)
        status = await command.ended()
        check(status == 0, f"{command} succeeds (its exit status was {status})")
        return command

    async def _listen(self, user: str, name: str, type_: str, *words: str) -> Command:
        listen = ("listen", name, "--type", type_, "--as", user, *words, "--count", "1")
        return await self._start(user, *listen)

    async def _all_registered(self, listeners: list[Command]) -> None:
        await asyncio.gather(*(listener.event("registered") for listener in listeners))
        who = [listener.who for listener in listeners]
        self._out.happened("", f"{', '.join(who[:-1])} and {who[-1]} are registered.")

    # Scene 1 -----------------------------------------------------------------------------------

    async def first_answer_wins(self) -> None:
        """A bidirectional channel: many are asked, one owns the dialog."""
        out = self._out
        out.title(f"1. One question, three users, one answer: {LASER}")
        out.say(
            "laser-3 holds the wrong paper. Its spooler asks everybody who listens there, with a\n"
            "message box as Windows print components send it. The first answer decides."
        )
        await self._done("admin", "grant", LASER, "spooler", "administer")
        listeners = [
            await self._listen(user, LASER, "asyncui", "--ask")
            for user in ("alice", "bob", "carol")
        ]
        await self._all_registered(listeners)
        source = await self._start(
            "spooler", "send", LASER, "--type", "asyncui", "--style", "bi", "--all-users",
            "--as", "spooler", "--file", path_of(QUESTION),
        )  # fmt: skip
        asked = await asyncio.gather(*(listener.event("notification") for listener in listeners))
        for listener, event in zip(listeners, asked, strict=True):
            check(body_of(event) == QUESTION.read_bytes(), f"{listener.who} sees the same bytes")
            out.happened(listener.who, f"is asked: {question_of(event)}")

        alice, bob, carol = listeners
        out.happened("alice", "types 1 (OK).")
        out.happened("bob", "types 2 (Cancel) at the same moment. carol types nothing.")
        alice.type("1")
        bob.type("2")
        status = await source.ended()
        answer: Any = source.events[-1].get("response")
        check(status == 0 and answer, "the spooler gets an answer")
        check(answer["by"] in ("alice", "bob"), "the answer is one that was given")
        pressed = {"alice": 1, "bob": 2}[answer["by"]]
        check(button_of(answer) == pressed, "it is the winner's own, as a reply to a message box")
        out.happened("spooler", f"gets one answer: button {pressed}, from {answer['by']}.")

        for listener in listeners:
            closed = await listener.event("closed")
            check(await listener.ended() == 0, f"{listener} ends with status 0")
            results = [e["result"] for e in listener.events if e["event"] == "responded"]
            if listener.who == answer["by"]:
                check(results == ["S_OK"], "the winner's answer is accepted")
                check(not closed["acquired"], "the winner keeps the dialog to its end")
                out.happened(listener.who, "was first: S_OK. The reply ended the dialog.")
                continue
            check(results in ([], ["CHANNEL_ACQUIRED"]), f"{listener.who}'s answer is refused")
            check(closed["acquired"], f"{listener.who} is told of the loss")
            check(closed["by"] == answer["by"], f"{listener.who} is told who was first")
            refused = "is refused, CHANNEL_ACQUIRED, and " if results else ""
            out.happened(listener.who, f"{refused}is told: {closed['by']} answered first.")
        shown = await self._done("admin", "show", source.events[-1]["channel"])
        said = [one for one in shown.events[-1]["conversation"] if one["by"] != "source"]
        check([one["by"] for one in said] == [answer["by"]], "Redis holds exactly one response")
        out.happened("admin", f"sees one question, one answer (by {answer['by']}), closed.")
        check(carol.events[-1]["event"] == "closed", "carol's prompt was withdrawn")

    # Scene 2 -----------------------------------------------------------------------------------

    async def everybody_hears(self) -> None:
        """A unidirectional channel: every listener of the type gets its own copy."""
        out = self._out
        out.title(f"2. One message, a copy for each listener: {PLOTTER}")
        out.say(
            "Somebody put another roll into plotter-1. Its spooler tells everybody who listens to\n"
            "printer configurations there. carol listens to all printers of the server print02."
        )
        await self._done("admin", "grant", PLOTTER, "spooler", "administer")
        type_ = "printer-configuration"
        listeners = [
            await self._listen("alice", PLOTTER, type_),
            await self._listen("bob", PLOTTER, type_),
            await self._listen("carol", r"\\print02", type_, "--printers"),
        ]
        await self._all_registered(listeners)
        source = await self._done(
            "spooler", "send", PLOTTER, "--type", type_, "--all-users", "--as", "spooler",
            "--file", path_of(CHANGE),
        )  # fmt: skip
        check(source.events[-1]["result"] == "S_OK", "the spooler is told that all have it")
        out.happened("spooler", "is told S_OK: everybody who listens has it.")
        for listener in listeners:
            event = await listener.event("notification")
            check(body_of(event) == CHANGE.read_bytes(), f"{listener.who} hears the same bytes")
            check(event["name"] == PLOTTER, f"{listener.who} hears which printer it is about")
            check(await listener.ended() == 0, f"{listener} ends with status 0")
            out.happened(listener.who, f"hears from {event['name']}: {change_of(event)}")

    # Scene 3 -----------------------------------------------------------------------------------

    async def late_administrator(self) -> None:
        """A question is held until somebody answers; administrators hear what is for others."""
        out = self._out
        out.title(f"3. Nobody is there, an administrator comes late: {PLOTTER}")
        out.say(
            "A question for alice, who went home. It is held. carol may answer it as soon as she\n"
            "administers the plotter, although she registers long after it was asked."
        )
        source = await self._start(
            "spooler", "send", PLOTTER, "--type", "asyncui", "--style", "bi", "--user", "alice",
            "--as", "spooler", "--file", path_of(QUESTION),
        )  # fmt: skip
        await source.note("nobody listens yet")
        out.happened("spooler", "is told NO_LISTENERS; the question stays open.")
        words = ("listen", PLOTTER, "--type", "asyncui", "--as", "carol", "--all-users", "--ask")
        refused = await self._start("carol", *words, "--count", "1")
        check(await refused.ended() == 3, "all users' questions are refused without a grant")
        check(refused.events[-1]["error"] == "ACCESS_DENIED", "the refusal is ACCESS_DENIED")
        out.happened("carol", "is refused, ACCESS_DENIED: she does not administer the plotter.")
        await self._done("admin", "grant", PLOTTER, "carol", "administer")
        carol = await self._start("carol", *words, "--count", "1")
        event = await carol.event("notification")
        check(body_of(event) == QUESTION.read_bytes(), "the late listener gets the open question")
        check(event["user"] == "alice", "it is still the question for alice")
        out.happened("carol", f"is asked: {question_of(event)}")
        out.happened("carol", "types 1 (OK).")
        carol.type("1")
        check(await source.ended() == 0, "the spooler gets its answer after all")
        answer = source.events[-1]["response"]
        check((answer["by"], button_of(answer)) == ("carol", 1), "the answer is carol's")
        check(await carol.ended() == 0, f"{carol} ends with status 0")
        out.happened("spooler", "gets the answer: button 1, from carol.")


def path_of(document: Path) -> str:
    """The document as one types it here."""
    here = Path.cwd()
    return str(document.relative_to(here) if document.is_relative_to(here) else document)


def body_of(event: Event) -> bytes:
    """The bytes of a payload as the command reports them."""
    if "base64" in event:
        return base64.b64decode(event["base64"])
    return str(event["text"]).encode()


def button_of(answer: Event) -> int | None:
    """The button that a reply to a message box names; None for any other answer."""
    return (answer.get("payload") or {}).get("button")


def question_of(event: Event) -> str:
    """Title and body of a message box."""
    root = ET.fromstring(body_of(event))
    texts = {element.tag.rpartition("}")[2]: element.text or "" for element in root.iter()}
    return f"{texts['title']}. {texts['body']}"


def change_of(event: Event) -> str:
    """What a printer-configuration document says."""
    root = ET.fromstring(body_of(event))
    return ", ".join(
        f"{schema.get('name')} = {schema[0].text}"
        if len(schema)
        else f"{schema.get('name')} changed"
        for schema in root
    )


def _activation() -> str:
    """What makes ``tympan`` known in another terminal, where this runs in an environment."""
    activate = Path(sys.prefix) / "bin" / "activate"
    return f"; in each of them first type `. {path_of(activate)}`" if activate.exists() else ""


async def _demonstrate(url: str, transcript: Transcript) -> None:
    await Demonstration(url, transcript).run()


def main() -> int:
    """Run the demonstration; returns the exit status."""
    out = Transcript()
    began = time.monotonic()
    out.say("Tympan: print notification channels for whole farms. Everybody below is a process of")
    out.say("its own. (To check what it tells, this demonstration adds --json to each command.)")
    try:
        with EmbeddedRedis() as server:
            out.say(f"\nA private redis-server runs until the end: export TYMPAN_URL={server.url}")
            asyncio.run(_demonstrate(server.url, out))
    except (BrokenPromise, EmbeddedRedisError) as error:
        out.failed(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    out.title("All of this was as promised, and checked")
    out.say(
        "  - Who answers first owns the dialog; the others are told at once, by whom.\n"
        "  - A unidirectional notification reaches each listener of its type, byte for byte.\n"
        "  - An open question waits for whoever registers late; administrators need a grant.\n"
        f"  - Two print servers, three users, one Redis; {time.monotonic() - began:.0f} seconds.\n"
        f"\nTry it yourself, in three terminals{_activation()}:\n"
        "  tympan up                              # prints the line to type in the others\n"
        f"  tympan listen '{LASER}' --type asyncui --as alice --ask\n"
        f"  tympan send '{LASER}' --type asyncui --user alice --style bi --text 'Load A4?'\n"
        "  tympan --help"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
