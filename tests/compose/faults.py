"""Parts of a deployment that fall silent, and what people see of it."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from world import TENANT, Deployment, Load, engine, eventually, run, service_of

# Both directions, but for the loopback, over which a container asks about its own health.
DROP = [("INPUT", "-i"), ("OUTPUT", "-o")]


def filter_packets(container: dict[str, Any], action: str) -> None:
    """`-I` lets packets of a container vanish, `-D` lets them pass again. Nobody is told: no reset, no refusal."""
    inside = ["nsenter", "--target", str(container["State"]["Pid"]), "--net", "iptables", "--wait"]
    for chain, interface in DROP:
        run([*inside, action, chain, "!", interface, "lo", "-j", "DROP"])


@contextmanager
def unreachable(containers: list[dict[str, Any]]) -> Iterator[None]:
    """As long as this lasts, the network swallows what they send and what is sent to them."""
    cut = []
    try:
        for one in containers:
            cut.append(one)
            filter_packets(one, "-I")
        yield
    finally:
        for one in cut:
            # Where it was started anew meanwhile, its rules are gone with its network.
            with suppress(AssertionError):
                filter_packets(one, "-D")


@contextmanager
def frozen(containers: list[dict[str, Any]]) -> Iterator[None]:
    """As long as this lasts, they do nothing, while their kernel still acknowledges what is sent to them."""
    names = [one["Id"] for one in containers]
    paused: list[str] = []
    try:
        # One call freezes them one after the other; a host stops at once.
        waiting = [(name, subprocess.Popen(["docker", "pause", name], stdout=subprocess.DEVNULL)) for name in names]
        for name, process in waiting:
            assert process.wait() == 0, f"could not freeze {name}"
            paused.append(name)
        yield
    finally:
        if paused:
            run(["docker", "unpause", *paused])


@dataclass
class Fault:
    """When it began and when it was over."""

    begun: float = 0.0
    over: float = 0.0


# Longer than this, and a person wonders.
SLOW = 5.0


def figures(load: Load, fault: Fault) -> dict[str, Any]:
    """What people saw of a fault: how much failed, how long nothing was answered, when it was as before."""
    asked = sorted(load.asked, key=lambda one: one.ended)
    during = [one for one in asked if one.ended >= fault.begun]
    failed = [one for one in during if one.why]

    def gap(kind: str | None) -> float:
        answers = [one.ended for one in during if not one.why and kind in (None, one.kind)]
        moments = [fault.begun, *answers]
        return max((later - earlier for earlier, later in zip(moments, moments[1:], strict=False)), default=0.0)

    def troubled(after: float, before: float) -> float:
        """From `after` until the last request that failed or was slow had its answer."""
        ends = [one.ended for one in during if after <= one.ended and one.begun < before and (one.why or one.ended - one.begun > SLOW)]
        return max(ends, default=after) - after

    # What was begun before it was over belongs to the fault itself.
    after = [one.ended for one in during if one.begun >= fault.over and (one.why or one.ended - one.begun > SLOW)]
    return {
        "answered": len(during) - len(failed),
        "failed": dict(Counter(one.kind for one in failed)),
        "gap": round(gap(None), 1),
        "gap of": {kind: round(gap(kind), 1) for kind in ("read", "order", "command")},
        "recovered after": round(troubled(fault.begun, fault.over), 1),
        "after it was over": round(max(after, default=fault.over) - fault.over, 1),
        "slowest": round(max((one.ended - one.begun for one in during), default=0.0), 1),
    }


def slow(load: Load, fault: Fault) -> list[str]:
    """What took longer than it should, by when it began."""
    late = [one for one in load.asked if one.ended >= fault.begun and one.ended - one.begun > SLOW]
    return [f"{one.kind} at {one.begun - fault.begun:+.1f} s took {one.ended - one.begun:.1f} s {one.why[:80]}" for one in late]


@dataclass
class Listener:
    """Reads something that is streamed, and comes back for the rest whenever that breaks."""

    deployment: Deployment
    token: str = ""
    breaks: int = 0
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), f"{type(self).__name__} hangs"

    def _listen(self) -> None:
        # A stream of which nothing is heard for longer than the heartbeat (15 s) is broken.
        limits = httpx.Timeout(20, connect=5)
        with self.deployment.api(self.token) as api:
            while not self._stop.is_set():
                try:
                    with api.stream("GET", self.path(), headers=self.headers(), timeout=limits) as answer:
                        if not answer.is_success:
                            self.refusals.append(f"{answer.status_code} {answer.read().decode()[:200]}")
                        else:
                            for line in answer.iter_lines():
                                self.take(line)
                                if self._stop.is_set():
                                    return
                except httpx.HTTPError as error:
                    self.refusals.append(repr(error))
                self.breaks += 1
                self._stop.wait(0.2)

    def path(self) -> str:
        raise NotImplementedError

    def headers(self) -> dict[str, str]:
        return {}

    def take(self, line: str) -> None:
        raise NotImplementedError


@dataclass
class Ticker(Listener):
    """Somebody who reads what a command writes, a line five times a second."""

    sandbox: str = ""
    command: str = ""
    text: str = ""
    offset: int = 0

    def __enter__(self) -> Any:
        words = ["sh", "-c", "n=0; while true; do n=$((n + 1)); echo $n; sleep 0.2; done"]
        with self.deployment.api(self.deployment.operator) as api:
            where = f"/api/tenants/{TENANT}/sandboxes/{self.sandbox}/exec"
            body = {"commandId": self.command, "argv": words}
            with api.stream("POST", where, json=body, headers={"Accept": "application/x-ndjson"}) as answer:
                assert answer.is_success, answer.read()
                # It runs now, and goes on without us.
                next(answer.iter_lines())
        return super().__enter__()

    def path(self) -> str:
        return f"/api/tenants/{TENANT}/sandboxes/{self.sandbox}/commands/{self.command}?from={self.offset}"

    def take(self, line: str) -> None:
        frame = json.loads(line) if line else {}
        match frame.get("kind"):
            case "stdout":
                # The offset is that of the stream, so what is sent twice or left out shows.
                assert frame["offset"] == self.offset, f"{frame} after {self.offset}"
                self.text += frame["data"]
                self.offset += len(frame["data"].encode())
            case "exit" | "error":
                self.refusals.append(line)

    def lines(self) -> list[str]:
        return self.text.splitlines()

    def is_whole(self) -> None:
        """Every line once, in order, and lines to the end."""
        lines = self.lines()
        assert lines == [str(number + 1) for number in range(len(lines))]

        def further() -> bool:
            return len(self.lines()) > len(lines)

        eventually(f"{self.command} goes on", 30, further)


@dataclass
class Events(Listener):
    """A portal: it reads what happens, and after a break what it has missed."""

    last: str = ""
    name: str = ""
    resets: int = 0
    seen: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def path(self) -> str:
        return "/api/events"

    def headers(self) -> dict[str, str]:
        return {"Last-Event-ID": self.last} if self.last else {}

    def take(self, line: str) -> None:
        key, _, value = line.partition(":")
        value = value.strip()
        match key:
            case "id":
                self.last = value
            case "event":
                self.name = value
            case "data" if self.name == "reset":
                # The first connection begins with one: it has seen nothing yet.
                self.resets += 1
            case "data":
                self.seen.append((self.last, self.name, json.loads(value)))

    def nothing_twice(self, orders: dict[str, str]) -> None:
        """No event came twice, under its own or another id, and of each order that was taken the end was told."""
        if self.resets <= 1:
            eventually("the end of every order is told", 15, lambda: set(orders.values()) <= set(self.ends()))
        ids = [id for id, _, _ in self.seen]
        assert ids == sorted(set(ids), key=int), "an event was shown twice, or late"
        assert [one for one, times in self.ends().items() if times > 1] == [], "an operation ended twice"
        created = [row["vm"] for _, name, row in self.seen if name == "machine" and row["kind"] == "created"]
        made = Counter(next(value for key, value in vm.items() if key.lower() == "hostname") for vm in created)
        assert [one for one, times in made.items() if times > 1] == [], "a machine was made twice"

    def ends(self) -> Counter[str]:
        return Counter(row["id"] for _, name, row in self.seen if name == "operation" and row["state"] in ("succeeded", "failed"))


def of_services(deployment: Deployment, *services: str) -> list[dict[str, Any]]:
    return [one for one in deployment.containers() if service_of(one) in services]


def number_of(container: dict[str, Any]) -> int:
    """Which of the replicas it is."""
    return int(container["Config"]["Labels"]["com.docker.compose.container-number"])


# As Compose calls the servers, and as they call themselves.
SERVERS = {"nats": "nats-1", "nats-2": "nats-2", "nats-3": "nats-3"}


def led_by(deployment: Deployment) -> dict[str, list[str]]:
    """What each server of the bus leads: streams, and the cluster itself (`meta`)."""
    with deployment.api(deployment.operator) as api:
        streams = {row["name"]: row["leader"] for row in api.get("/api/deployment").json()["data"]["streams"]}
    said = json.loads(deployment.run("exec", "-T", "nats", "wget", "-q", "-O", "-", "http://127.0.0.1:8222/jsz"))
    streams["meta"] = said["meta_cluster"]["leader"]
    return {service: [what for what, leader in streams.items() if leader == name] for service, name in SERVERS.items()}


def containers_of(host: str) -> list[str]:
    """Sandboxes that run for an agent."""
    return engine("ps", "-q", "--no-trunc", "--filter", f"label=io.nimbus.sandbox.host={host}").split()
