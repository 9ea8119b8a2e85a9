from __future__ import annotations

import pytest

import nimbus
from conftest import Fake, service, spec
from nimbus.errors import api_error

BALANCER: nimbus.specs.BuiltInBackend = {"kind": "builtIn", "provider": "loadBalancer"}


def test_errors_carry_what_the_server_said(client: nimbus.Nimbus, fake: Fake) -> None:
    client.services.create("worker", BALANCER)
    client.services.update("worker", BALANCER, if_match_generation=1)
    with pytest.raises(nimbus.NimbusPreconditionFailedError) as stale:
        client.services.update("worker", BALANCER, if_match_generation=1)
    error = stale.value
    assert (error.code, error.status, error.retryable) == ("op.precondition_failed", 412, False)
    assert error.detail == {"expectedGeneration": 1, "currentGeneration": 2}
    assert error.remediation is not None and error.remediation.action == "refresh_resource"
    assert error.request_id is not None and error.request_id.startswith("req-")
    assert "op.precondition_failed" in str(error)
    with pytest.raises(nimbus.NimbusNotFoundError):
        client.services.get("nobody")
    with pytest.raises(nimbus.NimbusConflictError):
        client.services.start("worker")
    with nimbus.Nimbus(endpoint=fake.url, token="wrong") as stranger, pytest.raises(nimbus.NimbusAuthError):
        stranger.tenants.ids()


def test_errors_of_answers_that_are_no_envelope() -> None:
    assert api_error(None, status=502).code == "service.unavailable"
    assert api_error({"success": False, "error": "no", "fault": {"code": "machine.busy", "message": "busy"}}, status=409).code == "machine.busy"
    limited = api_error({"error": {"code": "rate.limited", "message": "m", "detail": {"retryAfterMs": 1500}}}, status=429)
    assert isinstance(limited, nimbus.NimbusRateLimitedError) and limited.retry_after == 1.5


def test_unreachable_server() -> None:
    with (
        nimbus.Nimbus(endpoint="http://127.0.0.1:1", token="t", max_retries=0) as client,
        pytest.raises(nimbus.NimbusTransportError) as failed,
    ):
        client.tenants.ids()
    assert failed.value.retryable and failed.value.status == 0


def test_reads_are_repeated(client: nimbus.Nimbus, fake: Fake) -> None:
    fake.break_next("^GET")
    fake.break_next("^GET", status=503, times=2)
    client.tenants.ids()
    assert len(fake.requests()) == 4


def test_a_creation_is_repeated_under_the_same_key(client: nimbus.Nimbus, fake: Fake) -> None:
    fake.break_next("^POST .*sandboxes$", after=True)
    made = client.sandboxes.create(spec())
    keys = [request["headers"].get("idempotency-key") for request in fake.requests()]
    assert len(keys) == 2 and keys[0] == keys[1] and keys[0]
    assert [one.id for one in client.sandboxes.list()] == [made.id]


def test_what_may_have_been_done_is_not_repeated(client: nimbus.Nimbus, fake: Fake) -> None:
    client.services.create("worker", service())
    fake.requests()
    fake.break_next("^(POST|PUT|DELETE)", status=503, times=3)
    for attempt in (
        lambda: client.services.start("worker"),
        lambda: client.services.update("worker", BALANCER, if_match_generation=1),
        lambda: client.services.delete("worker", if_match_generation=1),
    ):
        with pytest.raises(nimbus.NimbusApiError):
            attempt()
    fake.break_next("^GET", status=503, retryable=False, code="service.sandbox_backend_unavailable")
    with pytest.raises(nimbus.NimbusApiError):
        client.services.get("worker")
    fake.break_next("^GET", status=429, code="rate.resource_exhausted")
    with pytest.raises(nimbus.NimbusRateLimitedError):
        client.services.get("worker")
    fake.break_next("^GET", status=429, code="rate.limited", headers={"retry-after": "60"})
    with pytest.raises(nimbus.NimbusRateLimitedError) as limited:
        client.services.get("worker")
    assert limited.value.retry_after == 60


def test_lists(client: nimbus.Nimbus, fake: Fake) -> None:
    for name in "abcde":
        client.services.create(name, BALANCER, labels={"early": "yes"} if name < "d" else None)
    fake.requests()
    listing = client.services.list(limit=2)
    assert fake.requests() == []
    page = listing.page()
    assert [one.metadata.name for one in page] == ["a", "b"]
    assert (page.metadata.next_page_token, page.metadata.remaining_count) == ("b", 3)
    assert [one.metadata.name for one in listing] == list("abcde")
    assert len(list(client.services.list(label_key="early", label_value="yes"))) == 3


def test_names_are_taken_as_they_are(client: nimbus.Nimbus, tenant: str, fake: Fake) -> None:
    with pytest.raises(nimbus.NimbusApiError):
        client.services.get("../tenants?x=1#y")
    assert fake.requests()[0]["path"] == f"/api/tenants/{tenant}/services/..%2Ftenants%3Fx%3D1%23y"
