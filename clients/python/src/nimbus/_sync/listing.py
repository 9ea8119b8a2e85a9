# Made of `_async/` by `python -m nimbus._unasync`: edit that folder.
"""Lists, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Callable
from typing import Generic, TypeVar

from .._calls import Steps
from .._transport import Transport
from ..models import (
    Page,
)

T = TypeVar("T")


class Listing(Generic[T]):
    """A list: loop over all items, or take one `page`. Nothing is asked before one of the two."""

    def __init__(
        self,
        transport: Transport,
        ask: Callable[[str | None], Steps[Page[T]]],
        token: str | None,
        finish: Callable[[T], T] = lambda item: item,
    ) -> None:
        self._transport = transport
        self._ask = ask
        self._token = token
        self._finish = finish

    def page(self) -> Page[T]:
        return self._page(self._token)

    def __iter__(self) -> Iterator[T]:
        token = self._token
        while True:
            page = self._page(token)
            for item in page.items:
                yield item
            token = page.metadata.next_page_token
            if token is None:
                return

    def _page(self, token: str | None) -> Page[T]:
        page = self._transport.run(self._ask(token))
        return Page(page.metadata, [self._finish(item) for item in page.items])
