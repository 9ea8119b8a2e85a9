# Made of `_async/` by `python -m nimbus._unasync`: edit that folder.
"""Sessions and their channels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, cast

from .. import specs
from .._calls import Call, Steps, path
from .._commands import (
    Output,
    carried,
    frame_of,
    fresh_id,
    payload,
)
from .._operations import Operations
from .._transport import Connection, Transport
from ..errors import NimbusApiError, NimbusTransportError, api_error
from ..models import (
    Page,
    SessionResource,
)
from .files import Files
from .listing import Listing


class Stdio:
    """Input and output of a process, attached by a session. Loop over it for its output."""

    def __init__(
        self, transport: Transport, operations: Operations, channel: str, command: str | None, call: Call
    ) -> None:
        self._transport = transport
        self._operations = operations
        self._channel = channel
        self._command = command
        self._call = call
        self._connection: Connection | None = None
        # Bytes sent to a process of our own, which makes a repeat harmless; others may write to the rest, too.
        self._sent = 0 if call.query.get("argv") and call.query.get("from") is None else None
        #: Exit code of the process, when it ended.
        self.exit_code: int | None = None
        #: Why the channel closed: `exit`, `expired`, `client_close`, `target_stopped`…
        self.reason: str | None = None

    def open(self) -> None:
        self._connection = self._transport.open(self._call)

    def __iter__(self) -> Iterator[Output]:
        offset = 0
        connection = cast("Connection", self._connection)
        for line in connection.lines():
            frame = frame_of(line)
            match frame.get("kind"):
                case "stdout" | "stderr" as stream:
                    data = payload(frame)
                    yield Output(stream, data, data.decode("utf-8", "replace"), offset)
                    offset += len(data)
                case "exit":
                    self.exit_code = frame.get("code")
                    self.reason = "exit"
                case "error":
                    raise api_error(frame, status=0)
                case "closed":
                    self.reason = self.reason or frame.get("reason")
                    return
        if self.reason is None:
            raise NimbusTransportError("the connection of the stdio channel broke")

    def write(self, data: str | bytes) -> None:
        raw = data.encode() if isinstance(data, str) else data
        offset = self._sent
        if offset is not None:
            self._sent = offset + len(raw)
        self._post({"offset": offset, **carried(raw)}, repeatable=offset is not None)

    def end(self) -> None:
        """Ends the input. A process that has ended has none, and that is just as well."""
        try:
            self._post({"offset": self._sent, "data": "", "eof": True})
        except NimbusApiError as error:
            if error.status not in (404, 409):
                raise

    def resize(self, cols: int, rows: int) -> None:
        self._post({"data": "", "resize": {"cols": cols, "rows": rows}})

    def signal(self, name: str) -> None:
        self._post({"data": "", "signal": name})

    def close(self) -> None:
        """Detaches. A main process runs on."""
        if self._connection is not None:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, body: Mapping[str, Any], *, repeatable: bool = False) -> None:
        route = f"{self._channel}/input"
        call = Call("POST", route, {"command": self._command}, json=body, repeatable=repeatable)
        self._transport.run(self._operations.done(call))


class Sessions:
    """The sessions of a tenant: leases on what runs, with channels to talk to it."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    def open(
        self,
        target: specs.Target,
        channels: Sequence[specs.Channel],
        *,
        ttl: float | None = None,
        tenant_id: str | None = None,
    ) -> Session:
        """`ttl` in seconds: 15 minutes unless given, an hour at most."""
        return self._bound(
            self._transport.run(
                self._operations.session_open(Session, target, channels, ttl, tenant_id)
            )
        )

    def get(self, session_id: str, *, tenant_id: str | None = None) -> Session:
        return self._bound(
            self._transport.run(self._operations.session_get(Session, session_id, tenant_id))
        )

    def list(
        self,
        *,
        limit: int | None = None,
        page_token: str | None = None,
        state: Literal["open", "closed", "expired"] | None = None,
        tenant_id: str | None = None,
    ) -> Listing[Session]:
        def ask(token: str | None) -> Steps[Page[Session]]:
            query = {"limit": limit, "pageToken": token, "state": state}
            return self._operations.session_list(Session, query, tenant_id)

        return Listing(self._transport, ask, page_token, self._bound)

    def close(
        self, session_id: str, *, reason: str | None = None, tenant_id: str | None = None
    ) -> Session:
        """Ends a session. Closing it twice changes nothing."""
        return self._bound(
            self._transport.run(
                self._operations.session_close(Session, session_id, reason, tenant_id)
            )
        )

    def stdio(
        self,
        session_id: str,
        *,
        argv: Sequence[str] | None = None,
        terminal: tuple[int, int] | None = None,
        command_id: str | None = None,
        since: int | None = None,
    ) -> Stdio:
        """Attaches to the main process, or runs `argv` for the attachment; `terminal` is columns and rows.

        With `command_id` alone it attaches to that command, from the offset `since` on.
        """
        channel = f"{path('api', 'sessions', session_id)}/channels/stdio"
        cols, rows = terminal or (None, None)
        # Input finds a process of our own by its id.
        command = command_id or (None if argv is None else fresh_id())
        query = {
            "argv": None if argv is None else json.dumps(list(argv)),
            "tty": None if terminal is None else 1,
            "cols": cols,
            "rows": rows,
            "command": command,
            "from": since,
        }
        call = Call("GET", f"{channel}/stream", query, headers={"accept": "application/x-ndjson"})
        stdio = Stdio(self._transport, self._operations, channel, command, call)
        stdio.open()
        return stdio

    def files(self, session_id: str) -> Files:
        """The files of the target, through the session's `files` channel."""
        base = f"{path('api', 'sessions', session_id)}/channels/files"
        return Files(self._transport, self._operations, base)

    def _bound(self, session: Session) -> Session:
        object.__setattr__(session, "_all", self)
        return session


@dataclass(frozen=True)
class Session(SessionResource):
    """A session as it was when it was read, and what can be done with it. A `with` block closes it at its end."""

    _all: Sessions = field(default=cast("Sessions", None), repr=False, compare=False)

    @property
    def files(self) -> Files:
        return self._all.files(self.id)

    def refresh(self) -> Session:
        """The session as it is now."""
        return self._all.get(self.id, tenant_id=self.metadata.tenant_id)

    def stdio(
        self,
        *,
        argv: Sequence[str] | None = None,
        terminal: tuple[int, int] | None = None,
        command_id: str | None = None,
        since: int | None = None,
    ) -> Stdio:
        return self._all.stdio(
            self.id, argv=argv, terminal=terminal, command_id=command_id, since=since
        )

    def close(self, *, reason: str | None = None) -> Session:
        return self._all.close(self.id, reason=reason, tenant_id=self.metadata.tenant_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except NimbusApiError as error:
            # The tenant was deleted inside the block.
            if error.status != 404:
                raise
