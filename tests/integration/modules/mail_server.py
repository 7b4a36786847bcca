"""A real SMTP server on this loop, that keeps what it takes and refuses what a test says."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

TLS = Path(__file__).parents[2] / "data" / "tls"


@dataclass(frozen=True)
class Mail:
    sender: str
    recipients: list[str]
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        found = message_from_bytes(self.raw, policy=SMTP_POLICY)
        assert isinstance(found, EmailMessage)
        return found


@dataclass
class MailServer:
    """`says` maps a recipient, a sender or "DATA" to what the server answers. `login` is wanted where it is given.
    Use it as `async with`; its name is target.test, as the certificate says."""

    tls: str = "none"
    login: tuple[str, str] | None = None
    says: dict[str, str] = field(default_factory=dict)
    mails: list[Mail] = field(default_factory=list)
    connections: int = 0
    data_held: asyncio.Event | None = None
    quit_held: asyncio.Event | None = None

    async def __aenter__(self) -> MailServer:
        loop = asyncio.get_running_loop()
        trust = self._trust() if self.tls == "implicit" else None
        self._server = await loop.create_server(self._session, "127.0.0.1", 0, ssl=trust)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._sessions: list[SMTP] = []
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._server.close()
        for session in self._sessions:
            if session.transport is not None:
                session.transport.abort()
            handler = session._handler_coroutine
            if handler is not None and not handler.done():
                handler.cancel()
                await asyncio.gather(handler, return_exceptions=True)

    def _session(self) -> SMTP:
        self.connections += 1
        starttls = self.tls == "starttls"
        with warnings.catch_warnings():
            # It calls a login over implicit TLS, which it does not see, unsafe.
            warnings.simplefilter("ignore", UserWarning)
            session = SMTP(
                self,
                hostname="target.test",
                tls_context=self._trust() if starttls else None,
                require_starttls=starttls,
                authenticator=self._authenticate if self.login else None,
                auth_required=self.login is not None,
                auth_require_tls=False,
                loop=asyncio.get_running_loop(),
            )
        self._sessions.append(session)
        return session

    def _authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=given == self.login, handled=False)

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address in self.says:
            return self.says[address]
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address in self.says:
            return self.says[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.data_held is not None:
            await self.data_held.wait()
        if "DATA" in self.says:
            return self.says["DATA"]
        self.mails.append(Mail(envelope.mail_from, list(envelope.rcpt_tos), envelope.content))
        return "250 kept as 42"

    async def handle_QUIT(self, _server: Any, _session: Any, _envelope: Any) -> str:
        if self.quit_held is not None:
            await self.quit_held.wait()
        return "221 bye"

    def _trust(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
        return context
