"""Another host joins: it gets a credential for the bus in exchange for a token, and offers sandboxes."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import ROOT, SANDBOX, Deployment, engine, eventually, fresh

BINARY = os.environ.get("NIMBUS_BIN", str(ROOT / "target/debug/nimbus"))


@pytest.fixture(scope="module")
def open_bus() -> Iterator[Deployment]:
    one = Deployment("ops/compose/hosts.yaml")
    try:
        one.start()
        yield one
    finally:
        one.logs(ROOT / "tests/output/compose-hosts")
        one.end()


def test_a_host_joins_with_a_token_and_runs_sandboxes(open_bus: Deployment, tmp_path: Path) -> None:
    host = f"{open_bus.name}-b"
    with open_bus.api() as api:
        made = api.post("/api/hosts/join-tokens", json={"host": host})
        assert made.is_success, made.text
        token = made.json()["data"]["token"]
    with open_bus.api(token) as newcomer:
        joined = newcomer.post("/api/hosts/join", json={"host": host})
        assert joined.status_code == 200, joined.text
        # A token is good once.
        assert newcomer.post("/api/hosts/join", json={"host": host}).status_code == 401
    given = joined.json()["data"]
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds/sandbox-agent.creds").write_text(given["bus_credentials"])
    (tmp_path / "ca.pem").write_text(given["bus_ca_pem"])
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "NATS_URL": given["bus_url"],
        "NATS_CREDS": str(tmp_path / "creds"),
        "NATS_CA_FILE": str(tmp_path / "ca.pem"),
        "NIMBUS_ENCRYPTION_KEY_FILE": str(open_bus.dir / "secrets/encryption-key"),
        "NIMBUS_SANDBOX_HOST": host,
        # Short: it holds sockets.
        "NIMBUS_DATA_DIR": str(open_bus.dir / "b"),
        "NIMBUS_SANDBOX_WARM": "0",
    }
    with open(tmp_path / "log", "w") as log:
        agent = subprocess.Popen([BINARY, "serve", "sandbox-agent"], env=settings, stdout=log, stderr=log)
    try:
        with open_bus.api(open_bus.operator) as api:

            def both() -> bool:
                assert agent.poll() is None, (tmp_path / "log").read_text()
                offer = {row["name"] for row in api.get("/api/hosts").json()["items"] if "container" in row["backends"]}
                return {open_bus.name, host} <= offer

            eventually("both hosts offer containers", 60, both)
            tenant = fresh("join")
            made = api.post("/api/tenants", json={"id": tenant})
            assert made.is_success, made.text

            def running(name: str) -> int:
                return len(engine("ps", "-q", "--filter", f"label=io.nimbus.sandbox.host={name}").split())

            # Each replica that places knows for up to two seconds only what it has heard or done itself, so the
            # first few may go anywhere; then the less used host gets the next one. A tenant may have eight.
            ordered = 0

            def spread() -> bool:
                nonlocal ordered
                here, there = running(open_bus.name), running(host)
                if here and there:
                    return True
                if here + there == ordered < 8:
                    made = api.post(f"/api/tenants/{tenant}/sandboxes", json=SANDBOX)
                    assert made.status_code == 201, made.text
                    ordered += 1
                    time.sleep(1)
                return False

            try:
                eventually("both hosts run sandboxes", 60, spread)
            except AssertionError as error:
                hosts, sandboxes = api.get("/api/hosts").text, api.get(f"/api/tenants/{tenant}/sandboxes").text
                raise AssertionError(f"{error}\n{hosts}\n{sandboxes}\n{(tmp_path / 'log').read_text()}") from error
            gone = api.delete(f"/api/tenants/{tenant}")
            assert gone.is_success, gone.text
    finally:
        agent.terminate()
        agent.wait(timeout=30)
    assert engine("ps", "-aq", "--filter", f"label=io.nimbus.sandbox.host={host}").split() == []
