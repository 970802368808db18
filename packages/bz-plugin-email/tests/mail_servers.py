"""Real mail servers on the loopback device, some of which misbehave, and a recorder on the wire to them."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

logging.getLogger("mail.log").setLevel(logging.CRITICAL)

USERNAME = "trainer@example.com"
PASSWORD = "canary-Pa$$w0rd/+?"  # looks different in a URL
RECIPIENTS = ("ada@example.com", "bob@example.com", "eve@example.com")


def secret_forms(secret: str = PASSWORD) -> list[bytes]:
    """Return the looks that a password may have in a file or on a wire."""
    forms = [
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        base64.b64encode(secret.encode()).decode(),
    ]
    forms.append(base64.b64encode(f"\0{USERNAME}\0{secret}".encode()).decode())
    return [form.encode() for form in forms]


class Authority:
    """A certificate authority, with one certificate for `localhost`."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.file))
        self._certificate = authority.issue_cert("localhost")
        self._other_name = authority.issue_cert("mail.example.com")

    def context(self, *, is_for_localhost: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        (self._certificate if is_for_localhost else self._other_name).configure_cert(context)
        return context


class Handler:
    """Keeps what it takes; refuses what it was told to.

    Args:
        recipients: Address to reply, for those that are refused.
        data: Reply to the content.
    """

    def __init__(self, recipients: Mapping[str, str] | None = None, data: str = "250 OK") -> None:
        self.recipients = dict(recipients or {})
        self.data = data
        self.envelopes: list[Envelope] = []
        self.num_logins = 0

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.recipients:
            return self.recipients[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.data.startswith("250"):
            self.envelopes.append(envelope)
            self.num_logins += bool(session.authenticated)
        return self.data


class Dropping(SMTP):
    """Closes the connection in the middle of the content."""

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        await self.push("354 go ahead")
        await self._reader.readline()
        assert self.transport is not None
        self.transport.close()


class LocalController(Controller):
    """Controller on a free port, with a class of server of its own."""

    smtp_class: type[SMTP] = SMTP

    def factory(self) -> SMTP:
        return self.smtp_class(self.handler, loop=self.loop, **self.SMTP_kwargs)

    def _trigger_server(self) -> None:
        """Connect to the port that was given by the system; the base class knows only the one asked for."""
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        with socket.create_connection((self.hostname, self.port), timeout=5):
            pass


class Wire:
    """A proxy that records what the client sends, and changes what it is answered.

    Args:
        port: Where the server is.
        change: Applied to each piece that the server sends in clear.
        drips_after: What the server says last before its bytes come one a second.
    """

    def __init__(self, port: int, change: Callable[[bytes], bytes] = bytes, drips_after: bytes | None = None) -> None:
        self.sent = bytearray()
        self.num_connections = 0
        self._server_port = port
        self._change = change
        self._drips_after = drips_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self.num_connections += 1
                self._sockets += [client, server]
                threading.Thread(target=self._upstream, args=(client, server), daemon=True).start()
                threading.Thread(target=self._downstream, args=(server, client), daemon=True).start()

    def _upstream(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                self.sent += data
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _downstream(self, server: socket.socket, client: socket.socket) -> None:
        is_dripping = False
        with suppress(OSError):
            while data := server.recv(65536):
                if is_dripping:
                    for byte in data:
                        client.sendall(bytes([byte]))
                        time.sleep(1)
                client.sendall(self._change(data))
                is_dripping = self._drips_after is not None and self._drips_after in data
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


class MailDrop:
    """A running mail server behind a recording wire."""

    def __init__(self, controller: LocalController, handler: Handler, wire: Wire, authority: Authority) -> None:
        self.handler = handler
        self.wire = wire
        self.port = wire.port
        self.authority = authority
        self._controller = controller

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the plugin that fit this server."""
        return {
            "smtp_server": "localhost",
            "smtp_port": self.port,
            "username": USERNAME,
            "password": PASSWORD,
            "from_email": f"bz <{USERNAME}>",
            "to_email": list(RECIPIENTS),
            "ca_file": str(self.authority.file),
            "timeout_seconds": 5,
            "loss_curve": False,
        }

    @property
    def mails(self) -> list[EmailMessage]:
        """The mails that were taken, parsed."""
        messages = []
        for envelope in self.handler.envelopes:
            assert isinstance(envelope.content, bytes)
            messages.append(email.message_from_bytes(envelope.content, policy=email.policy.SMTP))
        return messages

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]


def _check(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    is_right = isinstance(data, LoginPassword) and data == LoginPassword(USERNAME.encode(), PASSWORD.encode())
    return AuthResult(success=is_right, handled=False)


@contextmanager
def mail_drop(
    authority: Authority,
    *,
    handler: Handler | None = None,
    has_starttls: bool = True,
    has_tls: bool = False,
    has_login: bool = True,
    is_for_localhost: bool = True,
    server: type[SMTP] = SMTP,
    change: Callable[[bytes], bytes] = bytes,
    drips_after: bytes | None = None,
) -> Iterator[MailDrop]:
    """Run a mail server.

    Args:
        authority: Who signed its certificate.
        handler: What it does with mail.
        has_starttls: Whether it offers STARTTLS; without, it offers the login at once.
        has_tls: Whether it speaks TLS from the first byte.
        has_login: Whether it asks for a login.
        is_for_localhost: Whether the certificate is for the name that it is called by.
        server: The server itself.
        change: What somebody on the wire does to its answers.
        drips_after: What it says last before its bytes come one a second.
    """
    handler = handler or Handler()
    context = authority.context(is_for_localhost=is_for_localhost)
    # aiosmtpd warns of a login without STARTTLS, even over TLS, unless the login is optional; it is offered then, too.
    login: dict[str, Any] = {"authenticator": _check, "auth_required": has_starttls, "auth_require_tls": has_starttls}
    controller = LocalController(
        handler,
        hostname="127.0.0.1",
        port=0,
        ssl_context=None,
        tls_context=context if has_starttls else None,
        **(login if has_login else {}),
    )
    controller.smtp_class = server
    if has_tls:
        controller.ssl_context = context
    controller.start()
    wire = Wire(controller.port, change, drips_after)
    try:
        yield MailDrop(controller, handler, wire, authority)
    finally:
        wire.close()
        controller.stop()


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a server that treats every connection by that function, and yield its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            answer(client)

    def accept() -> None:
        with suppress(OSError):
            while not stopped.is_set():
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        stopped.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def keep_silent(client: socket.socket) -> None:
    """Take what comes and say nothing."""
    while client.recv(65536):
        pass


def drip(client: socket.socket) -> None:
    """Greet with one byte a second, for ever."""
    for byte in b"220 " + b"x" * 3600:
        client.sendall(bytes([byte]))
        time.sleep(1)
