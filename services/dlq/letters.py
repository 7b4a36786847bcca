"""Reading dead letters."""

from __future__ import annotations

from services.chassis.example.query import Query
from services.dlq.model import Filters, Letter
from services.dlq.store import FoundLetters, Store
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

    async def find(self, namespace: str, query: Query, filters: Filters) -> FoundLetters:
        """A page and one more, if there is one; without inputs, config and stack traces."""
        return await self._store.find_letters(namespace, query, filters)
