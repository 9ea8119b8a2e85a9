#!/usr/bin/env python3
"""Makes the folder that ops/install/quickinstall.sh installs from: programs, bills of materials, sums, a signature.

    ops/release/release.py --key FILE                  builds with the profile `dist`; signed with minisign
    ops/release/release.py --key FILE --binary FILE    releases a program that is there already

The folder is target/releases/VERSION unless --out says otherwise, and is there whole or not at all. One that is
there already is never written to. The public key is read from beside the secret one (KEY.key, KEY.pub) and is built
into the folder's copy of quickinstall.sh. A key with a password is asked for it by minisign, on the terminal.

The other processor is built where that can be done, and it is said what is missing where not; --all fails then.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ops/image"))
from bill import bill, dumps, git, version_of_workspace  # noqa: E402

PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64"}
# e_machine of an ELF file.
MACHINES = {62: "x86_64", 183: "aarch64"}
HERE = platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--key", type=Path, required=True, help="the secret key of minisign; only its owner may read it")
    parser.add_argument("--public-key", type=Path, help="its public key [default: beside it, with .pub for its suffix]")
    parser.add_argument("--out", type=Path, help="folder to make [default: target/releases/VERSION]")
    parser.add_argument("--binary", type=Path, action="append", help="a program to release instead of building; repeatable")
    parser.add_argument("--url", help="where the folder will be: https, built into its copy of quickinstall.sh")
    parser.add_argument("--all", action="store_true", help="fail unless there is a program for each processor")
    parser.add_argument("--allow-dirty", action="store_true", help="build although files differ from the commit")
    args = parser.parse_args()
    version = version_of_workspace()
    out = args.out or ROOT / "target/releases" / version
    if out.exists():
        fail(f"{out} is there already: a release is never written over")
    public = public_key(args.key, args.public_key)
    if args.url and not re.fullmatch(r"https://[A-Za-z0-9._~/:%-]+", args.url):
        fail(f"{args.url} is no https address")

    commit = None
    if args.binary:
        programs = given(args.binary, version)
    else:
        commit = committed(args.allow_dirty)
        programs = built(args.all)
    for processor in PROCESSORS:
        if processor not in programs:
            if args.all:
                fail(f"there is no program for {processor}")
            say(f"no program for {processor}: hosts of that kind cannot install this release")

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as work:
        folder = Path(work) / "release"
        folder.mkdir()
        fill(folder, programs, version, public, args.url)
        sign(folder, args.key, f"version:{version} {f'commit:{commit} ' if commit else ''}nimbus release")
        checked(folder, version, public)
        try:
            folder.rename(out)
        except OSError as error:
            # Also if somebody has made one meanwhile.
            fail(f"{out} cannot be made: {error.strerror}")
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size:>12}  {path}")


def public_key(secret: Path, public: Path | None) -> str:
    """What the folder will be checked with; and that it can be signed at all, before anything is built."""
    for tool in ("minisign", "openssl", "cargo"):
        if shutil.which(tool) is None:
            fail(f"{tool} is missing: ops/dev/install.sh release installs what is needed")
    if not secret.is_file():
        fail(f"there is no key at {secret}: minisign -G -s {secret} -p {secret.with_suffix('.pub')} makes one")
    if secret.stat().st_mode & 0o077:
        fail(f"others can read {secret}: chmod 600 {secret}")
    public = public or secret.with_suffix(".pub")
    if not public.is_file():
        fail(f"there is no public key at {public}: minisign -R -s {secret} -p {public} makes it again")
    key = (public.read_text(errors="replace").splitlines() or [""])[-1].strip()
    if not re.fullmatch(r"RW[A-Za-z0-9+/]{54}", key):
        fail(f"{public} is no public key of minisign")
    return key


def committed(allow_dirty: bool) -> str:
    """The commit that is built; what a release is built of has to be known."""
    if not allow_dirty and git("status", "--porcelain"):
        fail("files differ from the commit, or are not part of it: commit them, or add --allow-dirty")
    commit = git("rev-parse", "HEAD")
    if not commit:
        fail(f"{ROOT} is no checkout of git, so it cannot be said what a release is of; --binary needs none")
    return commit


def built(everything: bool) -> dict[str, Path]:
    """The programs, by processor: this machine's, and the others' where they can be built."""
    portal = ROOT / "web/portal/dist/index.html"
    if not portal.is_file() or "not part of this build" in portal.read_text():
        fail("the portal is not built: run `make portal`, or `make release`, which does")
    # What the programs carry: workers of GPU boxes, for both processors each.
    run(["ops/dev/gx10.sh", *(["--all"] if everything else [])])
    programs = {}
    for processor in sorted(PROCESSORS, key=lambda one: one != HERE):
        lacks = subprocess.run(["ops/dev/gx10.sh", "--missing", processor], cwd=ROOT, capture_output=True, text=True, check=True)
        if lacks.stdout:
            told = "".join(f"\n    {line}" for line in lacks.stdout.splitlines())
            if everything or processor == HERE:
                fail(f"{processor} cannot be built; this machine lacks{told}")
            say(f"{processor} is not built; this machine lacks{told}")
            continue
        programs[processor] = build(processor)
    return programs


def build(processor: str) -> Path:
    triple = f"{processor}-unknown-linux-gnu"
    run(["ops/dev/nats.sh", processor])
    run(["ops/dev/guest.sh", processor])
    environment = dict(os.environ)
    suffix = ""
    if processor != HERE:
        suffix = f"-{processor}"
        compiler = f"{processor}-linux-gnu-gcc"
        environment |= {
            f"CARGO_TARGET_{triple.upper().replace('-', '_')}_LINKER": compiler, f"CC_{triple.replace('-', '_')}": compiler,
        }
    carried = {"NIMBUS_NATS_SERVER": f"nats/nats-server{suffix}", "NIMBUS_GUEST_INIT": f"guest/nimbus-guest{suffix}"}
    for name, path in carried.items():
        environment.setdefault(name, str(ROOT / "target" / path))
        if not Path(environment[name]).is_file():
            fail(f"there is no {environment[name]} to build in")
    run(["cargo", "build", "--locked", "--package", "nimbus", "--profile", "dist", "--target", triple], environment)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / triple / "dist/nimbus"


def given(paths: list[Path], version: str) -> dict[str, Path]:
    """Programs that are there already, by the processor they are for."""
    programs: dict[str, Path] = {}
    for path in paths:
        processor = processor_of(path)
        if processor in programs:
            fail(f"{programs[processor]} and {path} are both for {processor}")
        programs[processor] = path
        if processor != HERE:
            say(f"{path} is for {processor}: its version cannot be asked for here")
            continue
        try:
            told = subprocess.run([str(path.absolute()), "--version"], capture_output=True, text=True, check=False)
        except OSError as error:
            fail(f"{path} does not start: {error.strerror}")
        if told.stdout.strip() != f"nimbus {version}":
            fail(f"{path} says {told.stdout.strip()!r} of itself, and this is nimbus {version}")
    return programs


def processor_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}")
    # Both processors are little-endian.
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        fail(f"{path} is no program of Linux")
    (machine,) = struct.unpack_from("<H", head, 18)
    if machine not in MACHINES:
        fail(f"{path} is for another processor than {' and '.join(PROCESSORS)}")
    return MACHINES[machine]


def fill(folder: Path, programs: dict[str, Path], version: str, public: str, url: str | None) -> None:
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct") or 0)
    created = datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    for processor, path in programs.items():
        name = f"nimbus-linux-{PROCESSORS[processor]}"
        shutil.copyfile(path, folder / name)
        (folder / name).chmod(0o755)
        # Nothing is shipped beside it: the C library and the certificates are the host's.
        document = bill(
            name, "nimbus", version, created, folder / name, tool="ops/release/release.py", processor=processor, files=[],
        )
        (folder / f"{name}.spdx.json").write_bytes(dumps(document) + b"\n")
        say(f"{name}: {needs(folder / name)}")
    installer = folder / "quickinstall.sh"
    installer.write_text(with_key((ROOT / "ops/install/quickinstall.sh").read_text(), public, url))
    installer.chmod(0o755)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("".join(sums))


def needs(program: Path) -> str:
    """The oldest C library it runs with: that of the host it was linked on says nothing about others."""
    found = [tuple(map(int, version.split(b"."))) for version in re.findall(rb"GLIBC_(\d+\.\d+)", program.read_bytes())]
    return f"runs with glibc {'.'.join(map(str, max(found)))} or newer" if found else "needs no C library"


def with_key(script: str, key: str, url: str | None) -> str:
    """The installer as it is published: it knows its key, and its place if that was said."""
    changes = {
        "# No place of releases and no key are built into this copy: both have to be given, by flags or by NIMBUS_RELEASES and\n"
        "# NIMBUS_RELEASE_KEY.\n":
        "# The key of its makers is built into this copy; compare it with the one they publish elsewhere. Flags, NIMBUS_RELEASES\n"
        "# and NIMBUS_RELEASE_KEY say something else.\n",
        "# Whoever publishes releases fills them in here.\n": "",
        "KEY=${NIMBUS_RELEASE_KEY:-}\n": f"KEY=${{NIMBUS_RELEASE_KEY:-{key}}}\n",
        "RELEASES=${NIMBUS_RELEASES:-}\n": f"RELEASES=${{NIMBUS_RELEASES:-{url or ''}}}\n",
    }
    for before, after in changes.items():
        if script.count(before) != 1:
            fail(f"ops/install/quickinstall.sh has not once: {before.strip()}")
        script = script.replace(before, after)
    return script


def sign(folder: Path, secret: Path, comment: str) -> None:
    # It asks for the password, if there is one, on our terminal; nobody has to give it to us.
    command = ["minisign", "-S", "-s", str(secret.absolute()), "-m", "SHA256SUMS", "-x", "SHA256SUMS.minisig", "-t", comment]
    if subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False).returncode != 0:
        fail("minisign did not sign")


def checked(folder: Path, version: str, public: str) -> None:
    """By those who will install it, and with the tool of those who make signatures."""
    signature = subprocess.run(["minisign", "-Vq", "-m", "SHA256SUMS", "-P", public], cwd=folder, check=False)
    sums = subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=folder, check=False)
    if signature.returncode != 0 or sums.returncode != 0:
        fail("the release is not what its signature says: is the public key that of the secret one?")
    if (folder / f"nimbus-linux-{PROCESSORS[HERE]}").exists():
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NIMBUS_RELEASE")}
        command = ["./quickinstall.sh", "--from", ".", "--version", version, "--check-only"]
        if subprocess.run(command, cwd=folder, env=environment, check=False).returncode != 0:
            fail("its own installer refuses the release")


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    if subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False).returncode != 0:
        fail(f"`{' '.join(command)}` failed")


def say(text: str) -> None:
    print(f"release: {text}", file=sys.stderr)


def fail(reason: str) -> NoReturn:
    say(reason)
    say("no release was made")
    sys.exit(1)


if __name__ == "__main__":
    main()
