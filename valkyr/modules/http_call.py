"""The call of HttpRequestModule.

Failures: no connection, a broken one, 5xx, 408 and 425 are TRANSIENT; 429 is RATE_LIMITED with its Retry-After; no
answer in time is TIMEOUT; every other status that was not expected, and every refusal, is PERMANENT.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from valkyr.module import Context, PermanentError, RetryLater
from valkyr.modules.http_exchange import Response, exchange
from valkyr.modules.http_request import HttpRequestConfig
from valkyr.modules.http_rules import HttpRules
from valkyr.modules.http_trace import client_span

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT_STATUSES = frozenset({408, 425})
_MAX_RETRY_AFTER = timedelta(days=1)
# All that another host may see after a redirect: any header of the author's may be a credential.
_HARMLESS_HEADERS = frozenset(
    {"accept", "accept-encoding", "accept-language", "content-type", "idempotency-key", "traceparent", "user-agent"}
)
_DEFAULT_RULES = HttpRules()


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: httpx.URL
    headers: tuple[tuple[str, str], ...]
    body: bytes | None


async def call(context: Context, config: HttpRequestConfig) -> dict[str, Any]:
    """Its outputs. Raises what fails the attempt, as above."""
    rules: HttpRules = context.settings.get("http", _DEFAULT_RULES)
    timeout = min(config.timeout or rules.default_timeout, rules.max_timeout)
    request = _first_request(context, config, rules)
    try:
        async with asyncio.timeout(timeout.total_seconds()) as timer:
            request, response = await _follow(request, frozenset(config.expect), rules)
    except TimeoutError:
        if not timer.expired():
            raise
        raise TimeoutError(f"{_shown(request.url)} did not answer within {timeout.total_seconds():g} s") from None
    _check_status(response, request.url, config.expect)
    return _outputs(response, request.url)


def host_of(url: str) -> str | None:
    """In lower case, without a dot at the end; None if there is none to be read."""
    try:
        host = httpx.URL(url).raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        return None
    return host.lower().rstrip(".") or None


async def _follow(request: _Request, expect: frozenset[int], rules: HttpRules) -> tuple[_Request, Response]:
    for _ in range(rules.max_redirects + 1):
        response = await _send(request, expect, rules)
        location = response.header("location")
        if response.status not in _REDIRECTS or response.status in expect or location is None:
            return request, response
        request = _redirected(request, response.status, location, rules)
    raise PermanentError(f"{_shown(request.url)}: more than {rules.max_redirects} redirects")


async def _send(request: _Request, expect: frozenset[int], rules: HttpRules) -> Response:
    """One request under a span of its own, which the target hears of unless the author names another."""
    with client_span(request.method, request.url) as span:
        headers = list(request.headers)
        if span.traceparent and all(name.lower() != "traceparent" for name, _ in headers):
            headers.append(("traceparent", span.traceparent))
        response = await exchange(request.method, request.url, headers, request.body, rules=rules)
        failed = response.status >= 400 and response.status not in expect
        span.answered("http.response.status_code", response.status, failed=failed)
    return response


def _first_request(context: Context, config: HttpRequestConfig, rules: HttpRules) -> _Request:
    url = rules.check_url(config.url)
    if config.query:
        url = rules.check_url(str(url.copy_merge_params(config.query)))
    given = {name.lower() for name in config.headers}
    headers = list(config.headers.items())
    body = None
    if config.body is not None:
        is_text = isinstance(config.body, str)
        body = config.body.encode() if is_text else orjson.dumps(config.body)
        if "content-type" not in given:
            headers.append(("Content-Type", "text/plain; charset=utf-8" if is_text else "application/json"))
    defaults = {
        "Accept": "application/json, */*;q=0.5",
        "Accept-Encoding": "gzip, deflate",
        "User-Agent": "valkyr",
        "Idempotency-Key": context.idempotency_key,
    }
    headers += [(name, value) for name, value in defaults.items() if value and name.lower() not in given]
    if body is not None or config.method in ("POST", "PUT", "PATCH"):
        headers.append(("Content-Length", str(len(body or b""))))
    return _Request(config.method, url, tuple(headers), body)


def _redirected(request: _Request, status: int, location: str, rules: HttpRules) -> _Request:
    """The next request: checked like the first; another origin sees no header that could be a credential."""
    try:
        joined = request.url.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise PermanentError(f"{_shown(request.url)} redirects to what is no URL: {error}") from None
    url = rules.check_url(str(joined))
    if (url.scheme, url.host, url.port) != (request.url.scheme, request.url.host, request.url.port):
        kept = _HARMLESS_HEADERS | {"content-length"}
        request = replace(request, headers=tuple(item for item in request.headers if item[0].lower() in kept))
    becomes_get = status == 303 and request.method != "HEAD"
    if becomes_get or (status in (301, 302) and request.method == "POST"):
        headers = tuple(item for item in request.headers if not item[0].lower().startswith("content-"))
        return _Request("GET", url, headers, None)
    return replace(request, url=url)


def _check_status(response: Response, url: httpx.URL, expect: list[int]) -> None:
    status = response.status
    if status in expect or (not expect and 200 <= status < 300):
        return
    message = f"{_shown(url)} answered {status}"
    if status == 429:
        raise RetryLater(message, after=_retry_after(response.header("retry-after")))
    if status >= 500 or status in _TRANSIENT_STATUSES:
        raise ConnectionError(message)
    raise PermanentError(f"{message}, expected {', '.join(map(str, expect)) or '200 to 299'}")


def _retry_after(value: str | None) -> timedelta | None:
    """Seconds or a date, at most a day; None if it is neither. https://www.rfc-editor.org/rfc/rfc9110#name-retry-after"""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return min(timedelta(seconds=int(value)), _MAX_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the latter for a zone of many digits
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max(when - datetime.now(UTC), timedelta(0)), _MAX_RETRY_AFTER)


def _outputs(response: Response, url: httpx.URL) -> dict[str, Any]:
    headers: dict[str, str] = {}
    for name, value in response.headers:
        if name != "set-cookie":
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    outputs: dict[str, Any] = {"status": response.status, "headers": headers, "url": _shown(url)}
    content_type, _, parameters = headers.get("content-type", "").lower().partition(";")
    return outputs | _body(response.body, content_type.strip(), parameters)


def _body(body: bytes, content_type: str, parameters: str) -> dict[str, Any]:
    if not body:
        return {"body": None}
    if content_type == "application/json" or content_type.endswith("+json"):
        try:
            return {"body": orjson.loads(body)}
        except orjson.JSONDecodeError:
            pass  # a text that only claims to be JSON is still worth having
    charset = re.search(r"charset=\"?([a-z0-9_.:-]+)", parameters)
    try:
        text = body.decode(charset.group(1) if charset else "utf-8")
    except (UnicodeDecodeError, LookupError):
        text = "\0"
    return {"body": None, "body_base64": base64.b64encode(body).decode()} if "\0" in text else {"body": text}


def _shown(url: httpx.URL) -> str:
    """Without the query, which may hold secrets."""
    return str(url.copy_with(query=None, fragment=None))
