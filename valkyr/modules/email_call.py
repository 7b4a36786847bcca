"""The sending of EmailModule.

Failures: no connection, a broken one and 4xx are TRANSIENT; no answer in time is TIMEOUT; 5xx, a server without the TLS
or the login that was asked for, and every refusal here are PERMANENT. Either every recipient is accepted or nothing is
sent, so that a retry repeats no mail that others had already; only where the connection breaks between the mail and the
server's word that it has it, nobody knows, and it is sent again under the same Message-ID.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import aiosmtplib

from valkyr.module import Context, PermanentError
from valkyr.modules.call_trace import call_span
from valkyr.modules.email_message import compose
from valkyr.modules.email_module import EmailConfig, split_address
from valkyr.modules.email_rules import Credentials, EmailRules
from valkyr.modules.reach import check_host
from valkyr.modules.tls_trust import trust

_PORTS = {"starttls": 587, "implicit": 465, "none": 25}
_MAX_SAID = 300
_GOODBYE = 1.0
_DEFAULT_RULES = EmailRules()


async def send(context: Context, config: EmailConfig) -> dict[str, Any]:
    """Its outputs. Raises what fails the attempt, as above."""
    rules: EmailRules = context.settings.get("email", _DEFAULT_RULES)
    port = config.port or _PORTS[config.tls]
    check_host(config.host)
    if config.tls == "none" and not rules.is_named(config.host, port):
        advice = f"use starttls or implicit, or have the operator add {config.host!r} to allow-hosts"
        raise PermanentError(f"mail to {config.host} without TLS is refused; {advice}")
    credentials = None
    if config.credentials is not None:
        credentials = await asyncio.to_thread(rules.credentials, config.credentials, config.host)
    message, message_id = compose(config, context.idempotency_key)
    timeout = min(config.timeout or rules.default_timeout, rules.max_timeout).total_seconds()
    attributes: dict[str, str | int] = {"server.address": config.host, "server.port": port}
    try:
        async with asyncio.timeout(timeout) as timer:  # until the server has taken the mail
            with call_span("SMTP send", attributes) as span, _said(config.host):
                async with _connected(config, port, credentials, rules) as client:
                    code, text = await _hand_over(client, config, message)
                    timer.reschedule(None)  # the mail is the server's: one that is slow now must not get it again
                span.answered("smtp.response.code", code, failed=False)
    except TimeoutError:
        if not timer.expired():
            raise
        raise TimeoutError(f"{config.host} did not take the mail within {timeout:g} s") from None
    return {"message_id": message_id, "recipients": config.recipients, "response": f"{code} {_cut(text)}"}


@asynccontextmanager
async def _connected(
    config: EmailConfig, port: int, credentials: Credentials | None, rules: EmailRules
) -> AsyncIterator[aiosmtplib.SMTP]:
    """A session that is encrypted and logged in as far as was asked for. Goodbye is said when all went well, and what
    comes of it changes nothing: the mail is the server's by then."""
    tls = None if config.tls == "none" else _trusting(rules.ca_file)
    connection = await _connect(config.host, port, rules)
    client = aiosmtplib.SMTP(
        hostname=config.host.removesuffix("."),
        sock=connection,
        timeout=None,  # the whole has one, around this
        use_tls=config.tls == "implicit",
        start_tls=config.tls == "starttls",
        tls_context=tls,
        local_hostname=_literal(connection),
        username=credentials.username if credentials else None,
        password=credentials.password if credentials else None,
    )
    try:
        await client.connect()
        yield client
        with suppress(aiosmtplib.SMTPException):
            await client.quit(timeout=_GOODBYE)
    finally:
        client.close()  # and with it the connection, which is the client's by now


async def _hand_over(client: aiosmtplib.SMTP, config: EmailConfig, message: bytes) -> tuple[int, str]:
    if client.is_ehlo_or_helo_needed:
        await client.ehlo()
    options = [f"size={len(message)}"] if client.supports_extension("size") else []
    await client.mail(split_address(config.sender)[1], options=options)
    for recipient in config.recipients:
        await client.rcpt(recipient)
    return await client.data(message)


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    """PermanentError if it cannot be read: what is there to be mended is the operator's."""
    try:
        return trust(ca_file)
    except OSError as error:
        raise PermanentError(f"the certificates in {ca_file}, trusted for mail, cannot be read: {error}") from None


async def _connect(host: str, port: int, rules: EmailRules) -> socket.socket:
    """To an address that was checked. OSError if none answers, PermanentError if one is refused."""
    loop = asyncio.get_running_loop()
    last: OSError = ConnectionError(f"{host} has no address")
    for address in await rules.addresses(host.strip("[]"), port):
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            await loop.sock_connect(connection, (address, port))
            return connection
        except OSError as error:
            connection.close()
            last = error
        except BaseException:
            connection.close()
            raise
    raise last


@contextmanager
def _said(host: str) -> Iterator[None]:
    """Within it, what the client raises becomes what fails the attempt. Codes: RFC 5321, 4.2.1."""
    try:
        yield
    except aiosmtplib.SMTPResponseException as error:
        message = f"{host} answered {error.code} {_cut(error.message)}"
        if isinstance(error, aiosmtplib.SMTPRecipientRefused):
            message += f" to {error.recipient}"
        if 500 <= error.code < 600:
            raise PermanentError(message) from None
        raise ConnectionError(message) from None
    except aiosmtplib.SMTPTimeoutError as error:
        raise TimeoutError(f"{host}: {_cut(error.message)}") from None
    except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPConnectError) as error:
        raise ConnectionError(f"{host}: {_cut(str(error.__cause__ or error.message))}") from None
    except aiosmtplib.SMTPException as error:  # what the server does not offer
        raise PermanentError(f"{host}: {_cut(error.message)}") from None
    except TimeoutError:
        raise
    except OSError as error:
        raise ConnectionError(f"{host}: {error}") from error


def _literal(connection: socket.socket) -> str:
    """How the client calls itself: by its address, as one that has no name. RFC 5321, 4.1.3."""
    address = str(connection.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _cut(text: str) -> str:
    """What a server said, as one line."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SAID else line[: _MAX_SAID - 3] + "..."
