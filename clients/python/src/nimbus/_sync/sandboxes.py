# Made of `_async/` by `python -m nimbus._unasync`: edit that folder.
"""Sandboxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from .._transport import Transport
from .._wait import INTERVAL_S, TIMEOUT_S
from ..errors import NimbusApiError
from ..models import (
    LogLine,
    Page,
    PreviewLink,
    SandboxResource,
    decode,
)
from .commands import Command
from .files import Files
from .listing import Listing

Until = Literal["ready", "healthy", "stopped"]


class Sandboxes:
    """The sandboxes of a tenant: one isolated process each."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    def create(
        self,
        spec: specs.Sandbox,
        *,
        profile: Literal["worker", "desktop"] = "worker",
        labels: Mapping[str, str] | None = None,
        tenant_id: str | None = None,
    ) -> Sandbox:
        """Creates a sandbox and answers while it starts; `wait` for `ready`."""
        return self._bound(
            self._transport.run(
                self._operations.sandbox_create(Sandbox, spec, profile, labels, tenant_id)
            )
        )

    def get(self, sandbox_id: str, *, tenant_id: str | None = None) -> Sandbox:
        return self._bound(
            self._transport.run(self._operations.sandbox_get(Sandbox, sandbox_id, tenant_id))
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
    ) -> Listing[Sandbox]:
        def ask(token: str | None) -> Steps[Page[Sandbox]]:
            query = {
                "limit": limit,
                "pageToken": token,
                "status": status,
                "labelKey": label_key,
                "labelValue": label_value,
            }
            return self._operations.sandbox_list(Sandbox, query, tenant_id)

        return Listing(self._transport, ask, page_token, self._bound)

    def stop(self, sandbox_id: str, *, tenant_id: str | None = None) -> Sandbox:
        return self._bound(
            self._transport.run(self._operations.sandbox_stop(Sandbox, sandbox_id, tenant_id))
        )

    def extend(
        self,
        sandbox_id: str,
        *,
        ttl: float | None = None,
        idle_timeout: float | None = None,
        tenant_id: str | None = None,
    ) -> Sandbox:
        """Gives it more time, in seconds from now."""
        return self._bound(
            self._transport.run(
                self._operations.sandbox_extend(Sandbox, sandbox_id, ttl, idle_timeout, tenant_id)
            )
        )

    def delete(self, sandbox_id: str, *, force: bool = False, tenant_id: str | None = None) -> None:
        """Removes its record, logs and files."""
        self._transport.run(self._operations.sandbox_delete(sandbox_id, force, tenant_id))

    def wait(
        self,
        sandbox_id: str,
        until: Until,
        *,
        timeout: float = TIMEOUT_S,
        interval: float = INTERVAL_S,
        tenant_id: str | None = None,
    ) -> Sandbox:
        """Looks until the condition holds."""
        return self._bound(
            self._transport.run(
                self._operations.sandbox_wait(Sandbox, sandbox_id, until, timeout, interval, tenant_id)
            )
        )

    def exec(
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
        command = Command(self._transport, self._operations, feed)
        return command.wait(max_output_bytes=max_output_bytes)

    def spawn(
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
    ) -> Command:
        """Starts a command whose output is read as it comes and whose input is open.

        `terminal` gives it one, of so many columns and rows. Spawning an id again attaches to the command that has it.
        """
        launch = Launch(argv, cwd, env, timeout, stdin_open=True, terminal=terminal)
        feed = self._feed(sandbox_id, tenant_id, command_id, launch)
        command = Command(self._transport, self._operations, feed)
        command._connect()
        return command

    def attach(
        self, sandbox_id: str, command_id: str, *, since: int = 0, tenant_id: str | None = None
    ) -> Command:
        """Reads a command that runs or ran, from an offset on."""
        feed = self._feed(sandbox_id, tenant_id, command_id, None, since)
        return Command(self._transport, self._operations, feed)

    def commands(self, sandbox_id: str, *, tenant_id: str | None = None) -> Sequence[CommandInfo]:
        """The commands that the sandbox remembers."""
        return self._transport.run(self._operations.sandbox_commands(sandbox_id, tenant_id))

    def files(self, sandbox_id: str, *, tenant_id: str | None = None) -> Files:
        base = f"{self._operations.sandbox_path(sandbox_id, tenant_id)}/files"
        return Files(self._transport, self._operations, base)

    def logs(
        self,
        sandbox_id: str,
        *,
        tail: int | None = None,
        since: str | None = None,
        follow: bool = False,
        tenant_id: str | None = None,
    ) -> Iterator[LogLine]:
        """What the main process wrote; with `follow` also what it will write."""
        call = logs(self._operations.sandbox_path(sandbox_id, tenant_id), tail, since, follow)
        with self._transport.open(call) as connection:
            for line in connection.lines():
                yield decode(LogLine, frame_of(line))

    def preview(
        self, sandbox_id: str, port: int, *, ttl: float | None = None, tenant_id: str | None = None
    ) -> PreviewLink:
        """Makes a link under which a port can be opened in a browser, for `ttl` seconds."""
        return self._transport.run(self._operations.sandbox_preview(sandbox_id, port, ttl, tenant_id))

    def _feed(
        self,
        sandbox_id: str,
        tenant_id: str | None,
        command_id: str | None,
        launch: Launch | None,
        since: int = 0,
    ) -> Feed:
        return Feed(self._operations.sandbox_path(sandbox_id, tenant_id), command_id or fresh_id(), launch, since)

    def _bound(self, sandbox: Sandbox) -> Sandbox:
        object.__setattr__(sandbox, "_all", self)
        return sandbox


@dataclass(frozen=True)
class Sandbox(SandboxResource):
    """A sandbox as it was when it was read, and what can be done with it. A `with` block stops it at its end."""

    _all: Sandboxes = field(default=cast("Sandboxes", None), repr=False, compare=False)

    @property
    def files(self) -> Files:
        return self._all.files(self.id, tenant_id=self.metadata.tenant_id)

    def refresh(self) -> Sandbox:
        """The sandbox as it is now."""
        return self._all.get(self.id, tenant_id=self.metadata.tenant_id)

    def wait(
        self, until: Until, *, timeout: float = TIMEOUT_S, interval: float = INTERVAL_S
    ) -> Sandbox:
        return self._all.wait(
            self.id, until, timeout=timeout, interval=interval, tenant_id=self.metadata.tenant_id
        )

    def exec(
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
        return self._all.exec(
            self.id,
            argv,
            cwd=cwd,
            env=env,
            timeout=timeout,
            stdin=stdin,
            max_output_bytes=max_output_bytes,
            tenant_id=self.metadata.tenant_id,
        )

    def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        terminal: tuple[int, int] | None = None,
        command_id: str | None = None,
    ) -> Command:
        """Starts a command whose output is read as it comes and whose input is open."""
        return self._all.spawn(
            self.id,
            argv,
            cwd=cwd,
            env=env,
            timeout=timeout,
            terminal=terminal,
            command_id=command_id,
            tenant_id=self.metadata.tenant_id,
        )

    def attach(self, command_id: str, *, since: int = 0) -> Command:
        return self._all.attach(self.id, command_id, since=since, tenant_id=self.metadata.tenant_id)

    def commands(self) -> Sequence[CommandInfo]:
        return self._all.commands(self.id, tenant_id=self.metadata.tenant_id)

    def logs(
        self, *, tail: int | None = None, since: str | None = None, follow: bool = False
    ) -> Iterator[LogLine]:
        return self._all.logs(
            self.id, tail=tail, since=since, follow=follow, tenant_id=self.metadata.tenant_id
        )

    def preview(self, port: int, *, ttl: float | None = None) -> PreviewLink:
        return self._all.preview(self.id, port, ttl=ttl, tenant_id=self.metadata.tenant_id)

    def extend(self, *, ttl: float | None = None, idle_timeout: float | None = None) -> Sandbox:
        return self._all.extend(
            self.id, ttl=ttl, idle_timeout=idle_timeout, tenant_id=self.metadata.tenant_id
        )

    def stop(self) -> Sandbox:
        return self._all.stop(self.id, tenant_id=self.metadata.tenant_id)

    def delete(self, *, force: bool = False) -> None:
        self._all.delete(self.id, force=force, tenant_id=self.metadata.tenant_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except NimbusApiError as error:
            # Somebody removed it inside the block.
            if error.status != 404:
                raise
