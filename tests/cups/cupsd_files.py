"""cupsd.conf and cups-files.conf of a private cupsd."""

from __future__ import annotations

import grp
from pathlib import Path

from tests.cups.account import account
from workers.embedded import HOST

_CUPSD = """\
ServerName {name}
ServerAlias *
Listen {host}:{port}
Listen {root}/run/cups.sock
LogLevel info
LogTimeFormat usecs
Browsing Off
WebInterface No
DefaultAuthType None
MaxEvents 10000
MaxSubscriptions 0
MaxJobs 0
MaxJobTime 0
PreserveJobFiles No
JobRetryInterval 1
DirtyCleanInterval {saves_after}
{extra}
<Location />
  Order allow,deny
  Allow from 127.0.0.1
  Allow from localhost
</Location>
<Policy default>
  JobPrivateAccess all
  JobPrivateValues none
  SubscriptionPrivateAccess all
  SubscriptionPrivateValues none
  <Limit All>
    Order allow,deny
    Allow from all
  </Limit>
</Policy>
"""

_CUPS_FILES = """\
User {user}
Group {group}
ServerRoot {root}/etc
ServerBin {root}/bin
DataDir /usr/share/cups
DocumentRoot /usr/share/cups/doc-root
RequestRoot {root}/jobs
TempDir {root}/jobs/tmp
CacheDir {root}/cache
StateDir {root}/state
AccessLog {root}/log/access_log
ErrorLog {root}/log/error_log
PageLog {root}/log/page_log
Printcap {root}/run/printcap
FileDevice Yes
"""


def write(root: Path, name: str, port: int, saves_after: int, extra: str) -> None:
    """Write both, for a cupsd with all its folders below ``root``."""
    who = account()
    words = {
        "root": root,
        "name": name,
        "host": HOST,
        "port": port,
        "saves_after": saves_after,
        "extra": extra,
        "user": who.pw_name,
        "group": grp.getgrgid(who.pw_gid).gr_name,
    }
    (root / "etc/cupsd.conf").write_text(_CUPSD.format(**words), encoding="utf-8")
    (root / "etc/cups-files.conf").write_text(_CUPS_FILES.format(**words), encoding="utf-8")
