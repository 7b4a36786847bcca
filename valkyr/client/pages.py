"""Lists that come in pages: iterate over the items, or take the pages one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`next_page_token` is empty on the last page."""

    items: Sequence[T]
    next_page_token: str


class Pages(Generic[T]):
    """`async for item in pages` asks for one page after the other; nothing is asked before."""

    def __init__(self, fetch: Callable[[str], Awaitable[Page[T]]]) -> None:
        self._fetch = fetch

    async def page(self, token: str = "") -> Page[T]:
        """One page: the first, or the one that `token` (a `next_page_token`) names."""
        return await self._fetch(token)

    async def pages(self) -> AsyncIterator[Page[T]]:
        """Page after page."""
        token = ""
        while True:
            page = await self._fetch(token)
            yield page
            token = page.next_page_token
            if not token:
                return

    async def first(self, count: int) -> Sequence[T]:
        """At most `count` items from the beginning."""
        items: list[T] = []
        if count <= 0:
            return items
        async for item in self:
            items.append(item)
            if len(items) >= count:
                break
        return items

    async def all(self) -> Sequence[T]:
        """Every item; for lists known to be bounded."""
        return [item async for item in self]

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.items:
                yield item
