from __future__ import annotations

import pytest

import nimbus
from conftest import Fake, service, spec
from nimbus import _unasync

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_blocking_client_is_made_of_the_async_one() -> None:
    folder = _unasync.HERE / "_sync"
    kept = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.py")}
    assert kept == _unasync.sync_sources(), "run `python -m nimbus._unasync`"


async def test_everything_once(fake: Fake, tenant: str) -> None:
    async with nimbus.AsyncNimbus(endpoint=fake.url, token=fake.token, tenant_id=tenant) as client:
        await client.services.create("worker", service())
        assert (await client.services.start("worker", wait_until="ready", interval=0.01)).status.readiness == "ready"
        assert [one.metadata.name async for one in client.services.list()] == ["worker"]
        async with await client.sandboxes.create(spec("sh", "-c", "echo hello; cat")) as made:
            sandbox = await made.wait("ready", interval=0.01)
            assert (await sandbox.exec(["echo", "out"])).stdout == "out\n"
            fake.cut_after(1, 2)
            async with await sandbox.spawn(["cat"]) as command:
                await command.write("one ")
                await command.end("two")
                assert "".join([one.text async for one in command]) == "one two"
            assert command.exit == nimbus.Exit(0)
            await sandbox.files.write("/note", "text")
            assert await sandbox.files.read_text("/note") == "text"
            assert [entry.name async for entry in sandbox.files.list("/")] == ["note"]
            async with await client.sessions.open({"sandbox": {"id": sandbox.id}}, ["stdio"]) as session:
                async with await session.stdio() as stdio:
                    await stdio.write("typed\n")
                    await stdio.end()
                    assert "".join([one.text async for one in stdio]) == "hello\ntyped\n"
                assert stdio.exit_code == 0


async def test_failures(fake: Fake, tenant: str) -> None:
    async with nimbus.AsyncNimbus(endpoint=fake.url, token=fake.token, tenant_id=tenant) as client:
        fake.break_next("^GET")
        fake.break_next("^GET", status=503)
        assert (await client.sandboxes.list().page()).items == []
        with pytest.raises(nimbus.NimbusNotFoundError):
            await client.sandboxes.get("nobody")
        await client.services.create("worker", service())
        with pytest.raises(nimbus.NimbusWaitTimeoutError):
            await client.services.wait("worker", "ready", timeout=0.05, interval=0.01)
