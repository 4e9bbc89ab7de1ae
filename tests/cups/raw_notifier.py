"""The chain without the broker: a notifier that puts each message into a Redis stream, no more.

Its recipient URI is ``raw://127.0.0.1:PORT/STREAM``. It reads as greedily as Tympan's, and sends
what it read in one write. Nothing but the standard library.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from urllib.parse import urlsplit

from workers.cups.events.torn import Stream

_PIPE = 1_048_576
_F_SETPIPE_SZ = 1031
_AT_ONCE = 1_048_576


def _command(*words: bytes) -> bytes:
    """A command as Redis reads it."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def main() -> int:
    """Until cupsd ends the stream."""
    where = urlsplit(sys.argv[1])
    assert where.hostname
    stream = where.path.strip("/").encode()
    fcntl.fcntl(0, _F_SETPIPE_SZ, _PIPE)
    cut = Stream()
    with socket.create_connection((where.hostname, where.port or 6379)) as redis:
        redis.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := os.read(0, _AT_ONCE):
            messages = cut.feed(data)
            redis.sendall(b"".join(_command(b"XADD", stream, b"*", b"e", m) for m in messages))
            owed = len(messages)
            while owed > 0:
                answer = redis.recv(_AT_ONCE)
                if not answer:
                    return 1
                owed -= answer.count(b"$")
    return 0
