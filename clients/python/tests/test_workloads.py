from __future__ import annotations

from collections.abc import Callable

import pytest

import nimbus
from conftest import Fake, ready, service, spec


def test_a_service_from_definition_to_deletion(client: nimbus.Nimbus) -> None:
    made = client.services.create("worker", service(), labels={"team": "search"})
    assert (made.metadata.generation, made.status.lifecycle_state) == (1, "stopped")
    started = client.services.start("worker", wait_until="ready", interval=0.01)
    assert started.status.readiness == "ready" and started.status.conditions[0].type == "Ready"
    restarted = client.services.restart("worker", wait_until="healthy", interval=0.01)
    assert restarted.status.health == "healthy"
    assert client.services.stop("worker", wait_until="stopped").status.lifecycle_state == "stopped"
    current = client.services.get("worker")
    updated = client.services.update(
        "worker", {"kind": "builtIn", "provider": "loadBalancer"}, if_match_generation=current.metadata.generation
    )
    assert updated.metadata.generation == 2 and updated.metadata.labels == {"team": "search"}
    client.services.delete("worker", if_match_generation=updated.metadata.generation)
    assert list(client.services.list()) == []


def test_a_wait_says_what_it_saw_last(client: nimbus.Nimbus) -> None:
    client.services.create("worker", service())
    with pytest.raises(nimbus.NimbusWaitTimeoutError, match="service worker was not ready within 60 ms; last seen: lifecycleState stopped, readiness stopped") as late:
        client.services.wait("worker", "ready", timeout=0.06, interval=0.02)
    assert isinstance(late.value, TimeoutError)
    assert isinstance(late.value.last, nimbus.Service) and late.value.last.metadata.name == "worker"


def test_waits_refuse_what_cannot_be_meant(client: nimbus.Nimbus, fake: Fake) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: client.services.start("w", wait_until="stopped"),  # type: ignore[arg-type]
        lambda: client.services.stop("w", wait_until="ready"),  # type: ignore[arg-type]
        lambda: client.services.wait("w", "gone"),  # type: ignore[arg-type]
        lambda: client.services.wait("w", "ready", timeout=0),
        lambda: client.services.start("w", wait_until="ready", interval=float("nan")),
    ]
    for attempt in attempts:
        with pytest.raises(nimbus.NimbusInputError):
            attempt()
    assert fake.requests() == []


def test_waits_end_at_once_where_there_is_no_hope(client: nimbus.Nimbus) -> None:
    client.services.create("balancer", {"kind": "builtIn", "provider": "loadBalancer"})
    with pytest.raises(nimbus.NimbusWaitFailedError, match="only declared"):
        client.services.wait("balancer", "ready")
    sandbox = client.sandboxes.create(spec("sh", "-c", "exit 3"))
    with pytest.raises(nimbus.NimbusWaitFailedError, match="exitCode 3"):
        sandbox.wait("stopped", interval=0.01)


def test_a_wait_outlives_short_troubles(client: nimbus.Nimbus, fake: Fake) -> None:
    client.services.create("worker", service())
    fake.break_next("^GET", status=503, times=6)
    assert client.services.start("worker", wait_until="ready", interval=0.01).status.readiness == "ready"


def test_a_sandbox_is_stopped_at_the_end_of_a_block(client: nimbus.Nimbus) -> None:
    with client.sandboxes.create(spec(), labels={"purpose": "test"}) as sandbox:
        assert sandbox.status.lifecycle_state == "starting"
        assert sandbox.wait("ready", interval=0.01).status.readiness == "ready"
        assert sandbox.spec.sandbox["process"]["argv"] == {"redacted": True, "valueCount": 3}
        found = client.sandboxes.list(status="ready", label_key="purpose").page()
        assert [one.id for one in found] == [sandbox.id]
        expires_at = sandbox.extend(ttl=60).status.expires_at
        assert expires_at is not None and expires_at > sandbox.metadata.created_at
        assert "8080" in sandbox.preview(8080, ttl=60).url
    assert sandbox.refresh().status.lifecycle_state == "stopped"
    sandbox.delete()
    with pytest.raises(nimbus.NimbusNotFoundError):
        sandbox.refresh()


def test_secrets_and_volumes(client: nimbus.Nimbus) -> None:
    client.secrets.put("key", "one")
    assert client.secrets.put("key", "two").version == 2
    assert "two" not in repr(client.secrets.all())
    client.secrets.delete("key")
    assert client.secrets.all() == []
    assert client.volumes.ensure("data").used_by == []
    assert [one.name for one in client.volumes.all()] == ["data"]
    client.volumes.delete("data")
    with pytest.raises(nimbus.NimbusNotFoundError):
        client.volumes.delete("data")


def test_logs(client: nimbus.Nimbus) -> None:
    sandbox = ready(client, "sh", "-c", "echo one; echo two >&2; sleep 0.1; echo three")
    lines = list(sandbox.logs(follow=True))
    assert "three" in "".join(line.data for line in lines)
    assert {line.stream for line in lines} == {"stdout", "stderr"}


def test_files(client: nimbus.Nimbus) -> None:
    files = ready(client).files
    files.write("/box/a.txt", "grüße", create_parents=True, mode=0o600)
    assert (files.stat("/box/a.txt").size, files.stat("/box/a.txt").mode) == (7, "0600")
    assert files.read_text("/box/a.txt") == "grüße"
    data = bytes(range(256))
    files.write("/box/b.bin", data)
    assert files.read("/box/b.bin", offset=10, length=5) == data[10:15]
    files.write("/box/c", iter([b"stre", b"amed"]))
    assert b"".join(files.stream("/box/c")) == b"streamed"
    with pytest.raises(nimbus.NimbusPreconditionFailedError):
        files.write("/box/c", b"", if_none_match="*")
    files.write("/box/c", "streamed", if_match=files.stat("/box/c").etag)
    with pytest.raises(nimbus.NimbusPreconditionFailedError):
        files.write("/box/c", "late", if_match="other")
    files.mkdir("/box/sub")
    files.move("/box/c", "/box/sub/d")
    assert [entry.name for entry in files.list("/box", limit=1)] == ["a.txt", "b.bin", "sub"]
    files.extract("/copy", b"".join(files.archive("/box")))
    assert files.read_text("/copy/sub/d") == "streamed"
    files.remove("/box", recursive=True)
    with pytest.raises(nimbus.NimbusNotFoundError):
        files.read("/box/a.txt")


def test_sessions(client: nimbus.Nimbus) -> None:
    sandbox = ready(client, "sh", "-c", "echo hello; cat; echo bye >&2; exit 5")
    with client.sessions.open({"sandbox": {"id": sandbox.id}}, ["stdio", "files"], ttl=300) as session:
        assert session.spec.target_snapshot["sandbox"]["profile"] == "worker"
        assert [one.id for one in client.sessions.list(state="open")] == [session.id]
        with session.stdio() as stdio:
            stdio.write(b"typed \xff\n")
            stdio.end()
            output = list(stdio)
        assert b"".join(one.data for one in output if one.stream == "stdout") == b"hello\ntyped \xff\n"
        assert b"".join(one.data for one in output if one.stream == "stderr") == b"bye\n"
        assert (stdio.exit_code, stdio.reason) == (5, "exit")
    closed = session.close(reason="again")
    assert (closed.status.lifecycle_state, closed.status.close_reason, closed.metadata.generation) == ("closed", "client_close", 2)


def test_a_session_says_why_it_closed(client: nimbus.Nimbus) -> None:
    sandbox = ready(client)
    session = client.sessions.open({"sandbox": {"id": sandbox.id}}, ["stdio"])
    with session.stdio(argv=["sleep", "30"]) as stdio:
        session.close(reason="enough")
        assert list(stdio) == []
        assert stdio.reason == "enough"
