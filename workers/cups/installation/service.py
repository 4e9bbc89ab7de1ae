"""What runs: the bridge as a service of systemd, cupsd's subscription, AppArmor's profile of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from workers.cups.cupsd.client import Client, IppError
from workers.cups.file import Place
from workers.cups.installation import unit
from workers.cups.installation.host import PROFILE, UNITS, Host, NotInstalled
from workers.cups.installation.placing import Step
from workers.cups.installation.queues import ROOT
from workers.cups.installation.reader import Unreadable, read_questions
from workers.cups.notifier import RECIPIENT
from workers.cups.printing import held_note

_TIMEOUT_S = 60.0
_ANSWER_S = 10.0
_SYSTEMD = Path("/run/systemd/system")
_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")


def start(host: Host, *, is_changed: bool, is_dry: bool = False) -> Iterator[Step]:
    """Have systemd run the bridge, now and at every boot, as the unit now says."""
    if host.has_systemd:
        commands = [["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", unit.NAME]]
        if is_changed:
            commands.append(["systemctl", "try-restart", unit.NAME])
        yield from _run(host, commands, "service", _SYSTEMD.is_dir(), is_dry=is_dry)


def stop(host: Host, *, is_dry: bool = False) -> Iterator[Step]:
    """End the bridge, before its unit goes."""
    if host.at(UNITS / unit.NAME).exists():
        commands = [["systemctl", "disable", "--now", unit.NAME]]
        yield from _run(host, commands, "service", _SYSTEMD.is_dir(), is_dry=is_dry)


def is_bridge_running(host: Host) -> bool:
    """Whether a bridge has the host's spool in hand."""
    return bool(is_held(host.at(Place(host.spool).lock)))


def jobs_that_wait(host: Host) -> list[int]:
    """Jobs for which a question stands, or that are held until a bridge asks one."""
    place = Place(host.at(host.spool))
    found = {note.job for note in held_note.notes(place.spool)}
    with contextlib.suppress(Unreadable):  # `tympan cups status` says so
        found.update(seen.job for seen in read_questions(place.answers))
    return sorted(found)


def is_held(path: Path) -> bool | None:
    """Whether a bridge has this lock; None where that cannot be seen."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


async def end_subscriptions(host: Host, *, is_dry: bool = False) -> list[Step]:
    """Have cupsd tell the notifier nothing any more."""
    steps = []
    try:
        async with Client(host.address, user=ROOT, timeout=_ANSWER_S) as cups:
            for facts in await cups.subscriptions():
                if facts.recipient == RECIPIENT:
                    if not is_dry:
                        await cups.unsubscribe(facts.id)
                    steps.append(Step("events", f"subscription {facts.id} of cupsd", "removed"))
    except IppError as error:
        steps.append(Step("events", "subscriptions of cupsd", "skipped", str(error)))
    return steps


def load_profile(host: Host, *, is_dry: bool = False) -> Iterator[Step]:
    """Have AppArmor read cupsd's profile again."""
    if host.has_profile:
        commands = [["apparmor_parser", "-r", str(PROFILE.parent.parent / PROFILE.name)]]
        yield from _run(host, commands, "AppArmor", _is_confining(), is_dry=is_dry)


def _run(
    host: Host, commands: list[list[str]], what: str, is_running: bool, *, is_dry: bool
) -> Iterator[Step]:
    """Run commands on this very host, where what they speak to runs."""
    for command in commands:
        said = " ".join(command)
        if not (host.is_this_one and is_running):
            yield Step(what, said, "skipped", "what it speaks to does not run here")
            continue
        if not is_dry:
            run(command)
        yield Step(what, said, "ran")


def run(command: list[str]) -> None:
    """Run one. Raises NotInstalled with what it said."""
    found = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise NotInstalled(f"{command[0]} was not found: install it, or run {' '.join(command)}")
    try:
        done = subprocess.run(
            [found, *command[1:]], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(
            f"{' '.join(command)} did not end within {_TIMEOUT_S:g} s, and was killed"
        ) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"status {done.returncode}"
        raise NotInstalled(f"{' '.join(command)} failed: {said}")


def _is_confining() -> bool:
    with contextlib.suppress(OSError):
        return _APPARMOR.read_text("ascii").startswith("Y")
    return False
