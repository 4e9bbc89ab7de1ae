"""What a script does with its keys, words and writes, found without running it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from tests import lua_source
from tests.lua_source import Block, Call, Function, If, Loop, Plain, Return, Token, Tokens

FILES = lua_source.file_names()
ENTRIES = [name for name in FILES if not name.startswith(lua_source.SHARED)]
SHARED = [name for name in FILES if name.startswith(lua_source.SHARED)]

READS = frozenset(
    {
        "EXISTS", "GET", "HEXISTS", "HGET", "HLEN", "HMGET", "SCARD", "SISMEMBER", "SRANDMEMBER",
        "TIME", "TYPE", "XINFO", "XLEN", "XPENDING", "XRANGE", "ZCARD", "ZCOUNT", "ZRANGE",
        "ZRANGEBYSCORE", "ZSCORE",
    }
)  # fmt: skip
SEVERAL_KEYS = frozenset({"DEL", "UNLINK", "EXISTS"})
KEY_AT = {"XGROUP": 2, "XINFO": 2}
"""Where the key stands among a command's words, if not first."""
KEY_BEHIND = {"XREADGROUP": "'STREAMS'"}
"""The word behind which it stands."""
POPPED = "redis . call ( 'ZPOPMIN' , idle ) [ 1 ]"
"""What a bell may ring at beside keys. Members of `idle` are the inboxes of replicas that wait for
work; which of them is woken only the script knows. It is a channel, and no key is touched by it."""


NOTHING = Function("", [], Block(), ())


def code_lines(text: str) -> Iterator[str]:
    """The lines without their comments."""
    for line in text.splitlines():
        yield line.split("--")[0]


def functions_of(name: str) -> dict[str, Function]:
    """The functions that a file can call: its own, and those of what it includes."""
    found: dict[str, Function] = {}
    files = SHARED if name in SHARED else lua_source.includes_of(name)
    for file in (*files, name):
        found |= lua_source.functions(lua_source.text_of(file))
    return found


def calls_of(name: str) -> list[Call]:
    """The calls in one file, its functions' included."""
    return list(lua_source.calls(lua_source.tokens(lua_source.text_of(name))))


def closure(names: set[str], known: dict[str, Function]) -> set[str]:
    """Functions that are called, and those that they call, and so on."""
    found: set[str] = set()
    todo = set(names)
    while todo:
        name = todo.pop()
        found.add(name)
        if name in known:
            todo |= {call.function for call in lua_source.calls(known[name].tokens)} - found
    return found


def statements(part: Tokens) -> Iterator[Tokens]:
    """Single statements of a run: one ends where two operands meet without an operator."""
    start, depth = 0, 0
    for i, token in enumerate(part):
        ends = i > 0 and (
            part[i - 1].kind in ("name", "string", "number") or part[i - 1].text in ")}]"
        )
        operator = {"and", "or", "not", "local"}
        begins = token.kind == "name" and token.text not in operator - {"local"}
        if depth == 0 and ends and begins and part[i - 1].text not in operator:
            yield part[start:i]
            start = i
        if token.kind == "symbol":
            depth += (token.text in "({[") - (token.text in ")}]")
    if part[start:]:
        yield part[start:]


def nodes(block: Block) -> Iterator[Plain | Loop | If | Function | Return]:
    """All statements of a block and of the blocks in it, but not of functions."""
    for statement in block.statements:
        yield statement
        if isinstance(statement, Loop):
            yield from nodes(statement.body)
        elif isinstance(statement, If):
            for _, branch in statement.branches:
                yield from nodes(branch)


def assignments(block: Block) -> Iterator[tuple[list[Tokens], list[Tokens]]]:
    """Targets and values of all assignments, those in loops and branches included."""
    for statement in nodes(block):
        if not isinstance(statement, Plain):
            continue
        for single in statements(statement.tokens):
            at = next((i for i, token in enumerate(single) if token.text == "="), 0)
            if at:
                local = single[0].text == "local"
                yield lua_source.split(single[local:at]), lua_source.split(single[at + 1 :])


def bound_by_unpack(name: str, table: str) -> tuple[list[str], str]:
    """The names that `local ... = unpack(KEYS, ...)` binds, and what it is given."""
    found = [
        ([lua_source.written(target) for target in targets], lua_source.written(values[0][2:-1]))
        for targets, values in assignments(lua_source.parse(lua_source.text_of(name)))
        if lua_source.written(values[0][:3]) == f"unpack ( {table}"
        and re.fullmatch(r"\w+ , 1 , \d+", lua_source.written(values[0][2:-1]))
    ]
    assert len(found) == 1, f"{name} unpacks {table} {len(found)} times"
    return found[0]


def indices(part: Tokens, table: str) -> Iterator[tuple[int, int]]:
    """First index and step of each `KEYS[a + b * i]`; of loops over KEYS from a to its end."""
    for i, token in enumerate(part):
        if token.text == table and part[i + 1].text == "[":
            index = lua_source.written(lua_source.inside(part, i + 1))
            linear = re.fullmatch(r"(\d+) \+ (?:(\d+) \* )?i", index)
            assert linear or index == "i", f"line {token.line}: {table}[{index}]"
            if linear:
                yield int(linear[1]), int(linear[2] or 1)
        if token.text == "for" and part[i + 1].text == "i" and part[i + 2].text == "=":
            head = lua_source.written(part[i + 3 : i + 9])
            walk = re.match(rf"(\d+) , # {table} , (\d+) do", head)
            if walk:
                yield int(walk[1]), int(walk[2])


def returns_of(block: Block) -> Iterator[Tokens]:
    """What the script itself returns, from wherever."""
    for statement in nodes(block):
        if isinstance(statement, Return):
            yield statement.tokens


def words_of(name: str) -> set[str]:
    """The words in a script and in the functions that it calls, unless only compared with."""
    known = functions_of(name)
    own = lua_source.tokens(lua_source.text_of(name))
    called = closure({call.function for call in lua_source.calls(own)}, known)
    parts = [own, *(known[function].tokens for function in called if function in known)]
    return {word for part in parts for word in words_in(part)}


def words_in(part: Tokens) -> Iterator[str]:
    commands: set[Token] = set()
    for i, token in enumerate(part):
        if token.text in ("call", "pcall") and part[i - 2].text == "redis":
            commands |= set(lua_source.inside(part, i + 1))
    for before, token in itertools.pairwise(part):
        word = token.literal or ""
        compared = before.text in ("==", "~=")
        if re.fullmatch(r"[A-Z][A-Z_]+", word) and token not in commands and not compared:
            yield word


def types_of_keys() -> dict[str, str]:
    """Type of each named key, lists' names as loops and functions use them."""
    return {
        key.name.rstrip("*"): key.about.split()[0]
        for name in ENTRIES
        for key in lua_source.header_of(name).keys
    }


def key_arguments(call: Call, key_parameters: dict[str, set[int]]) -> list[Tokens]:
    """The arguments of a call that stand where a key must."""
    if call.function == "redis.pcall" and not call.command:
        return call.arguments[1:2]
    if call.function in ("redis.call", "redis.pcall"):
        if call.command == "TIME":
            return []
        at = KEY_AT.get(call.command, 1)
        if call.command in KEY_BEHIND:
            words = [lua_source.written(argument) for argument in call.arguments]
            at = words.index(KEY_BEHIND[call.command]) + 1
        return call.arguments[at:] if call.command in SEVERAL_KEYS else call.arguments[at : at + 1]
    positions = key_parameters.get(call.function, set())
    return [argument for i, argument in enumerate(call.arguments) if i in positions]


def is_key(argument: Tokens, keys: set[str], tables: dict[str, set[int]]) -> bool:
    """Whether an expression is a key that came with KEYS, unchanged."""
    first = argument[0].text
    if len(argument) == 1:
        return first in keys
    if argument[1].text != "[" or len(lua_source.inside(argument, 1)) != len(argument) - 3:
        return False
    index = argument[2].text
    return first == "KEYS" or (index.isdigit() and int(index) in tables.get(first, set()))


def made_up_keys(text: str, known: dict[str, Function]) -> list[str]:
    """What stands where a key must, and does not come from KEYS."""
    scope = Scope(lua_source.parse(text), known)
    return [
        f"line {call.line}{function}: {call.function} of {lua_source.written(argument)!r}"
        for function, keys, channels, part in scope.parts()
        for call in lua_source.calls(part)
        for argument in key_arguments(call, scope.key_parameters)
        if not is_key(argument, keys | (channels if is_bell(call) else set()), scope.tables)
    ]


def is_bell(call: Call) -> bool:
    """Whether a call rings: the command is the one that the server's own record names."""
    return call.function == "redis.pcall" and lua_source.written(call.arguments[0]) == "bell"


class Scope:
    """Which names of a file are keys."""

    def __init__(self, block: Block, known: dict[str, Function]) -> None:
        self.block = block
        self.known = known
        self.key_parameters: dict[str, set[int]] = {}
        self.tables: dict[str, set[int]] = {}
        self.keys = self._bound(block)
        self._find_tables()
        self._find_key_parameters()

    def parts(self) -> Iterator[tuple[str, set[str], set[str], Tokens]]:
        """The script itself, then each function of this file: its keys, channels beside them."""
        own = [made for made in self.block.statements if isinstance(made, Function)]
        inside = {id(token) for made in own for token in made.tokens}
        rest = [t for t in all_tokens(self.block) if id(t) not in inside]
        yield "", self.keys, popped(self.block, self.keys), rest
        for made in own:
            keys = self.keys | self._keys_of(made)
            yield f" ({made.name})", keys, popped(made.body, keys), made.tokens

    def _bound(self, block: Block) -> set[str]:
        """Names bound from KEYS. One that is ever bound to anything else is no key."""
        keys: set[str] = set()
        others: set[str] = set()
        for targets, values in assignments(block):
            everything = lua_source.written(values[0]).startswith("unpack ( KEYS")
            for i, target in enumerate(targets):
                value = values[i] if i < len(values) else ()
                from_keys = everything or (len(value) > 1 and is_key(value, set(), {}))
                (keys if from_keys else others).add(lua_source.written(target))
        return keys - others

    def _find_tables(self) -> None:
        """Tables that keys are put into, by the position in each of their rows."""
        for targets, values in assignments(self.block):
            if len(targets[0]) > 2 and targets[0][1].text == "[" and values[0][0].text == "{":
                row = lua_source.split(values[0][1:-1])
                held = {i + 1 for i, cell in enumerate(row) if is_key(cell, self.keys, {})}
                name = targets[0][0].text
                self.tables[name] = held & self.tables.get(name, held)
        for statement in nodes(self.block):
            if isinstance(statement, Loop):
                over = re.match(
                    r"_ , (\w+) in ipairs \( (\w+) \)", lua_source.written(statement.head)
                )
                if over and over[2] in self.tables:
                    self.tables[over[1]] = self.tables[over[2]]

    def _find_key_parameters(self) -> None:
        """Parameters that stand where a key must, in the function or in what it calls."""
        changed = True
        while changed:
            changed = False
            for made in self.known.values():
                for call in lua_source.calls(made.tokens):
                    for argument in key_arguments(call, self.key_parameters):
                        named = lua_source.written(argument)
                        if named in made.parameters:
                            found = self.key_parameters.setdefault(made.name, set())
                            changed = changed or made.parameters.index(named) not in found
                            found.add(made.parameters.index(named))

    def _keys_of(self, made: Function) -> set[str]:
        given = {made.parameters[i] for i in self.key_parameters.get(made.name, set())}
        assigned = {
            lua_source.written(target)
            for targets, _ in assignments(made.body)
            for target in targets
        }
        return (given - assigned) | self._bound(made.body)


def popped(block: Block, keys: set[str]) -> set[str]:
    """Names that stand for a member of `idle` and, in all of a block, for nothing else."""
    members: set[str] = set()
    others: set[str] = set()
    for targets, values in assignments(block):
        for i, target in enumerate(targets):
            value = lua_source.written(values[i]) if i < len(values) else ""
            is_popped = value == POPPED and "idle" in keys
            (members if is_popped else others).add(lua_source.written(target))
    return members - others


def all_tokens(block: Block) -> list[Token]:
    """The tokens of a block, in order, keywords of its structure left out."""
    found: list[Token] = []
    for statement in block.statements:
        if isinstance(statement, Loop):
            found += statement.head + all_tokens(statement.body)
        elif isinstance(statement, If):
            for condition, branch in statement.branches:
                found += condition + all_tokens(branch)
        else:
            found += statement.tokens
    return found


def first_writes(block: Block, known: dict[str, Function]) -> tuple[set[str], bool]:
    """Commands that may be the first write of a block, and whether it surely writes."""
    found: set[str] = set()
    for statement in block.statements:
        if isinstance(statement, Function):
            continue
        inner, surely = _first_of_statement(statement, known)
        found |= inner
        if surely:
            return found, True
    return found, False


def _first_of_statement(
    statement: Plain | Loop | If | Return, known: dict[str, Function]
) -> tuple[set[str], bool]:
    if isinstance(statement, Plain):
        return _first_of_calls(statement.tokens, known)
    if isinstance(statement, Return):
        return _first_of_calls(statement.tokens, known)[0], True
    if isinstance(statement, Loop):
        found, surely = _first_of_calls(statement.head, known)
        return (found, True) if surely else (found | first_writes(statement.body, known)[0], False)
    found, sure = set(), []
    for condition, branch in statement.branches:
        inner, surely = _first_of_calls(condition, known)
        if surely:
            return found | inner, True
        in_branch, surely = first_writes(branch, known)
        found |= inner | in_branch
        sure.append(surely)
    has_else = not statement.branches[-1][0]
    return found, has_else and all(sure)


def _first_of_calls(part: Tokens, known: dict[str, Function]) -> tuple[set[str], bool]:
    found: set[str] = set()
    for call in lua_source.calls(part):
        touches = call.function in ("redis.call", "redis.pcall") and call.command
        if touches and call.command not in READS:
            return found | {call.command}, True
        if call.function in known:
            inner, surely = first_writes(known[call.function].body, known)
            found |= inner
            if surely and inner:
                return found, True
    return found, False
