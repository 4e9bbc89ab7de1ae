"""IPP as CUPS' own ipptool speaks it: a second opinion, beside the client that is tested."""

from __future__ import annotations

import plistlib
import subprocess
import tempfile
from typing import Any

from tests.cups.account import program

JOB_STATES = {
    3: "pending",
    4: "held",
    5: "processing",
    6: "stopped",
    7: "canceled",
    8: "aborted",
    9: "completed",
}
PRINTER_STATES = {3: "idle", 4: "processing", 5: "stopped"}
_TIMEOUT_S = 15.0


def ask(operation: str, uri: str, *lines: str, may_fail: bool = False) -> list[dict[str, Any]]:
    """Ask; returns the groups of the answer behind the first, with states as words.

    ``lines`` continue its test file in the operation's group, or begin another one. An answer of
    one job, printer or subscription may have further groups behind it.

    Raises:
        AssertionError: the answer is no success, and it may not fail.
    """
    test = "\n".join(
        (
            "{",
            f"OPERATION {operation}",
            "GROUP operation-attributes-tag",
            "ATTR charset attributes-charset utf-8",
            "ATTR language attributes-natural-language en",
            "ATTR uri printer-uri $uri",
            "ATTR name requesting-user-name root",
            *lines,
            "}",
        )
    )
    with tempfile.NamedTemporaryFile("w", suffix=".test", encoding="utf-8") as file:
        file.write(test)
        file.flush()
        done = subprocess.run(
            [program("ipptool"), "-X", uri, file.name],
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    told = plistlib.loads(done.stdout)["Tests"][0]
    status = told.get("StatusCode", "no answer")
    assert may_fail or status.startswith("successful"), f"{operation} {uri}: {status}: {told}"
    groups: list[dict[str, Any]] = told.get("ResponseAttributes", [{}])[1:]
    for group in groups:
        for name, words in (("job-state", JOB_STATES), ("printer-state", PRINTER_STATES)):
            if name in group:
                group[name] = words[group[name]]
    return groups
