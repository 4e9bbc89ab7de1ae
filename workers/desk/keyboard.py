"""Keys: what a terminal sends for one that is pressed. Pure."""

from __future__ import annotations

ESCAPE = "\x1b"
FINAL = range(0x40, 0x7F)
"""What ends a sequence after ``ESC [``."""
NAMED = {
    "[A": "up",
    "OA": "up",
    "[B": "down",
    "OB": "down",
    "[C": "right",
    "OC": "right",
    "[D": "left",
    "OD": "left",
    "[H": "home",
    "OH": "home",
    "[1~": "home",
    "[F": "end",
    "OF": "end",
    "[4~": "end",
    "[5~": "page-up",
    "[6~": "page-down",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x15": "clear",
}


class Keyboard:
    """Characters as they come, to keys: one printable character, or a name of :data:`NAMED`.

    A lone Escape looks like the beginning of more: where nothing follows for a moment, ``flush``
    says that it was one.
    """

    def __init__(self) -> None:
        self._sequence = ""

    @property
    def is_waiting(self) -> bool:
        """Whether more may belong to what came."""
        return bool(self._sequence)

    def press(self, character: str) -> str | None:
        """The key that this character completes; None where it is no key, or not yet."""
        if character == ESCAPE:
            was, self._sequence = self._sequence, ESCAPE
            return "escape" if was == ESCAPE else None
        if not self._sequence:
            return NAMED.get(character) or (character if character.isprintable() else None)
        self._sequence += character
        body = self._sequence[1:]
        if body in ("[", "O") or (body[0] == "[" and ord(character) not in FINAL):
            return None
        self._sequence = ""
        return NAMED.get(body)

    def flush(self) -> str | None:
        """Nothing more came: the Escape key, where that was pressed."""
        was, self._sequence = self._sequence, ""
        return "escape" if was == ESCAPE else None
