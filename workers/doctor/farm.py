"""The farm: what is judged of the way to Redis, and of its processes together. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from redis.crc import key_slot

from broker import Durability, Settings
from broker._address import Form
from broker._keys import Keys, directory
from workers.acl import Role, Task, Wish, additions
from workers.doctor.credential import ANY, CredentialFacts
from workers.doctor.ensemble import (
    ClusterFacts,
    Member,
    SentinelFacts,
    Slots,
    count,
)
from workers.doctor.facts import FarmFacts, Tls
from workers.doctor.findings import Check, Command, Finding, Severity, setting
from workers.doctor.node import NodeFacts
from workers.doctor.worth import worth

Rule = Callable[[FarmFacts, Settings], Iterator[Finding]]
LEAST_PRIMARIES = 3
LEAST_SENTINELS = 3
OF_SELECTORS = (7, 0)
"""Since then rules in parentheses stand beside those that a user has, and never contradict them."""
RING = ("+publish", "+spublish")
SHOWN = 4
"""How many of several are named, where it does not matter which."""


def url(farm: FarmFacts, _: Settings) -> Iterator[Finding]:
    """Whether the URL names those whom Tympan should talk to."""
    if farm.way.form is not Form.SINGLE:
        return
    (node,) = farm.nodes
    at = partial(Finding, check=Check.URL, node=node.address, severity=Severity.REFUSES)
    if node.mode == "sentinel":
        yield at(
            what="this is a Sentinel, not the Redis that it watches",
            why="A Sentinel holds no data; it only says who is the primary.",
            advice="Connect to redis+sentinel://host:port/NAME; `SENTINEL MASTERS` tells the name.",
        )
    elif node.mode == "cluster":
        yield at(
            what="the URL names one node of a Cluster",
            why="Print servers whose keys live on other nodes are refused (MOVED).",
            advice=f"Connect to redis+cluster://{node.address}",
        )
    elif node.is_primary is False:
        yield at(
            what=f"this is a replica of {node.primary}",
            why="A replica refuses every write (READONLY).",
            advice=f"Connect to {node.primary}, or to redis+sentinel:// where Sentinel decides.",
        )
    elif node.sentinels:
        yield at(
            severity=Severity.WARNING,
            what=f"{node.sentinels} Sentinels watch this Redis, and the URL names only it",
            why="After a failover all clients stay with the old primary, which becomes a replica.",
            advice="Connect to redis+sentinel://host:port/NAME, with the Sentinels' hosts.",
        )


def tls(farm: FarmFacts, _: Settings) -> Iterator[Finding]:
    """Who can read and answer on the way."""
    at = partial(Finding, check=Check.TLS, node="", severity=Severity.WARNING)
    if farm.way.tls is Tls.UNVERIFIED:
        yield at(
            what="TLS without verification (ssl_cert_reqs)",
            why="Whoever sits on the way can pose as Redis, read everything and answer questions.",
            advice="Leave ssl_cert_reqs out, and name your authority with ssl_ca_certs.",
        )
    elif farm.way.tls is Tls.NONE and not farm.way.is_local:
        port = next((node.tls_port for node in farm.reached if node.tls_port), None)
        yield at(
            what="no TLS, and Redis is on another host",
            why="Passwords, questions and answers can be read on the way.",
            advice=f"Redis speaks TLS on port {port}: use rediss:// with it."
            if port
            else "Give Redis a tls-port and a certificate, and use rediss://.",
        )
    elif farm.way.tls is Tls.VERIFIED:
        yield at(severity=Severity.GOOD, what="TLS, certificate and host verified")


def credential(farm: FarmFacts, settings: Settings) -> Iterator[Finding]:
    """What our user may do, and who else may."""
    user = _user(farm)
    at = partial(Finding, check=Check.CREDENTIAL, node="", severity=Severity.GOOD)
    if farm.untried:
        yield at(
            severity=Severity.UNKNOWN,
            what="what this credential may do",
            why=farm.untried,
        )
    if user == "default" and not farm.way.has_password and not farm.way.is_local:
        yield at(
            severity=Severity.WARNING,
            what="this Redis asks for no password",
            why="Whoever reaches its port can answer for anybody, and delete everything.",
            advice="Make a user for each print host, as `tympan acl source` prints it.",
        )
    who = f"user {user}" if user else "this user"
    if farm.outside:
        yield at(
            severity=Severity.UNKNOWN,
            what=f"{who} is kept from {_some(farm.outside)}",
            why="Its ACL gives it nothing there: it is meant for other print servers, and was "
            "not tried on these.",
            advice=rf"`tympan doctor '\\{farm.outside[0]}'` tries it there all the same.",
        )
    alike: dict[tuple[Task, ...], list[CredentialFacts]] = defaultdict(list)
    for facts in farm.credentials:
        alike[tuple(facts.lacks)].append(facts)
    for group in alike.values():
        first = group[0]
        servers = _named(facts.server for facts in group)
        if first.server == ANY:
            servers = "every print server"
        may = [task for task in Task if first.may(task) and task is not Task.RING]
        if not first.may(Task.SOURCE) and not first.may(Task.LISTENER):
            refused = first.lacks[Task.LISTENER]
            yield at(
                severity=Severity.REFUSES,
                what=f"{who} may neither open channels nor listen on {servers}",
                why=f"The ACL forbids, among others: {refused}.",
                mend=_allow(
                    farm, [rule for one in group for rule in _print_host(farm, settings, one)]
                )
                if farm.is_named
                else (),
                advice="So a print host may work there; `tympan acl` prints other roles' rules."
                if farm.is_named
                else r"Name the print server that it is meant for, as in `tympan doctor "
                rf"'\\{first.server}'`: where it may not work there, that shows how to allow it.",
            )
            continue
        less = [f"{task} ({first.lacks[task]})" for task in Task if not first.may(task)]
        yield at(
            what=f"{who} may {', '.join(may)} on {servers}",
            why=f"Not allowed: {'; '.join(less)}." if less else "",
        )
        if not first.may(Task.RING):
            yield at(
                severity=Severity.WARNING,
                what=f"{who} may not ring bells on {servers}",
                why="What it sends arrives, but up to "
                f"{settings.resync:g} s late: listeners look by the clock only.",
                mend=_allow(farm, [(*RING, *_bells(settings, facts)) for facts in group]),
            )


def _named(servers: Iterable[str]) -> str:
    return ", ".join(rf"\\{server}" for server in servers)


def _some(servers: Sequence[str]) -> str:
    more = f" and {len(servers) - SHOWN} more" if len(servers) > SHOWN else ""
    return _named(servers[:SHOWN]) + more


def _user(farm: FarmFacts) -> str | None:
    return next((node.user for node in farm.reached if node.user), None)


def _keys(settings: Settings, facts: CredentialFacts) -> str:
    return f"{settings.namespace}:{{{facts.server}}}:*"


def _bells(settings: Settings, facts: CredentialFacts) -> Command:
    return (f"&{_keys(settings, facts)}", f"&{settings.namespace}:servers")


def _print_host(farm: FarmFacts, settings: Settings, facts: CredentialFacts) -> list[Command]:
    """What `tympan acl source` gives it."""
    wish = Wish(
        roles=[Role.SOURCE],
        servers=(facts.server,),
        namespace=settings.namespace,
        cluster=farm.way.form is Form.CLUSTER,
        before_7=farm.reached[0].speaks < OF_SELECTORS,
    )
    return [tuple(rules) for rules in additions(wish)]


def _allow(farm: FarmFacts, rules: list[Command]) -> tuple[Command, ...]:
    """Commands that add these rules to our user, whatever it has already."""
    node = farm.reached[0]
    user = ("ACL", "SETUSER", _user(farm) or "USER")
    if node.speaks < OF_SELECTORS:
        return tuple((*user, *rule) for rule in rules)
    return tuple((*user, f"({rule[0]}", *rule[1:-1], f"{rule[-1]})") for rule in rules)


def isolation(farm: FarmFacts, settings: Settings) -> Iterator[Finding]:
    """A primary that is cut off from those who will elect another one."""
    for node in farm.primaries:
        is_watched = bool(node.sentinels)
        if farm.sentinel is not None:
            is_watched = any(view.replicas for view in farm.sentinel.answering)
        # In a Cluster a primary in the minority stops by itself.
        if not (node.replicas or is_watched) or node.min_replicas is None or node.mode == "cluster":
            continue
        at = partial(Finding, check=Check.ISOLATION, node=node.address)
        if node.min_replicas and node.max_lag:
            what = f"min-replicas-to-write is {node.min_replicas}"
            yield at(
                severity=Severity.GOOD,
                what=what,
                why=f"A primary that is cut off refuses writes after {node.max_lag} s.",
            )
            continue
        loses = is_watched and settings.durability is not Durability.REPLICA
        yield at(
            severity=Severity.LOSES if loses else Severity.WARNING,
            what="min-replicas-to-write is 0"
            if not node.min_replicas
            else "min-replicas-max-lag is 0",
            why="A primary that is cut off goes on accepting, and all of that goes when another "
            "one is promoted.",
            mend=(setting("min-replicas-to-write", 1), setting("min-replicas-max-lag", 10))
            if node.replicas
            else (),
            advice={
                0: "Start its replica again first: without one, min-replicas-to-write 1 and "
                "min-replicas-max-lag 10 refuse every write.",
                1: "With one replica, writes then stop whenever that replica is away.",
            }.get(len(node.replicas), ""),
        )


def durability(farm: FarmFacts, settings: Settings) -> Iterator[Finding]:
    """Whether brokers with these settings get what they ask for."""
    for level in worth(farm, settings):
        if level.durability is settings.durability and not level.is_possible:
            yield Finding(
                check=Check.DURABILITY,
                severity=Severity.REFUSES,
                node="",
                what=f"durability={level.durability} is not possible here",
                why=level.says,
                mend=level.mend,
            )


def cluster(farm: FarmFacts, settings: Settings) -> Iterator[Finding]:
    """A Cluster: its slots, and what the loss of one node stops."""
    if farm.cluster is None:
        return
    facts = farm.cluster
    silent = {node.address for node in farm.nodes if node.unreachable is not None}
    away = [one for one in facts.primaries if one.is_failed or one.address in silent]
    yield from _slots(farm, facts, away, settings)
    at = partial(Finding, check=Check.CLUSTER, node=facts.seen_by, severity=Severity.WARNING)
    failed = [one for one in facts.members if one.is_failed and one not in away]
    if failed:
        yield at(
            what=f"failed: {', '.join(one.address for one in failed)}",
            why="What these held is on their replicas only, or on none.",
            advice="Start them again, or remove them: `redis-cli --cluster del-node`.",
        )
    primaries = facts.primaries
    if len(primaries) < LEAST_PRIMARIES:
        yield at(
            what=f"{len(primaries)} primaries",
            why="Fewer than three cannot agree that one is gone, so no replica is promoted.",
            advice="Add nodes: `redis-cli --cluster add-node`, then `--cluster rebalance`.",
        )
    bare = [one for one in primaries if one not in away and not facts.replicas_of(one)]
    for one in bare:
        yield at(
            node=one.address,
            what=f"primary {one.address} has no replica",
            why="With it go its print servers: out of reach while it is down, lost with its disk.",
            mend=(
                (
                    *("--cluster", "add-node", "NEW-HOST:PORT", one.address),
                    *("--cluster-slave", "--cluster-master-id", one.id),
                ),
            ),
        )
    if primaries and not bare and not away:
        yield at(
            severity=Severity.GOOD, what=f"{len(primaries)} primaries, each with a replica or more"
        )
    strict = [node for node in farm.reached if node.full_coverage]
    for node in strict:
        yield at(
            check=Check.COVERAGE,
            node=node.address,
            what="cluster-require-full-coverage is yes",
            why="One lost primary stops all print servers of the farm, not only its own.",
            mend=(setting("cluster-require-full-coverage", "no"),),
        )


def _slots(
    farm: FarmFacts, facts: ClusterFacts, away: Sequence[Member], settings: Settings
) -> Iterator[Finding]:
    """Slots that nobody serves, with the print servers that live there."""
    at = partial(Finding, check=Check.COVERAGE, node=facts.seen_by)
    unowned = facts.unowned
    if unowned:
        yield at(
            severity=Severity.REFUSES,
            what=f"{count(unowned):,} slots without an owner ({_ranges(unowned)})",
            why=_refused(farm, unowned, settings),
            mend=(("--cluster", "fix", facts.seen_by),),
        )
    for one in away:
        heirs = ", ".join(heir.address for heir in facts.replicas_of(one))
        yield at(
            severity=Severity.REFUSES,
            node="",
            what=f"{one.address} is away with {count(one.slots):,} slots ({_ranges(one.slots)})",
            why=_refused(farm, one.slots, settings),
            advice=f"Its replica ({heirs}) takes over within seconds; otherwise start it again."
            if heirs
            else "Start it again, with its data. Only where its disk is lost: `redis-cli --cluster "
            f"fix {facts.seen_by} --cluster-fix-with-unreachable-masters` gives its slots to "
            "others, empty.",
        )
    if unowned or away:
        return
    if facts.state != "ok":
        yield at(
            severity=Severity.REFUSES,
            what=f"cluster_state is {facts.state}",
            why="The Cluster answers nobody (CLUSTERDOWN).",
            mend=(("--cluster", "check", facts.seen_by),),
        )
    else:
        yield at(severity=Severity.GOOD, what="all slots have an owner")


def _ranges(slots: Sequence[Slots]) -> str:
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in slots[:SHOWN])
    return f"{shown}, ..." if len(slots) > SHOWN else shown


def _refused(farm: FarmFacts, slots: Sequence[Slots], settings: Settings) -> str:
    """Whom the loss of these slots stops."""
    home = key_slot(directory(settings.namespace).encode())
    with_directory = any(first <= home <= last for first, last in slots)
    if farm.cluster is not None and farm.cluster.state != "ok":
        is_strict = any(node.full_coverage for node in farm.reached)
        return (
            f"All print servers are refused (CLUSTERDOWN, cluster_state {farm.cluster.state}): "
            + (
                "cluster-require-full-coverage is yes."
                if is_strict
                else "too few primaries are left to agree on anything."
            )
        )
    if with_directory:
        return (
            "The directory of print servers is among them: nothing new begins on any print "
            "server, and those that live there are out of reach."
        )
    if farm.servers is None:
        return "Print servers that live there are out of reach; the directory could not be read."
    there = [
        server
        for server in farm.servers
        for slot in [key_slot(Keys(settings.namespace, server).meta.encode())]
        if any(first <= slot <= last for first, last in slots)
    ]
    if not there:
        return "None of the print servers that are known lives there."
    return f"Out of reach: {_named(there)}. The other print servers go on."


def sentinels(farm: FarmFacts, _: Settings) -> Iterator[Finding]:
    """Whether a failover is possible, and whom the Sentinels hold for the primary."""
    if farm.sentinel is None:
        return
    facts = farm.sentinel
    at = partial(Finding, check=Check.SENTINELS, node="", severity=Severity.WARNING)
    for view in facts.views:
        if view.unreachable is not None:
            yield at(node=view.sentinel, what="this Sentinel does not answer", why=view.unreachable)
    yield from _votes(facts, at)
    yield from _agreement(farm, facts)
    for view in facts.answering:
        if {"s_down", "o_down"} & set(view.flags):
            yield at(
                node=view.sentinel,
                what=f"this Sentinel finds {view.primary} down",
                why="A failover follows as soon as enough of them do.",
                advice="Look again in a while; if that lasts, look at the network between them.",
            )
    if any(view.replicas == 0 for view in facts.answering):
        yield at(
            what=f"the Sentinels know no replica of {facts.master}",
            why="When the primary is lost there is nothing to promote.",
            advice="Start one on another host, with `replicaof` in its configuration.",
        )
    elif farm.primaries and not any(node.online for node in farm.primaries):
        yield at(
            what=f"no replica of {facts.master} is online",
            why="When the primary is lost there is nothing to promote.",
            advice="Start again those that the Sentinels know.",
        )


def _votes(facts: SentinelFacts, at: Callable[..., Finding]) -> Iterator[Finding]:
    there, known = len(facts.answering), facts.known
    majority = known // 2 + 1
    quorum = max((view.quorum or 0 for view in facts.answering), default=0)
    shown = f"{there} of {known} Sentinels answer, quorum {quorum}"
    if known < LEAST_SENTINELS:
        yield at(
            what=f"{known} Sentinels",
            why="With fewer than three, the loss of one host prevents every failover.",
            advice="Start more, on hosts of their own.",
        )
    if quorum > known:
        yield at(
            what=shown,
            why="There are fewer Sentinels than have to agree: no failover is ever possible.",
            node=facts.answering[0].sentinel,
            mend=(("SENTINEL", "SET", facts.master, "quorum", str(majority)),),
            advice="On each of them.",
        )
    elif there < max(quorum, majority):
        yield at(
            what=shown,
            why="Too few to agree on a failover: when the primary is lost, everything waits.",
            advice="Start those that do not answer.",
        )
    else:
        yield at(severity=Severity.GOOD, what=shown)


def _agreement(farm: FarmFacts, facts: SentinelFacts) -> Iterator[Finding]:
    at = partial(Finding, check=Check.PRIMARY, node="")
    named: dict[str, list[str]] = defaultdict(list)
    for view in facts.answering:
        named[view.primary or "nobody"].append(view.sentinel)
    taking: list[NodeFacts] = list(farm.primaries)
    if len(named) > 1:
        said = "; ".join(f"{primary} by {', '.join(by)}" for primary, by in named.items())
        behind = min(facts.answering, key=lambda view: view.epoch)
        yield at(
            severity=Severity.LOSES,
            node=behind.sentinel,
            what=f"the Sentinels name different primaries: {said}",
            why="Clients write to different Redis, and what the loser of the two accepted is "
            "deleted.",
            mend=(("SENTINEL", "RESET", facts.master),),
            advice="During a failover this lasts seconds: look again before you run it.",
        )
    elif named and len(taking) > 1:
        (right,) = named
        for node in taking:
            if node.address != right:
                yield at(
                    severity=Severity.LOSES,
                    node=node.address,
                    what=f"this is a second primary beside {right}",
                    why="What clients write here is deleted when it becomes a replica again.",
                    mend=(("REPLICAOF", *right.rsplit(":", 1)),),
                    advice="During a failover this lasts seconds: look again before you run it.",
                )
    elif not taking:
        yield at(
            severity=Severity.REFUSES,
            what=f"no Redis says that it is the primary {facts.master}",
            why="Nothing can be written; calls wait for their operation_timeout.",
            advice="During a failover this lasts seconds; otherwise start the Redis that the "
            "Sentinels name.",
        )
    elif named:
        yield at(severity=Severity.GOOD, what=f"all Sentinels name {next(iter(named))}")


RULES: tuple[Rule, ...] = (
    url, tls, credential, isolation, durability, cluster, sentinels,
)  # fmt: skip


def judge(farm: FarmFacts, settings: Settings) -> Iterator[Finding]:
    """All that is to be said of the processes together."""
    for rule in RULES:
        yield from rule(farm, settings)
