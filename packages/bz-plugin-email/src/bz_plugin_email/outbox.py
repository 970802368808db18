"""The folder in which mails wait until a server has taken them.

    outbox/
      20261123T101500000000-1f3a….eml     a mail that waits, as it will be sent; mail programs can open it
      failed/                              mails that the server refused for good, for somebody
      sent.jsonl                           one line for each thing a server said about a mail
      .lock

A mail file never changes. Who has got it, and who never will, is in `sent.jsonl`, to which lines are only added; so a
mail is sent once to each recipient, whenever a process is killed and however many want to send it.
"""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bz_plugin_email.lock import locked

if TYPE_CHECKING:
    from bz_plugin_email.message import Mail
    from bz_plugin_email.smtp import Delivery

FOLDER: Final = "outbox"
ID_PREFIX: Final = "<bz."
_FAILED: Final = "failed"
_LEDGER: Final = "sent.jsonl"
_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class WaitingMail:
    """A mail in the outbox.

    Attributes:
        path: Its file.
        message_id: What tells it from all others, with angle brackets.
        subject: Its subject.
        recipients: The addresses that it has not been settled for.
        content: The mail with its headers.
    """

    path: Path
    message_id: str
    subject: str
    recipients: tuple[str, ...]
    content: bytes


class Outbox:
    """The mails of one run that wait.

    Args:
        folder: Where they are; it is made when the first one is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, mail: Mail) -> bool:
        """Keep a mail until it is sent; return False if it is known, and then do nothing.

        Raises:
            OSError: If it cannot be written; no part of it stays behind.
        """
        if self._is_known(mail.message_id):
            return False
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        now, digest = datetime.now(UTC), _digest(mail.message_id)
        # Named by the mail alone: the resumed run, which adds it again, takes the place of a half written one.
        _write(self.folder / f"{now:%Y%m%dT%H%M%S%f}-{digest}.eml", mail.content, self.folder / f".{digest}.tmp")
        return True

    def _is_known(self, message_id: str) -> bool:
        name = f"*-{_digest(message_id)}.eml"
        return any(self.folder.glob(name)) or any((self.folder / _FAILED).glob(name)) or message_id in self._ledger()

    def paths(self) -> list[Path]:
        """Return the files of the mails that wait, the oldest first; looks at names only."""
        return sorted(self.folder.glob("*-*.eml"))

    def waiting(self) -> Iterator[WaitingMail]:
        """Yield the mails that wait, the oldest first; clears away what was settled by a process that died."""
        ledger = self._ledger()
        for path in self.paths():
            content = path.read_bytes()
            headers: Any = email.parser.BytesHeaderParser(policy=email.policy.SMTP).parsebytes(content)
            message_id = str(headers["Message-ID"] or "")
            if not message_id.startswith(ID_PREFIX):
                continue  # not one of ours
            settled = ledger.get(message_id, {})
            recipients = tuple(one.addr_spec for one in headers["To"].addresses if one.addr_spec not in settled)
            mail = WaitingMail(path, message_id, str(headers["Subject"]), recipients, content)
            if recipients:
                yield mail
            else:
                self._clear(mail)

    @contextmanager
    def claimed(self, wait_seconds: float) -> Iterator[bool]:
        """Yield whether this process, and no other, may send now."""
        with locked(self.folder / _LOCK, wait_seconds) as is_ours:
            yield is_ours

    def settle(self, mail: WaitingMail, delivery: Delivery) -> Path | None:
        """Write down what a server did with a mail.

        Returns:
            Where the mail is now; None when everybody has got it.
        """
        if delivery.sent_to or delivery.refused:
            self._record(mail, delivery)
        return mail.path if delivery.delayed else self._clear(mail)

    def _record(self, mail: WaitingMail, delivery: Delivery) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "message_id": mail.message_id,
            "subject": mail.subject,
            "sent_to": list(delivery.sent_to),
            "refused": dict(delivery.refused),
        }
        try:
            self._append(line)
        except OSError:
            if not delivery.delayed and not delivery.refused:
                mail.path.unlink(missing_ok=True)  # rather unrecorded than sent twice
            raise

    def _clear(self, mail: WaitingMail) -> Path | None:
        """Move a settled mail out of the way; return where to, or None if it is not needed any more."""
        if not any(self._ledger().get(mail.message_id, {}).values()):
            mail.path.unlink()
            return None
        failed = self.folder / _FAILED
        failed.mkdir(mode=0o700, exist_ok=True)
        return mail.path.replace(failed / mail.path.name)

    def _ledger(self) -> dict[str, dict[str, bool]]:
        """Return, for each mail, its settled recipients, and whether they were refused."""
        ledger: dict[str, dict[str, bool]] = {}
        for line in _lines(self.folder / _LEDGER):
            settled = ledger.setdefault(line["message_id"], {})
            settled.update(dict.fromkeys(line["sent_to"], False))
            settled.update(dict.fromkeys(line["refused"], True))
        return ledger

    def _append(self, line: dict[str, Any]) -> None:
        path = self.folder / _LEDGER
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(file, "r+b") as stream:
            # A process that was killed while writing left a line without an end.
            is_torn = stream.seek(0, os.SEEK_END) and _last_byte(stream) != b"\n"
            stream.write(b"\n" * bool(is_torn) + json.dumps(line).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


def _last_byte(stream: Any) -> bytes:
    stream.seek(-1, os.SEEK_END)
    last: bytes = stream.read(1)
    return last


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    """Yield the complete lines of the ledger."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        with suppress(json.JSONDecodeError):  # the process was killed while it wrote this line
            yield json.loads(line)


def _digest(message_id: str) -> str:
    return hashlib.sha256(message_id.encode()).hexdigest()[:16]


def _write(path: Path, content: bytes, temporary: Path) -> None:
    """Write a file that only its owner may read, as a whole or not at all."""
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # folders cannot be opened there
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
