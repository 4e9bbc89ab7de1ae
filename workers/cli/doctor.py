"""``tympan doctor``: what this Redis is, and what a success is worth on it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click
from redis.asyncio.connection import SSLConnection
from rich.text import Text

from broker import Durability, Name
from broker._address import Address, Form
from broker.settings import default_url
from workers.cli.failures import DONE, FAILED
from workers.cli.line import CommandLine, farm_options, verbatim
from workers.cli.options import optional_name_argument
from workers.cli.output import WIDTH, Output, printable, wrapped
from workers.cli.running import PATIENCE, run
from workers.cli.settings import settings_of
from workers.doctor import diagnose
from workers.doctor.examination import examine
from workers.doctor.facts import FarmFacts
from workers.doctor.findings import (
    ACCEPTABLE,
    Check,
    Command,
    Finding,
    Severity,
    accept,
    size,
    worst,
)
from workers.doctor.node import NodeFacts
from workers.doctor.worth import Worth, worth

LOSES_DATA = 1
STYLES = {
    Severity.LOSES: "bold red",
    Severity.REFUSES: "bold red",
    Severity.WARNING: "bold yellow",
    Severity.UNKNOWN: "bold magenta",
    Severity.ACCEPTED: "bold blue",
    Severity.GOOD: "bold green",
}
ADMINISTRATOR = "ADMINISTRATOR"
"""Where our own user may not mend anything: whoever reads this puts a name here."""


@click.command(
    short_help="Say what a success is worth on this Redis.",
    epilog=verbatim(
        r"""
Examples:
  tympan doctor
  tympan doctor --url redis+sentinel://redis1,redis2,redis3/mymaster
  tympan doctor '\\print01'            # may our credential be used on this print server?
  tympan doctor --durability replica   # is that possible here?
  tympan doctor --accept persistence   # a Redis that may forget, as you know

Exit status: 1 some setting can lose data silently, 3 Tympan cannot work here, or not for all print
servers, 0 otherwise, also with warnings; 5 Redis unreachable.
"""
    ),
)
@optional_name_argument
@click.option(
    "--durability",
    type=click.Choice([str(one) for one in Durability]),
    help="What your brokers ask for; default TYMPAN_SET_DURABILITY, otherwise memory.",
)
@click.option(
    "--accept",
    "accepted",
    multiple=True,
    type=click.Choice([str(one) for one in ACCEPTABLE]),
    help="A loss that is known and wanted here: it is still shown, and does not count. "
    "May be given several times.",
)
@farm_options
@click.pass_context
def doctor(
    ctx: click.Context, *, name: Name | None, durability: str | None, accepted: tuple[str, ...]
) -> int:
    r"""Say what this Redis is, what can lose data on it, and what mends that.

    NAME is \\server: whether the ACL lets our credential work there. By default the print servers
    are tried that Redis knows; those that a confined credential is kept from are only named.
    Nothing is changed.
    """
    output = Output.of(ctx)
    servers = None if name is None else [name.server]

    async def work() -> int:
        told, shown, ended = await diagnosis(ctx, durability, accepted, servers)
        output.tell(told, *shown)
        return ended

    return run(work())


async def diagnosis(
    ctx: click.Context,
    durability: str | None,
    accepted: Iterable[str],
    servers: Sequence[str] | None = None,
) -> tuple[dict[str, Any], list[Text], int]:
    """What is found, for programs and for people, and the exit status for it.

    Raises RedisError where nothing answers.
    """
    settings = settings_of(
        {"durability": durability} if durability else {},
        connect_timeout=PATIENCE,
        reply_timeout=PATIENCE,
    )
    address = Address.parse(ctx.ensure_object(CommandLine).url or default_url(), settings)
    farm = await examine(address, settings, servers)
    findings = accept(diagnose(farm, settings), [Check(word) for word in accepted])
    shell = Shell(address, farm)
    value = worth(farm, settings)
    told = record(farm, findings, value, shell)
    return told, list(shown(farm, findings, value, shell)), status(findings)


def status(findings: Iterable[Finding]) -> int:
    """The exit status."""
    return {Severity.LOSES: LOSES_DATA, Severity.REFUSES: FAILED}.get(worst(findings), DONE)


class Shell:
    """Writes the commands that an operator runs; passwords are asked for, never shown."""

    def __init__(self, address: Address, farm: FarmFacts) -> None:
        self._address = address
        self._nodes = {node.address: node for node in farm.nodes}
        first = next(iter((*farm.primaries, *farm.nodes)))
        self._default = first.address
        views = farm.sentinel.views if farm.sentinel else ()
        self._sentinels = {view.sentinel for view in views}

    def command(self, node: str, words: Command) -> str:
        """A Redis command at this process; at the primary where none is named."""
        node = node or self._default
        dialer = self._address.redis
        if node in self._sentinels and self._address.sentinel is not None:
            dialer = self._address.sentinel
        options = dialer.options
        where: list[str] = []
        if words[0] != "--cluster":
            host, _, port = node.rpartition(":")
            is_socket = self._address.form is Form.SINGLE and not self._address.nodes
            where = ["-s", node] if is_socket else ["-h", host.strip("[]"), "-p", port]
        if issubclass(dialer.kind, SSLConnection):
            where += ["--tls", *_files(options)]
        return shlex.join(["redis-cli", *where, *self._credentials(node, options), *words])

    def mend(self, finding: Finding) -> list[str]:
        """The commands that mend it; none of CONFIG where Redis has no such command."""
        return [
            self.command(finding.node, words)
            for words in finding.mend
            if words[0] != "CONFIG" or not self._is_closed(finding.node)
        ]

    def elsewhere(self, finding: Finding) -> list[tuple[str, str]]:
        """Settings, and their values, for the console of whoever runs a Redis without CONFIG."""
        closed = self._is_closed(finding.node)
        return [
            (words[2], words[3])
            for words in finding.mend
            if closed and words[:2] == ("CONFIG", "SET")
        ]

    def keep(self, findings: Iterable[Finding]) -> tuple[list[str], list[str]]:
        """How that survives a restart: the commands, and the processes where none does it."""
        nodes = {
            finding.node or self._default
            for finding in findings
            for words in finding.mend
            if words[:2] == ("CONFIG", "SET") and not self._is_closed(finding.node)
        }
        with_file = {node for node in nodes if self._nodes[node].config_file}
        commands = [self.command(node, ("CONFIG", "REWRITE")) for node in sorted(with_file)]
        return commands, sorted(nodes - with_file)

    def _refusal(self, node: str) -> str:
        facts = self._nodes.get(node or self._default)
        return facts.refused.get("CONFIG GET", "") if facts else ""

    def _is_closed(self, node: str) -> bool:
        return "unknown command" in self._refusal(node)

    def _credentials(self, node: str, options: dict[str, Any]) -> list[str]:
        if "permission" in self._refusal(node):
            return ["--user", ADMINISTRATOR, "--askpass"]
        if options.get("username"):
            return ["--user", options["username"], "--askpass"]
        return ["--askpass"] if options.get("password") else []


def _files(options: dict[str, Any]) -> Iterator[str]:
    if options.get("ssl_cert_reqs", "required") != "required":
        yield "--insecure"
    for option, name in (
        ("--cacert", "ssl_ca_certs"),
        ("--cert", "ssl_certfile"),
        ("--key", "ssl_keyfile"),
    ):
        if options.get(name):
            yield from (option, options[name])


# For programs ------------------------------------------------------------------------------------


def record(
    farm: FarmFacts, findings: list[Finding], value: list[Worth], shell: Shell
) -> dict[str, Any]:
    """Everything for programs."""
    return {
        "verdict": worst(findings),
        "findings": [{**asdict(one), "mend": shell.mend(one)} for one in findings],
        "worth": [
            {"durability": one.durability, "possible": one.is_possible, "says": one.says}
            for one in value
        ],
        **asdict(farm),
        "way": {**asdict(farm.way), "form": farm.way.form.name.lower()},
    }


# For people --------------------------------------------------------------------------------------


def shown(
    farm: FarmFacts, findings: list[Finding], value: list[Worth], shell: Shell
) -> Iterator[Text]:
    """The verdict, the findings by severity, what a success is worth, and the facts."""
    yield verdict(farm, findings)
    for severity in Severity:
        some = [one for one in findings if one.severity is severity]
        if some:
            yield Text(f"\n{severity.upper()}", STYLES[severity])
        for group in _alike(some):
            yield from _finding_shown(group, shell, len(farm.nodes))
    yield from _afterwards(findings, shell)
    if value:
        yield Text("\nWHAT A SUCCESS IS WORTH HERE", "bold")
    for one in value:
        possible = "yes" if one.is_possible else "no"
        yield wrapped(f"  {one.durability:8} {possible:4} {one.says}", " " * 16)
    yield Text("\nFACTS", "bold")
    for node in farm.nodes:
        yield from _node_shown(node)


def verdict(farm: FarmFacts, findings: list[Finding]) -> Text:
    """The first line."""
    count = {
        severity: len(list(_alike([one for one in findings if one.severity is severity])))
        for severity in Severity
    }
    refusing = {one.check for one in findings if one.severity is Severity.REFUSES}
    is_partial = farm.cluster is not None and farm.cluster.state == "ok"
    works = "does not work for Tympan"
    if is_partial and refusing == {Check.COVERAGE}:
        works = "does not work for all print servers"
    words = {
        Severity.LOSES: f"can lose data silently: {_many(count[Severity.LOSES], 'finding')}",
        Severity.REFUSES: f"{works}: {_many(count[Severity.REFUSES], 'finding')}",
    }
    bad = worst(findings)
    parts = [f"{_what(farm)} {words.get(bad, 'has nothing that loses data silently')}"]
    if bad is Severity.LOSES and count[Severity.REFUSES]:
        parts.append(f"and {words[Severity.REFUSES]}")
    if count[Severity.ACCEPTED]:
        parts.append(f"beside {count[Severity.ACCEPTED]} accepted")
    if count[Severity.WARNING]:
        parts.append(_many(count[Severity.WARNING], "warning"))
    if count[Severity.UNKNOWN]:
        parts.append(f"{count[Severity.UNKNOWN]} not looked at")
    return wrapped(", ".join(parts) + ".", "", STYLES[bad])


def _what(farm: FarmFacts) -> str:
    if farm.sentinel is not None:
        return f"{farm.sentinel.master} (Sentinel, {len(farm.nodes)} Redis)"
    if farm.cluster is not None:
        return f"The Cluster ({len(farm.nodes)} nodes)"
    (node,) = farm.nodes
    return f"{node.address} ({node.product} {node.version})"


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _alike(findings: Iterable[Finding]) -> Iterator[list[Finding]]:
    """Findings that say the same of several processes, together."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        groups.setdefault((one.check, one.what, one.why, one.advice), []).append(one)
    yield from groups.values()


def _finding_shown(group: list[Finding], shell: Shell, nodes: int) -> Iterator[Text]:
    first = group[0]
    where = ""
    if nodes > 1 and first.node:
        everywhere = "all" if len(group) == nodes else ", ".join(one.node for one in group)
        where = f" ({everywhere})"
    if first.severity is Severity.GOOD:
        why = f". {first.why}" if first.why else ""
        yield wrapped(f"  {first.check}: {first.what}{why}{where}", " " * 4)
        return
    yield wrapped(f"  {first.check}: {first.what}{where}", " " * 4, "bold")
    for sentence in (first.why, first.advice):
        if sentence:
            yield wrapped(f"    {sentence}", " " * 4)
    for one in group:
        for command in shell.mend(one):
            yield _command_shown(command, " " * 4)
        for name, value in shell.elsewhere(one):
            yield wrapped(f"    Where this Redis is configured: {name} {value}", " " * 4)


def _afterwards(findings: list[Finding], shell: Shell) -> Iterator[Text]:
    open_ones = (Severity.LOSES, Severity.REFUSES, Severity.WARNING)
    commands, without = shell.keep(one for one in findings if one.severity in open_ones)
    if commands or without:
        yield Text("\nCONFIG SET lasts until Redis ends. To keep it:", "bold")
    for command in commands:
        yield _command_shown(command, " " * 2)
    if without:
        where = ", ".join(without)
        yield wrapped(f"  {where} has no configuration file: set it where it is started", " " * 4)
    losses = sorted({one.check for one in findings if one.severity is Severity.LOSES})
    if losses:
        known = " ".join(f"--accept {check}" for check in losses)
        yield wrapped(f"Known and wanted? `tympan doctor {known}` lets it pass.", "")


def _command_shown(command: str, indent: str) -> Text:
    """A command to copy: on several lines, as a shell reads them, where it is long."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if len(indent * min(len(lines), 2) + f"{lines[-1]} {word} \\") > WIDTH:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    shown = f" \\\n{indent * 2}".join(printable(line) for line in lines)
    return Text(indent + shown, "cyan")


def _node_shown(node: NodeFacts) -> Iterator[Text]:
    """One process and its facts."""
    if node.unreachable is not None:
        yield wrapped(f"  {node.address}: does not answer", " " * 4)
        return
    facts = [f"{node.product} {node.version}"]
    if node.is_primary is not None:
        facts.append("primary" if node.is_primary else "replica")
    if node.used_memory is not None:
        limit = f" of {size(node.maxmemory)}" if node.maxmemory else ", no limit"
        facts.append(f"{size(node.used_memory)}{limit}")
    if node.aof is not None:
        aof = f"append-only ({node.appendfsync or '?'})"
        facts.append(aof if node.aof else "no append-only file")
    if node.is_primary:
        facts.append(f"{_many(node.online, 'replica')} online")
    if node.subscribers is not None:
        facts.append(_many(node.subscribers, "subscriber"))
    yield wrapped(f"  {node.address}: {', '.join(facts)}", " " * 4)
    for replica in node.replicas:
        silent = "" if replica.lag is None else f", silent for {replica.lag} s"
        behind = "" if replica.behind is None else f", {size(replica.behind)} behind"
        yield wrapped(f"    replica {replica.address}: {replica.state}{silent}{behind}", " " * 6)
