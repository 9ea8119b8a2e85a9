"""A server for the tests: the same one that the TypeScript SDK is tested with."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nimbus
from nimbus import specs

ROOT = Path(__file__).resolve().parents[3]
SERVER = ROOT / "web/sdk/test/fake/server.mjs"
VARIABLES = (
    "NIMBUS_ENDPOINT",
    "NIMBUS_TOKEN",
    "NIMBUS_BEARER_TOKEN",
    "NIMBUS_API_KEY",
    "NIMBUS_WORKLOAD_IDENTITY_TOKEN",
    "NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE",
    "NIMBUS_APPLICATION_CREDENTIALS",
    "XDG_CONFIG_HOME",
    "USERPROFILE",
)


class Fake:
    """Talks to the server's process: orders go in, the requests it saw come out."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        facts = json.loads(self._line())
        self.url: str = facts["url"]
        self.token: str = facts["token"]

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def break_next(self, match: str, **fault: Any) -> None:
        """The next requests that match get this status; without one, their connection is dropped."""
        self._order({"breakNext": [match, fault]})

    def cut_after(self, *sizes: int) -> None:
        """Each cuts one stream of command output after so many bytes."""
        self._order({"cutAfter": list(sizes)})

    def requests(self) -> list[dict[str, Any]]:
        """What came in since this was asked last."""
        return self._order({})

    def _order(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        seen: list[dict[str, Any]] = json.loads(self._line())
        return seen

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{SERVER} ended; `npm ci` in web/ installs what it needs"
        return line


@pytest.fixture(scope="session")
def running() -> Iterator[Fake]:
    fake = Fake()
    yield fake
    fake.stop()


@pytest.fixture
def fake(running: Fake) -> Fake:
    running.requests()
    return running


@pytest.fixture
def tenant(fake: Fake) -> str:
    tenant_id = f"t-{uuid.uuid4().hex[:8]}"
    with nimbus.Nimbus(endpoint=fake.url, token=fake.token) as client:
        client.tenants.create(tenant_id)
    fake.requests()
    return tenant_id


@pytest.fixture
def client(fake: Fake, tenant: str) -> Iterator[nimbus.Nimbus]:
    with nimbus.Nimbus(endpoint=fake.url, token=fake.token, tenant_id=tenant) as one:
        yield one


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment that says nothing of Nimbus, and its home."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def spec(*argv: str, name: str = "box") -> specs.Sandbox:
    """A sandbox that runs `argv`, or waits."""
    return {
        "owner": {"kind": "standalone", "displayName": name},
        "backend": "container",
        "root": {"kind": "oci_image", "source": {"kind": "reference", "reference": "example.org/image:1"}},
        "process": {"argv": argv or ("sh", "-c", "cat >/dev/null")},
    }


def service(*argv: str) -> specs.SandboxBackend:
    sandbox: specs.Sandbox = {**spec(*argv), "owner": {"kind": "service"}}
    return {"kind": "sandbox", "sandbox": sandbox}


def ready(client: nimbus.Nimbus, *argv: str) -> nimbus.Sandbox:
    return client.sandboxes.create(spec(*argv)).wait("ready", interval=0.01)
