r"""Names of queues as CUPS has them, and as Tympan has them: ``\\server\printer``.

Tympan's hold neither a backslash nor a comma, nothing that is not printable, and no space at their
ends; ``%`` and two hexadecimal digits stand for one byte of UTF-8 of these. Both sides compare
names without regard to case. A name that is too long then ends in a digest of itself.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from urllib.parse import unquote

from broker.errors import InvalidName
from broker.names import MAX_PRINTER, Name, fold, parse_user

NOBODY = "anonymous"
"""Whose a job is of which no owner is known; as cupsd calls who gives no name."""
_ESCAPED = re.compile(r"[\\,\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|%(?=[0-9A-Fa-f]{2})")
_PLAIN_AT_ALL = re.compile(r"[^A-Za-z0-9._-]")
_DIGEST = 12


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in found[0].encode("utf-8", "surrogatepass"))


@lru_cache(maxsize=4096)
def name_of(server: Name, queue: str) -> Name:
    r"""``\\server\printer`` for a queue. Raises InvalidName for an empty one."""
    escaped = _ESCAPED.sub(_escape, queue)
    inner = escaped.strip()
    if inner != escaped:
        before = len(escaped) - len(escaped.lstrip())
        ends = escaped[:before], escaped[before + len(inner) :]
        first, last = (re.sub(r"(?s).", _escape, end) for end in ends)
        escaped = first + inner + last
    if len(fold(escaped)) > MAX_PRINTER:
        digest = hashlib.blake2b(fold(queue).encode("utf-8", "surrogatepass"), digest_size=_DIGEST)
        escaped = f"{fold(escaped)[: MAX_PRINTER - 2 * _DIGEST - 1]}~{digest.hexdigest()}"
    try:
        return Name.parse(rf"{server.of_server}\{escaped}")
    except InvalidName:
        plain = _PLAIN_AT_ALL.sub(_escape, queue)[:MAX_PRINTER]
        return Name.parse(rf"{server.of_server}\{plain}")


def queue_of(name: Name) -> str:
    """The queue that a printer's name stands for; in lower case."""
    return unquote(name.printer)


def owner_of(user: str) -> str:
    """A job's owner as Tympan knows users; NOBODY where it is none, or cannot be one."""
    try:
        return parse_user(user)
    except InvalidName:
        return NOBODY
