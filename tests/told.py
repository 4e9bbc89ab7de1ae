"""What the documents tell people to type, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.servers import RedisServer
from workers.embedded import HOST

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FARM = ROOT / "docs" / "farm.md"
_PATIENCE_S = 20.0


def acl_commands() -> list[str]:
    """The README's commands that make the credentials of a print host and a help desk."""
    text = README.read_text(encoding="utf-8")
    found = re.findall(r"^((?:tympan acl|redis-cli ACL SETUSER) .*)$", text, re.MULTILINE)
    assert len(found) == 4, "the README shows a print host and a help desk, and their passwords"
    return found


def type_at(server: RedisServer, command: str) -> None:
    """Type a redis-cli command in a shell, for this server; it has to answer OK."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        re.sub(r"\bredis-cli\b", f"redis-cli -h {HOST} -p {server.port}", command, count=1),
        shell=True,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
        env=os.environ | {"PATH": path},
    )
    assert (done.returncode, done.stdout.strip()) == (0, "OK"), f"{command}: {done}"


def configurations() -> tuple[str, str, str]:
    """What docs/farm.md has in redis.conf: of each process, with replicas, in a Cluster."""
    one, replicas, cluster = re.findall(
        r"^```conf\n(.*?)^```$", FARM.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return one, replicas, cluster


def settings_of(*blocks: str) -> dict[str, str | int]:
    """The settings in lines of redis.conf, by name."""
    lines = [line for block in blocks for line in block.splitlines() if line[:1] not in ("", "#")]
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}
