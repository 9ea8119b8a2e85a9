# Made of `_async/` by `python -m nimbus._unasync`: edit that folder.
"""Files of a sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .._operations import Operations, file_archive, file_read
from .._transport import Transport
from ..models import (
    FileEntry,
    decode,
)


class Files:
    """The files of a sandbox. Paths are absolute, as the sandbox sees them."""

    def __init__(self, transport: Transport, operations: Operations, base: str) -> None:
        self._transport = transport
        self._operations = operations
        self._base = base

    def list(self, directory: str, *, limit: int | None = None) -> Iterator[FileEntry]:
        """What is in a directory, page by page as it is read."""
        token: str | None = None
        while True:
            page = self._transport.run(self._operations.file_list(self._base, directory, limit, token))
            for entry in page["entries"]:
                yield decode(FileEntry, entry)
            token = page.get("nextPageToken")
            if token is None:
                return

    def stat(self, file: str) -> FileEntry:
        return self._transport.run(self._operations.file_stat(self._base, file))

    def read(self, file: str, *, offset: int = 0, length: int | None = None) -> bytes:
        answer = self._transport.run(self._operations.whole(file_read(self._base, file, offset, length)))
        return answer.body

    def read_text(self, file: str) -> str:
        return (self.read(file)).decode()

    def stream(self, file: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a file, as they come."""
        with self._transport.open(file_read(self._base, file, offset, length)) as connection:
            for piece in connection.pieces():
                yield piece

    def write(
        self,
        file: str,
        content: str | bytes | Iterable[bytes],
        *,
        mode: int | None = None,
        create_parents: bool = False,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> FileEntry:
        """Writes a file whole, or not at all. `if_none_match="*"`: only if there is none yet."""
        data = content.encode() if isinstance(content, str) else content
        return self._transport.run(
            self._operations.file_write(self._base, file, data, mode, create_parents, if_match, if_none_match)
        )

    def remove(self, file: str, *, recursive: bool = False) -> None:
        self._transport.run(self._operations.file_remove(self._base, file, recursive))

    def mkdir(self, directory: str, *, mode: int | None = None, create_parents: bool = False) -> None:
        """With `create_parents` also the directories above it, and one that is there already is fine."""
        self._transport.run(self._operations.file_mkdir(self._base, directory, mode, create_parents))

    def move(self, source: str, target: str, *, replace: bool = False) -> None:
        """With `replace` also onto something that is there."""
        self._transport.run(self._operations.file_move(self._base, source, target, replace))

    def archive(self, directory: str) -> Iterator[bytes]:
        """A directory as a tar stream."""
        with self._transport.open(file_archive(self._base, directory)) as connection:
            for piece in connection.pieces():
                yield piece

    def extract(self, directory: str, tar: bytes | Iterable[bytes]) -> None:
        """Unpacks a tar stream into a directory."""
        self._transport.run(self._operations.file_extract(self._base, directory, tar))
