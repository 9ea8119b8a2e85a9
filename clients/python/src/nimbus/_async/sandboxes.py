"""Sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self, cast

from .. import specs
from .._calls import Steps
from .._commands import (
    MAX_OUTPUT_BYTES,
    CommandInfo,
    ExecResult,
    Feed,
    Launch,
    frame_of,
    fresh_id,
)
from .._operations import Operations, logs
from .._transport import AsyncTransport
from .._wait import INTERVAL_S, TIMEOUT_S
from ..errors import NimbusApiError
from ..models import (
    LogLine,
    Page,
    PreviewLink,
    SandboxResource,
    decode,
)
from .commands import AsyncCommand
from .files import AsyncFiles
from .listing import AsyncListing

Until = Literal["ready", "healthy", "stopped"]


class AsyncSandboxes:
    """The sandboxes of a tenant: one isolated process each."""

    def __init__(self, transport: AsyncTransport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    async def create(
        self,
        spec: specs.Sandbox,
        *,
        profile: Literal["worker", "desktop"] = "worker",
        labels: Mapping[str, str] | None = None,
        tenant_id: str | None = None,
    ) -> AsyncSandbox:
        """Creates a sandbox and answers while it starts; `wait` for `ready`."""
        return self._bound(
            await self._transport.run(
                self._operations.sandbox_create(AsyncSandbox, spec, profile, labels, tenant_id)
            )
        )

    async def get(self, sandbox_id: str, *, tenant_id: str | None = None) -> AsyncSandbox:
        return self._bound(
            await self._transport.run(self._operations.sandbox_get(AsyncSandbox, sandbox_id, tenant_id))
        )

    def list(
        self,
        *,
        limit: int | None = None,
        page_token: str | None = None,
        status: str | None = None,
        label_key: str | None = None,
        label_value: str | None = None,
        tenant_id: str | None = None,
    ) -> AsyncListing[AsyncSandbox]:
        def ask(token: str | None) -> Steps[Page[AsyncSandbox]]:
            query = {
                "limit": limit,
                "pageToken": token,
                "status": status,
                "labelKey": label_key,
                "labelValue": label_value,
            }
            return self._operations.sandbox_list(AsyncSandbox, query, tenant_id)

        return AsyncListing(self._transport, ask, page_token, self._bound)

    async def stop(self, sandbox_id: str, *, tenant_id: str | None = None) -> AsyncSandbox:
        return self._bound(
            await self._transport.run(self._operations.sandbox_stop(AsyncSandbox, sandbox_id, tenant_id))
        )

    async def extend(
        self,
        sandbox_id: str,
        *,
        ttl: float | None = None,
        idle_timeout: float | None = None,
        tenant_id: str | None = None,
    ) -> AsyncSandbox:
        """Gives it more time, in seconds from now."""
        return self._bound(
            await self._transport.run(
                self._operations.sandbox_extend(AsyncSandbox, sandbox_id, ttl, idle_timeout, tenant_id)
            )
        )

    async def delete(self, sandbox_id: str, *, force: bool = False, tenant_id: str | None = None) -> None:
        """Removes its record, logs and files."""
        await self._transport.run(self._operations.sandbox_delete(sandbox_id, force, tenant_id))

    async def wait(
        self,
        sandbox_id: str,
        until: Until,
        *,
        timeout: float = TIMEOUT_S,
        interval: float = INTERVAL_S,
        tenant_id: str | None = None,
    ) -> AsyncSandbox:
        """Looks until the condition holds."""
        return self._bound(
            await self._transport.run(
                self._operations.sandbox_wait(AsyncSandbox, sandbox_id, until, timeout, interval, tenant_id)
            )
        )

    async def exec(
        self,
        sandbox_id: str,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: str | None = None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        tenant_id: str | None = None,
    ) -> ExecResult:
        """Runs a command to its end. `timeout` is in seconds; then it is killed."""
        feed = self._feed(sandbox_id, tenant_id, None, Launch(argv, cwd, env, timeout, stdin))
        command = AsyncCommand(self._transport, self._operations, feed)
        return await command.wait(max_output_bytes=max_output_bytes)

    async def spawn(
        self,
        sandbox_id: str,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        terminal: tuple[int, int] | None = None,
        command_id: str | None = None,
        tenant_id: str | None = None,
    ) -> AsyncCommand:
        """Starts a command whose output is read as it comes and whose input is open.

        `terminal` gives it one, of so many columns and rows. Spawning an id again attaches to the command that has it.
        """
        launch = Launch(argv, cwd, env, timeout, stdin_open=True, terminal=terminal)
        feed = self._feed(sandbox_id, tenant_id, command_id, launch)
        command = AsyncCommand(self._transport, self._operations, feed)
        await command._connect()
        return command

    def attach(
        self, sandbox_id: str, command_id: str, *, since: int = 0, tenant_id: str | None = None
    ) -> AsyncCommand:
        """Reads a command that runs or ran, from an offset on."""
        feed = self._feed(sandbox_id, tenant_id, command_id, None, since)
        return AsyncCommand(self._transport, self._operations, feed)

    async def commands(self, sandbox_id: str, *, tenant_id: str | None = None) -> Sequence[CommandInfo]:
        """The commands that the sandbox remembers."""
        return await self._transport.run(self._operations.sandbox_commands(sandbox_id, tenant_id))

    def files(self, sandbox_id: str, *, tenant_id: str | None = None) -> AsyncFiles:
        base = f"{self._operations.sandbox_path(sandbox_id, tenant_id)}/files"
        return AsyncFiles(self._transport, self._operations, base)

    async def logs(
        self,
        sandbox_id: str,
        *,
        tail: int | None = None,
        since: str | None = None,
        follow: bool = False,
        tenant_id: str | None = None,
    ) -> AsyncIterator[LogLine]:
        """What the main process wrote; with `follow` also what it will write."""
        call = logs(self._operations.sandbox_path(sandbox_id, tenant_id), tail, since, follow)
        async with await self._transport.open(call) as connection:
            async for line in connection.lines():
                yield decode(LogLine, frame_of(line))

    async def preview(
        self, sandbox_id: str, port: int, *, ttl: float | None = None, tenant_id: str | None = None
    ) -> PreviewLink:
        """Makes a link under which a port can be opened in a browser, for `ttl` seconds."""
        return await self._transport.run(self._operations.sandbox_preview(sandbox_id, port, ttl, tenant_id))

    def _feed(
        self,
        sandbox_id: str,
        tenant_id: str | None,
        command_id: str | None,
        launch: Launch | None,
        since: int = 0,
    ) -> Feed:
        return Feed(self._operations.sandbox_path(sandbox_id, tenant_id), command_id or fresh_id(), launch, since)

    def _bound(self, sandbox: AsyncSandbox) -> AsyncSandbox:
        object.__setattr__(sandbox, "_all", self)
        return sandbox


@dataclass(frozen=True)
class AsyncSandbox(SandboxResource):
    """A sandbox as it was when it was read, and what can be done with it. A `with` block stops it at its end."""

    _all: AsyncSandboxes = field(default=cast("AsyncSandboxes", None), repr=False, compare=False)

    @property
    def files(self) -> AsyncFiles:
        return self._all.files(self.id, tenant_id=self.metadata.tenant_id)

    async def refresh(self) -> AsyncSandbox:
        """The sandbox as it is now."""
        return await self._all.get(self.id, tenant_id=self.metadata.tenant_id)

    async def wait(
        self, until: Until, *, timeout: float = TIMEOUT_S, interval: float = INTERVAL_S
    ) -> AsyncSandbox:
        return await self._all.wait(
            self.id, until, timeout=timeout, interval=interval, tenant_id=self.metadata.tenant_id
        )

    async def exec(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: str | None = None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> ExecResult:
        """Runs a command to its end. `timeout` is in seconds; then it is killed."""
        return await self._all.exec(
            self.id,
            argv,
            cwd=cwd,
            env=env,
            timeout=timeout,
            stdin=stdin,
            max_output_bytes=max_output_bytes,
            tenant_id=self.metadata.tenant_id,
        )

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        terminal: tuple[int, int] | None = None,
        command_id: str | None = None,
    ) -> AsyncCommand:
        """Starts a command whose output is read as it comes and whose input is open."""
        return await self._all.spawn(
            self.id,
            argv,
            cwd=cwd,
            env=env,
            timeout=timeout,
            terminal=terminal,
            command_id=command_id,
            tenant_id=self.metadata.tenant_id,
        )

    def attach(self, command_id: str, *, since: int = 0) -> AsyncCommand:
        return self._all.attach(self.id, command_id, since=since, tenant_id=self.metadata.tenant_id)

    async def commands(self) -> Sequence[CommandInfo]:
        return await self._all.commands(self.id, tenant_id=self.metadata.tenant_id)

    def logs(
        self, *, tail: int | None = None, since: str | None = None, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        return self._all.logs(
            self.id, tail=tail, since=since, follow=follow, tenant_id=self.metadata.tenant_id
        )

    async def preview(self, port: int, *, ttl: float | None = None) -> PreviewLink:
        return await self._all.preview(self.id, port, ttl=ttl, tenant_id=self.metadata.tenant_id)

    async def extend(self, *, ttl: float | None = None, idle_timeout: float | None = None) -> AsyncSandbox:
        return await self._all.extend(
            self.id, ttl=ttl, idle_timeout=idle_timeout, tenant_id=self.metadata.tenant_id
        )

    async def stop(self) -> AsyncSandbox:
        return await self._all.stop(self.id, tenant_id=self.metadata.tenant_id)

    async def delete(self, *, force: bool = False) -> None:
        await self._all.delete(self.id, force=force, tenant_id=self.metadata.tenant_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        except NimbusApiError as error:
            # Somebody removed it inside the block.
            if error.status != 404:
                raise
