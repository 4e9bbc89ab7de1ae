"""A job's options, as cupsd hands them to its filters and backends (argv[5])."""

from __future__ import annotations

_QUOTES = {"'": "'", '"': '"'}


def parse_options(text: str) -> dict[str, str]:
    r"""Options by their names, in small letters: CUPS knows no case. The last of one name counts.

    ``sides=one-sided media="A 4" title=a\ b collate noborder`` is five of them: a word without a
    value is ``true``, or ``false`` behind a ``no``. Braces keep together what they hold. Anything
    can be read: what nobody closed ends with the text.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        start = at
        while at < len(text) and text[at] != "=" and not text[at].isspace():
            at += 1
        name = text[start:at]
        if at < len(text) and text[at] == "=":
            value, at = _value(text, at + 1)
        elif name[:2].lower() == "no" and len(name) > 2:
            name, value = name[2:], "false"
        else:
            value = "true"
        if name:
            found[name.lower()] = value
    return found


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins there, unquoted, and where it ends."""
    said: list[str] = []
    quote, depth = "", 0
    while at < len(text):
        letter = text[at]
        if letter == "\\" and at + 1 < len(text):
            at += 1
            said.append(text[at])
        elif quote:
            if letter == quote:
                quote = ""
            else:
                said.append(letter)
        elif letter in _QUOTES:
            quote = letter
        elif letter.isspace() and not depth:
            break
        else:
            depth += {"{": 1, "}": -1 if depth else 0}.get(letter, 0)
            said.append(letter)
        at += 1
    return "".join(said), at
