"""Contestants: who is compared, by the names that the table gives them."""

from __future__ import annotations

from benchmarks.party import Contender

TYMPAN = Contender("Tympan", "tympan")
DEEP = Contender("Tympan", "tympan", form="deep")
"""With room for bursts: what is measured is not the refusal of a full buffer."""
DEEP_ON_UVLOOP = Contender("Tympan on uvloop", "tympan", form="uvloop")
FLOOR = Contender("floor", "floor")
NATS = Contender("NATS core", "peers.nats", "core", "nats")
JETSTREAM = Contender("NATS JetStream", "peers.nats", "jetstream", "nats")
PEERS_ON_REDIS = (
    Contender("FastStream", "peers.faststream"),
    Contender("taskiq-redis", "peers.taskiq"),
    Contender("arq", "peers.arq", home="arq"),
    Contender("dramatiq", "peers.dramatiq"),
    Contender("streaQ", "peers.streaq"),
    Contender("docket", "peers.docket"),
)
BULLMQ = Contender(
    "BullMQ",
    "peers.bullmq",
    home="node",
    command=("node", "benchmarks/contenders/peers/bullmq.mjs"),
)
RABBITMQ = Contender("RabbitMQ", "peers.rabbitmq", server="rabbitmq")
POOL = Contender("Tympan", "tympan_pool", "64")
POOL_FLOOR = Contender("floor", "floor_pool")
RACE = Contender("Tympan", "tympan_race")
RACE_FLOOR = Contender("SET NX", "floor_race")
RAW_COPIES = Contender("raw copies", "floor_large")
