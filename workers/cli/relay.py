"""``tympan relay``: workers that send alerts on by mail or webhook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from broker import Name
from workers.alert import Severity
from workers.cli.line import CommandLine, verbatim
from workers.cli.options import Kind
from workers.cli.relay_options import option_of, relay_options
from workers.cli.worker import run_worker
from workers.extras import needed
from workers.relay.allowance import Allowance

if TYPE_CHECKING:
    from workers.relay.destination import Destination
    from workers.worker import Worker

V = TypeVar("V")
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(short_help="Send alerts on by mail or webhook.")
def relay() -> None:
    """Send alerts on by mail or webhook: a worker, one replica of its pool."""


_mail = option_of("TYMPAN_MAIL")


@relay.command(
    short_help="Send alerts by mail.",
    epilog=verbatim(
        r"""
Examples:
  tympan relay mail --server smtp.farm.example --from tympan@farm.example --to desk@farm.example
  tympan relay mail --server smtp.farm.example --user tympan --password-file /run/secrets/smtp \
      --from 'Print farm <tympan@farm.example>' --to desk@farm.example --on '\\print01' --most 20
  tympan worker workers.cli.relay:mail_worker --concurrency 1000    # from the environment alone
"""
    ),
)
@_mail("--server", "host", required=True, metavar="HOST", help="The mail server.")
@_mail(
    "--port",
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    help="Its port; default 587, with --security tls 465, with none 25.",
)
@_mail(
    "--security",
    type=click.Choice(["starttls", "tls", "none"]),
    default="starttls",
    show_default=True,
    help="How the connection is kept from others.",
)
@_mail("--user", "login", metavar="USER", help="Whom to log in as; default nobody.")
@_mail("--password-file", type=FILE, metavar="FILE", help="Holds that user's password.")
@_mail("--ca", type=FILE, metavar="FILE", help="Certificates to trust, not the system's.")
@_mail("--from", "sender", required=True, metavar="ADDRESS", help="Who the mail is from.")
@_mail(
    "--to",
    "recipients",
    required=True,
    multiple=True,
    metavar="ADDRESS",
    help="Who gets it; may be repeated.",
)
@_mail("--prefix", default="[tympan]", show_default=True, help="What each subject begins with.")
@relay_options("TYMPAN_MAIL", "mail", most=30, burst=10)
@click.pass_context
def mail(ctx: click.Context, /, **given: Any) -> int:
    """Send alerts by mail, a thread for each printer, until told to stop."""
    return _run(ctx, given, _by_mail)


def _by_mail(
    *,
    host: str,
    port: int | None,
    security: str,
    login: str | None,
    password_file: Path | None,
    ca: Path | None,
    sender: str,
    recipients: tuple[str, ...],
    prefix: str,
    timeout: float,
) -> Destination:
    with needed("relay", "relay mail"):
        from workers.relay.mail import Mail, MailServer, Security, parse_address
    if (login is None) is not (password_file is None):
        raise click.UsageError("--user and --password-file belong together: give both, or neither")
    kept = Security(security)
    password = _secret(password_file, "--password-file", str)
    server = MailServer(host, port or kept.port, kept, login, password, _text(ca))
    people = [parse_address(one) for one in recipients]
    return Mail(server, parse_address(sender), people, prefix, timeout)


_hook = option_of("TYMPAN_WEBHOOK")


@relay.command(
    short_help="Send alerts by webhook.",
    epilog=verbatim(
        r"""
Examples:
  tympan relay webhook --to https://desk.farm.example/alerts --secret-file /run/secrets/hook
  tympan relay webhook --to-file /run/secrets/chat-url --form text --least error --most 20
  tympan worker workers.cli.relay:webhook_worker --concurrency 1000  # from the environment alone
"""
    ),
)
@_hook("--to", "target", metavar="URL", help="Where to POST.")
@_hook("--to-file", type=FILE, metavar="FILE", help="Holds the URL, where it is a secret.")
@_hook(
    "--form",
    type=click.Choice(["tympan", "text"]),
    default="tympan",
    show_default=True,
    help='tympan: all there is, as JSON. text: {"text": ...}, as chat services take it.',
)
@_hook("--secret-file", type=FILE, metavar="FILE", help="Holds the secret that signs messages.")
@_hook("--token-file", type=FILE, metavar="FILE", help="Holds a token, to be sent as Bearer.")
@_hook("--ca", type=FILE, metavar="FILE", help="Certificates to trust, not the system's.")
@relay_options("TYMPAN_WEBHOOK", "webhook", most=600, burst=60)
@click.pass_context
def webhook(ctx: click.Context, /, **given: Any) -> int:
    """POST alerts as JSON, signed where there is a secret, until told to stop."""
    return _run(ctx, given, _by_webhook)


def _by_webhook(
    *,
    target: str | None,
    to_file: Path | None,
    form: str,
    secret_file: Path | None,
    token_file: Path | None,
    ca: Path | None,
    timeout: float,
) -> Destination:
    with needed("relay", "relay webhook"):
        from workers.relay.webhook import Form, Webhook, parse_target, secret_of
    if (target is None) is (to_file is None):
        raise click.UsageError("say where to POST: --to, or --to-file")
    return Webhook(
        parse_target(_secret(to_file, "--to-file", str) or target or ""),
        form=Form(form),
        secret=_secret(secret_file, "--secret-file", secret_of),
        token=_secret(token_file, "--token-file", str),
        ca=_text(ca),
        timeout=timeout,
    )


def _secret(file: Path | None, option: str, read: Callable[[str], V]) -> V | None:
    """What a file holds, but for the end of its line."""
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8").rstrip("\r\n")
        if not text or "\n" in text:
            raise ValueError("it has to hold one line")
        return read(text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{option} {file}: {error}") from None


def _text(file: Path | None) -> str | None:
    return None if file is None else str(file)


# Running ------------------------------------------------------------------------------------------

Make = Callable[..., "Destination"]
SERVICE = ("health", "log_format", "loop", "settings")


def _run(ctx: click.Context, given: dict[str, Any], make: Make) -> int:
    service = {name: given.pop(name) for name in (*SERVICE, "drain")}
    return run_worker(
        _worker(make, **given),
        ctx.ensure_object(CommandLine).url,
        concurrency=given["in_hand"],
        server=None,
        user=None,
        **service,
    )


def _worker(
    make: Make,
    *,
    names: tuple[Name, ...],
    kinds: tuple[Kind, ...],
    least: str,
    questions: bool,
    all_users: bool,
    user: str | None,
    pool: str,
    most: int,
    burst: int,
    window: float,
    settle: float,
    timeout: float,
    tries: int,
    in_hand: int,  # noqa: ARG001 - whoever runs the worker asks for it
    **own: Any,
) -> Worker:
    """The relay that these options ask for. Raises BadParameter, UsageError, ExtraMissing."""
    from workers.relay.post import Post
    from workers.relay.relay import Wanted, relay_of

    if not timeout:
        raise click.BadParameter("--timeout: a time above 0")
    try:
        destination = make(timeout=timeout, **own)
    except ValueError as error:  # no address, no certificates
        raise click.BadParameter(str(error)) from None
    allowance = Allowance(most, min(burst, most) if most else 1)
    post = Post(destination, allowance, window=window, patience=settle, timeout=timeout)
    types = [kind.model or kind.guid for kind in kinds]
    wanted = Wanted(names, types, Severity.of(least), all_users, questions)
    return relay_of(wanted, post, pool, user=user, tries=tries)


WORKERS: dict[str, tuple[click.Command, Make]] = {
    "mail_worker": (mail, _by_mail),
    "webhook_worker": (webhook, _by_webhook),
}


def __getattr__(name: str) -> Worker:
    """``mail_worker`` and ``webhook_worker``: what the environment asks for, to be run by others.

    Raises UsageError, BadParameter, ExtraMissing.
    """
    if name not in WORKERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    command, make = WORKERS[name]
    given = command.make_context(name, []).params
    for option in (*SERVICE, "drain"):
        given.pop(option)
    return _worker(make, **given)
