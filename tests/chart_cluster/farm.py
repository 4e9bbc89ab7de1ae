"""What stands in the cluster beside the chart: a Redis, a pod to ask from, and sources."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chart_cluster.kubernetes import Cluster, Record, is_ready, until
from tests.chart_cluster.pods import desk
from tests.chart_cluster.pods.source import Note

PODS = Path(__file__).parent / "pods"
PYTHON = "/opt/tympan/bin/python"
WORKERS = "app.kubernetes.io/component=worker"
POOL = "chart-test"
RATE = 40.0
"""Notifications a second, of each source."""
DIALOGS = 4
"""Dialogs that a source holds at the same time."""
LOCKED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def meta(name: str) -> Record:
    return {"name": name, "labels": {"app": name}}


def secure(user: int) -> Record:
    """The security context of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def redis_objects(image: str, password: str) -> Iterator[Record]:
    """A Redis as docs/farm.md has it, its Service, and the Secret with its password."""
    yield {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta("redis"),
        "stringData": {"password": password, "url": f"redis://:{password}@redis:6379/0"},
    }
    port = {"name": "redis", "port": 6379, "protocol": "TCP"}
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta("redis"),
        "spec": {"selector": {"app": "redis"}, "ports": [port]},
    }
    settings = {
        "dir": "/data", "appendonly": "yes", "maxmemory": "256mb",
        "maxmemory-policy": "noeviction", "tcp-keepalive": "60", "requirepass": "$(PASSWORD)",
    }  # fmt: skip
    container = {
        "name": "redis",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["redis-server"],
        "args": [word for name, value in settings.items() for word in (f"--{name}", value)],
        "env": [secret("PASSWORD", "password")],
        "ports": [{"containerPort": 6379, "protocol": "TCP"}],
        "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
        "securityContext": LOCKED,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": secure(999),
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta("redis"),
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": "redis"}},
            "template": {"metadata": {"labels": {"app": "redis"}}, "spec": spec},
        },
    }


def secret(name: str, key: str) -> Record:
    """A variable of the environment from that Secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "redis", "key": key}}}


def code() -> Record:
    """The ConfigMap of what runs in pods."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta("code"),
        "data": {
            file.name: file.read_text(encoding="utf-8")
            for file in sorted(PODS.glob("*.py"))
            if file.stem != "__init__"
        },
    }


def pod(name: str, image: str, *args: str) -> Record:
    """A pod that runs Python with the code of ``pods``."""
    files = [{"key": key, "path": f"pods/{key}"} for key in code()["data"]]
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [PYTHON, *args],
        "workingDir": "/code",
        "env": [secret("TYMPAN_URL", "url"), secret("NOTES_URL", "url")],
        "securityContext": LOCKED,
        "volumeMounts": [{"name": "code", "mountPath": "/code"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(name),
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": secure(10001),
            "containers": [container],
            "volumes": [{"name": "code", "configMap": {"name": "code", "items": files}}],
        },
    }


def worker(**more: Any) -> Record:
    """The chart's values for the pool of ``desk``."""
    return {
        "target": "desk:worker",
        "pool": POOL,
        "replicas": 2,
        "drainSeconds": 15,
        "handlers": {"existingConfigMap": "code"},
        "extraEnv": {"NOTES_URL": {"valueFrom": secret("", "url")["valueFrom"]}},
        **more,
    }


@dataclass
class Farm:
    """All of it.

    Args:
        cluster: where.
        image: Tympan's, as the cluster knows it.
        redis_image: one with ``redis-server``.
    """

    cluster: Cluster
    image: str
    redis_image: str

    def begin(self) -> None:
        """Make Redis and the pod to ask from; returns when they are ready."""
        objects = redis_objects(self.redis_image, secrets.token_hex(12))
        self.cluster.apply(*objects, code())
        self.cluster.apply(pod("tools", self.image, "-c", "import signal; signal.pause()"))
        until(
            lambda: len(self.cluster.ready("app in (redis, tools)")) == 2,
            self.cluster.troubles,
        )

    def values(self, **more: Any) -> Record:
        """The chart's values, with a pool of two replicas."""
        repository, _, tag = self.image.rpartition(":")
        listens = {"pool": POOL, "name": desk.SERVER, "user": POOL}
        return {
            "image": {"repository": repository, "tag": tag},
            "redis": {"addresses": ["redis:6379"], "auth": {"existingSecret": "redis"}},
            "workers": {"desk": worker()},
            "setup": {
                "pools": [
                    listens | {"type": desk.TOLD},
                    listens | {"type": desk.ASKED, "bidirectional": True},
                ]
            },
            **more,
        }

    def tympan(self, *words: str) -> str:
        """What the command says, run in the cluster. Raises CommandFailed."""
        return self.cluster.run_in("tools", "/opt/tympan/bin/tympan", *words).ok()

    def python(self, program: str) -> Any:
        """What a program prints as JSON; ``store`` in it is a client of Redis."""
        opened = "import json, os, redis; store = redis.Redis.from_url(os.environ['NOTES_URL'])\n"
        said = self.cluster.run_in("tools", PYTHON, "-c", opened + program).ok()
        return json.loads(said)

    def tell(self, many: int, prefix: str, seconds: float, **more: Any) -> None:
        """Send notifications that take so long."""
        wish = {"seconds": seconds, **more}
        self.python(
            "import asyncio\n"
            "from broker import Broker\n"
            "async def tell():\n"
            "    async with Broker.connect(user='chart-source') as broker:\n"
            f"        channel = await broker.open_channel({desk.SERVER!r}, {desk.TOLD!r}, "
            f"user={POOL!r})\n"
            f"        for i in range({many}):\n"
            f"            wish = {wish!r} | {{'number': f'{prefix}-{{i}}'}}\n"
            "            await channel.send(json.dumps(wish), lossless=True)\n"
            "asyncio.run(tell())\n"
            "print(0)\n"
        )

    def noted(self, what: str, prefix: str) -> list[Note]:
        """What runs noted at their beginning, or at their end, of what :meth:`tell` sent."""
        lines = self.python(
            f"print(json.dumps([n.decode() for n in store.lrange({desk.NOTES!r}, 0, -1)]))"
        )
        notes = map(Note.parse, lines)
        return [
            note for note in notes if (note.what, note.number.rpartition("-")[0]) == (what, prefix)
        ]

    def forget_notes(self) -> None:
        """Drop what was noted so far."""
        self.python(f"print(store.delete({desk.NOTES!r}))")

    def held(self) -> list[str]:
        """All keys in Redis that do not go by themselves."""
        found: list[str] = self.python(
            "found = [key for key in sorted(store.keys('*')) if store.ttl(key) == -1]\n"
            "print(json.dumps([key.decode() for key in found]))"
        )
        return found

    @contextmanager
    def load(
        self, phase: str, rate: float = RATE, dialogs: int = DIALOGS
    ) -> Iterator[dict[str, Any]]:
        """A source speaks meanwhile; what became of it is in the report after the block."""
        name, report = f"source-{phase}", dict[str, Any]()
        words = ("-m", "pods.source", phase, str(rate), str(dialogs))
        self.cluster.apply(pod(name, self.image, *words))
        until(lambda: "sending" in self.cluster.logs(name), self.cluster.troubles)
        began = time.monotonic()
        try:
            yield report
        finally:
            self.cluster.run_in(name, PYTHON, "-c", "import os; os.kill(1, 10)")
        report["seconds"] = round(time.monotonic() - began, 1)
        said = until(lambda: reported(self.cluster.logs(name)), self.cluster.troubles, 180)
        report.update(json.loads(said))
        self.cluster.kubectl("delete", "pod", name, "--wait=false").ok()


def reported(log: str) -> str:
    """The report in a source's log, or nothing."""
    lines = [line for line in log.splitlines() if line.startswith("report ")]
    return lines[0].removeprefix("report ") if lines else ""


def names_of(pods: Sequence[Record]) -> set[str]:
    """Their names."""
    return {each["metadata"]["name"] for each in pods if is_ready(each)}
