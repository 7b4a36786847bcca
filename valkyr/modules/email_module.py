"""EmailModule: one mail by SMTP, to all of its recipients or to none.

Here is what a graph says of it. The sending, and the SMTP client with it, is loaded with the first one (email_call.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from valkyr.module import Context, ModuleSpec, spec_of
from valkyr.modules.delay import Duration
from valkyr.modules.email_rules import CREDENTIALS_NAME

MAX_RECIPIENTS = 100

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,76}")
# Beside control characters what Python takes for the end of a line: a header must stay one.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Said by the module itself, or by servers on the way.
_RESERVED_HEADERS = frozenset(
    {
        *("bcc", "cc", "date", "from", "message-id", "mime-version", "received", "reply-to", "return-path", "sender"),
        *("subject", "to", "authentication-results", "dkim-signature"),
    }
)
_LABEL = "(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_PLAIN = rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*"
_ADDRESS = re.compile(rf'(?:(?P<name>"[^"\\<>]*"|[^"\\<>]*?)\s*<(?P<named>{_PLAIN})>|(?P<plain>{_PLAIN}))')


def split_address(text: str) -> tuple[str, str]:
    """Name and address of `Jane <jane@example.com>` or `jane@example.com`. ValueError if it is neither."""
    found = None if _UNPRINTABLE.search(text) or len(text) > 320 else _ADDRESS.fullmatch(text.strip())
    address = found and (found["named"] or found["plain"])
    if found is None or not address or len(address) > 254:
        raise ValueError(f"{text[:64]!r} is no address of the form jane@example.com or Jane <jane@example.com>")
    local = address.partition("@")[0]
    if local.startswith(".") or local.endswith(".") or ".." in local:
        raise ValueError(f"{text[:64]!r}: dots stand between other characters")
    return (found["name"] or "").strip('"'), address


def _checked(text: str) -> str:
    split_address(text)
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Address = Annotated[str, StringConstraints(min_length=3)]
Addresses = Annotated[
    list[Address],
    BeforeValidator(_as_list, json_schema_input_type=Address | list[Address]),
    Field(max_length=MAX_RECIPIENTS),
]
"""One address, or a list of them."""


class EmailConfig(BaseModel):
    """`port` is 587, 465 for `tls: implicit` and 25 for none. `credentials` names what the operator keeps for `host`.
    `headers` are further ones."""

    model_config = ConfigDict(extra="forbid")

    host: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    credentials: Annotated[str, StringConstraints(pattern=f"^{CREDENTIALS_NAME}$")] | None = None
    sender: Annotated[Address, Field(alias="from")]
    to: Annotated[Addresses, Field(min_length=1)]
    cc: Addresses = Field(default_factory=list)
    bcc: Addresses = Field(default_factory=list)
    reply_to: Address | None = None
    subject: Annotated[str, StringConstraints(max_length=1000)] = ""
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = Field(default_factory=dict, max_length=64)
    timeout: Duration | None = None

    @field_validator("sender", "reply_to")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        return None if address is None else _checked(address)

    @field_validator("to", "cc", "bcc")
    @classmethod
    def _are_addresses(cls, addresses: list[str]) -> list[str]:
        return [_checked(address) for address in addresses]

    @field_validator("subject")
    @classmethod
    def _is_one_line(cls, subject: str) -> str:
        if _UNPRINTABLE.search(subject):
            raise ValueError("the subject has line breaks or control characters")
        return subject

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name[:64]!r} is no name of a header")
            lower = name.lower()
            if lower in _RESERVED_HEADERS or lower.startswith(("content-", "resent-", "arc-")):
                raise ValueError(f"the header {name} cannot be set here")
            if _UNPRINTABLE.search(value) or len(value) > 998:
                raise ValueError(f"the value of {name} has line breaks, control characters or over 998 characters")
        return headers

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.text is None and self.html is None:
            raise ValueError("a mail says something: give text, html or both")
        if len(self.recipients) > MAX_RECIPIENTS:
            raise ValueError(f"{len(self.recipients)} recipients in all, and {MAX_RECIPIENTS} are allowed")
        if self.credentials is not None and self.tls == "none":
            raise ValueError("credentials are sent over TLS only: use tls starttls or implicit")
        return self

    @property
    def recipients(self) -> list[str]:
        """The bare addresses that get it, each once."""
        return list(dict.fromkeys(split_address(text)[1] for text in (*self.to, *self.cc, *self.bcc)))


async def email(context: Context, config: EmailConfig) -> dict[str, Any]:
    """Outputs: message_id, recipients (bare addresses), response (what the server said when it took the mail)."""
    from valkyr.modules.email_call import send

    return await send(context, config)


def target_of(config: Mapping[str, Any]) -> str | None:
    """What a breaker guards, from a resolved config: `smtp:<host>`; None if there is no host to be read."""
    host = config.get("host")
    return f"smtp:{host.lower().rstrip('.')}" if isinstance(host, str) and host.rstrip(".") else None


EMAIL: ModuleSpec = spec_of("EmailModule", email, target_of=target_of)
