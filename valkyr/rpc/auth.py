"""Who calls: the `principal` metadata. Text for audit, not yet a verified identity."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, unquote

from valkyr.errors import InvalidRequest

PRINCIPAL_KEY = "principal"
ANONYMOUS = "anonymous"
MAX_PRINCIPAL_LENGTH = 255

_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def principal_metadata(principal: str | None) -> tuple[tuple[str, str], ...]:
    """Metadata for a call by `principal`; metadata is ASCII, so anything else travels percent-encoded."""
    if not principal:
        return ()
    return ((PRINCIPAL_KEY, quote(_checked(principal), safe=_PLAIN)),)


def principal_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The principal of a call, "anonymous" if it names none. InvalidRequest if it is too long or not printable."""
    for key, value in metadata:
        if key == PRINCIPAL_KEY and value:
            return _checked(unquote(value if isinstance(value, str) else value.decode("utf-8", "replace")))
    return ANONYMOUS


def _checked(principal: str) -> str:
    if len(principal) > MAX_PRINCIPAL_LENGTH:
        raise InvalidRequest.of_field(PRINCIPAL_KEY, f"has {len(principal)} characters; at most {MAX_PRINCIPAL_LENGTH}")
    if not principal.isprintable():
        raise InvalidRequest.of_field(PRINCIPAL_KEY, f"{principal!r} holds characters that cannot be printed")
    return principal
