#!/usr/bin/env bash
# Puts the static init of the sandboxes at target/guest/nimbus-guest, from where the build packs it into
# the nimbus binary. Does nothing if what it is made from has not changed since.
#
#   ops/dev/guest.sh              for this machine
#   ops/dev/guest.sh PROCESSOR    for another, at target/guest/nimbus-guest-PROCESSOR
set -euo pipefail
cd "$(dirname "$0")/../.."

machine=${1:-$(uname -m)}
other=""
[ "$machine" = "$(uname -m)" ] || other=-$machine
target=target/guest/nimbus-guest$other
stamp=target/guest/stamp$other
if [ -n "${NIMBUS_GUEST_INIT:-}" ]; then
    echo "$0: NIMBUS_GUEST_INIT is set, using $NIMBUS_GUEST_INIT" >&2
    exit
fi
if [ -x "$target" ] && [ -e "$stamp" ] && [ -z "$(find shared/guest/src shared/guest/Cargo.toml Cargo.lock "$0" -newer "$stamp" -print -quit)" ]; then
    exit
fi

mkdir -p target/guest
touch "$stamp.new"
# With the target named, the flags are for it alone and not for build scripts; in a folder of its own, as
# flags and profile are its own.
triple=$machine-unknown-linux-gnu
if [ -n "$other" ]; then
    upper=$(printf '%s' "$triple" | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${upper}_LINKER=$machine-linux-gnu-gcc" "CC_${triple//-/_}=$machine-linux-gnu-gcc"
fi
RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet -p nimbus-guest --bin nimbus-guest \
    --profile guest --target "$triple" --target-dir target/guest
# The same file again must not look newer: what packs it in would be built again.
built=target/guest/$triple/guest/nimbus-guest
if ! cmp -s "$built" "$target"; then
    cp "$built" "$target.new"
    mv "$target.new" "$target"
fi
mv "$stamp.new" "$stamp"
