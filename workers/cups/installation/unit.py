"""What systemd and AppArmor are told: how the bridge runs, and what cupsd's notifier may touch."""

from __future__ import annotations

import sys
from pathlib import Path

from workers.cups.installation.host import Host
from workers.cups.installation.launchers import SCHEME, Launcher

NAME = "tympan-cups.service"
MARK = "# Tympan placed this: `tympan cups uninstall` takes it away."
BEGIN = "# Tympan begins here: `tympan cups uninstall` takes it away."
END = "# Tympan ends here."

_UNIT = """\
{mark}
[Unit]
Description=Tympan: events and questions of this CUPS host
# The bridge outlives both: it waits for a cupsd and for a Redis that are away.
After=cups.service network-online.target
Wants=network-online.target

[Service]
Type=exec
User={user}
Group={group}
ExecStart={command} bridge run cups --settings {settings}
Restart=always
RestartSec=2
UMask=0027

NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ReadWritePaths={spool}
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
"""


def command() -> Path:
    """This environment's ``tympan``."""
    return Path(sys.executable).parent / "tympan"


def unit(host: Host) -> str:
    """The unit of the bridge."""
    is_at_home = any(str(command()).startswith(home) for home in ("/home/", "/root/"))
    return _UNIT.format(
        mark=MARK,
        user=host.account.name,
        group=host.account.group,
        command=_word(command()),
        settings=_word(host.settings),
        spool=_word(host.spool),
        home="read-only" if is_at_home else "yes",
    )


def profile(host: Host, launcher: Launcher) -> str:
    """What AppArmor's profile of cupsd lacks for the notifier, which runs in it.

    Backends that are not CUPS' own are not confined by it.
    """
    interpreter = launcher.interpreter
    resolved = interpreter.resolve()
    rules = [
        (f"{host.server_bin}/notifier/{SCHEME}", "ixr"),
        (f"{interpreter}", "ixr"),
        (f"{resolved}", "ixr"),
        (f"{interpreter.parent.parent}/pyvenv.cfg", "r"),
        (f"{resolved.parent.parent}/lib/**", "rm"),
        (f"{launcher.packages}/", "r"),
        (f"{launcher.packages}/workers/**", "r"),
        (f"{host.settings.parent}/", "r"),
        (f"{host.settings}", "r"),
        (f"{host.spool}/", "r"),
        (f"{host.spool}/**", "rwk"),
    ]
    lines = [f'"{path}" {modes},' for path, modes in dict.fromkeys(rules)]
    return "\n".join((BEGIN, *lines, END)) + "\n"


def _word(path: Path) -> str:
    """A path as a word of a unit."""
    escaped = str(path).replace("%", "%%")
    return f'"{escaped}"' if " " in escaped else escaped
