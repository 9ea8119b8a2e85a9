"""A bus of three servers: none of them is missed."""

import json
from collections.abc import Iterator

import pytest
from conftest import sandbox_of
from world import ROOT, Deployment, Load, engine, eventually, service_of


@pytest.fixture(scope="module")
def cluster() -> Iterator[Deployment]:
    one = Deployment("ops/compose/cluster.yaml")
    try:
        one.start()
        said = one.run("run", "--rm", "-T", "replicas")
        assert {"EVENTS", "KV_leases"} <= set(said.split())
        yield one
    finally:
        one.logs(ROOT / "tests/output/compose-cluster")
        one.end()


def test_every_stream_is_on_three_servers(cluster: Deployment) -> None:
    with cluster.api() as api:
        report = api.get("/api/deployment").json()["data"]
    assert {stream["replicas"] for stream in report["streams"]} == {3}
    assert len(report["streams"]) >= 2
    # Again, and nothing is to be done.
    assert cluster.run("run", "--rm", "-T", "replicas").split() == []


@pytest.mark.parametrize("server", ["nats", "nats-2", "nats-3"])
def test_a_killed_server_fails_no_request(cluster: Deployment, server: str) -> None:
    cluster.settled()
    sandbox = sandbox_of(cluster)
    victim = next(one for one in cluster.containers() if service_of(one) == server)
    with Load(cluster, sandbox, f"lose-{server}") as load:
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
