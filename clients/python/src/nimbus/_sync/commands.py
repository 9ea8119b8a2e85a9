# Made of `_async/` by `python -m nimbus._unasync`: edit that folder.
"""Commands of a sandbox."""

from __future__ import annotations

from collections.abc import Iterator
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
from .._transport import Connection, Transport
from ..errors import NimbusApiError, NimbusError


class Command:
    """A running command. Loop over it for its output, then `exit` says how it ended; or `wait` for all of it.

    When the connection breaks, it comes back and goes on at the byte where it was: nothing is lost and nothing
    comes twice. The command itself does not notice. In a `with` block it is killed at the end unless it has ended.
    """

    def __init__(self, transport: Transport, operations: Operations, feed: Feed) -> None:
        self._transport = transport
        self._operations = operations
        self._feed = feed
        self._connection: Connection | None = None

    @property
    def command_id(self) -> str:
        return self._feed.command_id

    @property
    def exit(self) -> Exit | None:
        """How it ended, once its output was read to the end."""
        return self._feed.exit

    def __iter__(self) -> Iterator[Output]:
        while self._feed.exit is None:
            self._connect()
            connection = cast("Connection", self._connection)
            try:
                for line in connection.lines():
                    event = self._feed.take(line)
                    if isinstance(event, Output):
                        yield event
                    if event is not None and self._feed.exit is not None:
                        break
                else:
                    raise self._feed.broken()
            except NimbusError as error:
                self.detach()
                self._transport.pause(self._feed.patience(error))
        self.detach()

    def wait(self, *, max_output_bytes: int = MAX_OUTPUT_BYTES) -> ExecResult:
        """Reads what is left of its output and answers that with its exit code."""
        collected = Collected(max_output_bytes)
        for output in self:
            collected.add(output)
        return collected.result(self.command_id, self._feed.exit or Exit(None))

    def write(self, data: str | bytes) -> None:
        """Sends something to its input, which must be open."""
        self._input(data, False)

    def end(self, data: str | bytes = b"") -> None:
        """Ends its input."""
        self._input(data, True)

    def signal(self, name: str) -> None:
        """Sends it a signal: `"INT"`, `"TERM"`, `"KILL"`…"""
        self._transport.run(self._operations.done(self._feed.signal_call(name)))

    def detach(self) -> None:
        """Stops reading; the command runs on and can be attached to."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._feed.exit is None:
                self.signal("KILL")
        except NimbusApiError as error:
            # It ended in the meantime.
            if error.status not in (404, 409):
                raise
        finally:
            self.detach()

    def _connect(self) -> None:
        """Starts the command, or comes back to it."""
        while self._connection is None:
            try:
                self._connection = self._transport.open(self._feed.call())
                self._feed.opened()
            except NimbusError as error:
                self._transport.pause(self._feed.patience(error))

    def _input(self, data: str | bytes, eof: bool) -> None:
        raw = data.encode() if isinstance(data, str) else data
        self._transport.run(self._operations.done(self._feed.input_call(raw, eof)))
