"""Dashboards and alerts speak of figures that exist, with labels and values that they have."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops/observability"
BINARY = os.environ.get("NIMBUS_BIN", str(ROOT / "target/debug/nimbus"))
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE6w2mHWRPZeQFlDXDvKDW0UDYGDdIdRzHKcfRl0pzOJ somebody@example.org"

# Prometheus itself makes it, of every target.
OF_PROMETHEUS = {"up": {"job", "instance"}}
# Prometheus puts these on every figure.
OF_EVERY_TARGET = {"job", "instance"}

SELECTOR = re.compile(r"(?<![\w:.$\"])((?:nimbus|haproxy|otelcol|up)(?:_\w+)?)\s*(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((OPS / "rules.yml").read_text())["groups"] for rule in group["rules"]]


def dashboards() -> dict[str, dict[str, Any]]:
    found = {path.stem: json.loads(path.read_text()) for path in sorted((OPS / "grafana/dashboards").glob("*.json"))}
    assert found
    return found


def expressions() -> list[tuple[str, str]]:
    """Where it stands, and what it says."""
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            found += [(f"{name}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    return found


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, set[str]]]]:
    """Of every figure that a server and a proxy at work show: its labels and their values."""
    work = tmp_path_factory.mktemp("figures")
    ready = work / "ready.json"
    with open(work / "log", "w") as log:
        server = subprocess.Popen(
            [BINARY, "dev", "--ephemeral", "--port", "0", "--latency-scale", "0", "--ready-file", str(ready)],
            stdout=log, stderr=log, cwd=work, env={**os.environ, "HOME": str(work), "NIMBUS_SANDBOX_WARM": "0"})
    port = free_port()
    # As in the deployment, but on ports and with addresses of this machine.
    text = (ROOT / "ops/compose/haproxy.cfg").read_text()
    text = text.replace("bind :8080", f"bind 127.0.0.1:{free_port()}").replace("bind :8404", f"bind 127.0.0.1:{port}")
    text = re.sub(r" {4}bind :8443.*\n", "", text).replace("127.0.0.1@", "").replace("ipv4@127.0.0.1:9999", f"ipv4@127.0.0.1:{free_port()}")
    (work / "haproxy.cfg").write_text(text)
    with open(work / "proxy.log", "w") as log:
        proxy = subprocess.Popen([shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", str(work / "haproxy.cfg")], stdout=log, stderr=log)
    try:
        base = wait_for(server, ready, work / "log")
        use(base)
        page = httpx.get(base + "/metrics").text
        page += eventually_page(proxy, f"http://127.0.0.1:{port}/metrics", work / "proxy.log")
        yield parsed(page)
    finally:
        for process in (proxy, server):
            process.terminate()
            process.wait(timeout=30)


def use(base: str) -> None:
    """Has everything counted at least once: a machine, a refusal, an event stream, a failure."""
    with httpx.Client(base_url=base, headers={"Origin": base}, timeout=60) as browser:
        person = {"name": "Ada", "email": "ada@example.org", "password": "correct horse battery"}
        assert browser.post("/api/setup/admin", json=person).is_success
        with browser.stream("GET", "/api/events"):
            for hostname in ("first", "second"):
                order = {"hostname": hostname, "tier": "small", "os_template": "debian-12", "ssh_pubkey": PUBLIC_KEY}
                made = browser.post("/api/vms", json=order)
                assert made.status_code == 200, made.text
        assert browser.get("/api/vms/vm_00000000000000000000000000").status_code in (400, 404)
        # The event of the last order reaches the counters a moment after the answer.
        wait_until(lambda: 'nimbus_provisions_total{outcome="ok"} 2' in browser.get("/metrics").text)


def test_every_figure_exists(figures: dict[str, dict[str, set[str]]]) -> None:
    assert len(expressions()) > 20
    unknown = []
    for where, expression in expressions():
        names = [match.group(1) for match in SELECTOR.finditer(expression)]
        assert names, f"{where} looks at nothing: {expression}"
        unknown += [f"{where}: {name}" for name in names if name not in figures and name not in OF_PROMETHEUS]
    assert unknown == []


def test_every_label_exists(figures: dict[str, dict[str, set[str]]]) -> None:
    unknown = []
    for where, expression in expressions():
        # What label_replace makes is there to be grouped by.
        made = set(re.findall(r'label_replace\(.*?,\s*"(\w+)",\s*"\$1"', expression))
        known = OF_EVERY_TARGET | made
        for match in SELECTOR.finditer(expression):
            labels = set(figures.get(match.group(1), {})) | OF_PROMETHEUS.get(match.group(1), set())
            known |= labels
            for label, _, _ in MATCHER.findall(match.group(2) or ""):
                if label not in labels | OF_EVERY_TARGET:
                    unknown.append(f"{where}: {match.group(1)} has no label {label}")
        for group in GROUPING.findall(expression):
            unknown += [f"{where}: grouped by {one}" for one in re.findall(r"\w+", group) if one not in known]
    assert unknown == []


def test_every_value_exists(figures: dict[str, dict[str, set[str]]]) -> None:
    """What a label is compared with is something that it can be: as shown now, or a code of the catalog."""
    codes = set(re.findall(r'"([a-z_]+\.[a-z_]+)"', (ROOT / "shared/errors/src/catalog.rs").read_text()))
    assert len(codes) > 30
    methods = set(re.findall(r"`nimbus\.v1\.rpc\.([a-z_.]+)`", (ROOT / "docs/bus.md").read_text()))
    unknown = []
    for where, expression in expressions():
        for match in SELECTOR.finditer(expression):
            for label, operator, value in MATCHER.findall(match.group(2) or ""):
                possible = set(figures.get(match.group(1), {}).get(label, set()))
                if label == "outcome":
                    possible |= codes
                if label == "method" and "_rpc_" in match.group(1):
                    possible |= methods
                if label == "status":
                    possible |= {"429", "500", "502", "503"}
                if label == "job":
                    possible |= {one["job_name"] for one in yaml.safe_load((OPS / "prometheus.yml").read_text())["scrape_configs"]}
                value = value.replace("\\\\", "\\")
                # Of an alternative, every branch has to mean something.
                for branch in value.split("|") if "~" in operator and "(" not in value else [value]:
                    if not any(re.fullmatch(branch, one) if "~" in operator else branch == one for one in possible):
                        unknown.append(f"{where}: {label}{operator}{branch!r} of {match.group(1)} can only be {sorted(possible)[:20]}")
    assert unknown == []


def test_every_alert_has_a_page_to_turn_to() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.M)
    alerts = [rule["alert"] for rule in rules()]
    assert sorted(headings) == sorted(alerts)
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_dashboards_stand_in_order() -> None:
    sources = yaml.safe_load((OPS / "grafana/provisioning/datasources/nimbus.yaml").read_text())["datasources"]
    known = {source["uid"] for source in sources}
    identifiers = set()
    for name, dashboard in dashboards().items():
        identifiers.add(dashboard["uid"])
        for panel in dashboard["panels"]:
            assert panel["datasource"]["uid"] in known, f"{name}: {panel['title']}"
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
    assert len(identifiers) == len(dashboards())


def test_the_collector_names_only_what_it_has() -> None:
    config = yaml.safe_load((OPS / "collector.yaml").read_text())
    for name, pipeline in config["service"]["pipelines"].items():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(config[kind]), f"{name}: {kind}"


def test_prometheus_takes_rules_and_configuration(tmp_path: Path) -> None:
    config = (OPS / "prometheus.yml").read_text().replace("/etc/prometheus/rules.yml", str(OPS / "rules.yml"))
    (tmp_path / "prometheus.yml").write_text(config)
    for command in (
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")],
        ["promtool", "test", "rules", str(OPS / "rules_test.yml")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_prometheus_reads_is_in_compose() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for job in yaml.safe_load((OPS / "prometheus.yml").read_text())["scrape_configs"]:
        for target in job["static_configs"][0]["targets"]:
            assert target.split(":")[0] in services, target


@pytest.mark.parametrize("override", ["", "ops/compose/hosts.yaml", "ops/compose/cluster.yaml"])
def test_compose_takes_the_files(override: str, tmp_path: Path) -> None:
    """With every profile and nothing but what .env.example says; what is mounted from the checkout is there."""
    (tmp_path / "env").write_text((ROOT / ".env.example").read_text().replace("DOCKER_GID=", "DOCKER_GID=1"))
    command = [
        os.environ.get("NIMBUS_TEST_COMPOSE", str(ROOT / "target/venv/bin/docker-compose")), "--env-file", str(tmp_path / "env"),
        "-f", "compose.yaml", *(["-f", override] if override else []), "--profile", "*", "config", "--format", "json",
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NIMBUS_BUS_NAME": "nimbus.example.org"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "level=warning" not in done.stderr, done.stderr
    project = json.loads(done.stdout)
    assert {"collector", "jaeger", "prometheus", "grafana"} <= set(project["services"])
    files = [Path(config["file"]) for config in project["configs"].values()]
    files += [
        Path(mount["source"]) for service in project["services"].values() for mount in service.get("volumes", []) if mount["type"] == "bind"
    ]
    mounted = [file for file in files if file.is_relative_to(ROOT) and not file.is_relative_to(ROOT / "secrets")]
    assert len(mounted) >= 6
    assert [str(file) for file in mounted if not file.exists()] == []
    for name, service in project["services"].items():
        assert service.get("read_only") and service["cap_drop"] == ["ALL"], name
        assert name == "replicas" or service["deploy"]["resources"]["limits"]["memory"], name


def parsed(page: str) -> dict[str, dict[str, set[str]]]:
    found: dict[str, dict[str, set[str]]] = {}
    for line in page.splitlines():
        match = re.match(r"(\w+)(?:\{(.*)\})? \S+", line)
        if match and not line.startswith("#"):
            labels = found.setdefault(match.group(1), {})
            for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""):
                labels.setdefault(label, set()).add(value)
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_until(probe: Any) -> None:
    until = time.monotonic() + 60
    while not probe():
        assert time.monotonic() < until, "not within a minute"
        time.sleep(0.1)


def wait_for(server: subprocess.Popen[bytes], ready: Path, log: Path) -> str:
    wait_until(lambda: ready.exists() or server.poll() is not None)
    assert ready.exists(), log.read_text()
    return str(json.loads(ready.read_text())["url"])


def eventually_page(proxy: subprocess.Popen[bytes], url: str, log: Path) -> str:
    page = ""

    def answers() -> bool:
        nonlocal page
        assert proxy.poll() is None, log.read_text()
        try:
            page = httpx.get(url).text
        except httpx.HTTPError:
            return False
        return True

    wait_until(answers)
    return page
