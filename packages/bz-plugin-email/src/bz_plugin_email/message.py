"""A mail from a report: plain text, HTML, and the picture inside the HTML."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

from bz_plugin_email.html import write_html
from bz_plugin_email.outbox import ID_PREFIX
from bz_plugin_email.report import EPOCHS_SHOWN, Report

if TYPE_CHECKING:
    from bz_plugin_email.config import EmailNotificationConfig

_POLICY: Final = SMTP.clone(cte_type="7bit")
"""Every server takes lines of ASCII; what is not is encoded."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail, ready to be sent.

    Attributes:
        message_id: What tells it from all others, with angle brackets.
        recipients: The addresses it is for.
        subject: Its subject.
        content: Headers and body, with line ends as in the protocol.
    """

    message_id: str
    recipients: tuple[str, ...]
    subject: str
    content: bytes


def compose(report: Report, settings: EmailNotificationConfig, key: str, picture: bytes | None) -> Mail:
    """Return the mail that says what is in the report.

    Args:
        report: What it says.
        settings: From whom and to whom.
        key: Names the event among all events of all runs; the `Message-ID` is made of it.
        picture: A PNG for the HTML part, or None.
    """
    token = hashlib.sha256(key.encode()).hexdigest()[:32]
    message_id = f"{ID_PREFIX}{token}@{settings.sender.domain}>"
    message = EmailMessage(policy=_POLICY)
    message["From"] = settings.sender
    message["To"] = settings.recipients
    message["Date"] = format_datetime(datetime.now().astimezone())
    message["Message-ID"] = message_id
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office replies, please
    message.set_content(write_text(report))
    reference = f"losses.{token}@{settings.sender.domain}"
    html = write_html(report, None if picture is None else f"cid:{reference}")
    message.add_alternative(html, subtype="html")
    if picture is not None:
        [_, html_part] = message.iter_parts()
        assert isinstance(html_part, EmailMessage)
        html_part.add_related(
            picture, "image", "png", cid=f"<{reference}>", filename="losses.png", disposition="inline"
        )
    _set_boundaries(message, token)
    recipients = tuple(address.addr_spec for address in settings.recipients)
    return Mail(message_id, recipients, report.subject, _subject_line(report.subject) + message.as_bytes())


def _subject_line(subject: str) -> bytes:
    """Return the header with the subject; `EmailMessage` moves or drops spaces when it folds one that is not ASCII.

    The subject is one line already. Text that looks encoded is encoded, so that it is shown as it is.
    """
    charset = "us-ascii" if subject.isascii() and "=?" not in subject else "utf-8"
    header = Header(subject, charset, header_name="Subject").encode(linesep="\r\n")
    return f"Subject: {header}\r\n".encode("ascii")


def _set_boundaries(message: EmailMessage, token: str) -> None:
    """Name the boundaries between parts; Python would draw them from the random numbers of the training."""
    for number, part in enumerate(part for part in message.walk() if part.is_multipart()):
        part.set_boundary(f"=_bz_{number}_{token}")


def write_text(report: Report) -> str:
    """Return the report as plain text."""
    lines = [report.sentence, ""]
    if report.summary:
        lines += ["Summary:", *(f"- {label}: {text}" for label, text in report.summary), ""]
    if report.losses:
        lines += [*_loss_lines(report), ""]
    return "\n".join(lines)


def _loss_lines(report: Report) -> list[str]:
    shown = report.losses[-EPOCHS_SHOWN:]
    has_validation = any(one.validation is not None for one in shown)
    lines = ["Epoch  Training loss" + "  Validation loss" * has_validation]
    for one in shown:
        validation = "" if one.validation is None else f"  {one.validation:15.4f}"
        best = "  best" if one.epoch == report.best_epoch else ""
        lines.append(f"{one.epoch:5}  {one.training:13.4f}{validation}{best}")
    return lines
