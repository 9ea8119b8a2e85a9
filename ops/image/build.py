#!/usr/bin/env python3
"""Writes a minimal OCI image of a program of Nimbus, with nothing in it that the program does not use.

    ops/image/build.py nimbus      --binary target/release/nimbus     --out target/image
    ops/image/build.py gx10-worker --binary target/gx10/gx10-worker   --out target/image

Makes NAME.tar (an OCI layout that `docker load` and `podman load` take), NAME.spdx.json (what is in it, SPDX 2.3)
and NAME.digest. The same files in give the same bytes out: names are sorted, times are that of the commit or
SOURCE_DATE_EPOCH, owners are fixed. Needs Python and git; `--load` needs an engine, `--strip` needs binutils.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from bill import bill, dumps, git, version_of_workspace

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
UID = 10001
HOME = "var/lib/nimbus"

IMAGES = {
    "nimbus": {
        "package": "nimbus",
        "title": "Nimbus",
        "description": "Self-hosted control plane: machines, sandboxes and GPU jobs",
        "command": ["start", "--host", "0.0.0.0", "--allow-network", "--data-dir", f"/{HOME}/data"],
        "health": ["CMD", "nimbus", "health"],
        "ports": ["8080/tcp"],
    },
    "gx10-worker": {
        "package": "nimbus-gx10-worker",
        "title": "Nimbus GX10 worker",
        "description": "Pulls GPU jobs of Nimbus and runs them on this host's container engine",
        "command": [],
        "health": None,
        "ports": [],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", choices=IMAGES)
    parser.add_argument("--binary", type=Path, required=True, help="the program, linked for this machine")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--tag", help="name of the image [default: IMAGE:VERSION]")
    parser.add_argument("--revision", help="what the program was built of [default: the commit of the checkout]")
    parser.add_argument("--strip", action="store_true", help="leave debug information out")
    parser.add_argument("--load", action="store_true", help="give it to the engine of this machine")
    args = parser.parse_args()
    if not args.binary.is_file():
        sys.exit(f"{sys.argv[0]}: there is no program at {args.binary}")
    spec = IMAGES[args.image]
    with tempfile.TemporaryDirectory() as work:
        binary = stripped(args.binary, Path(work)) if args.strip else args.binary
        build(args.image, spec, binary, args)


def build(name: str, spec: dict, binary: Path, args: argparse.Namespace) -> None:
    version = version_of_workspace()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct") or 0)
    created = datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    libraries = libraries_of(binary)
    sbom = dumps(bill(
        name, spec["package"], version, created, binary,
        tool="ops/image/build.py", processor=platform.machine(), files=[*libraries, CERTIFICATES],
    )) + b"\n"
    layers = [
        layer(base_files(libraries), epoch),
        layer([(f"usr/bin/{name}", binary.read_bytes(), 0o755), (f"usr/share/doc/{name}/sbom.spdx.json", sbom, 0o644)], epoch),
    ]
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "created": created,
        "config": {
            "User": f"{UID}:{UID}",
            "Env": ["PATH=/usr/bin", f"HOME=/{HOME}", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "Entrypoint": [name],
            "Cmd": spec["command"],
            "WorkingDir": f"/{HOME}",
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": spec["title"],
                "org.opencontainers.image.description": spec["description"],
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.revision": args.revision or git("rev-parse", "HEAD") or "unknown",
                "org.opencontainers.image.created": created,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(plain) for plain in layers]},
        "history": [
            {"created": created, "created_by": "C library, certificates, accounts"},
            {"created": created, "created_by": f"{name} {version}"},
        ],
    }
    if spec["ports"]:
        config["config"]["ExposedPorts"] = {port: {} for port in spec["ports"]}
    if spec["health"]:
        second = 1_000_000_000
        # Not of the OCI specification: Docker and Podman read it, others pass over it.
        config["config"]["Healthcheck"] = {
            "Test": spec["health"], "Interval": 30 * second, "Timeout": 5 * second, "StartPeriod": 10 * second, "Retries": 3,
        }
    tag = args.tag or f"{name}:{version}"
    args.out.mkdir(parents=True, exist_ok=True)
    tar = args.out / f"{name}.tar"
    manifest = archive(tar, dumps(config), layers, tag, epoch)
    (args.out / f"{name}.spdx.json").write_bytes(sbom)
    (args.out / f"{name}.digest").write_text(manifest + "\n")
    print(f"{tar}: {tag}, {tar.stat().st_size / 1e6:.1f} MB, {manifest}")
    if args.load:
        load(tar, tag)


def load(tar: Path, tag: str) -> None:
    """Gives it to the engine; the image that had the name before goes, unless a container still has it."""
    engine = os.environ.get("ENGINE", "docker")

    def known() -> str:
        told = subprocess.run([engine, "image", "inspect", "--format", "{{.Id}}", tag], capture_output=True, text=True, check=False)
        return told.stdout.strip()

    before = known()
    subprocess.run([engine, "load", "--quiet", "--input", str(tar)], check=True, stdout=subprocess.DEVNULL)
    if before and before != known():
        subprocess.run([engine, "image", "rm", before], capture_output=True, check=False)


def base_files(libraries: list[Path]) -> list[tuple[str, bytes | None, int]]:
    """What a program of glibc finds around itself; a folder has no content."""
    if not CERTIFICATES.is_file():
        sys.exit(f"{sys.argv[0]}: {CERTIFICATES} is missing: install ca-certificates")
    files: list[tuple[str, bytes | None, int]] = [
        ("tmp", None, 0o1777),
        (HOME, None, 0o700),
        ("run", None, 0o755),
        ("etc/passwd", f"root:x:0:0:root:/:/nologin\nnimbus:x:{UID}:{UID}:nimbus:/{HOME}:/nologin\n".encode(), 0o644),
        ("etc/group", f"root:x:0:\nnimbus:x:{UID}:\n".encode(), 0o644),
        ("etc/nsswitch.conf", b"hosts: files dns\n", 0o644),
        ("etc/ssl/certs/ca-certificates.crt", CERTIFICATES.read_bytes(), 0o644),
    ]
    return files + [(str(library).lstrip("/"), library.read_bytes(), 0o755) for library in libraries]


def libraries_of(binary: Path) -> list[Path]:
    """The shared libraries of a program, at the paths where it looks for them; none for a static one."""
    told = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if told.returncode != 0 and "not a dynamic executable" in told.stdout + told.stderr:
        return []
    if told.returncode != 0 or "not found" in told.stdout:
        sys.exit(f"{sys.argv[0]}: {binary} cannot be loaded here:\n{told.stdout}{told.stderr}")
    return sorted({Path(path) for path in re.findall(r"(/\S+) \(0x", told.stdout)})


def layer(files: list[tuple[str, bytes | None, int]], epoch: int) -> bytes:
    """A tar with every folder on the way to a file, in order, with fixed times and owners."""
    entries: dict[str, tuple[bytes | None, int]] = {name: (content, mode) for name, content, mode in files}
    for name in list(entries):
        for parent in Path(name).parents:
            if str(parent) != ".":
                entries.setdefault(str(parent), (None, 0o755))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (content, mode) in sorted(entries.items()):
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = mode, epoch
            if name == HOME:
                info.uid = info.gid = UID
            if content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def archive(path: Path, config: bytes, layers: list[bytes], tag: str, epoch: int) -> str:
    """One file that is an OCI layout and, by its manifest.json, what `docker load` of any age reads."""
    packed = [gzip.compress(plain, 6, mtime=0) for plain in layers]
    manifest = dumps({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("application/vnd.oci.image.config.v1+json", config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar+gzip", one) for one in packed],
    })
    reference = described("application/vnd.oci.image.manifest.v1+json", manifest)
    reference["annotations"] = {"org.opencontainers.image.ref.name": tag.rsplit(":", 1)[-1], "io.containerd.image.name": tag}
    blob = lambda data: "blobs/sha256/" + hashlib.sha256(data).hexdigest()  # noqa: E731
    files = {
        "oci-layout": dumps({"imageLayoutVersion": "1.0.0"}),
        "index.json": dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [reference]}),
        "manifest.json": dumps([{"Config": blob(config), "RepoTags": [tag], "Layers": [blob(one) for one in packed]}]),
        **{blob(data): data for data in [config, manifest, *packed]},
    }
    fresh = path.with_suffix(".new")
    fresh.write_bytes(layer([(name, data, 0o644) for name, data in files.items()], epoch))
    fresh.replace(path)
    return digest(manifest)


def stripped(binary: Path, work: Path) -> Path:
    out = work / binary.name
    subprocess.run(["strip", "--strip-debug", "-o", str(out), str(binary)], check=True)
    return out


def described(kind: str, data: bytes) -> dict:
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main()
