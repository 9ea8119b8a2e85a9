"""What the server answers. Fields it adds later are ignored."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, cast

T = TypeVar("T")

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """What a resource says about one side of its state."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    observed_generation: int
    last_transition_time: datetime


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that something published listens on."""

    name: str
    protocol: Literal["tcp", "http", "https"]
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ServiceMetadata:
    tenant_id: str
    name: str
    generation: int
    resource_version: str
    created_at: datetime
    updated_at: datetime
    source: Literal["dynamic", "staticCatalog"]
    labels: dict[str, str] = field(default_factory=dict)
    uid: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    #: As in the API; arguments and environment are not given back.
    backend: JsonObject


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    backend: Literal["sandbox", "builtIn", "external"]
    lifecycle_state: str
    readiness: str
    health: str
    sandbox_id: str | None = None
    restart_count: int = 0
    observed_generation: int | None = None
    endpoints: list[Endpoint] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Service:
    """A stable name for what runs behind it."""

    metadata: ServiceMetadata
    spec: ServiceSpec
    status: ServiceStatus


@dataclass(frozen=True, slots=True)
class SandboxMetadata:
    tenant_id: str
    id: str
    generation: int
    resource_version: str
    created_at: datetime
    updated_at: datetime
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    profile: Literal["worker", "desktop"]
    #: As in the API; arguments and environment are not given back.
    sandbox: JsonObject


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    lifecycle_state: str
    readiness: str
    health: str
    backend: Literal["container", "krun"] | None = None
    endpoints: list[Endpoint] = field(default_factory=list)
    exit_code: int | None = None
    expires_at: datetime | None = None
    image_digest: str | None = None
    #: Whether it came from the warm pool.
    start: Literal["warm", "cold"] | None = None
    #: From the request to the running process.
    started_after_ms: float | None = None
    out_of_memory: bool = False
    host: str | None = None
    restart_count: int = 0
    conditions: list[Condition] = field(default_factory=list)


@dataclass(frozen=True)
class SandboxResource:
    """One isolated process, as it was when it was read."""

    metadata: SandboxMetadata
    spec: SandboxSpec
    status: SandboxStatus

    @property
    def id(self) -> str:
        return self.metadata.id


@dataclass(frozen=True, slots=True)
class SessionMetadata:
    tenant_id: str
    id: str
    generation: int
    resource_version: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class SessionSpec:
    target: JsonObject
    #: The target as it was when the session was opened.
    target_snapshot: JsonObject
    channels: list[str]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SessionStatus:
    lifecycle_state: Literal["open", "closed", "expired"]
    expires_at: datetime
    closed_at: datetime | None = None
    close_reason: str | None = None
    conditions: list[Condition] = field(default_factory=list)


@dataclass(frozen=True)
class SessionResource:
    """A lease on what runs, with channels to talk to it, as it was when it was read."""

    metadata: SessionMetadata
    spec: SessionSpec
    status: SessionStatus

    @property
    def id(self) -> str:
        return self.metadata.id


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret, without its value."""

    name: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Volume:
    """Storage that outlives sandboxes."""

    name: str
    created_at: datetime
    #: Where it is, once a sandbox has mounted it.
    host: str | None = None
    #: The sandboxes that mount it.
    used_by: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a log. With the encoding `base64` it is no text."""

    ts: datetime
    stream: Literal["stdout", "stderr"]
    data: str
    encoding: Literal["base64"] | None = None


@dataclass(frozen=True, slots=True)
class FileEntry:
    name: str
    path: str
    type: Literal["file", "dir", "symlink", "other"]
    size: int
    #: Permissions in octal: "0644".
    mode: str
    mtime: datetime
    #: Changes with the content; for `if_match`.
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class PreviewLink:
    """A link under which a port of the sandbox can be opened in a browser."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class PageMetadata:
    tenant_id: str
    resource_version: str
    limit: int
    remaining_count: int
    #: There is more; the token of the next page.
    next_page_token: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list."""

    metadata: PageMetadata
    items: Sequence[T]

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def decode(cls: type[T], data: Any) -> T:
    """Makes a model of JSON: `lifecycleState` becomes `lifecycle_state`, times become `datetime`."""
    return cast("T", _decode(cls, data))


@functools.cache
def _fields(cls: type[Any]) -> list[tuple[str, str, Any, bool]]:
    hints = typing.get_type_hints(cls)
    return [
        (one.name, re.sub(r"_(\w)", lambda match: match[1].upper(), one.name), hints[one.name], _optional(one))
        for one in dataclasses.fields(cls)
        if not one.name.startswith("_")
    ]


def _optional(one: dataclasses.Field[Any]) -> bool:
    return one.default is not dataclasses.MISSING or one.default_factory is not dataclasses.MISSING


def _decode(hint: Any, data: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return hint(
            **{
                name: _decode(kind, data[wire])
                for name, wire, kind, optional in _fields(hint)
                # A field that is null is like one that is missing, where that is allowed.
                if not optional or data.get(wire) is not None
            }
        )
    origin = typing.get_origin(hint)
    if origin is types.UnionType or origin is typing.Union:
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return None if data is None else _decode(kinds[0], data) if len(kinds) == 1 else data
    if origin is list:
        return [_decode(typing.get_args(hint)[0], item) for item in data]
    if hint is datetime:
        return datetime.fromisoformat(data)
    return data
