"""HttpRequestModule: one HTTP request to a target outside, with bounded redirects and answers.

Here is what a graph says of it. The call, and the HTTP client with it, is loaded with the first one (http_call.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from valkyr.module import Context, ModuleSpec, spec_of
from valkyr.modules.delay import Duration

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Set by the connection itself; from a graph they could smuggle a second request or name another host.
_RESERVED_HEADERS = frozenset(
    {"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)

Scalar = str | int | float | bool
Status = Annotated[int, Field(ge=100, le=599)]


class HttpRequestConfig(BaseModel):
    """`body` is sent as JSON, a string as it is. `expect` holds the statuses of success, by default 200 to 299."""

    model_config = ConfigDict(extra="forbid")

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    url: Annotated[str, StringConstraints(min_length=1)]
    headers: dict[str, str] = Field(default_factory=dict, max_length=64)
    query: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    body: Any = None
    timeout: Duration | None = None
    expect: list[Status] = Field(default_factory=list, max_length=64)

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name[:64]!r} is no name of a header")
            if name.lower() in _RESERVED_HEADERS or name.lower().startswith("proxy-"):
                raise ValueError(f"the header {name} cannot be set")
            if _BAD_VALUE.search(value) or len(value) > 8192:
                raise ValueError(f"the value of {name} has control characters or more than 8192 characters")
        return headers


async def http_request(context: Context, config: HttpRequestConfig) -> dict[str, Any]:
    """Outputs: status, headers (lower case, without set-cookie), body (JSON where it is JSON, else text, else null and
    body_base64), url (where the redirects ended, without query)."""
    from valkyr.modules.http_call import call

    return await call(context, config)


def target_of(config: Mapping[str, Any]) -> str | None:
    """What a breaker guards, from a resolved config: `http:<host>`; None if there is no host to be read."""
    from valkyr.modules.http_call import host_of

    host = host_of(str(config.get("url", "")))
    return f"http:{host}" if host else None


HTTP_REQUEST: ModuleSpec = spec_of("HttpRequestModule", http_request, target_of=target_of)
