"""The gRPC surface, through stubs that another tool makes of proto/nimbus/v1, against a running server.

NIMBUS_ENDPOINT, NIMBUS_TOKEN and NIMBUS_TEST_IMAGE name the server, who asks, and what runs.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("common", "sandboxes", "services", "sessions")


@pytest.fixture(scope="session")
def stubs() -> Iterator[dict[str, ModuleType]]:
    """The modules that grpcio-tools makes of the files."""
    with tempfile.TemporaryDirectory() as out:
        include = str(Path(protoc.__file__).parent / "_proto")
        files = [f"nimbus/v1/{name}.proto" for name in NAMES]
        command = ["protoc", f"-I{ROOT}/proto", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}"]
        assert protoc.main([*command, *files]) == 0
        sys.path.insert(0, out)
        made = {}
        for name in NAMES:
            made[name] = importlib.import_module(f"nimbus.v1.{name}_pb2")
            made[f"{name}_grpc"] = importlib.import_module(f"nimbus.v1.{name}_pb2_grpc")
        yield made
        sys.path.remove(out)


@pytest.fixture(scope="session")
def channel() -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(urlsplit(os.environ["NIMBUS_ENDPOINT"]).netloc) as channel:
        yield channel


METADATA = (("authorization", f"Bearer {os.environ.get('NIMBUS_TOKEN', '')}"),)
IMAGE = os.environ.get("NIMBUS_TEST_IMAGE", "nimbus.test/busybox:1")


@pytest.fixture(scope="session")
def tenant() -> Iterator[str]:
    """A tenant of its own, made over HTTP."""
    import httpx

    name = f"grpc-{uuid.uuid4().hex[:8]}"
    headers = {"authorization": METADATA[0][1]}
    with httpx.Client(base_url=os.environ["NIMBUS_ENDPOINT"], headers=headers, timeout=60) as client:
        client.post("/api/tenants", json={"id": name}).raise_for_status()
        yield name
        client.delete(f"/api/tenants/{name}").raise_for_status()


def ready(stub: Any, stubs: dict[str, ModuleType], tenant: str, sandbox: Any) -> Any:
    end = time.monotonic() + 60
    while sandbox.status.lifecycle != stubs["common"].LIFECYCLE_READY:
        assert sandbox.status.lifecycle != stubs["common"].LIFECYCLE_FAILED, sandbox
        assert time.monotonic() < end, sandbox
        time.sleep(0.05)
        sandbox = stub.Get(stubs["sandboxes"].SandboxName(tenant=tenant, id=sandbox.id), metadata=METADATA)
    return sandbox


def make(stubs: dict[str, ModuleType], tenant: str, argv: list[str]) -> Any:
    sandboxes = stubs["sandboxes"]
    spec = sandboxes.SandboxSpec(image=IMAGE, argv=argv, env={"NAME": "value"})
    return sandboxes.CreateSandboxRequest(
        tenant=tenant, profile=sandboxes.PROFILE_WORKER, display_name="grpc", spec=spec, labels={"made": "by-grpc"}
    )


def reason(error: grpc.RpcError) -> str:
    """The catalogue's code of a failure."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            assert info.domain == "nimbus"
            return str(info.reason)
    raise AssertionError(status)


def test_a_sandbox_from_create_to_delete(stubs: dict[str, ModuleType], channel: grpc.Channel, tenant: str) -> None:
    sandboxes = stubs["sandboxes"]
    stub = stubs["sandboxes_grpc"].SandboxesStub(channel)
    made = stub.Create(make(stubs, tenant, ["sleep", "600"]), metadata=METADATA)
    assert made.image == IMAGE and made.labels["made"] == "by-grpc"
    ready(stub, stubs, tenant, made)
    ran = stub.Exec(
        sandboxes.ExecRequest(tenant=tenant, sandbox=made.id, argv=["sh", "-c", "echo $NAME; cat"], stdin=b"typed"),
        metadata=METADATA,
    )
    assert (ran.exit_code, ran.stdout) == (0, b"value\ntyped")
    listed = stub.List(sandboxes.ListSandboxesRequest(tenant=tenant), metadata=METADATA)
    assert [sandbox.id for sandbox in listed.sandboxes] == [made.id]
    stub.Delete(sandboxes.DeleteSandboxRequest(tenant=tenant, id=made.id, force=True), metadata=METADATA)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Get(sandboxes.SandboxName(tenant=tenant, id=made.id), metadata=METADATA)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert reason(caught.value) == "op.not_found"


def test_a_session_carries_both_directions(stubs: dict[str, ModuleType], channel: grpc.Channel, tenant: str) -> None:
    sandboxes, sessions = stubs["sandboxes"], stubs["sessions"]
    stub = stubs["sandboxes_grpc"].SandboxesStub(channel)
    leases = stubs["sessions_grpc"].SessionsStub(channel)
    made = ready(stub, stubs, tenant, stub.Create(make(stubs, tenant, ["sleep", "600"]), metadata=METADATA))
    session = leases.Open(
        sessions.OpenSessionRequest(tenant=tenant, sandbox=made.id, channels=["stdio"], ttl_ms=60_000), metadata=METADATA
    )

    def talk() -> Iterator[Any]:
        start = sessions.AttachStart(session=session.id, argv=["sh", "-c", "read line; echo got $line; exit 4"])
        yield sessions.AttachRequest(start=start)
        yield sessions.AttachRequest(input=sessions.AttachInput(offset=0, data=b"words\n"))

    said, code = b"", None
    for answer in leases.Attach(talk(), metadata=METADATA, timeout=60):
        kind = answer.WhichOneof("message")
        if kind == "output":
            assert answer.output.offset == len(said)
            said += answer.output.data
        elif kind == "exit":
            code = answer.exit.code
    assert (said, code) == (b"got words\n", 4)
    closed = leases.Close(sessions.CloseSessionRequest(id=session.id, reason="done"), metadata=METADATA)
    assert (closed.state, closed.close_reason) == ("closed", "done")
    stub.Delete(sandboxes.DeleteSandboxRequest(tenant=tenant, id=made.id, force=True), metadata=METADATA)


def test_a_stale_generation_says_so(stubs: dict[str, ModuleType], channel: grpc.Channel, tenant: str) -> None:
    services = stubs["services"]
    stub = stubs["services_grpc"].ServicesStub(channel)
    backend = services.ServiceBackend(built_in="loadBalancer")
    made = stub.Create(services.WriteServiceRequest(tenant=tenant, name="lb", backend=backend), metadata=METADATA)
    assert (made.generation, made.backend) == (1, "builtIn")
    write = services.WriteServiceRequest(tenant=tenant, name="lb", backend=backend, if_generation=1, labels={"a": "b"})
    assert stub.Update(write, metadata=METADATA).generation == 2
    with pytest.raises(grpc.RpcError) as caught:
        stub.Update(write, metadata=METADATA)
    assert caught.value.code() == grpc.StatusCode.ABORTED
    assert reason(caught.value) == "op.precondition_failed"
    stub.Delete(services.DeleteServiceRequest(tenant=tenant, name="lb", if_generation=2), metadata=METADATA)


def test_without_a_credential_nothing_is_told(stubs: dict[str, ModuleType], channel: grpc.Channel, tenant: str) -> None:
    stub = stubs["sandboxes_grpc"].SandboxesStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.List(stubs["sandboxes"].ListSandboxesRequest(tenant=tenant))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert reason(caught.value) == "auth.unauthorized"


def test_health_and_reflection(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    known = ProtoReflectionDescriptorDatabase(channel)
    assert {"nimbus.v1.Sandboxes", "nimbus.v1.Services", "nimbus.v1.Sessions"} <= set(known.get_services())
    pool = descriptor_pool.DescriptorPool(known)
    methods = pool.FindServiceByName("nimbus.v1.Sandboxes").methods
    assert {"Create", "Exec"} <= {method.name for method in methods}
