"""Where HTTP requests of graphs may go: which URLs, beside which hosts and addresses (reach.py)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from valkyr.module import PermanentError
from valkyr.modules.reach import Reach, check_host

if TYPE_CHECKING:
    import httpx

MAX_URL = 8192

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class HttpRules(Reach):
    """What an operator sets for HttpRequestModule. `ca_file`: PEM certificates to trust instead of the usual ones."""

    max_response_bytes: int = 1_000_000
    max_header_bytes: int = 32_768
    max_redirects: int = 3
    default_timeout: timedelta = timedelta(seconds=30)
    max_timeout: timedelta = timedelta(minutes=5)
    ca_file: str | None = None

    def check_url(self, text: str) -> httpx.URL:
        """The URL, taken apart. PermanentError if its form or its scheme is refused; no name is resolved here."""
        import httpx  # by the first request: the rules are part of every executor's settings

        if len(text) > MAX_URL:
            raise PermanentError(f"the URL has {len(text)} characters, and {MAX_URL} are allowed")
        if _UNPRINTABLE.search(text):
            raise PermanentError("the URL contains blanks, backslashes or control characters: percent-encode them")
        try:
            url = httpx.URL(text)
        except (httpx.InvalidURL, ValueError) as error:
            raise PermanentError(f"{_shown(text)} is no URL: {error}") from None
        if url.scheme not in ("http", "https"):
            raise PermanentError(f"{_shown(text)}: only https URLs are requested, not {url.scheme or 'relative'} ones")
        if url.userinfo:
            raise PermanentError("the URL contains a user name or password: use a header instead")
        if url.port is not None and not 0 < url.port < 65536:
            raise PermanentError(f"{_shown(str(url))}: there is no port {url.port}")
        host = url.raw_host.decode("ascii", "replace")
        if not host.removesuffix("."):
            raise PermanentError(f"{_shown(str(url))} names no host")
        check_host(host)
        if url.scheme == "http" and not self.is_named(host, _port(url)):
            advice = f"use https, or have the operator add {host!r} to allow-hosts"
            raise PermanentError(f"{_shown(str(url))}: plain http is refused; {advice}")
        return url


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _shown(text: str) -> str:
    """Without the query, which may hold secrets."""
    return repr(text.partition("?")[0][:200])
