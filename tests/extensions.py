"""Packages that plug into Tympan, as files in a folder that stands on the path."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

GUID = "3f1d1c5e-7a52-4c39-9d0e-2d7c7c0f6a01"
OTHER_GUID = "3f1d1c5e-7a52-4c39-9d0e-2d7c7c0f6a02"

TONER = f"""
from broker import Payload

class Reply(Payload, type="{GUID}"):
    order: bool

class Toner(Payload, type="{GUID}", response=Reply):
    colour: str
    level: int = 0
"""


class Site:
    """A folder of installed packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._modules: list[str] = []

    def install(
        self, package: str, code: str, *, types: str = "", bridges: str = "", rest: str = ""
    ) -> None:
        """Install ``package`` 1.0, one module of this code (with ``-`` as ``_``).

        ``types`` and ``bridges`` are lines of its ``entry_points.txt`` in these groups, ``rest``
        is what else stands there. An empty code installs no module.
        """
        module = package.replace("-", "_")
        self._modules.append(module)
        if code:
            (self.folder / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        sections = {"tympan.types": types, "tympan.bridges": bridges}
        points = "".join(f"[{group}]\n{lines}\n" for group, lines in sections.items() if lines)
        self.describe(
            package,
            {
                "METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
                "entry_points.txt": points + rest,
            },
        )

    def describe(self, package: str, files: Mapping[str, str]) -> None:
        """Write files of a package's own metadata."""
        info = self.folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        for name, text in files.items():
            (info / name).write_text(text, encoding="utf-8")

    @property
    def imported(self) -> set[str]:
        """Its modules that this process has imported."""
        return {name for name in self._modules if name in sys.modules}

    def forget(self) -> None:
        """Make this process forget what it imported from here."""
        for name in self.imported:
            del sys.modules[name]
