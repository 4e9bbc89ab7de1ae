"""The event stream that cupsd writes to a notifier, cut into messages, torn ones left out.

When a notifier's pipe is full, cupsd leaves out the rest of a message and goes on with the next.
Whoever reads on then takes the next message's header for two empty groups and makes one event of
two. So a message here is whole only where no header stands within it. In an event a header's bytes
cannot stand elsewhere: texts hold no NUL, and the user data is the bridge's own.
"""

from __future__ import annotations

import re

from workers.cups.cupsd.ipp import MOST, Fault, Short, TooLong, end_of

_HEADER = re.compile(rb"[\x01\x02][\x00-\x02]\x00{6}\x07")
"""Version, status and request number 0, and the tag of the group of an event."""
_HEADER_SIZE = 9


class Stream:
    """What was read so far, and not yet cut."""

    def __init__(self, *, most: int = MOST) -> None:
        self.torn = 0
        """Messages that were cut off, and stretches of bytes that are none."""
        self.oversized = 0
        """Messages of more than ``most`` bytes."""
        self._most = most
        self._buffer = bytearray()
        self._is_lost = False
        """Whether what comes up to the next header is of a message that was counted."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read; returns the messages that are whole now."""
        self._buffer += data
        whole: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= _HEADER_SIZE:
            end = self._end(at)
            if end is None:
                break
            if end > 0:
                whole.append(bytes(self._buffer[at:end]))
                at = end
            else:
                at = -end
        del self._buffer[:at]
        return whole

    def finish(self) -> None:
        """Nothing more will come: what is left was cut off."""
        if self._buffer and not self._is_lost:
            self.torn += 1
        self._buffer.clear()

    def _end(self, at: int) -> int | None:
        """Where the message at this place ends; negative: where to look on; None: not known yet."""
        end = None
        is_oversized = False
        is_message = _HEADER.match(self._buffer, at) is not None
        try:
            if is_message:
                end = end_of(self._buffer, at, most=self._most)
        except Short:
            pass
        except Fault as fault:
            is_message, is_oversized = False, isinstance(fault, TooLong)
        following = _HEADER.search(self._buffer, at + 1, end or len(self._buffer))
        if following is None and is_message:
            self._is_lost = False
            return end
        if not self._is_lost:
            self.oversized += is_oversized and following is None
            self.torn += not (is_oversized and following is None)
        if following is not None:
            self._is_lost = False
            return -following.start()
        self._is_lost = True
        # The last bytes may be the beginning of a header; what is there now is none.
        del self._buffer[at : max(at, len(self._buffer) - _HEADER_SIZE + 1)]
        return None
