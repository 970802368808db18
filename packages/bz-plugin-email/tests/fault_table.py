"""Prints what happens to a mail, one row for each way in which a mail server can behave.

python tests/fault_table.py
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from mail_runs import train
from mail_servers import (
    RECIPIENTS,
    Authority,
    Dropping,
    Handler,
    MailDrop,
    drip,
    keep_silent,
    mail_drop,
    raw_server,
    secret_forms,
)

TIMEOUT_SECONDS = 1.5


@dataclass
class Case:
    """A mail server, what the settings say about it, and what it was sent."""

    settings: dict[str, Any]
    drop: MailDrop | None = None


Scenario = Callable[[Authority, Authority], Any]


@contextmanager
def served(authority: Authority, *, changes: dict[str, Any] | None = None, **options: Any) -> Iterator[Case]:
    with mail_drop(authority, **options) as drop:
        yield Case(drop.settings | (changes or {}), drop)


@contextmanager
def answered(authority: Authority, answer: Callable[[Any], None]) -> Iterator[Case]:
    with raw_server(answer) as port, mail_drop(authority) as drop:
        yield Case(drop.settings | {"smtp_port": port})


def strip_starttls(data: bytes) -> bytes:
    """Invite the client to log in without TLS."""
    return data.replace(b"250-STARTTLS\r\n", b"250-AUTH LOGIN PLAIN\r\n")


def refuse_starttls(data: bytes) -> bytes:
    return b"454 TLS not available\r\n" if data.startswith(b"220 Ready") else data


NO_LOGIN: dict[str, Any] = {"username": None, "password": None}
NOBODY = dict.fromkeys(RECIPIENTS, "550 5.1.1 no such user")

SCENARIOS: dict[str, Scenario] = {
    "STARTTLS and login, as they should be": lambda own, _: served(own),
    "TLS from the first byte, `tls`": lambda own, _: served(
        own, has_starttls=False, has_tls=True, changes={"security": "tls"}
    ),
    "no TLS, no login, `none`": lambda own, _: served(
        own, has_starttls=False, has_login=False, changes=NO_LOGIN | {"security": "none", "ca_file": None}
    ),
    "wrong password": lambda own, _: served(own, changes={"password": "something else"}),
    "certificate of an unknown authority": lambda own, other: served(other, changes={"ca_file": str(own.file)}),
    "certificate for another host": lambda own, _: served(own, is_for_localhost=False),
    "`tls`, certificate of an unknown authority": lambda own, other: served(
        other, has_starttls=False, has_tls=True, changes={"ca_file": str(own.file), "security": "tls"}
    ),
    "STARTTLS not offered": lambda own, _: served(own, has_starttls=False),
    "STARTTLS taken out by somebody on the wire": lambda own, _: served(own, change=strip_starttls),
    "STARTTLS refused by somebody on the wire": lambda own, _: served(own, change=refuse_starttls),
    "451 for the mail": lambda own, _: served(own, handler=Handler(data="451 4.3.0 try again later")),
    "550 for the mail": lambda own, _: served(own, handler=Handler(data="550 5.7.1 looks like spam")),
    "550 for every recipient": lambda own, _: served(own, handler=Handler(NOBODY)),
    "550 for one recipient of three": lambda own, _: served(
        own, handler=Handler({RECIPIENTS[1]: "550 5.1.1 no such user"})
    ),
    "451 for one recipient of three": lambda own, _: served(
        own, handler=Handler({RECIPIENTS[1]: "451 4.7.1 greylisted"})
    ),
    "silence": lambda own, _: answered(own, keep_silent),
    "a greeting of one byte a second": lambda own, _: answered(own, drip),
    "a TLS handshake of one byte a second": lambda own, _: served(own, drips_after=b"220 Ready to start TLS"),
    "drops the connection inside the mail": lambda own, _: served(own, server=Dropping),
    "hangs up at once": lambda own, _: answered(own, lambda _: None),
    "nobody listens": lambda own, _: served(own, changes={"smtp_port": 1}),
    "no such host": lambda own, _: served(own, changes={"smtp_server": "mail.invalid"}),
}


@dataclass(frozen=True)
class Row:
    """What happened.

    Attributes:
        status: How the run ended.
        fate: Where the mail is.
        line: What was logged as a warning, without what differs between two runs.
        seconds: How long the run took.
        has_leaked: Whether the wire carried the password in a readable form.
        num_logins: How many mails were taken after a login.
    """

    status: str
    fate: str
    line: str
    seconds: float
    has_leaked: bool
    num_logins: int


class _Lines(logging.Handler):
    """Collects warnings of the plugin."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def play(scenario: Scenario, folder: Path, own: Authority, other: Authority) -> Row:
    """Train a little with that mail server, and look at what is left."""
    lines = _Lines()
    logger = logging.getLogger("bz_plugin_email")
    logger.addHandler(lines)
    logger.propagate, before = False, logger.propagate
    run_dir = folder / "run"
    run_dir.mkdir(parents=True)
    with ExitStack() as stack:
        stack.callback(logger.removeHandler, lines)
        stack.callback(setattr, logger, "propagate", before)
        case = stack.enter_context(scenario(own, other))
        started = time.monotonic()
        result = train(case.settings | {"timeout_seconds": TIMEOUT_SECONDS}, run_dir=run_dir, epochs=1)
        seconds = time.monotonic() - started
        sent = bytes(case.drop.wire.sent) if case.drop else b""
        mails = case.drop.handler.envelopes if case.drop else []
        recipients = [one for mail in mails for one in mail.rcpt_tos]
        port = case.settings["smtp_port"]
    return Row(
        status=result.status,
        fate=_fate(run_dir / "outbox", recipients),
        line=" / ".join(lines.lines).replace(str(run_dir), "RUN").replace(f":{port}", ""),
        seconds=seconds,
        has_leaked=any(form in sent for form in secret_forms()),
        num_logins=case.drop.handler.num_logins if case.drop else 0,
    )


def _fate(outbox: Path, recipients: list[str]) -> str:
    fates = [f"sent to {len(recipients)} of {len(RECIPIENTS)}"] if recipients else []
    fates += ["waits"] if list(outbox.glob("*.eml")) else []
    fates += ["kept in `outbox/failed`"] if list(outbox.glob("failed/*.eml")) else []
    return ", ".join(fates)


def table_line(name: str, row: Row) -> str:
    """Return one line of the table, without what differs between two runs and machines."""
    line = row.line.partition("; the next session")[0]
    for prefix in ("1 mail waits in RUN/outbox: ", "the mail 'Training Complete - digits' was "):
        line = line.removeprefix(prefix)
    line = re.sub(r"cannot be found \(.*\)", "cannot be found", line)
    return f"| {name} | {row.fate} | {line.partition('; it is kept in')[0]} |"


def main() -> None:
    """Print the table."""
    print("| The server | The mail | What is said |\n|---|---|---|")  # noqa: T201 - a script prints
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        authorities = []
        for name in ("own", "other"):
            (place / name).mkdir()
            authorities.append(Authority(place / name))
        for number, (name, scenario) in enumerate(SCENARIOS.items()):
            row = play(scenario, place / str(number), *authorities)
            facts = f"<!-- {row.status}, {row.seconds:.1f} s, password on the wire: {row.has_leaked} -->"
            print(table_line(name, row), facts if "-v" in sys.argv else "", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
