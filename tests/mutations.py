"""The changes that mutants are made of: each takes one guard or one write out of a Lua file.

- a condition that is never true, and, where its branch does not return, one that always is;
- one term of a compound condition left out;
- a comparison that is off by one;
- a write, or a call of a function that writes, left out;
- one field left out of several that are written together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests import lua_source
from tests.lua_source import Block, Call, Function, If, Loop, Plain, Return, Tokens
from tests.scripts.analysis import READS, functions_of, statements

OFF_BY_ONE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}


@dataclass(frozen=True)
class Mutant:
    """One change to one file."""

    file: str
    line: int
    change: str
    """What was done to what, in one line."""
    start: int
    end: int
    instead: str
    number: int = 1
    """Which of several that read alike."""

    @property
    def name(self) -> str:
        """Where and what, as the table and the list of equivalents have it."""
        return f"{self.file}: {self.change}" + (f" ({self.number})" if self.number > 1 else "")

    def applied(self, text: str) -> str:
        """The file's text with the change."""
        return text[: self.start] + self.instead + text[self.end :]


def mutants_of(name: str) -> list[Mutant]:
    """All mutants of one file, in the order of their lines."""
    found: list[Mutant] = []
    alike: Counter[str] = Counter()
    for mutant in sorted(_Maker(name).made(), key=lambda mutant: (mutant.line, mutant.start)):
        alike[mutant.change] += 1
        found.append(replace(mutant, number=alike[mutant.change]))
    return found


class _Maker:
    def __init__(self, name: str) -> None:
        self.name = name
        self.text = lua_source.text_of(name)
        self.known = functions_of(name)

    def made(self) -> Iterator[Mutant]:
        yield from self.in_block(lua_source.parse(self.text))

    def in_block(self, block: Block) -> Iterator[Mutant]:
        for statement in block.statements:
            if isinstance(statement, If):
                for condition, branch in statement.branches:
                    if condition:
                        yield from self.of_condition(condition, returns=_returns(branch))
                    yield from self.in_block(branch)
            elif isinstance(statement, (Loop, Function)):
                yield from self.in_block(statement.body)
            elif isinstance(statement, Plain):
                for single in statements(statement.tokens):
                    yield from self.of_statement(single)

    def mutant(self, part: Tokens, change: str, start: int, end: int, instead: str) -> Mutant:
        return Mutant(self.name, part[0].line, change, start, end, instead)

    def source(self, part: Tokens) -> str:
        return " ".join(self.text[part[0].start : part[-1].end].split())

    def of_condition(self, condition: Tokens, *, returns: bool) -> Iterator[Mutant]:
        start, end, source = condition[0].start, condition[-1].end, self.source(condition)
        yield self.mutant(condition, f"never `{source}`", start, end, "false")
        if not returns:
            yield self.mutant(condition, f"always `{source}`", start, end, "true")
        for term, rest in _without_one(condition):
            kept = " ".join(token.text for token in rest)
            yield self.mutant(
                condition, f"no `{self.source(term)}` in `{source}`", start, end, kept
            )
        for token in condition:
            if token.text in OFF_BY_ONE:
                other = OFF_BY_ONE[token.text]
                change = f"`{other}` for `{token.text}` in `{source}`"
                yield self.mutant(condition, change, token.start, token.end, other)

    def of_statement(self, single: Tokens) -> Iterator[Mutant]:
        call = next(lua_source.calls(single), None)
        if call is None or single[0].text == "local" or not self.writes(call):
            return
        if not call.function.startswith(single[0].text):
            return
        source = self.source(single)
        shown = source if len(source) <= 90 else source[:87] + "..."
        yield self.mutant(single, f"without `{shown}`", single[0].start, single[-1].end, "")
        if call.command != "HSET" or len(call.arguments) <= 4:
            return
        for i in range(2, len(call.arguments), 2):
            field, value = call.arguments[i], call.arguments[i + 1]
            change = f"without field `{self.source(field)}` in `{shown}`"
            yield self.mutant(single, change, call.arguments[i - 1][-1].end, value[-1].end, "")

    def writes(self, call: Call) -> bool:
        """Whether a call changes anything, in Redis or for somebody who listens."""
        if call.function in ("redis.call", "redis.pcall"):
            return call.command not in READS
        function = self.known.get(call.function)
        return function is not None and any(map(self.writes, lua_source.calls(function.tokens)))


def _returns(block: Block) -> bool:
    return any(isinstance(statement, Return) for statement in block.statements)


def _without_one(condition: Tokens) -> Iterator[tuple[Tokens, Tokens]]:
    """Each term of a compound condition, and the condition without it."""
    groups = [list(_split(group, "and")) for group in _split(condition, "or")]
    for i, group in enumerate(groups):
        if len(groups) > 1:
            whole = _joined([group], condition)
            yield whole, _joined(groups[:i] + groups[i + 1 :], condition)
        if len(group) > 1:
            for j, term in enumerate(group):
                rest = [*groups[:i], group[:j] + group[j + 1 :], *groups[i + 1 :]]
                yield term, _joined(rest, condition)


def _split(part: Tokens, operator: str) -> Iterator[Tokens]:
    start = depth = 0
    for i, token in enumerate(part):
        if token.kind == "symbol":
            depth += (token.text in "({[") - (token.text in ")}]")
        if token.text == operator and depth == 0:
            yield part[start:i]
            start = i + 1
    yield part[start:]


def _joined(groups: list[list[Tokens]], condition: Tokens) -> Tokens:
    """Terms put together again, with operators that the condition had."""
    by_text = {token.text: token for token in condition}
    found: list[lua_source.Token] = []
    for group in groups:
        if found:
            found.append(by_text["or"])
        for i, term in enumerate(group):
            if i:
                found.append(by_text["and"])
            found.extend(term)
    return found
