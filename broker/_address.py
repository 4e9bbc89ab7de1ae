"""Addresses: where a farm's Redis is, read from a URL. No I/O.

========================================================== =====================================
``redis://[user:password@]host[:6379][/database]``         one process
``unix:///path[?db=0]``                                    one process on this host
``redis+sentinel://[user:password@]host[:26379],…/master`` the primary that Sentinel names so
``redis+cluster://[user:password@]host[:6379],…``          a Cluster, by some of its nodes
========================================================== =====================================

``rediss``, also in ``rediss+sentinel`` and ``rediss+cluster``, is TLS: certificate and host are
verified; ``?ssl_ca_certs=/path`` names the authority, ``ssl_certfile`` and ``ssl_keyfile`` are the
client's own. Other options in the query are redis-py's.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

from redis.asyncio.connection import AbstractConnection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import RedisError as AnyRedisError

from broker.errors import InvalidUrl
from broker.settings import Settings

log = logging.getLogger("tympan")

Node = tuple[str, int]
"""Host and port."""


class Form(Enum):
    """How many processes a URL speaks of, and who knows the one to ask."""

    SINGLE = ""
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


PORTS = {Form.SINGLE: 6379, Form.SENTINEL: 26379, Form.CLUSTER: 6379}
FORMS = (
    "write redis://host:port/0, rediss:// for TLS, unix:///path, "
    "redis+sentinel://host:port,host:port/master or redis+cluster://host:port,host:port"
)
_URL = re.compile(
    r"(?P<scheme>rediss?)(?:\+(?P<form>sentinel|cluster))?://"
    r"(?:(?P<credentials>[^/?#]*)@)?(?P<hosts>[^/?#@]*)(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\[\]:,\s]+)(?::(?P<port>\d{1,5}))?")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_STRICT = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
_SET_HERE = {
    "socket_timeout": "reply_timeout",
    "socket_connect_timeout": "connect_timeout",
    "timeout": "connect_timeout",
}
"""Times that are this project's own settings, by redis-py's name for them."""
_FIXED = frozenset({"protocol", "retry_on_timeout", "decode_responses"})
"""What this client relies on."""
_SECRET = re.compile(r"(?<=password=)[^&]*", re.IGNORECASE)


@dataclass(frozen=True)
class Dialer:
    """Makes connections, not yet connected, with one set of credentials and TLS settings."""

    kind: type[AbstractConnection]
    options: dict[str, Any]

    def connection(self, node: Node | None = None) -> AbstractConnection:
        """A new one; to another node than the URL's where one is given."""
        where = {} if node is None else {"host": node[0], "port": node[1]}
        return self.kind(**{**self.options, **where})


@dataclass(frozen=True)
class Address:
    """What a URL says."""

    url: str
    """As it may be shown: without its password."""
    form: Form
    nodes: tuple[Node, ...]
    """Redis, the Sentinels, or some nodes of the Cluster; empty for a socket on this host."""
    master: str
    """The name by which Sentinel knows the primary; otherwise empty."""
    redis: Dialer
    sentinel: Dialer | None = None

    @classmethod
    def parse(cls, url: str, settings: Settings) -> Address:
        """Read a URL; raises InvalidUrl."""
        if not isinstance(url, str):
            raise InvalidUrl(f"{url!r} is no Redis URL: {FORMS}")
        shown = without_password(url)
        try:
            if url.startswith("unix://"):
                return cls(shown, Form.SINGLE, (), "", _dialer(url, settings))
            found = _URL.fullmatch(url)
            if found is None:
                raise ValueError(FORMS)
            return cls._of_match(found, shown, settings)
        except (ValueError, TypeError) as error:
            raise InvalidUrl(f"{shown!r} is no Redis URL: {error}") from None

    @classmethod
    def _of_match(cls, found: re.Match[str], shown: str, settings: Settings) -> Address:
        if "@" in f"{found['path']}{found['query']}":
            raise ValueError(
                "in a user name, a password or an option write @ as %40, / as %2F, ? as %3F and "
                "# as %23"
            )
        form = Form(found["form"] or "")
        nodes = _nodes(found["hosts"], form)
        options = parse_qs(found["query"] or "", strict_parsing=bool(found["query"]))
        master, database = _path(found["path"] or "", form)
        of_sentinel = {
            name.removeprefix("sentinel_"): options.pop(name)
            for name in ("sentinel_username", "sentinel_password")
            if form is Form.SENTINEL and name in options
        }
        credentials = f"{found['credentials']}@" if found["credentials"] is not None else ""
        tail = f"/{database}?{urlencode(options, doseq=True)}"
        host, port = nodes[0]
        base = f"{found['scheme']}://{{}}{f'[{host}]' if ':' in host else host}:{port}"
        redis = _dialer(base.format(credentials) + tail, settings)
        if form is Form.CLUSTER and redis.options.get("db", 0) != 0:
            raise ValueError("a Cluster has one database, 0")
        sentinel = None
        if form is Form.SENTINEL:
            common = {name: options[name] for name in options if name.startswith("ssl_")}
            query = urlencode({**common, **of_sentinel}, doseq=True)
            sentinel = _dialer(f"{base.format('')}/0?{query}", settings)
        return cls(shown, form, nodes, master, redis, sentinel)


def form_of(url: str) -> Form:
    """The form of a URL, which need not be a good one."""
    found = _URL.fullmatch(url)
    return Form((found["form"] if found else None) or "")


def _nodes(hosts: str, form: Form) -> tuple[Node, ...]:
    """Hosts with their ports, once each."""
    nodes: dict[Node, None] = {}
    for text in hosts.split(",") if hosts else ["localhost"]:
        found = _HOST.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no host, and no host:port")
        port = int(found["port"] or PORTS[form])
        if not 0 < port < 65_536:
            raise ValueError(f"{text!r}: a port is 1 to 65535")
        nodes[unquote(found["host"].strip("[]")), port] = None
    if form is Form.SINGLE and len(nodes) > 1:
        raise ValueError(
            "several hosts are a redis+sentinel:// or a redis+cluster:// URL's matter; redis:// "
            "names one"
        )
    return tuple(nodes)


def _path(path: str, form: Form) -> tuple[str, str]:
    """Sentinel's name of the primary, and the database."""
    parts = path.split("/") if path else []
    master = ""
    if form is Form.SENTINEL:
        if not parts or not parts[0]:
            raise ValueError("name the primary as Sentinel does: redis+sentinel://host:port/NAME")
        master = unquote(parts.pop(0))
    database = parts.pop(0) if parts else ""
    if parts or (database and not database.isdigit()):
        raise ValueError(f"{path!r}: a database is a number")
    return master, database or "0"


@cache
def _driver() -> DriverInfo:
    """What Redis is told of redis-py, which else reads its own version for each connection."""
    return DriverInfo()


def _dialer(url: str, settings: Settings) -> Dialer:
    """What redis-py reads from a plain URL, with this project's own time limits and retries."""
    for name in parse_qs(url.partition("?")[2]):
        if name in _SET_HERE:
            raise ValueError(f"{name} is not read from a URL: it is the setting {_SET_HERE[name]}")
        if name in _FIXED:
            raise ValueError(f"{name} is not for a URL to set")
    pool: ConnectionPool = ConnectionPool.from_url(
        url,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=settings.connect_timeout,
        **({} if url.startswith("unix://") else {"socket_keepalive": True}),
        retry=Retry(NoBackoff(), 0),
        driver_info=_driver(),
        client_name=f"tympan-{socket.gethostname()}-{os.getpid()}".replace(" ", "-"),
    )
    options = dict(pool.connection_kwargs)
    for name in _FILES:
        if name in options and not Path(options[name]).is_file():
            raise ValueError(f"{name}: there is no file {options[name]}")
    try:
        made = pool.make_connection()  # refuses options that do not exist
    except AnyRedisError as error:
        raise ValueError(str(error)) from None
    if isinstance(made, SSLConnection):
        try:
            made.ssl_context.get()  # reads the files
        except (OSError, TypeError) as error:
            raise ValueError(f"what it says of TLS cannot be used: {error}") from None
    for name, strict in _STRICT.items():
        if options.get(name, strict) != strict:
            log.warning(
                "%s: with %s=%s anybody on the way can read and answer",
                without_password(url),
                name,
                options[name],
            )
    return Dialer(pool.connection_class, options)


def without_password(url: str) -> str:
    """A URL as it may be shown. Where it is not clear where a password ends, little is left."""
    scheme, sep, rest = url.partition("://") if "://" in url else ("", "", url)
    before, mark, query = rest.partition("?")
    if "@" in query:
        return f"{scheme}{sep}***"
    credentials, at, where = before.rpartition("@")
    user = credentials.partition(":")[0]
    return f"{scheme}{sep}{user + ':***@' if at else ''}{where}{mark}{_SECRET.sub('***', query)}"


def shown_node(node: Node) -> str:
    """``host:port``, an IPv6 address in brackets."""
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(named: Node, teller: Node) -> Node:
    """A node that does not know its own host is where it was asked."""
    host, port = named
    return (teller[0] if host in ("", "?") else host, port)
