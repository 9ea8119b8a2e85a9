#!/usr/bin/env bash
# Puts the static init of the sandboxes at target/guest/nimbus-guest, from where the build packs it into
# the nimbus binary. Does nothing if what it is made from has not changed since.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=target/guest/nimbus-guest
stamp=target/guest/stamp
if [ -n "${NIMBUS_GUEST_INIT:-}" ]; then
    echo "$0: NIMBUS_GUEST_INIT is set, using $NIMBUS_GUEST_INIT" >&2
    exit
fi
if [ -x $target ] && [ -e $stamp ] && [ -z "$(find shared/guest/src shared/guest/Cargo.toml Cargo.lock "$0" -newer $stamp -print -quit)" ]; then
    exit
fi

mkdir -p target/guest
touch $stamp.new
# With the target named, the flags are for it alone and not for build scripts; in a folder of its own, as
# flags and profile are its own.
triple=$(uname -m)-unknown-linux-gnu
RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet -p nimbus-guest --bin nimbus-guest \
    --profile guest --target "$triple" --target-dir target/guest
# The same file again must not look newer: what packs it in would be built again.
built=target/guest/$triple/guest/nimbus-guest
if ! cmp -s "$built" $target; then
    cp "$built" $target.new
    mv $target.new $target
fi
mv $stamp.new $stamp
