"""One run of the backend ``tympan``: its job, the bridge, the inner backend, and what comes when.

Nothing but the standard library: cupsd starts what uses it.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import Any

from workers.cups.file import Place
from workers.cups.printing import held_note, slip
from workers.cups.printing.bridge_line import BridgeLine
from workers.cups.printing.inner import Inner, Reasons, is_read
from workers.cups.printing.run_file import RunFile

FAILED, HOLD, STOP, CANCEL = 1, 3, 4, 5
"""Exit statuses, as cupsd understands them."""
COMES_BACK = 5.0
"""Seconds for which a bridge is waited for: it may be starting."""
COMES_BACK_TO_HOLD = 30.0
"""The same where a question stands, or jobs are held without one."""
ANSWERS = 10.0
"""Seconds that a bridge has for its first word."""
RECONNECT = 0.5
SILENT = 60.0
"""A bridge that says nothing for so long has gone."""
MOST_LOSSES = 10
"""Connections in a row on which no more was said than that the job was heard: a faulty bridge."""
ENDS_WITHIN = 20.0
"""Seconds that an inner backend has; after 30 (JobKillDelay) cupsd kills this one."""
LEAVES_A_PART = 1.0
"""The same where it has a part of the document only, and its cupsd is gone."""
LOOK_EVERY = 0.25
_AT_ONCE = 65_536
_LONGEST_MESSAGE = 2_000
"""Bytes; cupsd cuts one at 2,047."""


def tell(line: str) -> None:
    """A message to cupsd: its kind, a colon, and the text."""
    said = " ".join(line.split()).encode(errors="replace")[:_LONGEST_MESSAGE]
    with contextlib.suppress(OSError):  # nobody reads it: told of elsewhere
        os.write(2, said.decode(errors="ignore").encode() + b"\n")


class Printing:
    """One run: what it knows of its job, and what it is waiting for."""

    def __init__(
        self,
        place: Place,
        job: dict[str, Any],
        start: Callable[[int], Inner],
        run_file: RunFile,
        reasons: str,
    ) -> None:
        self._job = job
        self._start = start
        self._run_file = run_file
        self._reasons = Reasons(reasons)
        self._bridge = BridgeLine(place.counter)
        self._spool = place.spool
        self._holds_without = place.without_bridge == "hold"
        self._inner: Inner | None = None
        self._is_asked = False
        """Whether a question is known to stand."""
        self._is_clear = False
        """Whether nothing stands against printing; another run may be at it yet."""
        self._is_refused = False
        self._is_orphan = False
        self._status: int | None = None
        """What to end with, whatever the inner backend does."""
        self._gives_up = 0.0
        """When a bridge that is away, or silent, is given up."""
        self._connects = 0.0
        self._losses = 0
        self._kills = float("inf")
        self.is_stopped = False
        """Set by the signal handler."""
        self._was_stopped = False
        self._waits_for_turn = False

    def run(self, bell: int) -> int:
        """Until the job has its exit status. ``bell`` is read when a signal came."""
        self._lost()
        self._connect()
        while True:
            ended = self._ended()
            if ended is not None:
                return self._finish(ended)
            polled = select.poll()
            for descriptor, wanted in self._wanted(bell).items():
                polled.register(descriptor, wanted)
            ready = dict(polled.poll(self._patience() * 1000))
            self._attend(ready, bell)

    # What happens -------------------------------------------------------------------------------

    def _wanted(self, bell: int) -> dict[int, int]:
        wanted = {bell: select.POLLIN}
        if not self._is_orphan:
            wanted[2] = 0
        if self._bridge.descriptor >= 0:
            wanted[self._bridge.descriptor] = select.POLLIN
        if self._inner is not None:
            if self._inner.messages >= 0:
                wanted[self._inner.messages] = select.POLLIN
            if self._is_orphan:
                return wanted  # it would take the end of a part for the end of the whole
            if self._inner.wants_more:
                wanted[0] = select.POLLIN
            elif self._inner.intake >= 0:
                wanted[self._inner.intake] = select.POLLOUT
        return wanted

    def _attend(self, ready: dict[int, int], bell: int) -> None:
        if 2 in ready:
            self._orphaned()
        if bell in ready:
            os.read(bell, _AT_ONCE)
        if self.is_stopped and not self._was_stopped:
            self._stopped()
        inner = self._inner
        if inner is not None:
            if 0 in ready and inner.wants_more and not self._is_orphan:
                inner.take(is_read(2))
            elif inner.intake in ready:
                inner.give()
            if inner.messages in ready:
                self._relay(inner)
        if self._bridge.descriptor in ready:
            for said in self._bridge.heard():
                self._obey(said)
            if self._bridge.descriptor < 0:
                self._lost()
        self._look_at_clock()

    def _patience(self) -> float:
        """Seconds until something is to be looked at, whatever comes."""
        now = time.monotonic()
        due = [self._kills, now + SILENT]
        if self._inner is None and self._status is None:
            due.append(now + LOOK_EVERY if self._is_clear else self._gives_up)
        if self._bridge.descriptor < 0 and not self._is_refused:
            due.append(self._connects)
        return max(0.0, min(due) - now)

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        if now >= self._kills and self._inner is not None:
            self._kills = float("inf")
            self._inner.kill()
        if self._bridge.descriptor < 0 and not self._is_refused and now >= self._connects:
            self._connect()
        if self._inner is not None or self._status is not None:
            return
        if not self._is_clear and now >= self._gives_up:
            if self._bridge.descriptor >= 0:
                self._bridge.leave("it says nothing")
            self._go_without()
        if self._is_clear:
            self._print()

    # The bridge ---------------------------------------------------------------------------------

    def _connect(self) -> None:
        now = time.monotonic()
        self._connects = now + RECONNECT
        if self._bridge.connect():
            self._gives_up = now + ANSWERS
            self._bridge.say("job", version=slip.VERSION, printing=self._is_clear, **self._job)
            if self._inner is not None:
                self._bridge.say("reasons", reasons=self._reasons.all)

    def _lost(self) -> None:
        now = time.monotonic()
        self._connects = now + RECONNECT
        self._losses += 1
        patience = COMES_BACK_TO_HOLD if self._is_to_hold else COMES_BACK
        self._gives_up = now + (patience if self._losses <= MOST_LOSSES else 0.0)

    def _obey(self, said: dict[str, Any]) -> None:
        self._gives_up = time.monotonic() + SILENT
        if said["say"] != "heard":
            self._losses = 0
        text = str(said.get("text", ""))
        match said["say"]:
            case "wait":
                self._is_asked = True
                tell(f"INFO: {text}")
            case "print":
                self._is_asked, self._is_clear = False, True
            case "cancel":
                tell(f"INFO: {text}")
                self._end(CANCEL)
            case "hold":
                tell(f"INFO: {text}")
                self._end(HOLD)
            case "refused":
                self._is_refused = True
                self._bridge.leave(text)
                if not self._is_clear:
                    self._go_without()

    @property
    def _is_to_hold(self) -> bool:
        """Whether it is to be held where no bridge answers."""
        return self._is_asked or self._holds_without

    def _go_without(self) -> None:
        """The bridge is away, and not waited for any longer."""
        if self._is_to_hold:
            tell(f"ERROR: The job is held: no bridge of Tympan answers ({self._bridge.why})")
            try:
                held_note.leave(self._spool, self._job["job"], self._job["mark"])
            except OSError as error:
                tell(f"ERROR: The next bridge will not let this job go: {error}")
            self._end(HOLD)
        else:
            tell(f"ERROR: Printing unasked: no bridge of Tympan answers ({self._bridge.why})")
            self._is_clear = True

    # The job ------------------------------------------------------------------------------------

    def _print(self) -> None:
        """Unless another run of the job is at it, or was to the end."""
        try:
            if not self._run_file.lock():
                if not self._waits_for_turn:
                    tell("INFO: Waiting for an earlier run of this job, which still prints")
                self._waits_for_turn = True
                return
            if self._run_file.was_printed():
                tell("INFO: Printed already, when cupsd was away")
                self._status = 0
                return
            self._run_file.begin()
        except OSError as error:
            tell(f"ERROR: Nothing keeps this job from being printed twice: {error}")
        try:
            self._inner = self._start(self._run_file.descriptor)
        except OSError as error:
            tell(f"ERROR: The inner backend does not run: {error}")
            self._status = STOP
            return
        self._bridge.say("reasons", reasons=self._reasons.all)

    def _relay(self, inner: Inner) -> None:
        lines = inner.lines()
        if lines and not self._is_orphan:
            with contextlib.suppress(OSError):  # cupsd is gone, and poll says so
                os.write(2, b"".join(line + b"\n" for line in lines))
        if sum(self._reasons.hear(line) for line in lines):
            self._bridge.say("reasons", reasons=self._reasons.all)

    def _end(self, status: int, *, cut_off: bool = True) -> None:
        """End the job with this status, and the inner backend before.

        ``cut_off``: nobody else ends the filters; otherwise they may end their page first.
        """
        if self._status is None:
            self._status = status
        if self._inner is not None and not self._inner.was_ended:
            self._inner.end(cut_off=cut_off)
            self._kills = time.monotonic() + ENDS_WITHIN

    def _stopped(self) -> None:
        self._was_stopped = True
        self._bridge.say("stopped")
        self._end(FAILED, cut_off=False)
        if self._waits_for_turn and self._inner is None:
            self._run_file.stop_other()

    def _orphaned(self) -> None:
        """Nobody reads what this says: cupsd is gone."""
        self._is_orphan = True
        if self._inner is None or not self._inner.is_whole:
            self._end(FAILED, cut_off=False)
            self._kills = time.monotonic() + LEAVES_A_PART

    def _ended(self) -> int | None:
        """The exit status, once there is nothing left to wait for."""
        inner = self._inner
        if inner is None:
            return self._status
        status = inner.status
        if status is None:
            return None
        if inner.messages >= 0:
            self._relay(inner)
        if self._status is not None:
            return self._status
        if status < 0:
            tell(f"ERROR: The inner backend was ended by signal {-status}")
            return FAILED
        return status

    def _finish(self, status: int) -> int:
        if self._run_file.descriptor >= 0:
            is_told = not self._is_orphan and is_read(2)
            if status == 0 and not is_told:
                self._run_file.leave_printed()
            else:
                self._run_file.remove()
        self._bridge.say("over", status=status)
        self._bridge.leave()
        return status
