"""The bill of materials of a program of Nimbus, SPDX 2.3: for its image, and for its release."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Programs that the nimbus binary carries and starts elsewhere: on boxes, and in sandboxes.
CARRIED = {"nimbus": ["nimbus-gx10-worker", "nimbus-guest"]}


def bill(
    name: str, package_name: str, version: str, created: str, binary: Path, *, tool: str, processor: str, files: list[Path]
) -> dict[str, object]:
    """Names the crates, what is packed into the program, and the packages of `files`, which are shipped beside it."""
    crates = crates_of([package_name, *CARRIED.get(package_name, [])], processor)
    packages = [package(name, version, "Apache-2.0", f"pkg:generic/{name}@{version}", checksum=binary.read_bytes())]
    packages += [package(crate, number, licence, f"pkg:cargo/{crate}@{number}") for crate, number, licence in crates]
    if package_name == "nimbus":
        pin = re.search(r"^version=(\S+)", (ROOT / "ops/dev/nats.sh").read_text(), re.M)
        number = pin.group(1) if pin else "unknown"
        packages.append(package("nats-server", number, "Apache-2.0", f"pkg:golang/github.com/nats-io/nats-server/v2@v{number}"))
        packages += [package(one, number, licence, purl_of_npm(one, number)) for one, number, licence in portal_packages()]
    for deb, number in sorted({deb_of(path) for path in files}):
        packages.append(package(deb, number, "NOASSERTION", f"pkg:deb/debian/{deb}@{number}"))
    main = packages[0]["SPDXID"]
    relations = [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": main}]
    relations += [
        {"spdxElementId": main, "relationshipType": "DEPENDS_ON", "relatedSpdxElement": one["SPDXID"]} for one in packages[1:]
    ]
    document: dict[str, object] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "creationInfo": {"created": created, "creators": [f"Tool: {tool}"]},
        "packages": packages,
        "relationships": relations,
    }
    # The namespace has to be unique to the content; a random one would make every build another.
    document["documentNamespace"] = f"https://spdx.org/spdxdocs/{name}-{version}-{hashlib.sha256(dumps(document)).hexdigest()}"
    return document


def package(name: str, version: str, licence: str, purl: str, checksum: bytes | None = None) -> dict[str, object]:
    entry: dict[str, object] = {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", purl.split(":", 1)[1]),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": licence,
        "copyrightText": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
    }
    if checksum is not None:
        entry["checksums"] = [{"algorithm": "SHA256", "checksumValue": hashlib.sha256(checksum).hexdigest()}]
    return entry


def crates_of(package_names: list[str], processor: str) -> list[tuple[str, str, str]]:
    """Name, version and licence of all that these packages are linked of, with the features they are built with."""
    command = ["cargo", "tree", "--edges", "normal,no-proc-macro", "--target", f"{processor}-unknown-linux-gnu"]
    command += ["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}", "--locked", "--offline"]
    for name in package_names:
        command += ["--package", name]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if told.returncode != 0:
        sys.exit(f"{sys.argv[0]}: cargo tree failed:\n{told.stderr}")
    found = set()
    for line in filter(None, told.stdout.splitlines()):
        crate, _, licence = line.partition("|")
        name, version = crate.split(" ")[:2]
        if name != package_names[0]:
            found.add((name, version.removeprefix("v"), spdx(licence)))
    return sorted(found)


def portal_packages() -> list[tuple[str, str, str]]:
    """Name, version and licence of what the portal in the program is made of; tools of its build are not in it."""
    lock = json.loads((ROOT / "web/package-lock.json").read_text())
    found = set()
    for path, entry in lock["packages"].items():
        # The first part is empty for packages from the registry, and else a folder of ours that has its own copy.
        folder, inside, name = path.rpartition("node_modules/")
        shipped = not (entry.get("dev") or entry.get("link") or entry.get("optional"))
        if inside and shipped and folder.split("/")[0] in ("", "portal", "node_modules"):
            found.add((name, entry["version"], spdx(entry.get("license"))))
    return sorted(found)


def purl_of_npm(name: str, version: str) -> str:
    return f"pkg:npm/{name.replace('@', '%40', 1)}@{version}"


def spdx(licence: str | None) -> str:
    """A licence as SPDX writes it; crates may still have a slash for "or"."""
    return licence.replace("/", " OR ") if licence else "NOASSERTION"


def deb_of(path: Path) -> tuple[str, str]:
    """The Debian package of a file, and its version."""
    if path.name == "ca-certificates.crt":
        names = ["ca-certificates"]
    else:
        # The package database knows the files under /usr; /lib is a link to there, or was.
        told = subprocess.run(["dpkg-query", "-S", str(path), str(path.resolve())], capture_output=True, text=True, check=False)
        names = [line.split(":")[0] for line in told.stdout.splitlines()]
    if not names:
        return (path.name, "unknown")
    version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", names[0]], capture_output=True, text=True, check=False)
    return (names[0], version.stdout.split("\n")[0] or "unknown")


def version_of_workspace() -> str:
    found = re.search(r'^\[workspace\.package\]\nversion = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.M)
    assert found, "the root manifest has a version"
    return found.group(1)


def git(*arguments: str) -> str:
    told = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return told.stdout.strip() if told.returncode == 0 else ""


def dumps(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
