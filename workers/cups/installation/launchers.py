"""What cupsd runs: small programs that hand over to the notifier and the backend.

They name the interpreter of the environment that they were made in and the folder of its packages,
and read nothing else of it: neither ``.pth`` files nor the user's environment.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["notifier", "backend"]

SCHEME = "tympan"
"""What notify-recipient-uri and device URIs begin with: the name of both programs."""
MARK = "# Tympan placed this: `tympan cups uninstall` takes it away."
"""Second line of each: what has it may be replaced."""
MODE = 0o755
"""A backend that others may execute is run by cupsd as its ``User``, not as root."""
MODE_AS_ROOT = 0o744
"""For devices whose own backends need root: ``usb``, ``lpd``."""
_LONGEST_SHEBANG = 250
"""Bytes; Linux cuts off what is longer."""


class Unlaunchable(ValueError):
    """The interpreter's path cannot stand in a program's first line."""


@dataclass(frozen=True)
class Launcher:
    """The program for one of cupsd's two places."""

    kind: Kind
    settings: Path
    interpreter: Path = Path(sys.executable)
    packages: Path = Path(__file__).resolve().parents[3]
    """The folder that has the package ``workers``."""

    @property
    def text(self) -> str:
        """The program.

        Raises:
            Unlaunchable: the interpreter's path has blanks, or is too long.
        """
        path = str(self.interpreter)
        shebang = f"#!{path} -IS"
        if any(letter.isspace() for letter in path) or len(os.fsencode(shebang)) > _LONGEST_SHEBANG:
            raise Unlaunchable(
                f"{path} cannot stand in a program's first line, which takes no blanks and "
                f"{_LONGEST_SHEBANG} bytes: make the environment in another folder, "
                "/opt/tympan for example"
            )
        return "\n".join(
            (
                shebang,
                MARK,
                "import sys",
                f"sys.path.insert(0, {str(self.packages)!r})",
                f"from workers.cups.{self.kind} import main",
                f"sys.exit(main({str(self.settings)!r}))",
                "",
            )
        )

    def place(self, server_bin: Path) -> Path:
        """Where it stands below cupsd's ServerBin."""
        return server_bin / self.kind / SCHEME
