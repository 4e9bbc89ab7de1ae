"""The notifier: what cupsd starts for Tympan's subscription, and writes its events to.

It reads greedily, so that cupsd never finds its pipe full, puts what it read into the journal and
wakes the bridge. It knows nothing of Redis, and takes nothing from whoever made the subscription:
where things are, the settings file says. Nothing but the standard library, most of which is
imported only once the pipe is read.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from workers.cups.events.journal import Journal
    from workers.cups.events.torn import Stream
    from workers.cups.file import Place

PIPE = 1_048_576
"""Bytes of the pipe; Linux gives 65,536, which are 140 events."""
AT_ONCE = 65_536
MOST_UNCUT = 4096
"""Reads that wait to be cut: 256 MB at the most, and usually none. A gap shows by the numbers."""
LAST_MOMENT = 0.5
"""Seconds that it reads on once cupsd told it to end."""
RETRY = 0.5
"""Seconds between attempts to write to a disk that is full."""
LAST_ATTEMPTS = 10
"""Of these, after cupsd ended the stream."""
RECIPIENT = "tympan:"
"""The whole notify-recipient-uri of Tympan's own subscription."""
NEWS, END = b"\0", b"\1"
"""What the bell is rung with: there are events; there will be none any more."""
_F_SETPIPE_SZ = 1031


class Reader(threading.Thread):
    """Reads a descriptor to its end, as fast as it can."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self._parts: deque[bytes] = deque(maxlen=MOST_UNCUT)
        self._rings = threading.Condition()
        self._is_over = False
        self._is_ending = False

    def run(self) -> None:
        """Until nobody writes there any more."""
        while True:
            try:
                data = os.read(self._descriptor, AT_ONCE)
            except OSError:
                data = b""
            with self._rings:
                if data:
                    self._parts.append(data)
                self._is_over = not data
                self._rings.notify()
            if not data:
                return

    def end(self) -> None:
        """The end is near: whoever takes what was read waits for it no longer than a moment."""
        with self._rings:
            self._is_ending = True
            self._rings.notify()

    def take(self, timeout: float | None = None) -> list[bytes] | None:
        """What was read meanwhile, awaited; empty after the time-out, None at the end."""
        with self._rings:
            if not self._parts and not self._is_over and not self._is_ending:
                self._rings.wait(timeout)
            if self._is_ending and not self._parts and not self._is_over:
                self._is_over = not self._rings.wait(LAST_MOMENT)
            parts = list(self._parts)
            self._parts.clear()
            return None if self._is_over and not parts else parts


class Keeper:
    """Puts messages into the journal; while it cannot, keeps them, up to as many as that holds."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._run = os.urandom(6).hex()
        self._waiting: deque[bytes] = deque()
        self._counts: dict[str, int] = {}
        self._journal: Journal | None = None
        self._fault = ""
        self._bell = _bell()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._bell.close()

    @property
    def is_behind(self) -> bool:
        """Whether something waits for the journal."""
        return bool(self._waiting)

    def keep(self, messages: Sequence[bytes], stream: Stream) -> None:
        """Put them into the journal, behind those that wait."""
        self._waiting.extend(messages)
        for name, many in (("torn", stream.torn), ("oversized", stream.oversized)):
            if many:
                self._counts[name] = self._counts.get(name, 0) + many
        stream.torn = stream.oversized = 0
        over = len(self._waiting) - self._place.max_events
        if over > 0:
            for _ in range(over):
                self._waiting.popleft()
            self._counts["dropped"] = self._counts.get("dropped", 0) + over
        if self._waiting or self._counts:
            self._write()

    def _write(self) -> None:
        from workers.cups.events.journal import JournalFault

        try:
            self._open().add(self._run, list(self._waiting), self._counts)
        except JournalFault as fault:
            self._close()
            if str(fault) != self._fault:
                say("ERROR", f"{fault}; events wait in memory")
            self._fault = str(fault)
            return
        if self._fault:
            say("INFO", "the journal can be written again")
        self._fault = ""
        self._waiting.clear()
        self._counts.clear()
        _ring(self._bell, self._place, NEWS)

    def leave(self) -> None:
        """Nothing more comes: cupsd ended, or the subscription did."""
        _ring(self._bell, self._place, END)

    def refuses(self, user_data: bytes) -> bool:
        """Whether the bridge made its subscription with other user data than this one has."""
        from workers.cups.events.journal import JournalFault

        try:
            token = self._open().fact("token")
        except JournalFault as fault:
            self._fault = str(fault)
            say("ERROR", f"{fault}; events wait in memory")
            return False
        return token is not None and token != user_data.decode("utf-8", "replace")

    def _open(self) -> Journal:
        """The journal, opened anew where somebody put the file aside."""
        from workers.cups.events.journal import Journal

        if self._journal is not None and not self._journal.is_current:
            self._close()
        if self._journal is None:
            self._journal = Journal(self._place.journal, most=self._place.max_events)
        return self._journal

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def say(level: str, text: str) -> None:
    """A line in cupsd's log. One that cannot be written is not missed."""
    try:
        print(f"{level}: tympan: {text}", file=sys.stderr, flush=True)
    except OSError:
        return


def _bell() -> socket.socket:
    import socket

    bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bell.setblocking(False)
    return bell


def _ring(bell: socket.socket, place: Place, why: bytes) -> None:
    """Wake the bridge, if it sleeps; where it is away, it will look by itself."""
    try:
        bell.sendto(why, str(place.bell))
    except OSError:
        return


def _widen(descriptor: int) -> None:
    """Make the pipe as large as the system lets this user."""
    import fcntl

    size = PIPE
    while size > AT_ONCE:
        try:
            fcntl.fcntl(descriptor, _F_SETPIPE_SZ, size)
        except OSError:
            size //= 2
        else:
            return


def _decoded(argument: str) -> bytes:
    import base64
    import binascii

    try:
        return base64.b64decode(argument, validate=True)
    except (binascii.Error, ValueError):
        return argument.encode("utf-8", "surrogateescape")


def main(settings: str, arguments: Sequence[str] | None = None, descriptor: int = 0) -> int:
    """Run until cupsd ends the stream, or ends this; the exit status."""
    import signal

    _widen(descriptor)
    reader = Reader(descriptor)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: reader.end())
    reader.start()

    from workers.cups.events.torn import Stream
    from workers.cups.file import Place, SettingsFault

    recipient, user_data, *_ = [*(sys.argv[1:] if arguments is None else arguments), "", ""]
    if recipient != RECIPIENT:
        say("ERROR", f"not the bridge's own recipient: it takes no settings from {recipient!r}")
        return _ignore(reader)
    try:
        place = Place.read(settings)
    except SettingsFault as fault:
        say("ERROR", f"{fault}; no event is kept")
        return _ignore(reader)
    with Keeper(place) as keeper:
        if not keeper.refuses(_decoded(user_data)):
            return _keep(reader, keeper, Stream())
    say("ERROR", "the bridge did not make this subscription: its events are ignored")
    return _ignore(reader)


def _keep(reader: Reader, keeper: Keeper, stream: Stream) -> int:
    while (parts := reader.take(RETRY if keeper.is_behind else None)) is not None:
        keeper.keep([message for part in parts for message in stream.feed(part)], stream)
    stream.finish()
    keeper.leave()
    for _ in range(LAST_ATTEMPTS):
        keeper.keep((), stream)
        if not keeper.is_behind:
            return 0
        threading.Event().wait(RETRY)
    say("ERROR", "events were not kept: the journal could not be written")
    return 1


def _ignore(reader: Reader) -> int:
    """Read on: a notifier that ends is started again for each event."""
    while reader.take() is not None:
        pass
    return 0
