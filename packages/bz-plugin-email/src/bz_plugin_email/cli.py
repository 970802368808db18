"""`bz email`: tries the settings, and sends what waits."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from bz.cli import output
from bz.cli.config import ConfigOption, SetOption, find_settings, name_source
from bz.cli.group import Command, Group
from bz.cli.runs import RunsDirOption
from bz.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bz_plugin_email.config import EmailNotificationConfig
    from bz_plugin_email.outbox import Outbox

app = typer.Typer(
    cls=Group, help="Try the mail settings, and send mail that waits.", add_completion=False, rich_markup_mode="rich"
)

UNSENT: Final = 1


@app.command("test", cls=Command)
def send_test(*, config: ConfigOption = None, set_: SetOption = None) -> None:
    """Send a test mail with the settings of the e-mail plugin, and say what the server did with it.

    The exit code is 1 if somebody did not get it.
    """
    from bz_plugin_email.message import compose
    from bz_plugin_email.report import Report
    from bz_plugin_email.smtp import Deadline, DeliveryError, MailServer

    settings = read_plugin_settings(config, set_ or [])
    server = MailServer(settings)
    summary = (("Server", f"{settings.smtp_server}:{settings.port}"), ("Security", settings.security))
    report = Report("Test of bz-plugin-email", "The mail settings work.", summary)
    mail = compose(report, settings, secrets.token_hex(), None)
    try:
        delivery = server.deliver(
            settings.sender.addr_spec, mail.recipients, mail.content, Deadline(settings.timeout_seconds)
        )
    except DeliveryError as error:
        output.warn(f"No test mail was sent: {error}.")
        raise typer.Exit(UNSENT) from None
    if delivery.sent_to:
        output.say(f"Sent a test mail to {', '.join(delivery.sent_to)}.")
    for address, reply in {**delivery.refused, **delivery.delayed}.items():
        output.warn(f"The server did not take it for {address}: {reply}.")
    if delivery.refused or delivery.delayed:
        raise typer.Exit(UNSENT)


@app.command(cls=Command)
def flush(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Run folders; by default all below --runs-dir, and this folder."),
    ] = None,
    *,
    config: ConfigOption = None,
    set_: SetOption = None,
    runs_dir: RunsDirOption = Path("runs"),
) -> None:
    """Send the mail that waits in run folders.

    The exit code is 1 if mail still waits afterwards, or was refused.
    """
    outboxes = [outbox for outbox in find_outboxes(folders, runs_dir) if outbox.paths()]
    if not outboxes:
        output.say("No mail waits.")
        return
    settings = read_plugin_settings(config, set_ or [])
    results = [_send(outbox, settings) for outbox in outboxes]
    if not all(results):
        raise typer.Exit(UNSENT)


def find_outboxes(folders: Sequence[Path] | None, runs_dir: Path) -> "Iterator[Outbox]":
    """Yield the outboxes of these run folders; without any, of all runs and of the working directory.

    Raises:
        ConfigError: If a folder is not there.
    """
    from bz_plugin_email.outbox import FOLDER, Outbox

    for folder in folders or []:
        if not folder.is_dir():
            raise ConfigError(f"There is no run folder {folder}.", path=folder, option="RUN")
    for folder in folders or [*sorted(runs_dir.glob("*")), Path()]:
        yield Outbox(folder / FOLDER)


def _send(outbox: "Outbox", settings: "EmailNotificationConfig") -> bool:
    """Send what waits, say what happened, and return whether everybody has got everything."""
    from bz_plugin_email.courier import send_waiting
    from bz_plugin_email.smtp import Deadline, MailServer, blame

    deadline = Deadline(settings.timeout_seconds)
    outcomes = send_waiting(outbox, MailServer(settings), settings.sender.addr_spec, deadline)
    for outcome in outcomes:
        if outcome.delivery.sent_to:
            output.say(f"Sent {outcome.subject!r} to {', '.join(outcome.delivery.sent_to)}.")
        if outcome.delivery.refused:
            output.warn(f"{outcome.subject!r} was refused for {blame(outcome.delivery.refused)}; see {outcome.path}")
        if outcome.delivery.delayed:
            output.warn(f"{outcome.subject!r} waits in {outcome.path} for {blame(outcome.delivery.delayed)}")
    return not any(outcome.delivery.delayed or outcome.delivery.refused for outcome in outcomes)


def read_plugin_settings(config: Path | None, overrides: Sequence[str]) -> "EmailNotificationConfig":
    """Return the settings of the e-mail plugin; the password is not printed from now on.

    Raises:
        ConfigError: If there are none, or something is wrong with them.
    """
    from bz.config import load_config
    from bz.plugins.discovery import canonical_name
    from bz.plugins.settings import check_settings
    from bz_plugin_email.config import EmailNotificationConfig
    from bz_plugin_email.plugin import EmailNotificationPlugin

    path = find_settings(config)
    sections = load_config(path, overrides).plugins
    key = next((name for name in sections if canonical_name(name) == EmailNotificationPlugin.name), None)
    if key is None:
        place = path or "a bz.json, which is not here"
        raise ConfigError(f"There are no mail settings: write them under `plugins.email.config` in {place}.", path=path)
    try:
        settings = check_settings(key, EmailNotificationPlugin, sections[key].config)
    except ConfigError as error:
        faults = [name_source(fault, path) for fault in error.faults]
    else:
        assert isinstance(settings, EmailNotificationConfig)
        output.hide([settings.secret])
        return settings
    raise ConfigError.join(ConfigError(fault, path=path) for fault in faults)
