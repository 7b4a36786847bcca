"""Reading dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.dlq.model import Letter
from services.dlq.store import Store
from valkyr.errors import DeadLetterNotFound


class Letters:
    """The use cases of GetDeadLetter and ListDeadLetters."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, namespace: str, letter_id: str) -> Letter:
        """DeadLetterNotFound."""
        async with self._store.transaction() as tx:
            letter = await tx.find_letter(namespace, letter_id)
        if letter is None:
            raise DeadLetterNotFound(
                f"there is no dead letter {letter_id} in this namespace", hint="ListDeadLetters lists what there is"
            )
        return letter

    async def list_letters(
        self, namespace: str, filters: dict[str, Any], *, after: tuple[datetime, str] | None, limit: int
    ) -> list[Letter]:
        """Newest first, without inputs, config and stack traces. `filters`: a column's value, or a list of them."""
        async with self._store.transaction() as tx:
            return await tx.list_letters(namespace, filters, after=after, limit=limit)
