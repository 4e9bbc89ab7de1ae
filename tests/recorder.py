"""An observer that writes down what it is told."""

from __future__ import annotations

from broker import Style


class Recorder:
    """Everything, in order: the name of the method, and what it was given."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.seconds: list[float] = []

    def script_ended(self, script: str, seconds: float, word: str) -> None:
        self.seconds.append(seconds)
        self.told.append(("script", script, word))

    def sent(self, style: Style, word: str) -> None:
        self.told.append(("sent", style, word))

    def responded(self) -> None:
        self.told.append(("responded",))

    def acquisition_ended(self, *, won: bool) -> None:
        self.told.append(("acquisition", won))

    def lease_lost(self, server: str) -> None:
        self.told.append(("lease", server))

    def resynced(self, server: str) -> None:
        self.told.append(("resync", server))

    def of(self, what: str) -> list[tuple[object, ...]]:
        """What it was told of this kind, without the kind."""
        return [one[1:] for one in self.told if one[0] == what]
