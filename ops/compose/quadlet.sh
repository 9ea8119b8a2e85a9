#!/usr/bin/env bash
# Writes quadlet/ from compose.yaml with our own exporter; `make quadlet` calls it.
#
#   ops/compose/quadlet.sh            write the units
#   ops/compose/quadlet.sh --check    say whether they are what compose.yaml makes; 1 when not
#
# What is settings in .env for Compose is a drop-in for units (quadlet/README.md), so the export sees no .env.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
nimbus=${NIMBUS_BIN:-$root/target/debug/nimbus}

# Where quadlet/README.md has the files put on a host, and what is different with Podman.
folder=/etc/nimbus
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/units"
cp compose.yaml "$work/"
(cd "$work" && env -i PATH="$PATH" HOME="$work" \
    DOCKER_GID=10001 ENGINE_SOCKET=/run/podman/podman.sock NIMBUS_IMAGE=localhost/nimbus:0.1.0 \
    "$nimbus" compose export quadlet --file compose.yaml --bind-root $folder --podman-version 5.2 \
    --output-dir "$work/units" >/dev/null 2>"$work/said") || {
    cat "$work/said" >&2
    exit 1
}

if [ "${1:-}" = --check ]; then
    # Drop-ins and the page are ours, everything else is written.
    diff -ru --exclude='*.d' --exclude=README.md quadlet "$work/units" || {
        echo "$0: quadlet/ is not what compose.yaml makes: run \`make quadlet\`" >&2
        exit 1
    }
    exit
fi
find quadlet -maxdepth 1 -type f ! -name README.md -delete
cp "$work"/units/* quadlet/
# Unset settings are for drop-ins; the rest is worth reading.
grep -v 'has no value and is not set' "$work/said" >&2 || true
