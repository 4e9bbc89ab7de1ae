"""``tympan acl``: the Redis ACL of a role."""

from __future__ import annotations

import re
import shlex

import click
from rich.text import Text

from broker import Durability, Name, Settings
from broker._address import Form, form_of
from broker.settings import default_url
from workers.acl import Role, Wish, rules
from workers.cli.failures import DONE
from workers.cli.line import CommandLine, farm_options, verbatim
from workers.cli.options import parse_server
from workers.cli.output import Output

_USER = re.compile(r"[^\s'\"\\\x00]{1,256}")


def parse_user(text: str) -> str:
    """A Redis user as redis-cli and a shell both take it. Raises BadParameter."""
    if not _USER.fullmatch(text):
        raise click.BadParameter(f"{text!r} is no Redis user: no spaces, quotes or backslashes")
    return text


@click.command(
    short_help="Print the Redis ACL of a role.",
    epilog=verbatim(
        r"""
Roles (several make one user that has them all):
  source    a print host: opens channels, tells and asks
  listener  a help desk, or a service for desktops: registers, hears, answers
  worker    a replica of a pool
  reaper    `tympan reaper`: ends what the dead held
  operator  people: rights, printers, names, pools, dead letters
  observer  reads only: lists, `tympan top`, a dashboard

Examples:
  tympan acl source --server '\\print01' | redis-cli
  tympan acl listener --all-users --user helpdesk | redis-cli
  redis-cli ACL SETUSER print01 '>a password of its own'
"""
    ),
)
@click.argument(
    "roles",
    type=click.Choice([role.value for role in Role]),
    nargs=-1,
    required=True,
    metavar="ROLE...",
)
@click.option(
    "--server",
    "servers",
    type=parse_server,
    multiple=True,
    metavar="SERVER",
    help=r"A print server that it is for, as \\print01, not an alias; may be given several times. "
    "Default: every print server; a source has to name its own.",
)
@click.option(
    "--user",
    type=parse_user,
    metavar="NAME",
    help="The Redis user. Default: a source's one server, otherwise the roles.",
)
@click.option(
    "--namespace", default="tympan", show_default=True, metavar="NAME", help="First part of keys."
)
@click.option(
    "--all-users",
    is_flag=True,
    help="It also speaks to, or listens for, all users: its scripts are given the grants. Redis "
    "lets a script read only what its caller may write, so it could also give itself rights, and "
    "delete printers.",
)
@click.option(
    "--known",
    is_flag=True,
    help="Its print servers are in the directory already: it may add no name.",
)
@click.option(
    "--durability",
    type=click.Choice([durability.value for durability in Durability]),
    default=Durability.MEMORY.value,
    show_default=True,
    help="What its calls wait for.",
)
@click.option(
    "--cluster",
    is_flag=True,
    help="For a Cluster; also where --url or TYMPAN_URL says redis+cluster.",
)
@click.option(
    "--before-7",
    is_flag=True,
    help="For Redis 6.2, whose patterns allow reading and writing together: what it would only "
    "read it may write, too.",
)
@farm_options
@click.pass_context
def acl(
    ctx: click.Context,
    roles: tuple[str, ...],
    servers: tuple[str, ...],
    user: str | None,
    namespace: str,
    all_users: bool,
    known: bool,
    durability: str,
    cluster: bool,
    before_7: bool,
) -> int:
    """Print the command that confines a Redis user to the work of its ROLE.

    One line for redis-cli, in a shell or piped into it. It replaces what the user may do and leaves
    its passwords, so it may be given again, with each new version of Tympan. Redis is not asked.
    """
    output = Output.of(ctx)
    chosen = [Role(role) for role in dict.fromkeys(roles)]
    if Role.SOURCE in chosen and not servers:
        raise click.UsageError(
            r"a source works on print servers of its own: name each, as in --server '\\print01'"
        )
    alone = servers[0] if chosen == [Role.SOURCE] and len(servers) == 1 else None
    made = rules(
        Wish(
            roles=chosen,
            servers=tuple(dict.fromkeys(servers)),
            namespace=Settings.of(namespace=namespace).namespace,
            all_users=all_users,
            claims=not known,
            durability=Durability(durability),
            cluster=cluster or _is_cluster(ctx),
            before_7=before_7,
        )
    )
    who = user or alone or "-".join(chosen)
    command = shlex.join(("ACL", "SETUSER", who, *made))
    record = {
        "user": who,
        "roles": chosen,
        "names": [str(Name(server)) for server in servers],
        "rules": made,
        "command": command,
    }
    output.tell(record, Text(command))
    if output.console.is_terminal:
        output.note(
            f"{who} needs a password once (ACL SETUSER {who} '>...'). Give both commands to each "
            "Redis process, replicas too, and keep them (CONFIG REWRITE, or ACL SAVE with an "
            "aclfile)."
        )
    return DONE


def _is_cluster(ctx: click.Context) -> bool:
    return form_of(ctx.ensure_object(CommandLine).url or default_url()) is Form.CLUSTER
