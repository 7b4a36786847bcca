"""A mail as bytes: MIME in seven bits, with a Message-ID by which a repeated one can be told."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from hashlib import sha256

from valkyr.module import PermanentError
from valkyr.modules.email_module import EmailConfig, split_address

# Seven bits, for servers that take no more; and whatever the text holds, no line of it is one of the protocol's.
_POLICY = SMTP.clone(cte_type="7bit")
_WORD = re.compile(r"[A-Za-z0-9]{1,128}")


def compose(config: EmailConfig, idempotency_key: str) -> tuple[bytes, str]:
    """The mail and its Message-ID. PermanentError if a header cannot be written."""
    name, address = split_address(config.sender)
    message_id = message_id_of(idempotency_key, address.partition("@")[2])
    message = EmailMessage(policy=_POLICY)
    try:
        message["From"] = Address(name, addr_spec=address)
        message["To"] = [Address(name, addr_spec=address) for name, address in map(split_address, config.to)]
        if config.cc:
            message["Cc"] = [Address(name, addr_spec=address) for name, address in map(split_address, config.cc)]
        if config.reply_to is not None:
            name, address = split_address(config.reply_to)
            message["Reply-To"] = Address(name, addr_spec=address)
        message["Subject"] = config.subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = message_id
        for name, value in config.headers.items():
            message[name] = value
        _add_bodies(message, config)
        return message.as_bytes(), message_id
    except (ValueError, IndexError) as error:
        raise PermanentError(f"the mail cannot be written: {error}") from None


def message_id_of(idempotency_key: str, domain: str) -> str:
    """The same for every attempt of a run, so that servers and readers can tell a repeated mail; a new one without a
    key."""
    if not idempotency_key:
        return make_msgid(domain=domain)
    word = idempotency_key if _WORD.fullmatch(idempotency_key) else sha256(idempotency_key.encode()).hexdigest()
    return f"<{word}@{domain}>"


def _add_bodies(message: EmailMessage, config: EmailConfig) -> None:
    if config.text is not None:
        message.set_content(config.text)
        if config.html is not None:
            message.add_alternative(config.html, subtype="html")
    elif config.html is not None:
        message.set_content(config.html, subtype="html")
