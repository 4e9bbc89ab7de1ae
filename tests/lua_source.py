"""Lua files as tests read them: headers, tokens, calls, and the order of statements.

It knows the part of Lua that the scripts are written in: no anonymous functions, no `goto`, no
long brackets. Whatever it cannot read it refuses, so that nothing is passed over in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from broker import _scripts

SHARED = "shared/"
SECTIONS = ("KEYS", "ARGV", "RETURNS", "ATOMIC")
_SECTION = re.compile(r"^-- ([A-Z]+) +(\S.*)$")
_MORE = re.compile(r"^-- {10,}(\S.*)$")
_WORD = re.compile(r"^[A-Z][A-Z_]+\b")
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<comment>--(?!\[\[)[^\n]*)"
    r"|(?P<string>'(?:[^'\\\n]|\\.)*')"
    r"|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<symbol>\.\.|==|~=|<=|>=|[-+*/%^#<>=(){}\[\],.:])"
)


class Token(NamedTuple):
    """One token; comments are none."""

    kind: str
    text: str
    line: int
    start: int
    """Where it begins in the file."""

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)

    @property
    def literal(self) -> str | None:
        """The value of a string."""
        return self.text[1:-1] if self.kind == "string" else None


Tokens = Sequence[Token]


@cache
def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a file, without its comments. Raises ValueError for what it cannot read."""
    found: list[Token] = []
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ValueError(f"line {line}: cannot read {text[at : at + 20]!r}")
        if match.lastgroup not in ("space", "comment"):
            found.append(Token(match.lastgroup, match[0], line, at))
        line += match[0].count("\n")
        at = match.end()
    return tuple(found)


def written(part: Tokens) -> str:
    """Tokens as text, one blank between any two."""
    return " ".join(token.text for token in part)


# Files -------------------------------------------------------------------------------------------


def file_names() -> list[str]:
    """All Lua files, as :func:`text_of` takes them."""
    folder = _scripts.lua_folder()
    names = [item.name for item in folder.iterdir() if item.name.endswith(".lua")]
    shared = [SHARED + item.name for item in (folder / "shared").iterdir()]
    return sorted(name.removesuffix(".lua") for name in names + shared)


def text_of(name: str) -> str:
    """One file as it is written, its includes not put in."""
    return (_scripts.lua_folder() / f"{name}.lua").read_text(encoding="utf-8")


def includes_of(name: str) -> list[str]:
    """What it includes, in order."""
    return re.findall(r"^-- @include (.+)$", text_of(name), re.MULTILINE)


# Headers -----------------------------------------------------------------------------------------


class Parameter(NamedTuple):
    """One line under KEYS or ARGV."""

    name: str
    about: str


@dataclass(frozen=True)
class Header:
    """What a script says about itself."""

    name: str
    purpose: str
    sections: dict[str, list[str]]

    @property
    def keys(self) -> list[Parameter]:
        return self._parameters("KEYS")

    @property
    def args(self) -> list[Parameter]:
        return self._parameters("ARGV")

    @property
    def words(self) -> list[str]:
        """The first word of each alternative under RETURNS."""
        text = " ".join(self.sections.get("RETURNS", []))
        found = [_WORD.match(part.strip()) for part in text.split("|")]
        return [match[0] for match in found if match is not None]

    def _parameters(self, section: str) -> list[Parameter]:
        split = (line.split(None, 1) for line in self.sections.get(section, []))
        return [Parameter(part[0], part[1] if len(part) > 1 else "") for part in split]


def header_of(name: str) -> Header:
    """The comment that a script begins with."""
    lines = []
    for line in text_of(name).splitlines():
        if not line.startswith("--"):
            break
        lines.append(line)
    title = re.match(r"^-- (\w+): (\S.*)$", lines[0]) if lines else None
    sections: dict[str, list[str]] = {}
    current = ""
    for line in lines[1:]:
        section, more = _SECTION.match(line), _MORE.match(line)
        if section is not None and section[1] in SECTIONS:
            current = section[1]
            sections[current] = [section[2]]
        elif more is not None and current:
            sections[current].append(more[1])
        else:
            current = ""
    return Header(title[1] if title else "", title[2] if title else "", sections)


# Calls -------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A call: what is called (`redis.call`, `append`), with what."""

    function: str
    arguments: list[Tokens]
    line: int

    @property
    def command(self) -> str:
        """The Redis command, upper case; empty where it is no literal."""
        return ((self.arguments[0][0].literal or "") if self.arguments else "").upper()


def split(part: Tokens) -> list[Tokens]:
    """Expressions that commas separate."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in part:
        depth += (token.text in "({[") - (token.text in ")}]") if token.kind == "symbol" else 0
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [piece for piece in parts if piece]


def inside(part: Tokens, opening: int) -> Tokens:
    """What stands between the bracket at `opening` and its partner."""
    depth = 0
    for i in range(opening, len(part)):
        if part[i].kind == "symbol":
            depth += (part[i].text in "({[") - (part[i].text in ")}]")
        if depth == 0:
            return part[opening + 1 : i]
    raise ValueError(f"line {part[opening].line}: a bracket that is never closed")


def calls(part: Tokens) -> Iterator[Call]:
    """All calls, in the order of their names; those inside arguments too, definitions not."""
    for i, token in enumerate(part):
        if token.text != "(" or i == 0 or part[i - 1].kind != "name":
            continue
        start = i - 1
        while start >= 2 and part[start - 1].text == ".":
            start -= 2
        if start and part[start - 1].text == "function":
            continue
        name = "".join(piece.text for piece in part[start:i])
        if name not in KEYWORDS:
            yield Call(name, split(inside(part, i)), part[start].line)


# Statements --------------------------------------------------------------------------------------

KEYWORDS = frozenset(
    {
        "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in",
        "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
    }
)  # fmt: skip


@dataclass
class Plain:
    """A run of statements without a block of their own."""

    tokens: list[Token]


@dataclass
class Loop:
    """`for` or `while`: its head is evaluated, its body perhaps never."""

    head: list[Token]
    body: Block


@dataclass
class If:
    """`if` with its branches: condition (empty for `else`) and block."""

    branches: list[tuple[list[Token], Block]]


@dataclass
class Function:
    """A local function."""

    name: str
    parameters: list[str]
    body: Block
    tokens: Tokens


@dataclass
class Return:
    """`return`, with its expressions."""

    tokens: list[Token]


@dataclass
class Block:
    """Statements, one after another."""

    statements: list[Plain | Loop | If | Function | Return] = field(default_factory=list)


class _Reader:
    def __init__(self, part: Tokens) -> None:
        self.part = part
        self.at = 0

    def next_is(self, *texts: str) -> bool:
        return self.at < len(self.part) and self.part[self.at].text in texts

    def until(self, *texts: str) -> list[Token]:
        start = self.at
        while not self.next_is(*texts):
            if self.at >= len(self.part):
                raise ValueError(f"the end of the file, where {texts} was due")
            self.at += 1
        self.at += 1
        return list(self.part[start : self.at - 1])

    def block(self) -> Block:
        block = Block()
        while self.at < len(self.part) and not self.next_is("end", "else", "elseif"):
            if self.next_is("if"):
                block.statements.append(self.branches())
            elif self.next_is("for", "while"):
                self.at += 1
                head = self.until("do")
                block.statements.append(Loop(head, self.block_to_end()))
            elif self.next_is("function") or (
                self.next_is("local") and self.part[self.at + 1].text == "function"
            ):
                block.statements.append(self.function())
            elif self.next_is("return"):
                self.at += 1
                block.statements.append(Return(self.run()))
            elif self.next_is("repeat", "do", "until"):
                raise ValueError(f"line {self.part[self.at].line}: {self.part[self.at].text}")
            else:
                block.statements.append(Plain(self.run()))
        return block

    def run(self) -> list[Token]:
        start = self.at
        while self.at < len(self.part) and not self.next_is(
            "if", "for", "while", "function", "return", "end", "else", "elseif", "repeat", "do"
        ):
            if self.next_is("local") and self.part[self.at + 1].text == "function":
                break
            self.at += 1
        return list(self.part[start : self.at])

    def block_to_end(self) -> Block:
        body = self.block()
        if not self.next_is("end"):
            raise ValueError("a block without its end")
        self.at += 1
        return body

    def branches(self) -> If:
        found: list[tuple[list[Token], Block]] = []
        while not self.next_is("end"):
            keyword = self.part[self.at].text
            self.at += 1
            condition = [] if keyword == "else" else self.until("then")
            found.append((condition, self.block()))
        self.at += 1
        return If(found)

    def function(self) -> Function:
        start = self.at
        self.at += 1 if self.next_is("function") else 2
        name = self.part[self.at].text
        parameters = inside(self.part, self.at + 1)
        self.at += len(parameters) + 3
        body = self.block_to_end()
        names = [piece[0].text for piece in split(parameters)]
        return Function(name, names, body, self.part[start : self.at])


@cache
def parse(text: str) -> Block:
    """The statements of a file."""
    reader = _Reader(tokens(text))
    block = reader.block()
    if reader.at != len(reader.part):
        raise ValueError(f"line {reader.part[reader.at].line}: an end without a beginning")
    return block


def functions(text: str) -> dict[str, Function]:
    """The functions that a file defines at its top level."""
    return {made.name: made for made in parse(text).statements if isinstance(made, Function)}
