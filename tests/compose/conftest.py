"""A deployment for the tests of one file; the next one begins when it is gone, so that each has the machine to itself."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from world import ROOT, SANDBOX, TENANT, Deployment, eventually  # noqa: E402


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    one = Deployment()
    try:
        one.start()
        yield one
    finally:
        one.logs(ROOT / "tests/output/compose")
        one.end()


@pytest.fixture(scope="module")
def sandbox(deployment: Deployment) -> str:
    """A sandbox that idles."""
    return sandbox_of(deployment)


def sandbox_of(deployment: Deployment, host: str = "") -> str:
    """A new sandbox of the tenant, which is made with the first; on this host, if one is named."""
    with deployment.api(deployment.operator) as api:
        assert api.post("/api/tenants", json={"id": TENANT}).status_code in (200, 201, 409)
        elsewhere = []
        # The least used host is taken, as each replica knows them: within two seconds it has read what others did.
        for _ in range(5):
            made = api.post(f"/api/tenants/{TENANT}/sandboxes", json=SANDBOX)
            assert made.status_code == 201, made.text
            name = str(made.json()["metadata"]["id"])
            if made.json()["status"]["host"] == host or not host:
                break
            elsewhere.append(name)
            time.sleep(1)
        else:
            raise AssertionError(f"no sandbox is made on {host}: {made.text}")
        for one in elsewhere:
            gone = api.delete(f"/api/tenants/{TENANT}/sandboxes/{one}", params={"force": "true"})
            assert gone.is_success, gone.text

        def ready() -> bool:
            return bool(api.get(f"/api/tenants/{TENANT}/sandboxes/{name}").json()["status"]["lifecycleState"] == "ready")

        eventually("the sandbox is ready", 60, ready)
        return name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why a test needed its second try, which would else be known to nobody."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.write_sep("_", f"{report.nodeid}, first try")
        terminalreporter.write_line("\n".join(report.longreprtext.splitlines()[-25:]))
