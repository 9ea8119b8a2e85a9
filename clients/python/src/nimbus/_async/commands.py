"""Commands of a sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self, cast

from .._commands import (
    MAX_OUTPUT_BYTES,
    Collected,
    ExecResult,
    Exit,
    Feed,
    Output,
)
from .._operations import Operations
from .._transport import AsyncConnection, AsyncTransport
from ..errors import NimbusApiError, NimbusError


class AsyncCommand:
    """A running command. Loop over it for its output, then `exit` says how it ended; or `wait` for all of it.

    When the connection breaks, it comes back and goes on at the byte where it was: nothing is lost and nothing
    comes twice. The command itself does not notice. In a `with` block it is killed at the end unless it has ended.
    """

    def __init__(self, transport: AsyncTransport, operations: Operations, feed: Feed) -> None:
        self._transport = transport
        self._operations = operations
        self._feed = feed
        self._connection: AsyncConnection | None = None

    @property
    def command_id(self) -> str:
        return self._feed.command_id

    @property
    def exit(self) -> Exit | None:
        """How it ended, once its output was read to the end."""
        return self._feed.exit

    async def __aiter__(self) -> AsyncIterator[Output]:
        while self._feed.exit is None:
            await self._connect()
            connection = cast("AsyncConnection", self._connection)
            try:
                async for line in connection.lines():
                    event = self._feed.take(line)
                    if isinstance(event, Output):
                        yield event
                    if event is not None and self._feed.exit is not None:
                        break
                else:
                    raise self._feed.broken()
            except NimbusError as error:
                await self.detach()
                await self._transport.pause(self._feed.patience(error))
        await self.detach()

    async def wait(self, *, max_output_bytes: int = MAX_OUTPUT_BYTES) -> ExecResult:
        """Reads what is left of its output and answers that with its exit code."""
        collected = Collected(max_output_bytes)
        async for output in self:
            collected.add(output)
        return collected.result(self.command_id, self._feed.exit or Exit(None))

    async def write(self, data: str | bytes) -> None:
        """Sends something to its input, which must be open."""
        await self._input(data, False)

    async def end(self, data: str | bytes = b"") -> None:
        """Ends its input."""
        await self._input(data, True)

    async def signal(self, name: str) -> None:
        """Sends it a signal: `"INT"`, `"TERM"`, `"KILL"`…"""
        await self._transport.run(self._operations.done(self._feed.signal_call(name)))

    async def detach(self) -> None:
        """Stops reading; the command runs on and can be attached to."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._feed.exit is None:
                await self.signal("KILL")
        except NimbusApiError as error:
            # It ended in the meantime.
            if error.status not in (404, 409):
                raise
        finally:
            await self.detach()

    async def _connect(self) -> None:
        """Starts the command, or comes back to it."""
        while self._connection is None:
            try:
                self._connection = await self._transport.open(self._feed.call())
                self._feed.opened()
            except NimbusError as error:
                await self._transport.pause(self._feed.patience(error))

    async def _input(self, data: str | bytes, eof: bool) -> None:
        raw = data.encode() if isinstance(data, str) else data
        await self._transport.run(self._operations.done(self._feed.input_call(raw, eof)))
