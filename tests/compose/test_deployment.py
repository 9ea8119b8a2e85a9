"""compose.yaml as an operator runs it: what it can do, what it may not, and what becomes of it when parts of it die."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients/python/src"))

import nimbus  # noqa: E402
from world import PUBLIC_KEY, ROOT, TENANT, Deployment, Load, engine, eventually, fresh, run, service_of  # noqa: E402

SERVICES = [
    "proxy", "gateway-1", "gateway-2", "auth", "ippool", "provisioner", "workloads", "gpu-scheduler", "sandbox-agent", "nats", "postgres",
]


def test_a_machine_is_ordered(deployment: Deployment) -> None:
    with deployment.api() as api:
        order = {"hostname": "first", "tier": "small", "os_template": "debian-12", "ssh_pubkey": PUBLIC_KEY}
        made = api.post("/api/vms", json=order, timeout=120)
        assert made.status_code == 200, made.text
        rows = api.get("/api/vms").json()["data"]
    assert [row["Hostname"] if "Hostname" in row else row["hostname"] for row in rows] == ["first"]


def test_a_sandbox_runs_commands_for_a_program(deployment: Deployment, sandbox: str) -> None:
    with nimbus.Nimbus(endpoint=deployment.base, tenant_id=TENANT, token=deployment.operator) as client:
        result = client.sandboxes.exec(sandbox, ["sh", "-c", "echo hello; exit 3"])
    assert (result.stdout, result.exit_code) == ("hello\n", 3)


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/grpc"],
        ["node", "web/sdk/test/e2e/run.mjs"],
    ],
    ids=["grpc", "sdk"],
)
def test_the_clients_work_through_the_proxy(deployment: Deployment, command: list[str]) -> None:
    """gRPC over HTTP/2, streams, WebSockets: the suites that other servers pass too."""
    run(command, NIMBUS_ENDPOINT=deployment.base, NIMBUS_TOKEN=deployment.operator, NIMBUS_TEST_IMAGE="nimbus.test/busybox:1")


def test_no_container_has_more_rights_than_it_needs(deployment: Deployment, sandbox: str) -> None:
    seen = set()
    for container in deployment.containers():
        service, host, config = service_of(container), container["HostConfig"], container["Config"]
        if service == "pve-sim":
            continue
        seen.add(service)
        assert host["ReadonlyRootfs"], service
        assert not host["Privileged"], service
        assert [one.upper() for one in host["CapDrop"]] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert host["Memory"] > 0 and host["NanoCpus"] > 0 and host["PidsLimit"] > 0, service
        if service != "volumes":
            assert config["User"].split(":")[0] not in ("", "0", "root"), service
            assert not host["CapAdd"], service
        sockets = [mount["Destination"] for mount in container["Mounts"] if mount["Destination"].endswith("docker.sock")]
        assert bool(sockets) == (service == "sandbox-agent"), service
    assert seen == {*SERVICES, "volumes"}


def test_secrets_are_files_that_only_their_reader_can_read(deployment: Deployment) -> None:
    folder = deployment.dir / "secrets"
    public = {"tls/ca.pem", "tls/nats.pem", "bus/nats-server.conf"}
    files = [one for one in folder.rglob("*") if one.is_file()]
    assert len(files) >= 14
    words = set()
    for file in files:
        name = str(file.relative_to(folder))
        mode = file.stat().st_mode & 0o777
        assert mode == (0o644 if name in public else 0o600), f"{name} has {mode:o}"
        if name in ("postgres-password", "encryption-key", "database-url"):
            words.add(file.read_text().strip())
    words.add("simulated")
    for container in deployment.containers():
        if service_of(container) == "pve-sim":
            continue
        told = json.dumps([container["Config"]["Env"], container["Config"]["Cmd"], container["Config"]["Labels"]])
        assert not [word for word in words if word in told], service_of(container)


def test_init_again_changes_nothing(deployment: Deployment) -> None:
    folder = deployment.dir / "secrets"

    def state() -> dict[str, tuple[bytes, int, int]]:
        files = (one for one in folder.rglob("*") if one.is_file())
        return {str(one): (one.read_bytes(), one.stat().st_mode, one.stat().st_uid) for one in files}

    # The configuration holds certificates of accounts with the second they were signed in.
    before = {name: value for name, value in state().items() if not name.endswith("nats-server.conf")}
    run(["ops/compose/init.sh"], NIMBUS_ENV_FILE=str(deployment.env_file))
    after = {name: value for name, value in state().items() if not name.endswith("nats-server.conf")}
    assert before == after


def test_figures_are_not_for_the_network(deployment: Deployment) -> None:
    assert httpx.get(deployment.base + "/metrics").status_code == 404
    assert httpx.get(deployment.base + "/health").json()["ok"] is True


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_container_loses_nothing(deployment: Deployment, sandbox: str, service: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: it kills processes of containers as a crash would")
    deployment.settled()
    victim = next(one for one in deployment.containers() if service_of(one) == service)
    with Load(deployment, sandbox, fresh(f"kill-{service}"), stubborn=True) as load:
        eventually("the load runs", 30, lambda: len(load.orders) >= 1 and len(load.lines) >= 2)
        deployment.kill(victim)

        def back() -> bool:
            now = json.loads(engine("inspect", victim["Id"]))[0]
            return bool(now["RestartCount"] > victim["RestartCount"] and now["State"]["Running"])

        eventually(f"{service} is started again", 60, back)
        ordered = len(load.orders)
        eventually("orders are taken again", 60, lambda: len(load.orders) > ordered + 1)
        deployment.settled()
    print(f"{service} killed: {load.answered} requests answered, {len(load.failures)} failed and were repeated", *load.failures[:3], sep="\n  ")
    load.nothing_is_lost()


def test_a_rolling_restart_fails_no_request(deployment: Deployment, sandbox: str) -> None:
    """With credentials made anew, as docs/deploy.md says of an upgrade."""
    deployment.settled()
    before = {one["Id"] for one in deployment.containers()}
    credentials = {file: file.read_text() for file in (deployment.dir / "secrets/bus/creds").glob("*.creds")}
    assert len(credentials) >= 7
    with Load(deployment, sandbox, fresh("rolling")) as load:
        eventually("the load runs", 30, lambda: len(load.orders) >= 1 and len(load.lines) >= 2)
        for file in credentials:
            file.unlink()
        run(["ops/compose/init.sh"], NIMBUS_ENV_FILE=str(deployment.env_file))
        assert all(file.read_text() != old for file, old in credentials.items())
        said = run(["ops/compose/rolling.sh"], COMPOSE=" ".join(deployment.compose))
        deployment.settled()
    print(f"{load.answered} requests answered, {len(load.failures)} failed{said}")
    assert load.failures == []
    load.nothing_is_lost()
    kept = {service_of(one) for one in deployment.containers() if one["Id"] in before}
    assert kept == {"proxy", "nats", "postgres", "volumes", "pve-sim"}


def guests_of(api: httpx.Client) -> list[dict[str, object]]:
    """What is known of the cluster's guests, but whether they run: the cluster itself tells that seconds late."""
    return [{key: value for key, value in guest.items() if key != "status"} for guest in api.get("/api/cluster/vms").json()["data"]]


def test_database_and_secrets_are_all_there_is_to_keep(deployment: Deployment, sandbox: str) -> None:
    """As docs/deploy.md says: dump, lose the volumes of database and bus, restore. Changes the deployment: the last one."""
    deployment.settled()
    with deployment.api() as api:
        order = {"hostname": fresh("before-dump"), "tier": "small", "os_template": "debian-12", "ssh_pubkey": PUBLIC_KEY}
        made = api.post("/api/vms", json=order, timeout=120)
        assert made.status_code == 200, made.text
        before = api.get("/api/vms?limit=500").json()["data"]
        guests = guests_of(api)
    dump = deployment.dir / "nimbus.dump"
    with open(dump, "wb") as out:
        subprocess.run(
            [*deployment.compose, "exec", "-T", "postgres", "pg_dump", "-U", "nimbus", "-Fc", "nimbus"],
            stdout=out, cwd=ROOT, check=True)
    # What is written after the dump is what a restore loses; the engine keeps the sandbox.
    stateful = ["nats", "postgres"]
    others = [service for service in SERVICES if service not in stateful]
    deployment.run("stop", "--timeout", "20", *others, *stateful)
    deployment.run("rm", "--force", *stateful, "volumes")
    engine("volume", "rm", f"{deployment.name}_nats", f"{deployment.name}_postgres")
    # The volume of the bus is made anew, and has to be given to its account again.
    deployment.run("up", "-d", "--wait", "--no-deps", "--force-recreate", "postgres")
    with open(dump, "rb") as content:
        subprocess.run(
            [*deployment.compose, "exec", "-T", "postgres", "pg_restore", "-U", "nimbus", "-d", "nimbus", "--clean", "--if-exists"],
            stdin=content, cwd=ROOT, check=True)
    deployment.run("up", "-d", "--wait", "--wait-timeout", "120")
    deployment.settled()
    with deployment.api() as api:
        key = lambda row: row["id"] if "id" in row else row["ID"]  # noqa: E731
        assert sorted(api.get("/api/vms?limit=500").json()["data"], key=key) == sorted(before, key=key)
        assert guests_of(api) == guests
        made = api.post("/api/vms", json=order | {"hostname": fresh("after-restore")}, timeout=120)
        assert made.status_code == 200, made.text
    with nimbus.Nimbus(endpoint=deployment.base, tenant_id=TENANT, token=deployment.operator) as client:
        assert client.sandboxes.exec(sandbox, ["echo", "still here"]).stdout == "still here\n"
