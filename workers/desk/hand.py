"""The hand: what keys do at the desk. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from workers.desk.desk import Desk, Entry, State

PAGE = 10
MOST_TYPED = 1000
"""Characters of a note or an answer."""
MOVES = {
    "up": -1,
    "k": -1,
    "down": 1,
    "j": 1,
    "page-up": -PAGE,
    "page-down": PAGE,
    "home": -1_000_000,
    "end": 1_000_000,
}


class Mode(Enum):
    """What keys are for."""

    LIST = "list"
    """Choosing among questions."""
    ONE = "one"
    """One question is shown whole: numbers are its choices."""
    NOTE = "note"
    """A note is typed."""
    TEXT = "text"
    """An answer is typed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer this question so."""

    id: str
    label: str
    typed: str
    note: str


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave the desk."""


class Hand:
    """What was pressed so far, and what it is about.

    A key answers the question that is chosen. That one stays chosen when it is over: no key that
    was meant for it answers another.
    """

    def __init__(self, desk: Desk) -> None:
        self.mode = Mode.LIST
        self.typed = ""
        self.remark = ""
        """What the last key was answered with."""
        self._desk = desk
        self._notes: dict[str, str] = {}
        self._about = ""
        """The question for which something is typed."""
        self._back = Mode.LIST

    @property
    def note(self) -> str:
        """What goes with the answer to the chosen question."""
        return self._notes.get(self._desk.chosen or "", "")

    def press(self, key: str) -> Answer | Quit | None:
        """A key was pressed; what is to be done about it, if anything is."""
        self.remark = ""
        if key == "":
            return Quit()
        if self.mode in (Mode.NOTE, Mode.TEXT):
            return self._type(key)
        if key in ("q", "Q"):
            return Quit()
        if key in MOVES:
            self._desk.move(MOVES[key])
            return None
        if key == "escape" or (key in ("left", "backspace") and self.mode is Mode.ONE):
            self.mode = Mode.LIST
            return None
        if key == "d":
            self._dismiss()
            return None
        if self.mode is Mode.LIST and key.isdecimal() and len(key) == 1:
            if not self._desk.pick(int(key)):
                self._desk.put_down()
                self.remark = f"there is no question {key}, and none is chosen now"
            return None
        return self._about_the_chosen(key)

    def _dismiss(self) -> None:
        many = self._desk.dismiss_news()
        self.remark = f"{many:,} put away" if many else "what is left holds until it is cleared"

    def _about_the_chosen(self, key: str) -> Answer | None:
        entry = self._desk.entry
        if entry is None:
            has_some = bool(self._desk.questions)
            self.remark = "no question is chosen" if has_some else "there is no question"
            return None
        if key in ("enter", "right"):
            self.mode = Mode.ONE
            return None
        choice = entry.asked.chosen_by(key, by_number=self.mode is Mode.ONE)
        is_typed = (key == "n" and entry.asked.takes_note) or (
            key == "a" and entry.asked.takes_text
        )
        if choice is None and not is_typed:
            self.remark = f"{key!r} is no choice here"
            return None
        if entry.state is not State.OPEN:
            self.remark = entry.words
            return None
        if choice is not None:
            return Answer(entry.id, choice.label, choice.typed, self._notes.get(entry.id, ""))
        self._begin(entry, Mode.NOTE if key == "n" else Mode.TEXT)
        return None

    # Typing -------------------------------------------------------------------------------------

    def _begin(self, entry: Entry, mode: Mode) -> None:
        self._back, self.mode, self._about = self.mode, mode, entry.id
        self.typed = self._notes.get(entry.id, "") if mode is Mode.NOTE else ""

    def _type(self, key: str) -> Answer | None:
        match key:
            case "enter":
                return self._typed_all()
            case "escape":
                self.mode, self.typed = self._back, ""
            case "backspace":
                self.typed = self.typed[:-1]
            case "clear":
                self.typed = ""
            case _ if len(key) == 1 and len(self.typed) < MOST_TYPED:
                self.typed += key
        return None

    def _typed_all(self) -> Answer | None:
        mode, text, self.mode, self.typed = self.mode, self.typed.strip(), self._back, ""
        if mode is Mode.NOTE:
            self._notes[self._about] = text
            return None
        entry = self._desk.find(self._about)
        if entry is None or entry.state is not State.OPEN:
            self.remark = entry.words if entry is not None else "the question is over"
            return None
        if not text:
            self.remark = "nothing was typed, and nothing answered"
            return None
        return Answer(self._about, text, text, "")
