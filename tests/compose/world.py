"""A deployment of compose.yaml on this machine's engine, and clients that keep it busy."""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE6w2mHWRPZeQFlDXDvKDW0UDYGDdIdRzHKcfRl0pzOJ somebody@example.org"
TENANT = "compose"
SANDBOX = {
    "profile": "worker",
    "spec": {
        "owner": {"kind": "standalone", "displayName": "test"},
        "backend": "container",
        "root": {"kind": "oci_image", "source": {"kind": "reference", "reference": "nimbus.test/busybox:1"}},
        "process": {"argv": ["sleep", "86400"]},
    },
}
# As the images of ops/dev/images and `make image` are called.
IMAGES = {
    "NIMBUS_IMAGE": "nimbus.test/nimbus:1",
    "NATS_IMAGE": "nimbus.test/nats:1",
    "POSTGRES_IMAGE": "nimbus.test/postgres:1",
    "PROXY_IMAGE": "nimbus.test/haproxy:1",
}


def eventually(what: str, seconds: float, probe: Callable[[], Any]) -> Any:
    """The first answer of `probe` that is true; an assertion when there is none in time."""
    until = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < until:
        try:
            last = probe()
            if last:
                return last
        except (httpx.HTTPError, AssertionError) as error:
            last = error
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds} s; last: {last!r}")


class Deployment:
    """One project of Compose with settings, secrets and folders of its own."""

    def __init__(self, *overrides: str) -> None:
        self.name = f"nimbus-test-{os.getpid()}-{secrets.token_hex(2)}"
        # Sockets of sandboxes lie below it, and their paths are bounded.
        self.dir = Path(tempfile.mkdtemp(prefix="nimbus-compose-", dir="/tmp"))
        self.dir.chmod(0o755)
        self.port = free_port()
        # What init.sh and an override may want to know.
        self.second_host = f"{self.name}-b"
        self.base = f"http://127.0.0.1:{self.port}"
        self.env_file = self.dir / "env"
        compose = os.environ.get("NIMBUS_TEST_COMPOSE") or str(ROOT / "target/venv/bin/docker-compose")
        self.compose = [
            compose, "--env-file", str(self.env_file), "--project-name", self.name,
            "-f", "compose.yaml", "-f", "tests/compose/compose.test.yaml",
            *(word for one in overrides for word in ("-f", one)),
        ]
        self.token = ""
        self.operator = ""

    def start(self) -> None:
        settings = {name: os.environ.get(f"NIMBUS_TEST_{name}", image) for name, image in IMAGES.items()}
        settings |= {
            "DOCKER_GID": str(os.stat("/var/run/docker.sock").st_gid),
            "NIMBUS_SECRETS": str(self.dir / "secrets"),
            "NIMBUS_SANDBOX_DIR": str(self.dir / "s"),
            "NIMBUS_SANDBOX_HOST": self.name,
            "NIMBUS_SANDBOX_HOST_2": self.second_host,
            "NIMBUS_SANDBOX_DIR_2": str(self.dir / "t"),
            # Warm containers would be left behind when the last one of them is killed.
            "NIMBUS_SANDBOX_WARM": "0",
            "NIMBUS_HTTP_PORT": str(self.port),
            "NIMBUS_HTTPS_PORT": str(free_port()),
            "NIMBUS_EDGE_SUBNET": free_subnet(),
            "PROXMOX_HOST": "http://pve-sim:8006",
            "PROXMOX_TOKEN_ID": "root@pam!nimbus",
            "PROXMOX_TOKEN_SECRET_FILE": "/run/secrets/proxmox-token-secret",
            "IP_POOL_START": "10.1.0.20",
            "IP_POOL_END": "10.1.3.250",
            "VM_PREFIX_LEN": "22",
            "GATEWAY_IP": "10.1.0.1",
            "NIMBUS_READY_SSH_PROBE": "false",
            "NIMBUS_BUS_NAME": "localhost",
            "NIMBUS_BUS_PUBLISH": "127.0.0.1",
            "NIMBUS_BUS_PORT": str(free_port()),
        }
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self.dir / "secrets").mkdir()
        (self.dir / "secrets/proxmox-token-secret").write_text("simulated")
        run(["ops/compose/init.sh"], NIMBUS_ENV_FILE=str(self.env_file))
        said = self.run("up", "-d", "--wait", "--wait-timeout", "300")
        self.is_up(said)
        try:
            self.answers()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.state()}") from error
        self.operator = self.run("exec", "-T", "auth", "nimbus", "auth", "token").strip()
        self.first_user()

    def first_user(self) -> None:
        person = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
        with httpx.Client(base_url=self.base, headers={"Origin": self.base}) as browser:
            assert browser.post("/api/setup/admin", json=person).is_success
            made = browser.post("/api/tokens", json={"name": "tests", "scopes": ["machines:read", "machines:write", "admin"]})
            assert made.status_code == 201, made.text
            self.token = made.json()["data"]["token"]

    def run(self, *arguments: str) -> str:
        return run([*self.compose, *arguments])

    def is_up(self, said: str) -> None:
        """Compose ends with 0 also when it could not make a network, so look."""
        wanted = set(self.run("config", "--services").split()) - {"volumes"}
        running = {service_of(one) for one in self.containers() if one["State"]["Running"]}
        assert wanted <= running, f"not up: {sorted(wanted - running)}\n{said[-2000:]}\n{self.state()}"

    def answers(self) -> None:
        eventually("every service answers", 60, lambda: httpx.get(self.base + "/ready").status_code == 200)

    def state(self) -> str:
        """For people who wonder why it does not come up: every container, and the last words of those that are not well."""
        lines = []
        for one in self.containers():
            state = one["State"]
            health = state.get("Health", {}).get("Status", "")
            lines.append(f"{one['Name']}: {state['Status']} {health} {one['NetworkSettings']['Ports']} {state['Error']}")
            if service_of(one) != "volumes" and (state["Status"] != "running" or health not in ("", "healthy") or service_of(one) == "proxy"):
                lines += [f"    {line}" for line in words_of(one["Id"])]
        return "\n".join(lines)

    def api(self, token: str | None = None) -> httpx.Client:
        return httpx.Client(
            base_url=self.base, headers={"Authorization": f"Bearer {token or self.token}"}, timeout=httpx.Timeout(60, connect=5))

    def containers(self) -> list[dict[str, Any]]:
        """What the engine says of each container that runs or should."""
        ids = engine("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.name}").split()
        return json.loads(engine("inspect", *ids)) if ids else []

    def settled(self) -> None:
        """Waits until every container is as healthy as it can say, and every service answers."""

        def healthy() -> bool:
            states = [one["State"] for one in self.containers() if service_of(one) != "volumes"]
            return all(state["Running"] and state.get("Health", {}).get("Status", "healthy") == "healthy" for state in states)

        eventually(f"{self.name} is healthy", 120, healthy)
        self.answers()

    def kill(self, container: dict[str, Any]) -> None:
        """Ends its process as a crash would: the engine's own `kill` would also tell it not to restart."""
        os.kill(container["State"]["Pid"], signal.SIGKILL)

    def logs(self, into: Path) -> None:
        # One for each: a second try must not hide what the first one wrote.
        into /= self.name
        into.mkdir(parents=True, exist_ok=True)
        (into / "compose.log").write_text(run([*self.compose, "logs", "--no-color", "--timestamps"], check=False))

    def end(self) -> None:
        """Takes everything down; an assertion when something is left."""
        # Ends its sandboxes. When this fails, what is left is found below.
        ended = ""
        with self.api(self.operator) as api, suppress(httpx.HTTPError):
            answer = api.delete(f"/api/tenants/{TENANT}")
            ended = f"{answer.status_code} {answer.text[:500]}"
        self.run("down", "--volumes", "--remove-orphans", "--timeout", "20")
        # What the engine is still removing is not left.
        try:
            eventually("nothing is left", 30, lambda: not self.left())
        except AssertionError as error:
            left = self.left()
            for kind, name in left:
                # The engine knows no force for networks.
                force = [] if kind == "network" else ["--force"]
                run(["docker", kind, "rm", *force, name.split()[0]], check=False)
            raise AssertionError(f"{self.name} left {left}; its sandboxes were ended with {ended!r}") from error
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)

    def left(self) -> list[tuple[str, str]]:
        """Containers, volumes and networks of it that there are, with their kinds."""
        mine = f"label=com.docker.compose.project={self.name}"
        hosts = [f"label=io.nimbus.sandbox.host={host}" for host in (self.name, self.second_host)]
        asked = [("container", ["--all", "--filter", one, "--format", "{{.ID}} {{.Names}} {{.Status}}"]) for one in (mine, *hosts)]
        asked.append(("volume", ["--quiet", "--filter", mine]))
        left = [(kind, line) for kind, words in asked for line in engine(kind, "ls", *words).splitlines()]
        return left + [("network", network) for network in networks_left(self.name)]


def networks_left(project: str) -> list[str]:
    """Its networks, tried once more to be removed, without those that the engine itself keeps.

    Docker before 23 may lose count of a network's endpoints when containers are killed. It refuses to remove the network then,
    until it is started anew, though nothing is connected to it.
    """
    networks = engine("network", "ls", "-q", "--filter", f"label=com.docker.compose.project={project}").split()
    empty = {one for one in networks if run(["docker", "network", "inspect", "--format", "{{len .Containers}}", one], check=False).strip() == "0"}
    refused = {one for one in empty if "has active endpoints" in run(["docker", "network", "rm", one], check=False, both=True)}
    return [one for one in networks if one not in refused]


def service_of(container: dict[str, Any]) -> str:
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def free_port() -> int:
    """A port that nobody else takes until the engine publishes it, and whenever a container is started again.

    So not one of those that the kernel gives to connections: in the minutes of a test it would give it away.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(200):
        port = random.randrange(10_000, max(first, 11_000))
        with socket.socket() as one, suppress(OSError):
            one.bind(("0.0.0.0", port))
            if port not in TAKEN:
                TAKEN.add(port)
                return port
    raise AssertionError("there is no free port")


# Ports that were given out, and what subnets and words were counted.
TAKEN: set[int] = set()
COUNT = itertools.count()
WORDS = itertools.count(1)


def fresh(word: str) -> str:
    """A name that a second try of the test does not find taken."""
    return f"{word}-{next(WORDS)}"


def free_subnet() -> str:
    """One for each deployment: the engine refuses a network that overlaps another."""
    ids = engine("network", "ls", "-q", "--filter", "driver=bridge").split()
    # Of networks that end while we look there is nothing to say.
    known = run(["docker", "network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", *ids], check=False)
    used = [ipaddress.ip_network(one) for one in known.split()]
    while True:
        number = os.getpid() * 16 + next(COUNT)
        subnet = ipaddress.ip_network((int(ipaddress.ip_address("10.208.0.0")) + (number % 65536) * 16, 28))
        if not any(subnet.overlaps(other) for other in used if other.version == 4):
            return str(subnet)


def words_of(container: str) -> list[str]:
    done = subprocess.run(["docker", "logs", "--tail", "8", container], capture_output=True, text=True, check=False)
    return [line[:400] for line in (done.stdout + done.stderr).splitlines()]


def engine(*arguments: str) -> str:
    return run(["docker", *arguments])


def run(command: list[str], check: bool = True, both: bool = False, **environment: str) -> str:
    """What a command printed; of `both` outputs."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout + done.stderr if both else done.stdout


@dataclass(frozen=True)
class Asked:
    """A request: what for, from when to when, and why it failed if it did."""

    kind: str
    begun: float
    ended: float
    why: str


@dataclass
class Load:
    """People at work: who look, who order machines, and who run commands in a sandbox."""

    deployment: Deployment
    sandbox: str
    word: str
    # Whether what failed is asked again with the same key until it is answered.
    stubborn: bool = False
    failures: list[str] = field(default_factory=list)
    answered: int = 0
    # Between two orders of one person.
    pause: float = 1.5
    asked: list[Asked] = field(default_factory=list)
    orders: dict[str, str] = field(default_factory=dict)
    # What commands have written in the sandbox, by their answers.
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=work) for work in (self._look, self._look, self._order, self._execute)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, kind: str, api: httpx.Client, method: str, path: str, **content: Any) -> httpx.Response | None:
        begun = time.monotonic()
        try:
            answer = api.request(method, path, **content)
            why = "" if answer.is_success else f"{answer.status_code} {answer.text[:300]}"
        except httpx.HTTPError as error:
            answer, why = None, repr(error)
        with self._lock:
            self.asked.append(Asked(kind, begun, time.monotonic(), why))
            if why:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {method} {path} after {time.monotonic() - begun:.1f} s: {why}")
            else:
                self.answered += 1
        return answer if answer is not None and answer.is_success else None

    def _insist(self, *arguments: Any, **content: Any) -> httpx.Response | None:
        until = time.monotonic() + 120
        while (answer := self._ask(*arguments, **content)) is None and self.stubborn and time.monotonic() < until:
            time.sleep(0.2)
        return answer

    def _look(self) -> None:
        with self.deployment.api() as api:
            while not self._stop.is_set():
                for path in ("/api/me", "/api/vms", "/api/operations", "/api/ips"):
                    self._ask("read", api, "GET", path)
                self._stop.wait(0.05)

    def _order(self) -> None:
        with self.deployment.api() as api:
            number = 0
            while not self._stop.is_set():
                hostname = f"{self.word}-{number:02}"
                number += 1
                body = {"hostname": hostname, "tier": "small", "os_template": "debian-12", "ssh_pubkey": PUBLIC_KEY}
                headers = {"Prefer": "respond-async", "Idempotency-Key": hostname}
                answer = self._insist("order", api, "POST", "/api/vms", json=body, headers=headers)
                if answer is not None:
                    with self._lock:
                        self.orders[hostname] = answer.json()["data"]["id"]
                self._stop.wait(self.pause)

    def _execute(self) -> None:
        with self.deployment.api(self.deployment.operator) as api:
            number = 0
            while not self._stop.is_set():
                number += 1
                line = f"{self.word}-{number}"
                body = {"commandId": line, "argv": ["sh", "-c", f"echo {line} | tee -a /tmp/lines"], "timeoutMs": 10_000}
                answer = self._insist("command", api, "POST", f"/api/tenants/{TENANT}/sandboxes/{self.sandbox}/exec", json=body)
                if answer is not None:
                    with self._lock:
                        self.lines.append(line)
                        if answer.json()["stdout"] != f"{line}\n":
                            self.failures.append(f"exec {line} printed {answer.text}")
                self._stop.wait(0.3)

    def nothing_is_lost(self) -> None:
        """Every order that was taken is a machine of its own, and every command ran once."""
        with self.deployment.api() as api:
            for hostname, operation in self.orders.items():

                def ended(operation: str = operation) -> Any:
                    row = api.get(f"/api/operations/{operation}").json()["data"]
                    return row if row["state"] in ("succeeded", "failed") else None

                row = eventually(f"the order of {hostname} has ended", 120, ended)
                assert row["state"] == "succeeded", json.dumps(row)
            guests = [guest["name"] for guest in api.get("/api/cluster/vms").json()["data"] if guest["nimbus_managed"]]
            rows = [{key.lower(): value for key, value in row.items()} for row in api.get("/api/vms?limit=500").json()["data"]]
        assert sorted(guests) == sorted(row["hostname"] for row in rows)
        assert set(self.orders) <= set(guests)
        for key in ("hostname", "vmid", "ip"):
            values = [row[key] for row in rows]
            assert len(set(values)) == len(values), f"{key}: {values}"
        with self.deployment.api(self.deployment.operator) as api:
            shown = api.post(
                f"/api/tenants/{TENANT}/sandboxes/{self.sandbox}/exec",
                json={"argv": ["grep", f"^{self.word}-", "/tmp/lines"], "timeoutMs": 10_000})
        assert shown.is_success, shown.text
        written = shown.json()["stdout"].split()
        assert len(set(written)) == len(written), "a command ran twice"
        assert set(self.lines) <= set(written), "a command that was answered did not run"
