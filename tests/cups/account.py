"""Whom private cupsds run as, and by which programs.

Where the tests run as root that is ``nobody``, otherwise who runs the tests.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

INSTALL = "apt-get install --no-install-recommends cups cups-client cups-ipp-utils dbus"
CHECKOUT = Path(__file__).resolve().parents[2]
_UNPRIVILEGED = "nobody"


class CupsMissing(RuntimeError):
    """There is no cupsd here, or it did not come up; the message says what to do."""


def program(name: str) -> str:
    """The path of a program of CUPS. Raises CupsMissing, which says what to install."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise CupsMissing(f"{name} was not found: install CUPS (on Debian and Ubuntu: {INSTALL})")
    return found


def account() -> pwd.struct_passwd:
    """Whom cupsd runs as."""
    return pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def demoted(*command: str) -> list[str]:
    """A command that runs as that account, and ends with whoever started it."""
    tie = [program("setpriv"), "--pdeathsig", "KILL"]
    if os.geteuid() == 0:
        who = account()
        tie += [f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]
        tie += ["--inh-caps=-all", "--bounding-set=-all"]
    return [*tie, *command]


def packages(folder: Path) -> Path:
    """Where the account finds this checkout's packages: a copy below ``folder`` if not here."""
    asked = demoted("test", "-r", str(CHECKOUT / "tests" / "cups" / "sim.py"))
    if subprocess.run(asked, check=False).returncode == 0:
        return CHECKOUT
    copied = folder / "packages"
    if not copied.exists():
        for name in ("broker", "workers", "tests"):
            shutil.copytree(CHECKOUT / name, copied / name, ignore=shutil.ignore_patterns("__*__"))
            for init in (CHECKOUT / name).rglob("__init__.py"):
                shutil.copy(init, copied / init.relative_to(CHECKOUT))
        compileall.compile_dir(copied, quiet=1)
    return copied


def interpreter() -> Path:
    """A Python 3.11 or later that the account may execute.

    Raises:
        CupsMissing: there is none.
    """
    for path in (Path(sys.executable), Path("/usr/bin/python3")):
        asked = [str(path), "-IS", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        with contextlib.suppress(OSError):
            # By env: setpriv itself still has root's capabilities when it looks for a program.
            done = subprocess.run(demoted("env", *asked), capture_output=True, check=False)
            if done.returncode == 0:
                return path
    raise CupsMissing(
        f"{account().pw_name}, whom cupsd runs as, can execute neither {sys.executable} nor a "
        "/usr/bin/python3 of 3.11 or later: run the tests as another user than root, or install "
        "python3 (on Debian and Ubuntu: apt-get install python3)"
    )
