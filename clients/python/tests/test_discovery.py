from __future__ import annotations

import json
from pathlib import Path

import pytest

import nimbus
from conftest import Fake
from nimbus.discovery import discover

DEFAULT_FILE = ".config/nimbus/application_default_credentials.json"
HERE = "http://127.0.0.1:1"


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def header(**options: str) -> tuple[str, str] | None:
    return discover(endpoint=HERE, **options).authorization()  # type: ignore[arg-type]


def test_endpoint_order(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(bare / DEFAULT_FILE, {"endpoint": "http://file:1", "token": "t"})
    assert discover().endpoint == "http://file:1"
    monkeypatch.setenv("NIMBUS_ENDPOINT", "http://environment:1")
    assert discover().endpoint == "http://environment:1"
    assert discover(endpoint="https://option:1/path/").endpoint == "https://option:1/path"


@pytest.mark.parametrize("endpoint", ["127.0.0.1:8080", "ftp://example.org", "http://", "http://user:secret@example.org"])
def test_endpoint_that_is_none(bare: Path, endpoint: str) -> None:
    with pytest.raises(nimbus.NimbusDiscoveryError):
        discover(endpoint=endpoint, token="t")


def test_credential_order(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE", str(write(bare / "workload", " from-token-file \n")))
    assert header() == ("authorization", "Bearer from-token-file")
    write(bare / DEFAULT_FILE, {"access_token": "from-file"})
    assert header() == ("authorization", "Bearer from-file")
    monkeypatch.setenv("NIMBUS_WORKLOAD_IDENTITY_TOKEN", "workload")
    assert header() == ("authorization", "Bearer workload")
    monkeypatch.setenv("NIMBUS_API_KEY", "key")
    assert header() == ("x-nimbus-api-key", "key")
    monkeypatch.setenv("NIMBUS_BEARER_TOKEN", "bearer")
    assert header() == ("authorization", "Bearer bearer")
    monkeypatch.setenv("NIMBUS_TOKEN", "token")
    assert header() == ("authorization", "Bearer token")
    assert header(api_key="option-key") == ("x-nimbus-api-key", "option-key")
    assert header(api_key="option-key", token="option") == ("authorization", "Bearer option")
    explicit = nimbus.Credential("api_key", "explicit")
    assert discover(endpoint=HERE, token="option", credential=explicit).authorization() == ("x-nimbus-api-key", "explicit")


def test_nested_credential_of_a_file(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = write(bare / "x.json", {"endpoint": HERE, "token": "top", "credential": {"type": "api_key", "apiKey": "nested"}})
    monkeypatch.setenv("NIMBUS_APPLICATION_CREDENTIALS", str(where))
    assert discover().authorization() == ("x-nimbus-api-key", "nested")
    write(where, {"endpoint": HERE, "credential": {"kind": "access_token", "access_token": "nested"}})
    assert discover().authorization() == ("authorization", "Bearer nested")
    write(where, {"endpoint": HERE, "credential": {"kind": "password"}})
    with pytest.raises(nimbus.NimbusDiscoveryError, match=r"credential\.kind"):
        discover()


def test_broken_file_is_named_and_not_quoted(bare: Path) -> None:
    where = write(bare / DEFAULT_FILE, '{"token": "secret-of-mine",')
    with pytest.raises(nimbus.NimbusDiscoveryError) as failed:
        header()
    assert str(where) in str(failed.value)
    assert "secret-of-mine" not in str(failed.value)
    assert header(token="t") == ("authorization", "Bearer t")


def test_token_file_is_read_again_after_a_minute(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = write(bare / "workload", "one")
    monkeypatch.setenv("NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE", str(token))
    now = [0.0]
    target = discover(endpoint=HERE, clock=lambda: now[0])
    write(token, "two")
    now[0] = 59.0
    assert target.authorization() == ("authorization", "Bearer one")
    now[0] = 60.0
    assert target.authorization() == ("authorization", "Bearer two")


def test_missing_is_an_error_that_names_what_to_set(bare: Path) -> None:
    with pytest.raises(nimbus.NimbusDiscoveryError, match="NIMBUS_TOKEN.*NIMBUS_APPLICATION_CREDENTIALS"):
        header()
    with pytest.raises(nimbus.NimbusDiscoveryError, match="NIMBUS_ENDPOINT"):
        discover(token="t")
    assert nimbus.Nimbus().tenant_id is None
    with pytest.raises(nimbus.NimbusDiscoveryError):
        nimbus.Nimbus.default_client()


def test_failed_discovery_is_forgotten(bare: Path, fake: Fake, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with nimbus.Nimbus() as client:
        with pytest.raises(nimbus.NimbusDiscoveryError):
            client.tenants.ids()
        monkeypatch.setenv("NIMBUS_ENDPOINT", fake.url)
        monkeypatch.setenv("NIMBUS_TOKEN", fake.token)
        assert tenant in client.tenants.ids()


def test_headers_win_and_may_authorise(bare: Path, fake: Fake) -> None:
    with nimbus.Nimbus(endpoint=fake.url, headers={"Authorization": f"Bearer {fake.token}", "Accept": "application/json;q=1"}) as client:
        client.tenants.ids()
    assert fake.requests()[0]["headers"]["accept"] == "application/json;q=1"


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(nimbus.Credential("bearer", "hidden"))


def test_tenant_is_needed_before_any_request(bare: Path) -> None:
    with nimbus.Nimbus(endpoint=HERE, token="t") as client, pytest.raises(nimbus.NimbusInputError, match="tenant_id"):
        client.services.get("worker")
