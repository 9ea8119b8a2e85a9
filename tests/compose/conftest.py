"""One deployment for all tests of this folder; they run one after the other."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from world import ROOT, SANDBOX, TENANT, Deployment, eventually  # noqa: E402


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    one = Deployment()
    try:
        one.start()
        yield one
    finally:
        one.logs(ROOT / "tests/output/compose")
        one.end()


@pytest.fixture(scope="session")
def sandbox(deployment: Deployment) -> str:
    """A sandbox that idles."""
    return sandbox_of(deployment)


def sandbox_of(deployment: Deployment) -> str:
    """A new sandbox of the tenant, which is made with the first."""
    with deployment.api(deployment.operator) as api:
        assert api.post("/api/tenants", json={"id": TENANT}).status_code in (200, 201, 409)
        made = api.post(f"/api/tenants/{TENANT}/sandboxes", json=SANDBOX)
        assert made.status_code == 201, made.text
        name = str(made.json()["metadata"]["id"])

        def ready() -> bool:
            return bool(api.get(f"/api/tenants/{TENANT}/sandboxes/{name}").json()["status"]["lifecycleState"] == "ready")

        eventually("the sandbox is ready", 60, ready)
        return name
