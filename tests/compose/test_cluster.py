"""A bus of three servers and two of every service: no part is missed, and no host with one of each."""

import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
from conftest import sandbox_of
from faults import SERVERS, Events, Fault, Ticker, containers_of, figures, frozen, led_by, number_of, of_services, slow, unreachable
from world import ROOT, SANDBOX, TENANT, Deployment, Load, engine, eventually, fresh, service_of

# How long parts are away. A minute shows what happens after leases have run out; the default is for every day.
AWAY = float(os.environ.get("NIMBUS_TEST_AWAY", "20"))
# After this long without a word a host counts as lost (docs/operate.md).
LOST = 45.0
REPLICATED = ["auth", "ippool", "provisioner", "workloads", "gpu-scheduler"]

# Each service of a test sleeps for a time of its own, by which its process is known.
SECONDS = itertools.count()

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it takes the network from containers")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Deployment]:
    one = Deployment("ops/compose/cluster.yaml", "ops/compose/replicas.yaml")
    try:
        one.start()
        said = one.run("run", "--rm", "-T", "replicas")
        assert {"EVENTS", "KV_leases"} <= set(said.split())
        yield one
    finally:
        one.logs(ROOT / "tests/output/compose-cluster")
        one.end()


@pytest.fixture(scope="module")
def sandbox(cluster: Deployment) -> str:
    """On the second host, which no test takes away."""
    return sandbox_of(cluster, cluster.second_host)


def test_every_stream_is_on_three_servers(cluster: Deployment) -> None:
    with cluster.api() as api:
        report = api.get("/api/deployment").json()["data"]
    assert {stream["replicas"] for stream in report["streams"]} == {3}
    assert len(report["streams"]) >= 2
    # Again, and nothing is to be done.
    assert cluster.run("run", "--rm", "-T", "replicas").split() == []


def test_there_are_two_of_every_service(cluster: Deployment) -> None:
    with cluster.api() as api:
        instances = [row["service"] for row in api.get("/api/deployment").json()["data"]["instances"]]
    for service in ("auth", "ippool", "provisioner", "workloads", "gpu", "agent"):
        assert instances.count(service) == 2, (service, sorted(instances))
    assert len(of_services(cluster, "gateway-1", "gateway-2")) == 2


@pytest.mark.parametrize("server", list(SERVERS))
def test_a_killed_server_fails_no_request(cluster: Deployment, sandbox: str, server: str) -> None:
    cluster.settled()
    victim = next(one for one in cluster.containers() if service_of(one) == server)
    with Load(cluster, sandbox, fresh(f"lose-{server}")) as load:
        eventually("the load runs", 30, lambda: len(load.orders) >= 1 and len(load.lines) >= 2)
        cluster.kill(victim)

        def back() -> bool:
            now = json.loads(engine("inspect", victim["Id"]))[0]
            return bool(now["RestartCount"] > victim["RestartCount"] and now["State"]["Running"])

        eventually(f"{server} is started again", 60, back)
        ordered = len(load.orders)
        eventually("orders go on", 60, lambda: len(load.orders) > ordered + 1)
        cluster.settled()
    print(f"{server} killed: {load.answered} requests answered, {len(load.failures)} failed")
    assert load.failures == []
    load.nothing_is_lost()


def go_through(cluster: Deployment, sandbox: str, word: str, fault: AbstractContextManager[None], what: str) -> None:
    """Load, and a fault in the midst of it: nothing is lost or done twice, and it is over soon."""
    word = fresh(word)
    ticker = Ticker(cluster, cluster.operator, sandbox=sandbox, command=word)
    events = Events(cluster, cluster.token)
    when = Fault()
    with ticker, events:
        with Load(cluster, sandbox, word, stubborn=True, pause=2.5) as load:
            eventually("the load runs", 30, lambda: len(load.orders) >= 1 and len(load.lines) >= 2 and len(ticker.lines()) > 3)
            when.begun = time.monotonic()
            with fault:
                time.sleep(AWAY)
            when.over = time.monotonic()
            cluster.settled()
            ordered = len(load.orders)
            eventually("orders go on", 60, lambda: len(load.orders) > ordered + 1)
        ticker.is_whole()
        load.nothing_is_lost()
        events.nothing_twice(load.orders)
    seen = figures(load, when)
    print(f"{what} for {AWAY:.0f} s: {json.dumps(seen)}; streams broke: output {ticker.breaks}, events {events.breaks}")
    print(*load.failures, *slow(load, when), *ticker.refusals, *events.refusals, sep="\n    ")
    # A command has no key that the proxy sees: what was in hand ends, and its repeat under its own id ran once.
    assert set(seen["failed"]) <= {"command"}, load.failures


@needs_root
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_server_that_nobody_reaches(cluster: Deployment, sandbox: str, role: str) -> None:
    """Its packets vanish: nothing is refused or reset, so that it is gone has to be found out."""
    cluster.settled()
    leads = led_by(cluster)
    chief = max(leads, key=lambda one: ("meta" in leads[one], len(leads[one])))
    victim = chief if role == "leader" else min(leads, key=lambda one: (one == chief, len(leads[one])))
    fault = unreachable(of_services(cluster, victim))
    go_through(cluster, sandbox, f"cut-{role}", fault, f"{victim}, which leads {leads[victim]}, unreachable")


@needs_root
@pytest.mark.parametrize("how", ["unreachable", "frozen"])
def test_a_host_that_is_gone(cluster: Deployment, sandbox: str, how: str) -> None:
    """One of each: a gateway, a replica of every service, an agent with its sandboxes, a server of the bus."""
    cluster.settled()
    first, second = cluster.name, cluster.second_host
    # A service per host, at least: the least used host is taken.
    sleeps = {fresh(how): str(80_000 + next(SECONDS)) for _ in range(2)}
    with cluster.api(cluster.operator) as api:
        for name, seconds in sleeps.items():
            backend = {"kind": "sandbox", "sandbox": {
                "owner": {"kind": "service"}, "backend": "container", "root": SANDBOX["spec"]["root"],  # type: ignore[index]
                "process": {"argv": ["sleep", seconds]}}}
            made = api.post(f"/api/tenants/{TENANT}/services", json={"metadata": {"name": name}, "spec": {"backend": backend}})
            assert made.status_code == 201, made.text
            assert api.post(f"/api/tenants/{TENANT}/services/{name}/start").is_success

    def copies() -> dict[str, list[str]]:
        """Where each service runs, by its process."""
        where: dict[str, list[str]] = {name: [] for name in sleeps}
        for host in (first, second):
            for container in containers_of(host):
                processes = [line.split(maxsplit=1)[-1] for line in engine("top", container, "-eo", "pid,args").splitlines()]
                for name, seconds in sleeps.items():
                    where[name] += [host] * processes.count(f"sleep {seconds}")
        return where

    eventually("both services run", 60, lambda: all(len(one) == 1 for one in copies().values()))
    here = [name for name, hosts in copies().items() if hosts == [first]]
    leads = led_by(cluster)
    chief = max(leads, key=lambda one: ("meta" in leads[one], len(leads[one])))
    host = [one for one in of_services(cluster, *REPLICATED) if number_of(one) == min(
        number_of(other) for other in of_services(cluster, service_of(one)))]
    host += of_services(cluster, "gateway-1", "sandbox-agent", chief)
    assert len(host) == len(REPLICATED) + 3
    if how == "frozen":
        host += json.loads(engine("inspect", *containers_of(first))) if containers_of(first) else []
    fault = {"unreachable": unreachable, "frozen": frozen}[how](host)
    go_through(cluster, sandbox, f"host-{how}", fault, f"host with {chief}, which leads {leads[chief]}, {how}")
    # What was started elsewhere meanwhile is not there twice.
    eventually("each service runs once", 60, lambda: all(len(one) == 1 for one in copies().values()))
    now = copies()
    print(f"services on the host: {here}; now {now}")
    if AWAY > LOST:
        assert all(now[name] == [second] for name in here)
    with cluster.api(cluster.operator) as api:
        for name in sleeps:
            service = f"/api/tenants/{TENANT}/services/{name}"
            generation = api.get(service).json()["metadata"]["generation"]
            gone = api.delete(service, params={"force": "true", "ifMatchGeneration": generation})
            assert gone.is_success, gone.text
