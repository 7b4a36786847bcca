"""Whom calls of graphs trust over TLS. Verification is on, and no graph can turn it off."""

from __future__ import annotations

import ssl
from functools import cache

import certifi


@cache
def trust(ca_file: str | None) -> ssl.SSLContext:
    """For clients, TLS 1.2 or newer; `ca_file` instead of the usual certificates. Cached: reading them takes
    milliseconds."""
    context = ssl.create_default_context(cafile=ca_file or certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
