#!/usr/bin/env bash
# Installs podlet, which the corpus of Compose files is compared with, and prints where it is.
#
#   ops/dev/podlet.sh        install it below target/ unless it is there; print its path
#
# Then: PODLET=$(ops/dev/podlet.sh) cargo run -p nimbus-compose --example corpus
set -euo pipefail
cd "$(dirname "$0")/../.."

version=0.3.2
root=$PWD/target/podlet
if ! "$root/bin/podlet" --version 2>/dev/null | grep -qF "$version"; then
    cargo install --quiet --locked --root "$root" --target-dir "$root/build" "podlet@$version" >&2
    rm -rf "$root/build"
fi
echo "$root/bin/podlet"
