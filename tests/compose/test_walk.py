"""The page about deploying, told by itself: every command of its `console` blocks runs in order, from a fresh checkout
to nothing, and has to print what the page says.

`$` is a person on the host of the deployment, `b#` root on another host with systemd and a container engine. Times, ids and
numbers may differ, and a line of `…` stands for any lines. `NIMBUS_GENERATE=1` writes what was printed into the page."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import IMAGES, ROOT, engine, free_port, free_subnet, networks_left, run

PAGE = ROOT / "docs/deploy.md"
BINARY = os.environ.get("NIMBUS_BIN", str(ROOT / "target/debug/nimbus"))
# Where the page has it.
CHECKOUT = "/srv/nimbus"
NAME = f"nimbus-walk-{os.getpid()}"
SECOND = f"{NAME}-b"
# For one command of the page, in seconds. The longest starts the whole deployment.
MOST = 300
NUMBER = re.compile(r"\b\d{4}-\d\d-\d\d\b|\b\d\d:\d\d\b|\b\d+\b")
# Of instances and containers, and tokens.
IDS = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{8}\b|\b[0-9a-f]{12}\b|nimbus_jt_[0-9a-f]{64}")


def steady(line: str, ports: dict[str, str]) -> str:
    """A line without what differs from run to run."""
    for port, usual in ports.items():
        line = line.replace(port, usual)
    return " ".join(NUMBER.sub("0", IDS.sub("id", line)).split())


def told(page: list[str], printed: list[str], ports: dict[str, str]) -> bool:
    if not page:
        return not printed
    if page[0].strip() == "…":
        return any(told(page[1:], printed[skipped:], ports) for skipped in range(len(printed) + 1))
    return bool(printed) and steady(page[0], ports) == steady(printed[0], ports) and told(page[1:], printed[1:], ports)


def typed_in(call: list[str], folder: Path, environment: dict[str, str]) -> tuple[list[str], str]:
    """What a command printed, and how it ended."""
    with subprocess.Popen(
            call, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            printed = process.communicate(timeout=MOST)[0]
            ended = str(process.returncode)
        except subprocess.TimeoutExpired:
            # With all that it has started.
            os.killpg(process.pid, signal.SIGKILL)
            printed = process.communicate()[0]
            ended = f"not after {MOST} s"
    return printed.replace(str(folder), CHECKOUT).splitlines(), ended


@pytest.fixture
def checkout() -> Iterator[Path]:
    """What of a checkout the deployment needs, and programs by the names that a person calls them."""
    # Sockets of sandboxes lie below it, and their paths are bounded.
    folder = Path(tempfile.mkdtemp(prefix="nimbus-walk-", dir="/tmp"))
    folder.chmod(0o755)
    for name in ("compose.yaml", ".env.example"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "ops/compose", folder / "ops/compose")
    # Compose as a plugin of Docker.
    plugins = folder / "docker/cli-plugins"
    plugins.mkdir(parents=True)
    compose = os.environ.get("NIMBUS_TEST_COMPOSE") or str(ROOT / "target/venv/bin/docker-compose")
    (plugins / "docker-compose").symlink_to(compose)
    programs = folder / "bin"
    programs.mkdir()
    shutil.copy(BINARY, programs / "nimbus")
    (programs / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (programs / "sudo").chmod(0o755)
    try:
        yield folder
    finally:
        # Whatever has gone wrong.
        for kind, remove in (("container", ["rm", "-f", "-v"]), ("volume", ["volume", "rm"])):
            listed = ["ps", "-aq"] if kind == "container" else [kind, "ls", "-q"]
            left = engine(*listed, "--filter", f"label=com.docker.compose.project={NAME}").split()
            if left:
                engine(*remove, *left)
        networks_left(NAME)
        for host in (NAME, "b"):
            if left := engine("ps", "-aq", "--filter", f"label=io.nimbus.sandbox.host={host}").split():
                engine("rm", "-f", *left)
        run([str(ROOT / "ops/dev/systemd.sh"), "stop", SECOND], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def second_host(folder: Path) -> None:
    """Another host, which knows the first by the name that the page uses. Its sandboxes run in this machine's engine."""
    state = folder / "b"
    state.mkdir()
    gateway = engine("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").strip()
    run([
        str(ROOT / "ops/dev/systemd.sh"), "start", SECOND, "--hostname", "b", "--add-host", f"nimbus.example.org:{gateway}",
        "-v", f"{folder}/bin/nimbus:/usr/bin/nimbus:ro", "-v", "/var/run/docker.sock:/run/docker.sock", "-v", f"{state}:{state}",
    ])
    unit = "/etc/systemd/system/nimbus-sandbox-agent.service.d"
    # The engine is outside of this host and has to find the files of sandboxes under the same path.
    engine("exec", SECOND, "bash", "-c", f"""
        groupadd --gid $(stat -c %g /run/docker.sock) docker && mkdir {unit} && printf '[Service]\\nEnvironment=\
NIMBUS_SANDBOX_STATE_DIR={state}\\nBindPaths={state}\\nExecStartPre=+/bin/chown nimbus: {state}\\n' >{unit}/10-test.conf""")


def test_the_page_says_what_is_printed(checkout: Path) -> None:
    http, bus = str(free_port()), str(free_port())
    ports = {http: "8080", bus: "4222"}
    given = {name: os.environ.get(f"NIMBUS_TEST_{name}", image) for name, image in IMAGES.items()}
    environment = os.environ | given | {
        "PATH": f"{checkout}/bin:{os.environ['PATH']}",
        "HOME": str(checkout),
        "DOCKER_CONFIG": str(checkout / "docker"),
        "COMPOSE_PROJECT_NAME": NAME,
        "NIMBUS_HTTP_PORT": http,
        "NIMBUS_HTTPS_PORT": str(free_port()),
        "NIMBUS_PUBLISH": "0.0.0.0",
        "NIMBUS_BUS_PORT": bus,
        "NIMBUS_SANDBOX_DIR": str(checkout / "s"),
        "NIMBUS_SANDBOX_HOST": NAME,
        "NIMBUS_EDGE_SUBNET": free_subnet(),
        "NIMBUS_URL": f"http://127.0.0.1:{http}",
    }
    environment.pop("NIMBUS_TOKEN", None)
    second_host(checkout)
    written: list[str] = []
    wrong: list[str] = []
    exports: list[str] = []
    in_block, steps = False, 0
    lines = PAGE.read_text().splitlines()
    while lines:
        line = lines.pop(0)
        if line.startswith("```"):
            in_block = line == "```console"
        prompt = next((prompt for prompt in ("b# ", "$ ") if line.startswith(prompt)), "") if in_block else ""
        if not prompt:
            assert not in_block or line.startswith("```"), f"no command printed: {line}"
            written.append(line)
            continue
        promised: list[str] = []
        while not lines[0].startswith(("```", "b# ", "$ ")):
            promised.append(lines.pop(0))
        steps += 1
        command = line.removeprefix(prompt)
        if command.startswith("export "):
            exports.append(command)
        typed = command.replace("8080", http)
        if prompt == "b# ":
            call = ["docker", "exec", "--workdir", "/root", SECOND, "bash", "-c", f"exec 2>&1; {typed}"]
        else:
            call = ["bash", "-c", "\n".join([*exports, "exec 2>&1", typed])]
        printed, ended = typed_in(call, checkout, environment)
        token = next((text for text in printed if text.startswith("nimbus_jt_")), "")
        if token:
            # What a person carries over.
            engine("exec", SECOND, "sh", "-c", f"echo {token} >/root/token")
        agrees = told(promised, printed, ports) and ended == "0"
        written += [line, *(promised if agrees else printed)]
        if not agrees:
            text = "\n".join(printed)
            wrong.append(f"{line}\n{text}\n--- ended with {ended}, and the page says\n" + "\n".join(promised))
            if not os.environ.get("NIMBUS_GENERATE"):
                break
    if os.environ.get("NIMBUS_GENERATE"):
        text = "\n".join(written) + "\n"
        for port, usual in ports.items():
            text = text.replace(port, usual)
        PAGE.write_text(text)
    assert wrong == [], f"NIMBUS_GENERATE=1 writes {PAGE} again:\n\n" + "\n\n".join(wrong)
    assert steps > 12

    mine = f"label=com.docker.compose.project={NAME}"
    left = engine("ps", "-aq", "--filter", mine) + engine("volume", "ls", "-q", "--filter", mine)
    left += "".join(networks_left(NAME))
    for host in (NAME, "b"):
        left += engine("ps", "-aq", "--filter", f"label=io.nimbus.sandbox.host={host}")
    assert left == ""
    assert not (checkout / "secrets").exists() and not (checkout / ".env").exists()
