"""One connection to a mail server, from the greeting to the goodbye, within one deadline.

The protocol is Python's own smtplib. What it does not do by itself is added here: TLS is verified and never optional,
credentials never cross an unencrypted connection, and the deadline holds for all socket operations together, where a
socket's timeout holds for each one.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final

from bz.cli.redactor import Redactor

if TYPE_CHECKING:
    from bz_plugin_email.config import EmailNotificationConfig

PERMANENT: Final = range(500, 600)
"""Reply codes after which the same attempt would fail again (RFC 5321, section 4.2.1)."""

_LONGEST_REPLY: Final = 200


class DeliveryError(Exception):
    """No mail can be handed over: the server is not there, not trusted, or does not let us in."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a server did with one mail.

    Attributes:
        sent_to: The recipients it accepted the mail for.
        refused: The recipients it will never accept the mail for, with its reply.
        delayed: The recipients it may accept the mail for another time, with the reason.
    """

    sent_to: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    delayed: Mapping[str, str] = field(default_factory=dict)


def blame(replies: Mapping[str, str]) -> str:
    """Return who got which reply, in one line, with the addresses of each reply together."""
    addresses: dict[str, list[str]] = {}
    for address, reply in replies.items():
        addresses.setdefault(reply, []).append(address)
    return ", ".join(f"{', '.join(who)} ({reply})" for reply, who in addresses.items())


class Deadline:
    """A moment after which every operation on a socket fails.

    Args:
        seconds: Time until then.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds left; 0 when the deadline has passed."""
        return max(self._end - monotonic(), 0.0)

    def has_passed(self) -> bool:
        """Return whether there is no time left."""
        return self.remaining() == 0.0

    @contextmanager
    def guarding(self, sock: socket.socket) -> Iterator[None]:
        """Shut the connection down at the deadline, in whatever state it is, and at the end of the block.

        The duplicate names the same connection also after TLS was put over the socket.
        """
        twin = sock.dup()
        timer = threading.Timer(self.remaining(), _shut_down, [twin])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            _shut_down(twin)
            twin.close()


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # it is already closed
        sock.shutdown(socket.SHUT_RDWR)


class _Client(smtplib.SMTP):
    """smtplib's client on a socket that is connected already."""

    def __init__(self, host: str, port: int, sock: socket.socket) -> None:
        self._connected = sock
        super().__init__(host, port, local_hostname=_address_literal(sock), timeout=sock.gettimeout() or 0)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002 - smtplib's arguments
        return self._connected


def _address_literal(sock: socket.socket) -> str:
    """Return how this machine introduces itself; its name would take a look-up that may hang."""
    address = sock.getsockname()[0]
    return f"[IPv6:{address}]" if sock.family == socket.AF_INET6 else f"[{address}]"


class MailServer:
    """The mail server of the settings.

    Args:
        settings: Where it is, how to talk to it and what to log in with.
    """

    def __init__(self, settings: EmailNotificationConfig) -> None:
        self._settings = settings
        self.scrub = Redactor([settings.secret])

    def deliver(self, sender: str, recipients: Sequence[str], content: bytes, deadline: Deadline) -> Delivery:
        """Hand one mail over.

        Args:
            sender: Address of the sender.
            recipients: Addresses of the recipients.
            content: The mail with its headers, with line ends as in the protocol.
            deadline: When to give up.

        Raises:
            DeliveryError: If the server does not take any mail from us now.
        """
        try:
            with _connect(self._settings.smtp_server, self._settings.port, deadline) as sock, deadline.guarding(sock):
                return self._converse(sock, sender, recipients, content, deadline)
        except (OSError, smtplib.SMTPException) as error:
            raise DeliveryError(self._reason(error, deadline)) from None

    def _converse(
        self, sock: socket.socket, sender: str, recipients: Sequence[str], content: bytes, deadline: Deadline
    ) -> Delivery:
        settings = self._settings
        if settings.security == "tls":
            sock = self._context().wrap_socket(sock, server_hostname=settings.smtp_server)
        client = _Client(settings.smtp_server, settings.port, sock)
        try:
            if settings.security == "starttls":
                client.starttls(context=self._context())  # raises unless the connection is encrypted and verified
            if settings.username is not None:
                client.login(settings.username, settings.secret)
            delivery = self._send(client, sender, recipients, content, deadline)
            with suppress(OSError, smtplib.SMTPException):  # the mail is settled, goodbye or not
                client.quit()
        finally:
            client.close()
        return delivery

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._settings.ca_file)

    def _send(
        self, client: smtplib.SMTP, sender: str, recipients: Sequence[str], content: bytes, deadline: Deadline
    ) -> Delivery:
        """Send the mail; what the server says about it is a result, not an error."""
        try:
            replies = client.sendmail(sender, recipients, content)
        except smtplib.SMTPRecipientsRefused as error:
            return self._sort(recipients, error.recipients, sent_to=())
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            reply = (error.smtp_code, _as_bytes(error.smtp_error))
            return self._sort(recipients, dict.fromkeys(recipients, reply), sent_to=())
        except (OSError, smtplib.SMTPServerDisconnected) as error:  # it may be this mail that the server cannot take
            return Delivery(delayed=dict.fromkeys(recipients, self._reason(error, deadline)))
        return self._sort(recipients, replies, sent_to=[one for one in recipients if one not in replies])

    def _sort(
        self, recipients: Sequence[str], replies: Mapping[str, tuple[int, bytes]], *, sent_to: Sequence[str]
    ) -> Delivery:
        refused = {one: self._reply(*reply) for one, reply in replies.items() if reply[0] in PERMANENT}
        return Delivery(
            sent_to=tuple(sent_to),
            refused=refused,
            delayed={
                one: self._reply(*replies[one]) if one in replies else "the server closed the connection"
                for one in recipients
                if one not in sent_to and one not in refused
            },
        )

    def _reply(self, code: int, text: bytes | str) -> str:
        """Return a reply of the server in one line, printable and without the password."""
        words = _as_bytes(text).decode("utf-8", "replace")
        line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
        return self.scrub(f"{code} {line[:_LONGEST_REPLY]}".strip())

    def _reason(self, error: OSError | smtplib.SMTPException, deadline: Deadline) -> str:
        """Return why no mail could be handed over."""
        where = f"{self._settings.smtp_server}:{self._settings.port}"
        if deadline.has_passed() or isinstance(error, TimeoutError):
            return f"{where} took longer than `timeout_seconds`, {self._settings.timeout_seconds:g}"
        return self.scrub(f"{where} {self._complaint(error)}")

    def _complaint(self, error: OSError | smtplib.SMTPException) -> str:  # noqa: PLR0911 - a table
        match error:
            case socket.gaierror():
                return f"cannot be found ({error.strerror})"
            case ssl.SSLCertVerificationError():
                return f"has a certificate that is not trusted ({error.verify_message})"
            case ssl.SSLError():
                return f"does not speak TLS as expected ({error.reason or 'the connection was cut'})"
            case smtplib.SMTPAuthenticationError():
                # The text of the reply is left out: it may repeat what was sent.
                return f"refused the username or the password ({error.smtp_code})"
            case smtplib.SMTPNotSupportedError() if self._settings.security == "starttls" and "STARTTLS" in str(error):
                return "does not offer STARTTLS, without which nothing is sent"
            case smtplib.SMTPNotSupportedError() if "AUTH" in str(error):
                return "offers no login"
            case smtplib.SMTPServerDisconnected():
                return "closed the connection"
            case smtplib.SMTPResponseException():
                return f"answered {self._reply(error.smtp_code, error.smtp_error)}"
            case smtplib.SMTPException():
                return f"cannot be used ({self._reply(0, str(error)).removeprefix('0 ')})"
        return f"cannot be reached ({error.strerror or error})"


def _as_bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")


def _connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Return a connection to the first address of the host that takes one; each gets its share of the time.

    Raises:
        OSError: If none does, of the last address.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = TimeoutError()
    for left, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        if deadline.has_passed():
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.remaining() / left)
            sock.connect(address)
            sock.settimeout(deadline.seconds)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure
