"""Nodes: what one look at a Redis process found. Read from its replies; no I/O.

A fact that is None could not be looked at, and ``refused`` says why. Sizes are in bytes, times in
seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SETTINGS = (
    "appendfsync",
    "client-output-buffer-limit",
    "cluster-require-full-coverage",
    "maxmemory-clients",
    "min-replicas-max-lag",
    "min-replicas-to-write",
    "no-appendfsync-on-rewrite",
    "save",
    "stop-writes-on-bgsave-error",
    "tcp-keepalive",
    "timeout",
    "tls-port",
)
"""What CONFIG GET is asked for, one by one: its answer to ``*`` holds passwords."""


class BufferLimit(NamedTuple):
    """When Redis cuts a subscriber off: at ``hard`` bytes, or above ``soft`` for ``seconds``."""

    hard: int
    soft: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFacts:
    """One replica, as its primary sees it."""

    address: str
    state: str
    lag: int | None = None
    """Since it last confirmed anything."""
    behind: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One Redis process."""

    address: str
    unreachable: str | None = None
    """Why nothing else is known of it."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Command, and what Redis answered instead of the facts."""
    user: str | None = None

    product: str = "Redis"
    version: str = "?"
    """Its own version."""
    speaks: tuple[int, ...] = ()
    """The version of Redis that it is compatible with."""
    mode: str = "standalone"
    """``standalone``, ``cluster`` or ``sentinel``."""
    config_file: str | None = None
    """Empty: it runs without one, and CONFIG REWRITE cannot help."""
    is_loading: bool = False
    tls_port: int | None = None

    is_primary: bool | None = None
    primary: str | None = None
    """Of a replica: whom it follows."""
    follows: bool | None = None
    """Of a replica: whether its link to the primary is up."""
    read_only: bool | None = None
    replicas: tuple[ReplicaFacts, ...] = ()
    good_replicas: int | None = None
    """Replicas that count for ``min_replicas``; None where nothing is asked for."""
    min_replicas: int | None = None
    max_lag: int | None = None
    sentinels: int | None = None
    """How many Sentinels watch it."""

    policy: str | None = None
    maxmemory: int | None = None
    used_memory: int | None = None
    system_memory: int | None = None
    evicted: int = 0

    aof: bool | None = None
    appendfsync: str | None = None
    pauses_fsync: bool | None = None
    """``no-appendfsync-on-rewrite``."""
    aof_writes: str | None = None
    """``ok``, or what became of the last write."""
    aof_rewrites: str | None = None
    save: str | None = None
    snapshots: str | None = None
    """``ok``, or what became of the last one."""
    stops_writes: bool | None = None
    """``stop-writes-on-bgsave-error``."""
    unsaved: int | None = None
    """Changes since the last snapshot."""

    subscribers: int | None = None
    """Beside those Sentinels."""
    buffer_limit: BufferLimit | None = None
    client_memory: str | None = None
    """``maxmemory-clients``."""
    cut_off: int = 0
    """Clients that Redis disconnected because of their output buffers."""
    timeout: int | None = None
    keepalive: int | None = None
    full_coverage: bool | None = None

    @classmethod
    def of(
        cls, address: str, info: Mapping[str, str], config: Mapping[str, str], **known: Any
    ) -> NodeFacts:
        """Read INFO, and what CONFIG GET told; ``known`` is the rest."""
        flavour = "Valkey" if info.get("server_name") == "valkey" else "Redis"
        compatible = info.get("redis_version", "?")
        subscribers = number(info.get("pubsub_clients", known.pop("subscribers", None)))
        return cls(
            address=address,
            product=flavour,
            version=info.get("valkey_version", compatible),
            speaks=tuple(map(int, re.findall(r"\d+", compatible)[:3])),
            mode=info.get("redis_mode", "standalone"),
            config_file=info.get("config_file"),
            is_loading=info.get("loading", "0") != "0",
            tls_port=number(config.get("tls-port")),
            is_primary=is_word(info.get("role"), "master"),
            primary=address_of(info.get("master_host"), info.get("master_port")),
            follows=is_word(info.get("master_link_status"), "up"),
            read_only=is_word(info.get("slave_read_only"), "1"),
            replicas=_replicas(info),
            good_replicas=number(info.get("min_slaves_good_slaves")),
            min_replicas=number(config.get("min-replicas-to-write")),
            max_lag=number(config.get("min-replicas-max-lag")),
            policy=info.get("maxmemory_policy"),
            maxmemory=number(info.get("maxmemory")),
            used_memory=_counted_memory(info),
            system_memory=number(info.get("total_system_memory")),
            evicted=number(info.get("evicted_keys")) or 0,
            aof=is_word(info.get("aof_enabled"), "1"),
            appendfsync=config.get("appendfsync"),
            pauses_fsync=is_word(config.get("no-appendfsync-on-rewrite"), "yes"),
            aof_writes=info.get("aof_last_write_status"),
            aof_rewrites=info.get("aof_last_bgrewrite_status"),
            save=config.get("save"),
            snapshots=info.get("rdb_last_bgsave_status"),
            stops_writes=is_word(config.get("stop-writes-on-bgsave-error"), "yes"),
            unsaved=number(info.get("rdb_changes_since_last_save")),
            subscribers=None
            if subscribers is None
            else max(0, subscribers - (known.get("sentinels") or 0)),
            buffer_limit=_buffer_limit(config.get("client-output-buffer-limit", "")),
            client_memory=config.get("maxmemory-clients"),
            cut_off=number(info.get("client_output_buffer_limit_disconnections")) or 0,
            timeout=number(config.get("timeout")),
            keepalive=number(config.get("tcp-keepalive")),
            full_coverage=is_word(config.get("cluster-require-full-coverage"), "yes"),
            **known,
        )

    @property
    def online(self) -> int:
        """How many replicas follow it."""
        return sum(replica.state == "online" for replica in self.replicas)


def read_info(text: str) -> dict[str, str]:
    """INFO, CLUSTER INFO: the lines ``name:value``."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def read_pairs(flat: Sequence[str]) -> dict[str, str]:
    """CONFIG GET, SENTINEL MASTER: name, value, name, value, ..."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def number(text: object) -> int | None:
    """A number, or None for anything else."""
    try:
        return int(str(text))
    except ValueError:
        return None


def is_word(text: str | None, value: str) -> bool | None:
    """Whether that is what was said; None where nothing was."""
    return None if text is None else text == value


def address_of(host: str | None, port: str | None) -> str | None:
    """``host:port``, an IPv6 address in brackets; None without a host."""
    if not host:
        return None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _replicas(info: Mapping[str, str]) -> tuple[ReplicaFacts, ...]:
    written = number(info.get("master_repl_offset")) or 0
    found = []
    for name, text in info.items():
        if not re.fullmatch(r"slave\d+", name):
            continue
        facts = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        offset = number(facts.get("offset"))
        found.append(
            ReplicaFacts(
                address=address_of(facts.get("ip"), facts.get("port")) or "?",
                state=facts.get("state", "?"),
                lag=number(facts.get("lag")),
                behind=None if offset is None else max(0, written - offset),
            )
        )
    return tuple(found)


def _counted_memory(info: Mapping[str, str]) -> int | None:
    """What counts for maxmemory: not the buffers of replicas and of the append-only file."""
    used = number(info.get("used_memory"))
    if used is None:
        return None
    return used - (number(info.get("mem_not_counted_for_evict")) or 0)


def _buffer_limit(text: str) -> BufferLimit | None:
    found = re.search(r"\bpubsub (\d+) (\d+) (\d+)", text)
    return None if found is None else BufferLimit(*map(int, found.groups()))
