"""The blocking client. Made of `_async.py` by `python -m nimbus._unasync`: edit that file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, cast

import httpx

from . import specs
from ._calls import Call, Steps, path
from ._commands import (
    MAX_OUTPUT_BYTES,
    Collected,
    CommandInfo,
    ExecResult,
    Exit,
    Feed,
    Launch,
    Output,
    carried,
    frame_of,
    fresh_id,
    payload,
)
from ._operations import Operations, file_archive, file_read, logs
from ._transport import Connection, Transport
from ._wait import INTERVAL_S, TIMEOUT_S
from .discovery import Credential
from .errors import NimbusApiError, NimbusError, NimbusTransportError, api_error
from .models import (
    FileEntry,
    LogLine,
    Page,
    PreviewLink,
    SandboxResource,
    Secret,
    Service,
    SessionResource,
    Tenant,
    Volume,
    decode,
)

T = TypeVar("T")

Activation = Literal["ready", "healthy"]
Until = Literal["ready", "healthy", "stopped"]


class Nimbus:
    """A client of a Nimbus server.

    What is left out is looked for in the environment and in the credential file, with the first request.
    Use it in a `with` block, or close it.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        tenant_id: str | None = None,
        token: str | None = None,
        api_key: str | None = None,
        credential: Credential | None = None,
        headers: Mapping[str, str] | None = None,
        max_retries: int | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self.tenant_id = tenant_id
        self._transport = Transport(
            http,
            endpoint=endpoint,
            token=token,
            api_key=api_key,
            credential=credential,
            headers=headers,
            max_retries=max_retries,
        )
        operations = Operations(tenant_id, self._transport.max_retries)
        self.tenants = Tenants(self._transport, operations)
        self.services = Services(self._transport, operations)
        self.sandboxes = Sandboxes(self._transport, operations)
        self.sessions = Sessions(self._transport, operations)
        self.secrets = Secrets(self._transport, operations)
        self.volumes = Volumes(self._transport, operations)

    @classmethod
    def default_client(cls, **options: Any) -> Self:
        """A client whose endpoint and credential have been found already; raises when one is missing."""
        client = cls(**options)
        client._transport.target()
        return client

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


class Tenants:
    """The tenants that the caller may reach."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    def create(self, tenant_id: str) -> Tenant:
        return self._transport.run(self._operations.tenant_create(tenant_id))

    def get(self, tenant_id: str) -> Tenant:
        return self._transport.run(self._operations.tenant_get(tenant_id))

    def delete(self, tenant_id: str) -> None:
        """Removes a tenant with everything in it."""
        self._transport.run(self._operations.tenant_delete(tenant_id))

    def ids(self) -> Sequence[str]:
        """All of them, sorted."""
        return self._transport.run(self._operations.tenant_list())


class Secrets:
    """The secrets of a tenant. Sandboxes name them in `process.secrets`; a value is never given back."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    def all(self, *, tenant_id: str | None = None) -> Sequence[Secret]:
        return self._transport.run(self._operations.named_list(Secret, "secrets", tenant_id))

    def put(self, name: str, value: str, *, tenant_id: str | None = None) -> Secret:
        """Sandboxes that are created from now on get this value."""
        return self._transport.run(
            self._operations.named_put(Secret, "secrets", name, {"value": value}, tenant_id)
        )

    def delete(self, name: str, *, tenant_id: str | None = None) -> None:
        self._transport.run(self._operations.named_delete("secrets", name, tenant_id))


class Volumes:
    """The volumes of a tenant: storage that outlives sandboxes, which name them in `mounts`."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    def all(self, *, tenant_id: str | None = None) -> Sequence[Volume]:
        return self._transport.run(self._operations.named_list(Volume, "volumes", tenant_id))

    def ensure(self, name: str, *, tenant_id: str | None = None) -> Volume:
        """Makes a volume, or answers the one of that name."""
        return self._transport.run(self._operations.named_put(Volume, "volumes", name, None, tenant_id))

    def delete(self, name: str, *, tenant_id: str | None = None) -> None:
        """Removes it with its data; refused while a sandbox mounts it."""
        self._transport.run(self._operations.named_delete("volumes", name, tenant_id))


class Services:
    """The services of a tenant: stable names for what runs behind them."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations

    def create(
        self,
        name: str,
        backend: specs.ServiceBackend,
        *,
        labels: Mapping[str, str] | None = None,
        tenant_id: str | None = None,
    ) -> Service:
        """Defines a service; nothing is started."""
        return self._transport.run(self._operations.service_create(name, backend, labels, tenant_id))

    def get(self, name: str, *, tenant_id: str | None = None) -> Service:
        return self._transport.run(self._operations.service_get(name, tenant_id))

    def list(
        self,
        *,
        limit: int | None = None,
        page_token: str | None = None,
        label_key: str | None = None,
        label_value: str | None = None,
        tenant_id: str | None = None,
    ) -> Listing[Service]:
        def ask(token: str | None) -> Steps[Page[Service]]:
            query = {"limit": limit, "pageToken": token, "labelKey": label_key, "labelValue": label_value}
            return self._operations.service_list(query, tenant_id)

        return Listing(self._transport, ask, page_token)

    def update(
        self,
        name: str,
        backend: specs.ServiceBackend,
        *,
        if_match_generation: int,
        labels: Mapping[str, str] | None = None,
        tenant_id: str | None = None,
    ) -> Service:
        """Replaces the backend if the generation is still the one given. Without `labels` the labels stay."""
        return self._transport.run(
            self._operations.service_update(name, backend, if_match_generation, labels, tenant_id)
        )

    def delete(
        self, name: str, *, if_match_generation: int, force: bool = False, tenant_id: str | None = None
    ) -> None:
        """Removes the definition if the generation is still the one given."""
        self._transport.run(self._operations.service_delete(name, if_match_generation, force, tenant_id))

    def start(
        self,
        name: str,
        *,
        wait_until: Activation | None = None,
        timeout: float = TIMEOUT_S,
        interval: float = INTERVAL_S,
        tenant_id: str | None = None,
    ) -> Service:
        """Starts what is behind the service; answers at once unless `wait_until` is given."""
        return self._transport.run(
            self._operations.service_act("start", name, wait_until, timeout, interval, tenant_id)
        )

    def restart(
        self,
        name: str,
        *,
        wait_until: Activation | None = None,
        timeout: float = TIMEOUT_S,
        interval: float = INTERVAL_S,
        tenant_id: str | None = None,
    ) -> Service:
        """Stops what runs and starts anew."""
        return self._transport.run(
            self._operations.service_act("restart", name, wait_until, timeout, interval, tenant_id)
        )

    def stop(
        self,
        name: str,
        *,
        wait_until: Literal["stopped"] | None = None,
        timeout: float = TIMEOUT_S,
        interval: float = INTERVAL_S,
        tenant_id: str | None = None,
    ) -> Service:
        return self._transport.run(
            self._operations.service_act("stop", name, wait_until, timeout, interval, tenant_id)
        )

    def wait(
        self,
        name: str,
        until: Until,
        *,
        timeout: float = TIMEOUT_S,
        interval: float = INTERVAL_S,
        tenant_id: str | None = None,
    ) -> Service:
        """Looks until the condition holds."""
        return self._transport.run(
            self._operations.service_wait(name, until, timeout, interval, tenant_id)
        )

    def logs(
        self,
        name: str,
        *,
        tail: int | None = None,
        since: str | None = None,
        follow: bool = False,
        tenant_id: str | None = None,
    ) -> Iterator[LogLine]:
        """What the service wrote; with `follow` also what it will write."""
        call = logs(self._operations.service_path(name, tenant_id), tail, since, follow)
        with self._transport.open(call) as connection:
            for line in connection.lines():
                yield decode(LogLine, frame_of(line))


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
