"""The same against a real server: NIMBUS_ENDPOINT, NIMBUS_TOKEN and NIMBUS_TEST_IMAGE name it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

import nimbus
from conftest import spec
from nimbus import specs

pytestmark = pytest.mark.skipif("NIMBUS_TEST_IMAGE" not in os.environ, reason="no server is named")


@pytest.fixture(scope="module")
def server() -> Iterator[nimbus.Nimbus]:
    tenant = f"py-{uuid.uuid4().hex[:8]}"
    with nimbus.Nimbus(endpoint=os.environ["NIMBUS_ENDPOINT"], token=os.environ["NIMBUS_TOKEN"], tenant_id=tenant) as one:
        one.tenants.create(tenant)
        yield one
        one.tenants.delete(tenant)


def real(*argv: str) -> specs.Sandbox:
    return {
        **spec(*(argv or ("sleep", "600"))),
        "root": {"kind": "oci_image", "source": {"kind": "reference", "reference": os.environ["NIMBUS_TEST_IMAGE"]}},
    }


def test_commands_and_files_on_a_real_server(server: nimbus.Nimbus) -> None:
    with server.sandboxes.create(real()).wait("ready", timeout=60) as sandbox:
        result = sandbox.exec(["sh", "-c", "echo out; echo err >&2; cat; exit 4"], stdin="typed")
        assert (result.exit_code, result.stdout, result.stderr) == (4, "out\ntyped", "err\n")
        late = sandbox.exec(["sleep", "60"], timeout=0.3)
        assert (late.exit_code, late.signal, late.timed_out) == (None, "KILL", True)
        with sandbox.spawn(["cat"]) as command:
            command.write(b"one \xff")
            command.end("two")
            assert b"".join(output.data for output in command) == b"one \xfftwo"
        data = os.urandom(2_000_000)
        sandbox.files.write("/tmp/data", iter([data[:1_000_000], data[1_000_000:]]))
        assert sandbox.files.read("/tmp/data") == data
        assert [entry.name for entry in sandbox.files.list("/tmp")] == ["data"]


def test_services_and_sessions_on_a_real_server(server: nimbus.Nimbus) -> None:
    backend: specs.SandboxBackend = {
        "kind": "sandbox",
        "sandbox": {**real("sh", "-c", "echo hello; while read line; do echo main $line; done"), "owner": {"kind": "service"}},
    }
    server.services.create("worker", backend)
    server.services.start("worker", wait_until="ready", timeout=60)
    with server.sessions.open({"service": {"name": "worker"}}, ["stdio"]) as session:
        assert session.spec.target_snapshot["service"]["generation"] == 1
        with session.stdio() as stdio:
            stdio.write("typed\n")
            seen = ""
            for output in stdio:
                seen += output.text
                if seen.endswith("main typed\n"):
                    break
            assert seen == "hello\nmain typed\n"
        with session.stdio(argv=["sh", "-c", "cat; exit 5"]) as extra:
            extra.write("x" * 100_000)
            extra.end()
            assert "".join(output.text for output in extra) == "x" * 100_000
        assert extra.exit_code == 5
    with pytest.raises(nimbus.NimbusPreconditionFailedError):
        server.services.delete("worker", if_match_generation=7, force=True)
    server.services.delete("worker", if_match_generation=1, force=True)
