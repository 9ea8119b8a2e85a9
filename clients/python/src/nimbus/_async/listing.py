"""Lists, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from .._calls import Steps
from .._transport import AsyncTransport
from ..models import (
    Page,
)

T = TypeVar("T")


class AsyncListing(Generic[T]):
    """A list: loop over all items, or take one `page`. Nothing is asked before one of the two."""

    def __init__(
        self,
        transport: AsyncTransport,
        ask: Callable[[str | None], Steps[Page[T]]],
        token: str | None,
        finish: Callable[[T], T] = lambda item: item,
    ) -> None:
        self._transport = transport
        self._ask = ask
        self._token = token
        self._finish = finish

    async def page(self) -> Page[T]:
        return await self._page(self._token)

    async def __aiter__(self) -> AsyncIterator[T]:
        token = self._token
        while True:
            page = await self._page(token)
            for item in page.items:
                yield item
            token = page.metadata.next_page_token
            if token is None:
                return

    async def _page(self, token: str | None) -> Page[T]:
        page = await self._transport.run(self._ask(token))
        return Page(page.metadata, [self._finish(item) for item in page.items])
