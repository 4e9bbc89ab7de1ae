"""Things that stand on a host's disk: is it there as it has to be, put it there, take it away."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from workers.cups.installation.host import NotInstalled, owner

FOLDER_MARK = ".tympan"
"""The file that says that a folder is Tympan's."""
_MOST_NAMES = 3


class Standing(StrEnum):
    """How a thing stands."""

    RIGHT = "right"
    MISSING = "missing"
    WRONG = "wrong"
    """There, and ours, but not as it has to be."""
    FOREIGN = "foreign"
    """There, and somebody else's."""
    UNSEEN = "unseen"
    """Who runs this may not look."""


@dataclass(frozen=True)
class Look:
    """What was seen of a thing."""

    standing: Standing
    says: str = ""
    """What is wrong, as the end of a sentence that begins with the path."""


@dataclass(frozen=True)
class Ownership:
    """Whose it is and who may do what: ids, and the bits of a mode."""

    uid: int
    gid: int
    mode: int

    def fault(self, found: os.stat_result) -> str:
        """What is wrong about it; empty where nothing is."""
        said = []
        if found.st_uid != self.uid:
            said.append(f"belongs to user {found.st_uid} and not to {self.uid}")
        if found.st_gid != self.gid:
            said.append(f"belongs to group {found.st_gid} and not to {self.gid}")
        if stat.S_IMODE(found.st_mode) != self.mode:
            said.append(f"has mode {stat.S_IMODE(found.st_mode):04o} and not {self.mode:04o}")
        return " and ".join(said)

    def give(self, path: Path) -> None:
        """Give it. Ids that are so already need no privilege."""
        found = path.stat()
        if (found.st_uid, found.st_gid) != (self.uid, self.gid):
            os.chown(path, self.uid, self.gid)
        path.chmod(self.mode)


@dataclass(frozen=True)
class Step:
    """What was done with one thing, or would be."""

    what: str
    path: str
    did: str
    """``placed``, ``replaced``, ``mended``, ``removed``, ``ran``; where nothing was done ``there``,
    ``kept``, ``absent``, ``skipped``."""
    says: str = ""

    @property
    def is_change(self) -> bool:
        """Whether anything is other than before."""
        return self.did not in ("there", "kept", "absent", "skipped")


class Thing(ABC):
    """One of them.

    Attributes:
        what: for people: ``notifier``.
        path: where it is seen from here.
        purpose: one sentence, for people.
    """

    def __init__(self, what: str, path: Path, purpose: str) -> None:
        self.what = what
        self.path = path
        self.purpose = purpose

    def look(self) -> Look:
        """How it stands."""
        try:
            found = self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return Look(Standing.MISSING, "is not there")
        except PermissionError:
            return Look(Standing.UNSEEN, "cannot be seen by you: run this as root")
        try:
            return self._look(found)
        except PermissionError:
            return Look(Standing.UNSEEN, "cannot be read by you: run this as root")

    def place(self) -> None:
        """Have it there as it has to be. Raises NotInstalled."""
        with _told(self.path):
            self._place()

    def remove(self) -> bool:
        """Take it away; returns whether it was there, and ours. Raises NotInstalled."""
        if self.look().standing not in (Standing.RIGHT, Standing.WRONG):
            return False
        with _told(self.path):
            self._remove()
        return True

    @abstractmethod
    def _look(self, found: os.stat_result) -> Look: ...

    @abstractmethod
    def _place(self) -> None: ...

    @abstractmethod
    def _remove(self) -> None: ...


class File(Thing):
    """A file whose text is ours alone; its mark tells it from others of the name."""

    def __init__(
        self, what: str, path: Path, purpose: str, *, text: str, mark: str, owned: Ownership
    ) -> None:
        super().__init__(what, path, purpose)
        self._text = text
        self._mark = mark
        self._owned = owned

    def _look(self, found: os.stat_result) -> Look:
        if not stat.S_ISREG(found.st_mode):
            return Look(Standing.FOREIGN, "is no plain file: move it away")
        text = self.path.read_text("utf-8", errors="replace")
        if self._mark not in text.splitlines():
            return Look(Standing.FOREIGN, "is not Tympan's: move it away")
        fault = self._owned.fault(found)
        if fault:
            return Look(Standing.WRONG, fault)
        if text != self._text:
            return Look(Standing.WRONG, "is that of another environment or version")
        return Look(Standing.RIGHT)

    def _place(self) -> None:
        write(self.path, self._text, self._owned)

    def _remove(self) -> None:
        self.path.unlink()


class Settings(Thing):
    """The settings file: written once; its text is the administrator's afterwards."""

    def __init__(self, path: Path, purpose: str, *, text: str, owned: Ownership) -> None:
        super().__init__("settings", path, purpose)
        self._text = text
        self._owned = owned

    def _look(self, found: os.stat_result) -> Look:
        if not stat.S_ISREG(found.st_mode):
            return Look(Standing.FOREIGN, "is no plain file: move it away")
        fault = self._owned.fault(found)
        return Look(Standing.WRONG, fault) if fault else Look(Standing.RIGHT)

    def _place(self) -> None:
        folder = self.path.parent
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(0o755)
        if self.path.exists():
            self._owned.give(self.path)
        else:
            write(self.path, self._text, self._owned)

    def _remove(self) -> None:
        self.path.unlink()
        with contextlib.suppress(OSError):  # somebody else's files may be there, too
            self.path.parent.rmdir()


class Folder(Thing):
    """A folder of Tympan's own, which a mark in it says; what else is in it may be others'.

    Args:
        files: patterns of the files, sockets among them, that Tympan makes there.
        folders: names of the folders that it makes there.
        may_adopt: whether it becomes Tympan's where it is there, empty, and root's or its owner's.
    """

    def __init__(
        self,
        what: str,
        path: Path,
        purpose: str,
        *,
        owned: Ownership,
        files: Collection[str],
        folders: Collection[str],
        may_adopt: bool,
    ) -> None:
        super().__init__(what, path, purpose)
        self._owned = owned
        self._files = {FOLDER_MARK, *files}
        self._folders = frozenset(folders)
        self._may_adopt = may_adopt

    def _look(self, found: os.stat_result) -> Look:
        if not stat.S_ISDIR(found.st_mode):
            return Look(Standing.FOREIGN, "is no folder: move it away")
        if self._is_marked():
            fault = self._owned.fault(found)
            return Look(Standing.WRONG, fault) if fault else Look(Standing.RIGHT)
        fault = self._fault_of_adoption(found)
        if fault:
            return Look(
                Standing.FOREIGN,
                f"{fault}, and Tympan did not make it: give Tympan a folder of its own, which need "
                "not be there yet",
            )
        return Look(Standing.MISSING, "is empty, and not Tympan's yet")

    def _is_marked(self) -> bool:
        """Whether it has the mark, and nobody made that to have the folder given away."""
        try:
            found = (self.path / FOLDER_MARK).lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_uid in (0, owner())

    def _fault_of_adoption(self, found: os.stat_result) -> str:
        """Why an unmarked folder cannot become Tympan's; empty where it can."""
        names = sorted(path.name for path in self.path.iterdir())
        if names:
            return f"has {_listed(names)} in it"
        if found.st_uid not in (0, self._owned.uid):
            return f"belongs to user {found.st_uid}"
        return "" if self._may_adopt else "is a folder of the system"

    def others(self) -> list[str]:
        """Names of what is in it and not Tympan's. Raises NotInstalled."""
        with _told(self.path):
            return sorted(path.name for path in self.path.iterdir() if not self._is_ours(path))

    def _is_ours(self, path: Path) -> bool:
        if _is_folder(path):
            return path.name in self._folders
        return any(fnmatchcase(path.name, pattern) for pattern in self._files)

    def _place(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._is_marked():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(self.path / FOLDER_MARK, flags, 0o644), "w") as mark:
                mark.write("Tympan's folder: `tympan cups uninstall --purge` deletes it.\n")
        self._owned.give(self.path)

    def _remove(self) -> None:
        """The mark goes last: what is broken off can be done again."""
        ours = [path for path in self.path.iterdir() if self._is_ours(path)]
        for path in sorted(ours, key=lambda path: path.name == FOLDER_MARK):
            if _is_folder(path):
                shutil.rmtree(path)
            else:
                path.unlink()
        if not any(self.path.iterdir()):
            self.path.rmdir()


class Block(Thing):
    """Some lines in a file that is not ours, from a first one to a last."""

    def __init__(self, what: str, path: Path, purpose: str, *, text: str, owned: Ownership) -> None:
        super().__init__(what, path, purpose)
        self._text = text
        lines = text.splitlines()
        self._begin, self._end = lines[0], lines[-1]
        self._owned = owned

    def _look(self, found: os.stat_result) -> Look:
        if not stat.S_ISREG(found.st_mode):
            return Look(Standing.FOREIGN, "is no plain file: move it away")
        _, block, _ = self._parts()
        if not block:
            return Look(Standing.MISSING, "does not have it")
        if block != self._text:
            return Look(Standing.WRONG, "has that of another environment or version")
        return Look(Standing.RIGHT)

    def _parts(self) -> tuple[str, str, str]:
        """What stands before, ours, and what stands behind."""
        lines = self.path.read_text("utf-8").splitlines(keepends=True)
        words = [line.strip() for line in lines]
        if self._begin not in words:
            return "".join(lines), "", ""
        first = words.index(self._begin)
        if self._end not in words[first:]:
            raise NotInstalled(
                f"{self.path} has the line {self._begin!r} and no {self._end!r} behind it: "
                "take out what is left of it"
            )
        last = words.index(self._end, first) + 1
        return "".join(lines[:first]), "".join(lines[first:last]), "".join(lines[last:])

    def _place(self) -> None:
        before, _, behind = self._parts() if self.path.exists() else ("", "", "")
        if before and not before.endswith("\n"):
            before += "\n"
        write(self.path, before + self._text + behind, self._owned)

    def _remove(self) -> None:
        before, _, behind = self._parts()
        write(self.path, before + behind, self._owned)


def write(path: Path, text: str, owned: Ownership) -> None:
    """Write a file in one step: whoever reads it meanwhile finds the old one, or the new one."""
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        owned.give(made)
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def _is_folder(path: Path) -> bool:
    """Whether it is one itself, and no link to one."""
    return stat.S_ISDIR(path.lstat().st_mode)


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


class _told(contextlib.AbstractContextManager[None]):  # noqa: N801
    """What the system refuses, as a sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, PermissionError):
            raise NotInstalled(
                f"{error.filename or self._path}: {error.strerror}: run this as root"
            ) from error
        if isinstance(error, OSError):
            raise NotInstalled(f"{error.filename or self._path}: {error.strerror}") from error
