"""What a run was made with: the machine, the servers, the packages."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version

from benchmarks.brokers import rabbitmq_version
from benchmarks.party import CHECKOUT, PEERS

_SERVERS = ("redis-server", "nats-server")
_PACKAGES = ("tympan", "redis", "hiredis")
_NUMBER = re.compile(r"\d+\.\d+(?:\.\d+)?")


def machine() -> dict[str, str]:
    """What the figures were measured on, by name; what is not installed is left out."""
    found = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpus": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
    }
    for server in _SERVERS:
        told = _said(server, "--version")
        if told:
            found[server] = told
    rabbitmq = rabbitmq_version()
    if rabbitmq:
        found["rabbitmq"] = rabbitmq
    return found | {package: version(package) for package in _PACKAGES}


def peers() -> list[str]:
    """``name==version`` of what is pinned for the peers; none where they are not installed."""
    if not PEERS.exists():
        return []
    pinned = [
        line
        for file in sorted((CHECKOUT / "benchmarks" / "peers").glob("*.txt"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return [line for line in pinned if "==" in line and not line.startswith("#")]


def _said(*command: str) -> str:
    """The first version number in what the command prints; empty where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    number = _NUMBER.search(done.stdout + done.stderr)
    return number.group() if number else ""
