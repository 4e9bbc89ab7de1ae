"""Frames: which part of a traceback is the user's own code."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from types import TracebackType

import broker

_OTHERS = tuple(Path(each).parent for each in (os.__file__, broker.__file__, __file__))
"""Folders of the standard library, and of Tympan."""
_INSTALLED = {"site-packages", "dist-packages"}


def own_part(found: TracebackType | None) -> TracebackType | None:
    """A traceback from the first frame of the user's code on; None where it has no such frame."""
    while found is not None and not _is_own(found.tb_frame.f_code.co_filename):
        found = found.tb_next
    return found


def own_place(error: BaseException) -> str:
    """File and line of the user's code that an error came through last; empty where it did not."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else ""


def own_sentence(error: BaseException) -> str:
    """The error and its place, on one line: ``KeyError: 'dsn' (/srv/desk.py, line 7)``."""
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    place = own_place(error)
    words = " ".join(f"{type(error).__name__}: {said}".split())
    return f"{words} ({place})" if place else words


def _is_own(filename: str) -> bool:
    path = Path(filename)
    return not (
        filename.startswith("<")
        or _INSTALLED.intersection(path.parts)
        or any(path.is_relative_to(folder) for folder in _OTHERS)
    )
