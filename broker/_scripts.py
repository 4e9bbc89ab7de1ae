"""Scripts: loads the Lua files, and binds each to the names of its keys and arguments.

A file's header says what it takes; :class:`Script` repeats it for the caller, and a test holds
the two against each other. Names that end in ``*`` are lists; lists of keys, and lists of
arguments, are interleaved (``stream*``, ``room*`` is stream, room, stream, room, ...).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Arg = str | bytes | int
_T = TypeVar("_T")
_INCLUDE = re.compile(r"^-- @include (\S+)$", re.MULTILINE)


@cache
def lua_folder() -> Traversable:
    """Where the Lua files are: inside the installed package, or beside it in a checkout."""
    from importlib import resources  # who calls no script does without

    packaged = resources.files("broker") / "lua"
    if packaged.is_dir():
        return packaged
    checkout = Path(__file__).resolve().parent.parent / "lua"
    if checkout.is_dir():
        return checkout
    raise FileNotFoundError(
        f"the Lua scripts of Tympan are missing (looked in {packaged} and {checkout}); "
        "the installation is damaged: install tympan again"
    )


def read(name: str) -> str:
    """The text of ``<name>.lua``, its includes put in once each, in order."""
    included: set[str] = set()

    def text_of(file: str) -> str:
        return (lua_folder() / f"{file}.lua").read_text(encoding="utf-8")

    def put_in(match: re.Match[str]) -> str:
        file = match[1]
        if file in included:
            return ""
        included.add(file)
        return text_of(file)

    return _INCLUDE.sub(put_in, text_of(name))


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a script, without what others add first: run id, epoch and session."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[Arg, ...]


@dataclass(frozen=True)
class Script:
    """One state transition: ``lua/<name>.lua``, its keys, its arguments, its answers."""

    name: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    words: tuple[str, ...]

    @cached_property
    def source(self) -> str:
        """What Redis is given."""
        return read(self.name)

    @cached_property
    def sha(self) -> str:
        """Content address: old and new versions of a script live side by side."""
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    @cached_property
    def arity(self) -> tuple[int, int]:
        """How many single keys and arguments the caller gives, beside those of the session."""
        lead = 3 if self.args[:3] == ("run", "epoch", "session") else 1
        return (
            sum(not name.endswith("*") for name in self.keys),
            sum(not name.endswith("*") for name in self.args) - lead,
        )

    def call(
        self,
        keys: Sequence[str],
        args: Sequence[Arg],
        *,
        key_lists: Sequence[Sequence[str]] = (),
        arg_lists: Sequence[Sequence[Arg]] = (),
    ) -> Call:
        """Bind values, in the order of the header. Lists of one kind are equally long."""
        if (len(keys), len(args)) != self.arity:
            raise TypeError(
                f"{self.name} takes {self.arity} keys and arguments, not {(len(keys), len(args))}"
            )
        return Call(self, (*keys, *_interleave(key_lists)), (*args, *_interleave(arg_lists)))


def _interleave(lists: Sequence[Sequence[_T]]) -> tuple[_T, ...]:
    return tuple(chain.from_iterable(zip(*lists, strict=True)))


def _script(name: str, keys: str, args: str, words: str) -> Script:
    return Script(name, tuple(keys.split()), tuple(args.split()), tuple(words.split()))


HELLO = _script(
    "hello",
    "meta leases streams",
    "run session lease layout inbox bell",
    "OK FOREIGN LAPSED",
)
RENEW = _script(
    "renew",
    "meta leases inbox",
    "run epoch session lease unread",
    "OK EPOCH LAPSED",
)
SWEEP = _script(
    "sweep",
    "meta leases",
    "run epoch session most",
    "OK EPOCH LAPSED",
)
BURY = _script(
    "bury",
    "meta leases streams held inbox",
    "run epoch session whose field",
    "OK HOLDS NOT_DEAD EPOCH LAPSED",
)
GRANT = _script(
    "grant",
    "meta leases grants",
    "run epoch session field mask give",
    "OK EPOCH LAPSED",
)
OPEN = _script(
    "open",
    "meta leases opened channels grants held channel",
    "run epoch session id subject style by right needed limit",
    "OK DENIED LIMIT TAKEN EPOCH LAPSED",
)
UNI_SEND = _script(
    "uni_send",
    "meta leases channel streams body stream* room* idle*",
    "run epoch session op id printer user data kept lossless trace pools keep field* pool*",
    "OK LOST FAILURE NO_LISTENERS FULL MANY CLOSED GONE NOT_YOURS GAP NO_BODY POOLS EPOCH LAPSED",
)
OFFER = _script(
    "offer",
    "meta leases channel log streams body board* room*",
    "run epoch session op id printer user data kept trace field*",
    "OK NO_LISTENERS WAITING CLOSED GONE NOT_YOURS GAP NO_BODY EPOCH LAPSED",
)
OFFER_AGAIN = _script(
    "offer_again",
    "meta leases channel log streams board* room*",
    "run epoch session id printer user field*",
    "OK FORGOTTEN GONE NOT_YOURS EPOCH LAPSED",
)
FOLLOW_UP = _script(
    "follow_up",
    "meta leases channel log streams inbox body",
    "run epoch session op id token listening field data kept trace",
    "OK WAITING CLOSED GONE NOT_YOURS GAP MOVED NO_BODY EPOCH LAPSED",
)
RESPOND = _script(
    "respond",
    "meta leases channel log streams inbox held asked body board* room*",
    "run epoch session op id handle user field keep data kept turn trace field*",
    "OK ACQUIRED CLOSED DECLINED IN_PROGRESS NOT_OFFERED GONE GAP NOT_YOURS NO_BODY EPOCH LAPSED",
)
SOURCE_CLOSE = _script(
    "source_close",
    "meta leases channels channel log streams held inbox dialogs asked board* room*",
    "run epoch session op id holder kind listening field keep data kept field*",
    "OK RELEASED CLOSED NOT_OPENED VIOLATION GONE NOT_YOURS GAP MOVED EPOCH LAPSED",
)
LISTENER_CLOSE = _script(
    "listener_close",
    "meta leases channels channel log streams held inbox sources asked body board* room*",
    "run epoch session op id handle holder kind user field keep data kept field*",
    "OK RELEASED ACQUIRED CLOSED DECLINED NOT_OFFERED VIOLATION GONE NOT_YOURS GAP NO_BODY EPOCH "
    "LAPSED",
)
SERVER_CLOSE = _script(
    "server_close",
    "meta leases grants channels channel log streams sources source_inbox dialogs owner_inbox "
    "asked board* room*",
    "run epoch session id holder source_field listening owner_field keep field*",
    "OK CLOSED GONE MOVED EPOCH LAPSED",
)
DELETE_PRINTER = _script(
    "delete_printer",
    "meta leases grants streams stream* room*",
    "run epoch session deletion part printer field*",
    "OK EPOCH LAPSED",
)
REGISTER = _script(
    "register",
    "meta leases grants counts registrations streams held stream* room*",
    "run epoch session id record group right needed count limit buffer field*",
    "OK DENIED LIMIT EPOCH LAPSED",
)
UNREGISTER = _script(
    "unregister",
    "meta leases counts registrations streams held inbox stream* room*",
    "run epoch session id holder kind group count inbox_field field*",
    "OK GONE NOT_YOURS EPOCH LAPSED",
)
TAKE = _script(
    "take",
    "meta leases streams stream* room*",
    "run epoch session field* group* room* taken* received*",
    "OK EPOCH LAPSED",
)
CONFIRM = _script(
    "confirm",
    "meta leases channel",
    "run epoch session handle op token",
    "OK FORGOTTEN GONE EPOCH LAPSED",
)
CREATE_POOL = _script(
    "create_pool",
    "meta leases grants counts pools streams stream* room*",
    "run epoch session id record group right needed count limit buffer field*",
    "OK KNOWN DENIED LIMIT EPOCH LAPSED",
)
DELETE_POOL = _script(
    "delete_pool",
    "meta leases counts pools streams waiting idle stream* room* returned*",
    "run epoch session id group count field*",
    "OK GONE HOLDS EPOCH LAPSED",
)
JOIN = _script(
    "join",
    "meta leases pools held",
    "run epoch session id",
    "OK GONE EPOCH LAPSED",
)
FETCH = _script(
    "fetch",
    "meta leases pools held inbox idle waiting streams stream* returned*",
    "run epoch session id group most carried field*",
    "OK GONE NOT_JOINED EPOCH LAPSED",
)
FINISH = _script(
    "finish",
    "meta leases stream* room*",
    "run epoch session group* id* many* times*",
    "OK GONE NOT_YOURS EPOCH LAPSED",
)
HAND_BACK = _script(
    "hand_back",
    "meta leases stream* returned* idle*",
    "run epoch session pool* group* id* times* delay*",
    "OK GONE NOT_YOURS EPOCH LAPSED",
)
DISOWN = _script(
    "disown",
    "meta leases held inbox idle stream* returned*",
    "run epoch session id group holder most",
    "OK MORE NOT_YOURS EPOCH LAPSED",
)
ORPHAN = _script(
    "orphan",
    "meta leases pools channel held waiting idle",
    "run epoch session id pool holder",
    "OK GONE NO_POOL NOT_YOURS EPOCH LAPSED",
)
ADOPT = _script(
    "adopt",
    "meta leases channel log streams waiting held inbox",
    "run epoch session id pool field",
    "OK GONE NOT_YOURS EPOCH LAPSED",
)
DEAD_LETTER = _script(
    "dead_letter",
    "meta leases dead stream room body",
    "run epoch session group id most keep times after name* value*",
    "OK GONE NOT_YOURS EPOCH LAPSED",
)
REPLAY = _script(
    "replay",
    "meta leases pools streams dead receipt stream room returned idle",
    "run epoch session letter call keep pool group field entry name* value*",
    "OK GONE NO_POOL FULL OVER EPOCH LAPSED",
)
DROP = _script(
    "drop",
    "dead receipt",
    "run letter call keep",
    "OK GONE",
)

SCRIPTS = (
    HELLO, RENEW, SWEEP, BURY, GRANT, OPEN, UNI_SEND, OFFER, OFFER_AGAIN, FOLLOW_UP, RESPOND,
    SOURCE_CLOSE, LISTENER_CLOSE, SERVER_CLOSE, DELETE_PRINTER, REGISTER, UNREGISTER, TAKE, CONFIRM,
    CREATE_POOL, DELETE_POOL, JOIN, FETCH, FINISH, HAND_BACK, DISOWN, ORPHAN, ADOPT, DEAD_LETTER,
    REPLAY, DROP,
)  # fmt: skip
