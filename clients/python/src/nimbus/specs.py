"""What the server is told, named as in the API: a spec can be copied between Python, TypeScript and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict


class ServiceOwner(TypedDict):
    kind: Literal["service"]
    serviceName: NotRequired[str]


class StandaloneOwner(TypedDict):
    kind: Literal["standalone"]
    displayName: NotRequired[str]


class ImageReference(TypedDict):
    kind: Literal["reference"]
    reference: str


class ImageRoot(TypedDict):
    kind: Literal["oci_image"]
    source: ImageReference


class SecretUse(TypedDict):
    secret: str
    variable: str


class Process(TypedDict, total=False):
    argv: Sequence[str]
    args: Sequence[str]
    entrypoint: Sequence[str]
    command: Sequence[str]
    env: Sequence[str]
    secrets: Sequence[SecretUse]
    cwd: str
    user: str
    terminal: bool


class Resources(TypedDict, total=False):
    vcpus: float
    memoryBytes: int
    diskBytes: int
    logBytes: int
    pids: int


class Port(TypedDict):
    guestPort: int
    protocol: Literal["tcp", "http", "https"]
    name: NotRequired[str]
    hostPort: NotRequired[int]


class EgressRule(TypedDict):
    name: str
    protocol: Literal["tcp", "http", "https"]
    host: str
    port: int
    methods: NotRequired[Sequence[str]]
    pathPrefixes: NotRequired[Sequence[str]]
    allowInternalIps: NotRequired[bool]


class Egress(TypedDict):
    allow: Sequence[EgressRule]


class Network(TypedDict):
    egress: Egress


class VolumeMount(TypedDict):
    kind: Literal["volume"]
    name: str
    target: str
    readOnly: NotRequired[bool]


class TmpfsMount(TypedDict):
    kind: Literal["tmpfs"]
    target: str
    sizeBytes: NotRequired[int]


class RestartPolicy(TypedDict):
    kind: Literal["never", "onFailure", "always"]
    maxRestarts: NotRequired[int]


class Lifecycle(TypedDict, total=False):
    restartPolicy: RestartPolicy
    stopTimeoutMs: int


class HealthCheck(TypedDict):
    kind: Literal["http", "tcp", "exec"]
    path: NotRequired[str]
    port: NotRequired[int]
    expectStatus: NotRequired[int]
    argv: NotRequired[Sequence[str]]
    intervalMs: NotRequired[int]
    timeoutMs: NotRequired[int]
    retries: NotRequired[int]
    startPeriodMs: NotRequired[int]
    restartOnUnhealthy: NotRequired[bool]


class Sandbox(TypedDict):
    """What to run, and how it is closed in."""

    owner: ServiceOwner | StandaloneOwner
    backend: Literal["container", "krun"]
    root: ImageRoot
    tenantId: NotRequired[str]
    process: NotRequired[Process]
    resources: NotRequired[Resources]
    ports: NotRequired[Sequence[Port]]
    network: NotRequired[Network]
    mounts: NotRequired[Sequence[VolumeMount | TmpfsMount]]
    lifecycle: NotRequired[Lifecycle]
    health: NotRequired[HealthCheck]
    ttlMs: NotRequired[int]
    idleTimeoutMs: NotRequired[int]
    readOnlyRoot: NotRequired[bool]


class SandboxBackend(TypedDict):
    kind: Literal["sandbox"]
    sandbox: Sandbox


class BuiltInBackend(TypedDict):
    kind: Literal["builtIn"]
    provider: Literal["loadBalancer", "serviceDiscovery", "browser", "modelGateway"]


class ExternalEndpoint(TypedDict):
    url: str


class NoAuth(TypedDict):
    kind: Literal["none"]


class ExternalHealth(TypedDict):
    kind: Literal["http"]
    path: str


class ExternalBackend(TypedDict):
    kind: Literal["external"]
    endpoint: ExternalEndpoint
    auth: NoAuth
    health: ExternalHealth


ServiceBackend = SandboxBackend | BuiltInBackend | ExternalBackend


class ServiceName(TypedDict):
    name: str


class SandboxId(TypedDict):
    id: str


class ServiceTarget(TypedDict):
    service: ServiceName


class SandboxTarget(TypedDict):
    sandbox: SandboxId


Target = ServiceTarget | SandboxTarget
Channel = Literal["cdp", "page", "stdio", "files"]
