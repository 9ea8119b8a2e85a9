"""Runs the examples of the manual, in order, against the server of the tests or a real one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

import nimbus
from conftest import ROOT, Fake

PAGE = ROOT / "docs/python.md"


def examples() -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))


def promised(source: str) -> list[str]:
    """What the examples say that they print: one line for each `; ` in `# → …`; `…` stands for anything."""
    lines = [one for line in re.findall(r"# → (.*)$", source, re.MULTILINE) for one in line.split("; ")]
    return [re.escape(line).replace("…", ".*") for line in lines]


def tell(folder: Path, url: str, token: str, image: str) -> None:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    try:
        _tell(folder, url, token, image, tenant)
    finally:
        with nimbus.Nimbus(endpoint=url, token=token) as client:
            client.tenants.delete(tenant)


def _tell(folder: Path, url: str, token: str, image: str, tenant: str) -> None:
    source = examples()
    adapted = (
        source.replace("http://127.0.0.1:8080", url)
        .replace('"demo"', repr(tenant))
        .replace("docker.io/library/alpine:3.22", image)
    )
    program = folder / "page.py"
    program.write_text(adapted, encoding="utf-8")
    where = ROOT / "clients/python"
    types = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(program)],
        cwd=where,
        env={**os.environ, "MYPYPATH": str(where / "src")},
        capture_output=True,
        text=True,
    )
    assert types.returncode == 0, types.stdout
    done = subprocess.run(
        [sys.executable, str(program)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(where / "src"), "NIMBUS_TOKEN": token},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    printed = [line for line in done.stdout.splitlines() if line]
    wanted = promised(source)
    said = [
        wish if re.fullmatch(wish, line) else f"{line!r} instead of {wish}"
        for line, wish in zip(printed, wanted, strict=False)
    ]
    assert (said, len(printed)) == (wanted, len(wanted))


def test_the_manual_says_what_its_examples_do(fake: Fake, tmp_path: Path) -> None:
    tell(tmp_path, fake.url, fake.token, "example.org/image:1")


@pytest.mark.skipif("NIMBUS_TEST_IMAGE" not in os.environ, reason="NIMBUS_ENDPOINT, NIMBUS_TOKEN and NIMBUS_TEST_IMAGE name a server")
def test_the_manual_holds_on_a_real_server(tmp_path: Path) -> None:
    tell(tmp_path, os.environ["NIMBUS_ENDPOINT"], os.environ["NIMBUS_TOKEN"], os.environ["NIMBUS_TEST_IMAGE"])
