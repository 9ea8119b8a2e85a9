"""Files of a sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from .._operations import Operations, file_archive, file_read
from .._transport import AsyncTransport
from ..models import (
    FileEntry,
    decode,
)


class AsyncFiles:
    """The files of a sandbox. Paths are absolute, as the sandbox sees them."""

    def __init__(self, transport: AsyncTransport, operations: Operations, base: str) -> None:
        self._transport = transport
        self._operations = operations
        self._base = base

    async def list(self, directory: str, *, limit: int | None = None) -> AsyncIterator[FileEntry]:
        """What is in a directory, page by page as it is read."""
        token: str | None = None
        while True:
            page = await self._transport.run(self._operations.file_list(self._base, directory, limit, token))
            for entry in page["entries"]:
                yield decode(FileEntry, entry)
            token = page.get("nextPageToken")
            if token is None:
                return

    async def stat(self, file: str) -> FileEntry:
        return await self._transport.run(self._operations.file_stat(self._base, file))

    async def read(self, file: str, *, offset: int = 0, length: int | None = None) -> bytes:
        answer = await self._transport.run(self._operations.whole(file_read(self._base, file, offset, length)))
        return answer.body

    async def read_text(self, file: str) -> str:
        return (await self.read(file)).decode()

    async def stream(self, file: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of a file, as they come."""
        async with await self._transport.open(file_read(self._base, file, offset, length)) as connection:
            async for piece in connection.pieces():
                yield piece

    async def write(
        self,
        file: str,
        content: str | bytes | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        create_parents: bool = False,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> FileEntry:
        """Writes a file whole, or not at all. `if_none_match="*"`: only if there is none yet."""
        data = content.encode() if isinstance(content, str) else content
        return await self._transport.run(
            self._operations.file_write(self._base, file, data, mode, create_parents, if_match, if_none_match)
        )

    async def remove(self, file: str, *, recursive: bool = False) -> None:
        await self._transport.run(self._operations.file_remove(self._base, file, recursive))

    async def mkdir(self, directory: str, *, mode: int | None = None, create_parents: bool = False) -> None:
        """With `create_parents` also the directories above it, and one that is there already is fine."""
        await self._transport.run(self._operations.file_mkdir(self._base, directory, mode, create_parents))

    async def move(self, source: str, target: str, *, replace: bool = False) -> None:
        """With `replace` also onto something that is there."""
        await self._transport.run(self._operations.file_move(self._base, source, target, replace))

    async def archive(self, directory: str) -> AsyncIterator[bytes]:
        """A directory as a tar stream."""
        async with await self._transport.open(file_archive(self._base, directory)) as connection:
            async for piece in connection.pieces():
                yield piece

    async def extract(self, directory: str, tar: bytes | AsyncIterable[bytes]) -> None:
        """Unpacks a tar stream into a directory."""
        await self._transport.run(self._operations.file_extract(self._base, directory, tar))
