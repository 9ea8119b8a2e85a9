"""The image: what is in it, and that it is the same each time."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from world import ROOT

BINARY = Path(os.environ.get("NIMBUS_BIN", ROOT / "target/debug/nimbus"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("first"))


def build(out: Path) -> Path:
    subprocess.run(
        [
            str(ROOT / "ops/image/build.py"), "nimbus", "--binary", str(BINARY), "--strip", "--out", str(out),
            "--tag", "nimbus:test", "--revision", "0" * 40,
        ],
        check=True, stdout=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
    return out


def blob(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    assert member is not None
    return member.read()


def test_the_same_input_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    for name in ("nimbus.tar", "nimbus.spdx.json", "nimbus.digest"):
        assert (built / name).read_bytes() == (again / name).read_bytes(), name


def test_it_is_a_layout_whose_digests_are_right(built: Path) -> None:
    with tarfile.open(built / "nimbus.tar") as tar:
        for name in tar.getnames():
            if name.startswith("blobs/sha256/") and tar.getmember(name).isfile():
                assert hashlib.sha256(blob(tar, name)).hexdigest() == name.rsplit("/", 1)[1]
        index = json.loads(blob(tar, "index.json"))
        assert index["manifests"][0]["digest"] == (built / "nimbus.digest").read_text().strip()
        legacy = json.loads(blob(tar, "manifest.json"))[0]
        config = json.loads(blob(tar, legacy["Config"]))
    assert config["config"]["User"] == "10001:10001"
    assert config["config"]["Entrypoint"] == ["nimbus"]
    assert config["config"]["Healthcheck"]["Test"] == ["CMD", "nimbus", "health"]


def test_nothing_is_in_it_that_the_program_does_not_use(built: Path) -> None:
    files: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(built / "nimbus.tar") as tar:
        for layer in json.loads(blob(tar, "manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(blob(tar, layer))) as inner:
                files |= {member.name: member for member in inner.getmembers()}
    plain = {name for name, member in files.items() if member.isfile()}
    libraries = {name for name in plain if name.startswith(("lib/", "lib64/", "usr/lib/"))}
    assert plain - libraries == {
        "etc/passwd", "etc/group", "etc/nsswitch.conf", "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/nimbus", "usr/share/doc/nimbus/sbom.spdx.json",
    }
    assert {Path(name).name for name in libraries} <= {
        "libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1",
    }
    assert files["tmp"].mode == 0o1777
    assert files["var/lib/nimbus"].uid == 10001
    # Nobody but root could change what is run, and no program gets the rights of its owner.
    for name, member in files.items():
        assert member.mode & 0o6000 == 0 and (name == "tmp" or member.mode & 0o022 == 0), name


def test_the_bill_of_materials_names_what_is_linked(built: Path) -> None:
    bill = json.loads((built / "nimbus.spdx.json").read_text())
    assert bill["spdxVersion"] == "SPDX-2.3"
    names = {package["name"] for package in bill["packages"]}
    assert {"nimbus", "tokio", "async-nats", "sqlx", "rustls", "nats-server", "libc6", "ca-certificates"} <= names
    # Tools of the build and of the tests are not shipped.
    assert not {"proptest", "insta", "camino-tempfile"} & names
    identifiers = [package["SPDXID"] for package in bill["packages"]]
    assert len(set(identifiers)) == len(identifiers)
    related = {relation["relatedSpdxElement"] for relation in bill["relationships"]}
    assert set(identifiers) == related
