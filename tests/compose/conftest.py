"""A deployment for the tests of one file; the next one begins when it is gone, so that each has the machine to itself."""

import sys
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
        # The one that is used least is taken, so the second is elsewhere.
        for _ in range(4):
            made = api.post(f"/api/tenants/{TENANT}/sandboxes", json=SANDBOX)
            assert made.status_code == 201, made.text
            name = str(made.json()["metadata"]["id"])
            if made.json()["status"]["host"] == host or not host:
                break
        else:
            raise AssertionError(f"no sandbox is made on {host}: {made.text}")

        def ready() -> bool:
            return bool(api.get(f"/api/tenants/{TENANT}/sandboxes/{name}").json()["status"]["lifecycleState"] == "ready")

        eventually("the sandbox is ready", 60, ready)
        return name
