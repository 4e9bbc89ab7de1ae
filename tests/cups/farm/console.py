"""A console in replicas: each notes what it was handed of printers in a file of its process.

``tests.cups.farm.flood`` runs them as ``tympan worker tests.cups.farm.console:worker``.
"""

from __future__ import annotations

import os

from broker import ALL_USERS, Delivery
from workers import Worker
from workers.cups.types import PrinterStatus

NOTES = os.environ.get("CONSOLE_NOTES", "")
WHERE = os.environ.get("CONSOLE_WHERE", r"\\print01")

worker = Worker("console", user="console", max_deliveries=1000, timeout=None)
_notes = os.open(f"{NOTES}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND) if NOTES else -1


@worker.listen(WHERE, PrinterStatus, user_filter=ALL_USERS, printers=True)
async def note(status: PrinterStatus, delivery: Delivery[PrinterStatus]) -> None:
    line = f"{status.event} {status.printer} {int(status.repeated)} {delivery.times}\n"
    os.write(_notes, line.encode())
