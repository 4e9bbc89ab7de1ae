"""A simulated printer as its operator sees it: take its paper, give some, see what it printed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Sim:
    """The folder of one; ``tests.cups.simulated`` is what cupsd runs for it."""

    folder: Path

    @property
    def uri(self) -> str:
        """Its device URI."""
        return f"sim://{quote(str(self.folder))}"

    def empty(self) -> None:
        """Take its paper: the next page waits."""
        (self.folder / "empty").touch()

    def refill(self) -> None:
        """Give it paper."""
        (self.folder / "empty").unlink(missing_ok=True)

    def hold(self) -> None:
        """Let the next job wait before its first page, without a word."""
        (self.folder / "hold").touch()

    def release(self) -> None:
        """Let it go on."""
        (self.folder / "hold").unlink(missing_ok=True)

    def says(self, *lines: str) -> None:
        """What each job writes to standard error first: ``STATE: …``, ``ATTR: …``, ``INFO: …``."""
        (self.folder / "lines").write_text("\n".join(lines), encoding="utf-8")

    def exits(self, status: int) -> None:
        """What each job ends with."""
        (self.folder / "status").write_text(str(status), encoding="ascii")

    @property
    def begun(self) -> list[int]:
        """Numbers of the jobs that reached it, as often as they did."""
        path = self.folder / "begun"
        return [int(line) for line in path.read_text("ascii").split()] if path.exists() else []

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """What became of the jobs that reached it: job, user, title, pages, outcome."""
        path = self.folder / "jobs"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    @property
    def printed(self) -> list[int]:
        """Numbers of the jobs that it printed."""
        return [one["job"] for one in self.jobs if one["outcome"] == "printed"]
