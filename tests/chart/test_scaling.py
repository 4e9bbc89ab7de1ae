"""Scaling by what is rendered, against a real Redis, a real reaper and a real worker.

The pods' own words and environment run here as processes; only addresses are this machine's. What
KEDA would do is computed from the ScaledObject, on a clock of the test's own.
"""

from __future__ import annotations

import re
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker import Broker
from tests.chart.charts import Pod, Rendered, render
from tests.chart.test_alerts import asked, expressions
from tests.chart_cluster.keda import Autoscaler, NoFigure, Scaling, figure, reversals
from tests.cli.commands import CHECKOUT, PATIENCE, TYPE, Process, Tympan
from tests.cli.test_worker import get, get_until, health
from tests.redis.scenes import until
from tests.servers import RedisServer

PRINTER = r"\\print01\laser-3"
DESK = f"""
import asyncio
from pathlib import Path
from broker import Notification
from workers import Worker

worker = Worker("help-desk", user="helpdesk", timeout=None)

@worker.listen(r"\\\\print01", "{TYPE}", printers=True)
async def paper(notification: Notification) -> None:
    while not Path("go on").exists():
        await asyncio.sleep(0.01)
"""


class Farm:
    """The release, as processes of this machine."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.folder = folder
        self.namespace = f"t{secrets.token_hex(4)}"
        (folder / "desk.py").write_text(DESK, encoding="utf-8")
        self.objects = self._rendered()
        self.url = redis.url
        environment = {"PYTHONPATH": str(CHECKOUT)}
        for name, value in self.objects.pod("Deployment", "reaper").environment.items():
            environment[name] = redis.url if name == "TYMPAN_URL" else value
        self.tympan = Tympan(redis.url, cwd=folder, environment=environment)

    def _rendered(self) -> Rendered:
        pool = {"pool": "help-desk", "name": r"\\print01", "type": TYPE, "user": "helpdesk"}
        scaling = {"minReplicas": 0, "maxReplicas": 5, "keda": {"enabled": True}}
        values: dict[str, Any] = {
            "redis": {"addresses": ["redis:6379"]},
            "settings": {"namespace": self.namespace, "lease": 1.5, "resync": 0.2},
            "logFormat": "text",
            "reaper": {"everySeconds": 0.1},
            "workers": {"help-desk": {"target": "desk:worker", "autoscaling": scaling}},
            "setup": {"doctor": {"enabled": False}, "pools": [{**pool, "printers": True}]},
        }
        return render(values)

    async def set_up(self) -> None:
        """What the Job does."""
        file = self.folder / "setup.json"
        file.write_text(self.objects.of("ConfigMap", "setup")["data"]["setup.json"], "utf-8")
        await self.tympan.run("setup", str(file))

    async def run(self, name: str) -> Process:
        """A process of a Deployment."""
        return await self.tympan.start(*_here(self.objects.pod("Deployment", name)))

    async def send(self, many: int = 1) -> None:
        """Tell the desk something so many times."""
        broker = Broker.connect(self.url, user="helpdesk", namespace=self.namespace)
        async with broker, await broker.open_channel(PRINTER, TYPE) as channel:
            for _ in range(many):
                await channel.send("out of paper")

    def let_go(self) -> None:
        """Handlers end."""
        (self.folder / "go on").touch()


def _here(pod: Pod) -> list[str]:
    return [re.sub(r"^--health=.*", "--health=127.0.0.1:0", word) for word in pod.own["args"]]


@pytest.fixture
async def farm(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Farm]:
    """The release; its processes end with the test."""
    made = Farm(tmp_path, redis_server)
    yield made
    await made.tympan.clean_up()


async def test_it_wakes_on_one_notification_and_sleeps_only_when_all_is_done(farm: Farm) -> None:
    await farm.set_up()
    scaling = Scaling.of(farm.objects.of("ScaledObject", "help-desk"))
    keda, now, replicas = Autoscaler(scaling), 0.0, [0]
    backlog = f"{await health(await farm.run('reaper'))}{scaling.trigger.service[3]}"

    async def shows(number: float) -> None:
        async def does() -> bool:
            status, body = await get(backlog)
            return status == 200 and figure(body, scaling.trigger.location) == number

        await until(does, PATIENCE)

    def look(value: float | None, seconds: float) -> int:
        """Look again and again for so long."""
        nonlocal now
        end = now + seconds
        while now < end:
            now += scaling.polling
            replicas.append(keda.poll(now, value, replicas[-1]))
            replicas.append(keda.sync(now, value, replicas[-1]))
        return replicas[-1]

    await shows(0)
    assert look(0, 600) == 0, "nothing to do: nothing runs"
    await farm.send()
    await shows(1)
    assert look(1, scaling.polling) == 1, "one that waits is enough, at the first look"

    worker = await farm.run("help-desk")
    await get_until(backlog, lambda _, body: '"in_hand": 1' in body and '"waiting": 0' in body)
    await shows(1)
    assert look(1, 4 * scaling.cooldown) == 1, "what is in hand keeps its replica"

    await farm.send(20)
    await shows(21)
    assert look(21, 60) == 3, "21, of which each takes 8"
    farm.let_go()
    await shows(0)
    assert look(0, scaling.cooldown - scaling.polling) > 0, "the last one stays for a while"
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 0
    assert look(0, 2 * scaling.cooldown) == 0
    assert reversals(replicas) == 1, "up, and down again"


async def test_a_reaper_that_does_not_know_takes_nobody_away(farm: Farm) -> None:
    scaling = Scaling.of(farm.objects.of("ScaledObject", "help-desk"))
    for body in ("", '{"error": "the backlog is not known"}', '{"pools": {}}'):
        with pytest.raises(NoFigure):
            figure(body, scaling.trigger.location)
    keda, replicas = Autoscaler(scaling), 3
    for now in range(0, 3600, 5):
        replicas = keda.sync(now, None, keda.poll(now, None, replicas))
    assert replicas == 3
    assert keda.poll(3600.0, None, 0) == 1, "one, for what may be there"


async def test_rules_and_dashboard_ask_for_what_a_worker_and_a_reaper_export(farm: Farm) -> None:
    exposed: set[str] = set()
    await farm.set_up()
    for name in ("reaper", "help-desk"):
        url = await health(await farm.run(name))
        body = await get_until(f"{url}/metrics", lambda status, _: status == 200)
        exposed |= set(re.findall(r"^# TYPE (\w+) ", body, re.MULTILINE))
        if name == "reaper":
            assert re.search(r"^tympan_backlog_known [01]\.0$", body, re.MULTILINE)
        else:
            dead = 'tympan_dead_letters_total{handler="paper",pool="help-desk"} 0.0'
            assert dead in body, "a counter that is first seen at 1 did not rise"
            assert not re.search(r"^tympan_backlog_known ", body, re.MULTILINE), "it does not look"
    for where, expression in expressions():
        for metric in asked(expression)[0]:
            family = re.sub("_bucket$", "", metric)
            assert family in exposed, f"{where}: {metric}"
