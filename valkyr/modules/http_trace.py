"""The span of an outgoing HTTP request: where to and what came back. Paths, queries and bodies may hold secrets and
stay out of it. https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span"""

from __future__ import annotations

from contextlib import AbstractContextManager

import httpx

from valkyr.modules.call_trace import ClientSpan, call_span

_PORTS = {"http": 80, "https": 443}


def client_span(method: str, url: httpx.URL) -> AbstractContextManager[ClientSpan]:
    """Below the current span, for one request."""
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": url.scheme,
        "server.address": url.host,
        "server.port": url.port or _PORTS[url.scheme],
    }
    return call_span(f"HTTP {method}", attributes)
