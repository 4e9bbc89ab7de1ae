"""Profiles: whose a function is, and what is spread over the CPU of an operation."""

from __future__ import annotations

import pytest

from benchmarks.contestants import DEEP, FLOOR
from benchmarks.party import CHECKOUT, Contender
from benchmarks.profile import Loaded, Profile, layer_of
from benchmarks.stage import Stage

LIBRARIES = "/usr/lib/python3.11"
LINK = f"{CHECKOUT}/broker/_link.py"


@pytest.mark.parametrize(
    ("file", "layer"),
    [
        (LINK, "connections"),
        (f"{CHECKOUT}/broker/channel.py", "nouns, values"),
        (f"{CHECKOUT}/broker/_entries.py", "protocol, pure"),
        (f"{CHECKOUT}/broker/_outbox.py", "client"),
        (f"{CHECKOUT}/benchmarks/contenders/floor.py", "the benchmark"),
        (f"{CHECKOUT}/.venv/lib/python3.11/site-packages/redis/client.py", "redis-py"),
        (f"{LIBRARIES}/asyncio/base_events.py", "asyncio"),
        (f"{LIBRARIES}/selectors.py", "Python"),
        ("<string>", "Python"),
    ],
)
def test_each_file_has_its_layer(file: str, layer: str) -> None:
    assert layer_of(file) == layer


def test_what_is_written_in_c_is_its_callers_and_waiting_is_nobodys() -> None:
    profile = Profile.of(
        10,
        50.0,
        [
            [LINK, "send", 10, 0.3, []],
            ["~", "<built-in method builtins.len>", 40, 0.2, [[LINK, 0.2]]],
            ["~", "<method 'send' of '_socket.socket' objects>", 10, 0.5, [[LINK, 0.5]]],
            ["~", "<method 'poll' of 'select.epoll' objects>", 10, 9.0, [[LINK, 9.0]]],
        ],
    )
    assert profile.layers == {"connections": 0.5, "system calls": 0.5}
    assert "| connections  | 25.0 |   50% |" in str(profile).splitlines()
    longest = profile.longest(2).splitlines()
    assert [line.split("|")[1].strip() for line in longest[2:]] == [
        "`method 'send' of '_socket.socket' objects`",
        "`_link: send`",
    ]
    assert [line.split("|")[2].strip() for line in longest[2:]] == ["1.00", "1.00"]


@pytest.mark.parametrize("contender", [DEEP, FLOOR], ids=["tympan", "floor"])
@pytest.mark.parametrize("load", ["many", "one", "dialog"])
async def test_both_processes_say_what_they_did(contender: Contender, load: str) -> None:
    async with Stage() as stage:
        loaded = await Loaded.on(stage, contender, load, registrations=1)
        for profile in await loaded.profiles(20, registrations=1):
            assert profile.operations == 20
            assert profile.cpu_us > 0
            assert profile.layers["asyncio"] > 0
