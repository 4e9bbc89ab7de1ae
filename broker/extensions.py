"""Extensions: what other packages plug into Tympan by entry points.

A group of entry points is read once, when something of it is first asked for. One that cannot be
used is a :class:`Fault`: it is raised where its own name is asked for, and harms nothing else.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from broker.errors import ExtensionInvalid

T = TypeVar("T")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_FILE = "entry_points.txt"
OWN = "tympan"
"""The distribution that this is."""


@dataclass(frozen=True, slots=True)
class Point:
    """One entry point, as its distribution declares it."""

    group: str
    name: str
    value: str
    """``module:object``."""
    distribution: str
    """Name and version, such as ``toner-alerts 1.0``."""

    @property
    def is_own(self) -> bool:
        """Whether it comes with Tympan itself."""
        return self.distribution.partition(" ")[0] == OWN

    def __str__(self) -> str:
        return f"{self.name} = {self.value!r} ({self.group} of {self.distribution})"


@dataclass(frozen=True, slots=True)
class Extension(Generic[T]):
    """An entry point, and what it names."""

    point: Point
    loaded: T


@dataclass(frozen=True, slots=True)
class Fault:
    """An entry point that cannot be used, and why."""

    point: Point
    what: str
    """What happened."""
    todo: str
    """What to do."""
    cause: BaseException | None = field(default=None, compare=False, repr=False)

    def error(self) -> ExtensionInvalid:
        """A new error that says all of it."""
        error = ExtensionInvalid(
            f"the extension {self.point} cannot be used: {self.what}; {self.todo}",
            self.point.distribution,
            self.point.name,
        )
        error.__cause__ = self.cause
        return error


class Unfit(Exception):
    """What an entry point names is not what its group is for: what happened, and what to do."""

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(what, todo)
        self.what = what
        self.todo = todo


class Extensions(Generic[T]):
    """All extensions of one group.

    Args:
        group: the group of entry points.
        fit: makes of a name, what was loaded for it, and the extensions taken before it (by
            name) what callers get; raises Unfit. Tympan's own come first, other distributions
            in the order of their names.
    """

    def __init__(
        self, group: str, fit: Callable[[str, Any, Mapping[str, Extension[T]]], T]
    ) -> None:
        self.group = group
        self._fit = fit
        self._found: tuple[Mapping[str, Extension[T]], tuple[Fault, ...]] | None = None
        self._publishing = threading.Lock()
        self._reading = threading.local()

    def sound(self) -> Mapping[str, Extension[T]]:
        """Those that can be used, by name."""
        return self._read()[0]

    def faults(self) -> tuple[Fault, ...]:
        """Those that cannot."""
        return self._read()[1]

    def get(self, name: str) -> T | None:
        """What the extension of this name is; None without one.

        Raises ExtensionInvalid where there is one that cannot be used.
        """
        sound, faults = self._read()
        if name in sound:
            return sound[name].loaded
        for fault in faults:
            if fault.point.name.lower() == name:
                raise fault.error()
        return None

    def _read(self) -> tuple[Mapping[str, Extension[T]], tuple[Fault, ...]]:
        if self._found is not None:
            return self._found
        if getattr(self._reading, "now", False):
            return {}, ()  # an extension asks while it is imported: nothing is known yet
        self._reading.now, self._reading.too_early = True, False
        try:
            found = self._load()
        finally:
            self._reading.now = False
        if self._reading.too_early:
            return found
        # No lock is held while modules are imported: another thread may hold an import lock and
        # wait for us. Two threads that read at once get the same objects from the import system.
        with self._publishing:
            self._found = self._found or found
            return self._found

    def _load(self) -> tuple[Mapping[str, Extension[T]], tuple[Fault, ...]]:
        sound: dict[str, Extension[T]] = {}
        faults: list[Fault] = []
        for distribution in _distributions(self.group):
            package = f"{distribution.name} {distribution.version}"
            try:
                points = list(distribution.entry_points.select(group=self.group))
            except Exception as error:  # noqa: BLE001 - the parser has no error of its own
                unread = Point(self.group, _FILE, "", package)
                what = f"its {_FILE} cannot be read ({_told(error)})"
                faults.append(Fault(unread, what, f"install {distribution.name} anew", error))
                continue
            for entry in points:
                point = Point(self.group, entry.name, entry.value, package)
                try:
                    sound[entry.name] = Extension(point, self._fitting(entry, sound))
                except Unfit as unfit:
                    faults.append(Fault(point, unfit.what, unfit.todo, unfit.__cause__))
        return MappingProxyType(sound), tuple(faults)

    def _fitting(self, entry: metadata.EntryPoint, taken: Mapping[str, Extension[T]]) -> T:
        if not _NAME.fullmatch(entry.name):
            raise Unfit(
                "its name is not made of lower-case letters, digits, '-', '_' and '.'",
                "rename the entry point",
            )
        if entry.name in taken:
            raise Unfit(
                f"the name {entry.name!r} is taken by {taken[entry.name].point.distribution}",
                "uninstall one of the two",
            )
        if ":" not in entry.value:
            raise Unfit("it names no object", "write the entry point as module:object")
        try:
            loaded = entry.load()
        except (Exception, SystemExit) as error:  # somebody else's code may raise anything
            # A module that asks while it is imported itself is no fault; read again next time.
            self._reading.too_early |= _is_being_imported(entry.value.partition(":")[0].strip())
            raise Unfit(
                f"loading it raised {_told(error)}", "install what it needs, or uninstall it"
            ) from error
        return self._fit(entry.name, loaded, taken)


def _distributions(group: str) -> list[metadata.Distribution]:
    """Installed distributions with entry points of this group: Tympan's own, then by name.

    ``metadata.entry_points()`` fails as a whole where the file of any distribution is damaged.
    """
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        if f"[{group}]" not in (distribution.read_text(_FILE) or ""):
            continue
        # What an interrupted uninstall left may have no metadata, and so no name.
        if distribution.read_text("METADATA") or distribution.read_text("PKG-INFO"):
            name = re.sub(r"[-_.]+", "-", distribution.name or "").lower()
            found.setdefault(name, distribution)  # the first on the path is the one in use
    return [found[name] for name in sorted(found, key=lambda name: (name != OWN, name))]


def _is_being_imported(module: str) -> bool:
    """Whether the import of this module, or of a package that it is in, is under way."""
    while module:
        spec = getattr(sys.modules.get(module), "__spec__", None)
        if getattr(spec, "_initializing", False):
            return True
        module = module.rpartition(".")[0]
    return False


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
