"""The table of values in helm/README.md, made from the comments in helm/values.yaml.

``python -m tests.chart.table`` writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from tests.chart.charts import CHART

VALUES = CHART / "values.yaml"
README = CHART / "README.md"
BEGIN, END = "<!-- values: python -m tests.chart.table -->\n", "<!-- end of values -->\n"
_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z]\w*):(?: |$)")
_COMMENT = re.compile(r" *# -- (?P<text>.+)")


class Row(NamedTuple):
    """One value."""

    path: tuple[str, ...]
    default: Any
    text: str

    @property
    def line(self) -> str:
        """In the table."""
        default = json.dumps(self.default, ensure_ascii=False).replace("|", "\\|")
        return f"| `{'.'.join(self.path)}` | `{default}` | {self.text} |"


def rows() -> Iterator[Row]:
    """The values that are described, in their order."""
    defaults = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    path: list[tuple[int, str]] = []
    text = ""
    for line in VALUES.read_text(encoding="utf-8").splitlines():
        comment, key = _COMMENT.fullmatch(line), _KEY.match(line)
        if comment:
            text = comment["text"]
        elif key:
            indent = len(key["indent"])
            path = [one for one in path if one[0] < indent] + [(indent, key["key"])]
            if text:
                names = tuple(name for _, name in path)
                yield Row(names, _at(defaults, names), text)
            text = ""


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values[name]
    return values


def table() -> str:
    """The table."""
    head = "| Value | Default | What |\n| --- | --- | --- |\n"
    return head + "".join(f"{row.line}\n" for row in rows())


def readme() -> str:
    """The README with the table of now."""
    before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{README} has no {BEGIN!r}"
    assert end, f"{README} has no {END!r}"
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(readme(), encoding="utf-8")
