"""What PostgreSQL and its drivers raise -> what a caller is told; the unknown passes and becomes INTERNAL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from valkyr.errors import Conflict, InvalidRequest, Overloaded, Unavailable, ValkyrError

SERIALIZATION_FAILURES = frozenset({"40001", "40P01"})


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: type[ValkyrError]
    message: str
    retry_after: timedelta | None = timedelta(seconds=1)


_AWAY = _Meaning(Unavailable, "the database is not available")
_SLOW = _Meaning(Overloaded, "the database took too long")
_FULL = _Meaning(
    Unavailable, "the disk of the database is full: nothing was saved; free some space there", timedelta(seconds=5)
)
_SHORT = _Meaning(Unavailable, "the database has run out of memory or of another resource", timedelta(seconds=5))
_BUSY = _Meaning(Unavailable, "the database has no connection to spare", timedelta(seconds=2))
_RACED = _Meaning(Conflict, "others changed the same rows again and again", timedelta(milliseconds=100))
_UNSTORABLE = _Meaning(InvalidRequest, "a text holds a character that cannot be stored, such as NUL (\\u0000)", None)
_TOO_LARGE = _Meaning(InvalidRequest, "a value is too long or too large to be stored", None)
_MEANINGS: Mapping[str, _Meaning] = {
    "08": _AWAY,
    "57P": _AWAY,
    "25006": _Meaning(Unavailable, "the database takes no writes just now"),
    "25P03": _SLOW,
    "25P04": _SLOW,
    "57014": _SLOW,
    "55P03": _Meaning(Overloaded, "others hold the rows for too long"),
    "53300": _BUSY,
    "53": _SHORT,
    "53100": _FULL,
    "58030": _Meaning(Unavailable, "the database cannot read or write its disk", timedelta(seconds=5)),
    "40": _RACED,
    "22": _TOO_LARGE,
    "22021": _UNSTORABLE,
    "22P05": _UNSTORABLE,
}
"""By SQLSTATE, the longest prefix that fits."""
_LOST = ("closed", "closing", "released back to the pool")
"""asyncpg says the loss of a connection with the class that it has for mistakes; only the words differ. One that the
server has cut just then is lost in the midst of the protocol: InternalClientError."""


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE of a driver's exception, also where SQLAlchemy wrapped it."""
    driver = _driver_error(error)
    return driver.sqlstate if isinstance(driver, asyncpg.PostgresError) else None


@contextmanager
def translated() -> Iterator[None]:
    """Within it the driver's exceptions become a ValkyrError: Unavailable or Overloaded with `retry_after`, Conflict.
    Violated constraints and mistakes in SQL pass as they are."""
    try:
        yield
    except ValkyrError:
        raise
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        raise told from error


def is_refusal(error: BaseException) -> bool:
    """Whether PostgreSQL would say the same again: a wrong password, no such database, a right that is missing."""
    driver = _driver_error(error)
    if isinstance(driver, asyncpg.ClientConfigurationError):
        return True
    return isinstance(driver, asyncpg.PostgresError) and _meaning(driver) is None


def was_rolled_back(error: BaseException) -> bool:
    """Whether PostgreSQL said that it has not done what it was asked. If the session ended or fell silent, it may."""
    return isinstance(error, asyncpg.PostgresError) and error.severity_en == "ERROR"


def is_outage(error: BaseException) -> bool:
    """Whether it may be otherwise later: PostgreSQL is away, full, or busy."""
    meaning = _meaning(_driver_error(error))
    return meaning is not None and issubclass(meaning.kind, Unavailable | Overloaded)


def explained(error: BaseException) -> str:
    """What PostgreSQL or the way to it objects to, in one plain line for whoever starts a service."""
    driver = _driver_error(error)
    if isinstance(driver, TimeoutError):
        return "PostgreSQL does not answer in time"
    if isinstance(driver, OSError):
        known = driver.errno is not None and driver.errno > 0
        reason = os.strerror(driver.errno or 0) if known else driver.strerror or str(driver)
        return f"PostgreSQL cannot be reached ({reason[:1].lower()}{reason[1:]})"
    return f"PostgreSQL says: {str(driver).partition(chr(10))[0]}"


def _told(error: Exception) -> ValkyrError | None:
    driver = _driver_error(error)
    meaning = _meaning(driver)
    return None if meaning is None else meaning.kind(meaning.message, retry_after=meaning.retry_after)


def _meaning(error: BaseException) -> _Meaning | None:
    if isinstance(error, UnicodeEncodeError) or isinstance(error.__cause__, UnicodeEncodeError):
        return _UNSTORABLE
    if isinstance(error, asyncpg.DataError) and isinstance(error.__cause__, TypeError):
        return None  # the driver was given a value of another type than the column's: a mistake of ours
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return next((_MEANINGS[state[:size]] for size in (5, 3, 2) if state[:size] in _MEANINGS), None)
    if isinstance(error, asyncio.TimeoutError | OSError | asyncpg.InternalClientError):
        return _AWAY
    if isinstance(error, asyncpg.InterfaceError) and any(words in str(error) for words in _LOST):
        return _AWAY
    return None


def _driver_error(error: BaseException) -> BaseException:
    """SQLAlchemy wraps its adapter's exception, which has the driver's as its cause. Known by its shape: not every
    room loads SQLAlchemy."""
    adapted = getattr(error, "orig", None)
    return adapted.__cause__ or adapted if isinstance(adapted, BaseException) else error
