#!/usr/bin/env bash
# Puts the static workers of GPU boxes at target/gx10/gx10-worker-<processor>, from where the build packs
# them into the nimbus binary; target/gx10/gx10-worker is the one of this machine.
#
#   ops/dev/gx10.sh           for this machine, and for the other processor where that can be built here
#   ops/dev/gx10.sh --all     fails unless both can be built
#   ops/dev/gx10.sh --missing PROCESSOR    says what this machine lacks to build for it, and builds nothing
#
# Does nothing if what they are made from has not changed since.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=target/gx10
limit=$((15 * 1024 * 1024))
if [ -n "${NIMBUS_GX10_WORKERS:-}" ] && [ "${1:-}" != --missing ]; then
    echo "$0: NIMBUS_GX10_WORKERS is set, using what is in $NIMBUS_GX10_WORKERS" >&2
    exit
fi
mkdir -p $folder

# debian PROCESSOR: as Debian calls it.
debian() {
    case $1 in
    x86_64) echo amd64 ;;
    *) echo arm64 ;;
    esac
}

# fresh PROCESSOR
fresh() {
    [ -x "$folder/gx10-worker-$1" ] && [ -e "$folder/stamp-$1" ] && [ -z "$(find services/gx10-worker/src \
        services/gx10-worker/Cargo.toml shared/gpu-wire/src Cargo.lock "$0" -newer "$folder/stamp-$1" -print -quit)" ]
}

# missing PROCESSOR: what is needed to build for it and is not here, a line each.
missing() {
    local triple=$1-unknown-linux-gnu
    [ -d "$(rustc --print sysroot)/lib/rustlib/$triple/lib" ] ||
        echo "the Rust target: rustup target add $triple"
    # One of its own name, or this machine's.
    [ "$1" = "$(uname -m)" ] || command -v "$1-linux-gnu-gcc" >/dev/null 2>&1 ||
        echo "a C compiler and linker for it: apt-get install gcc-${1/_/-}-linux-gnu libc6-dev-$(debian "$1")-cross"
}

# build PROCESSOR
build() {
    local triple=$1-unknown-linux-gnu upper built
    upper=$(printf '%s' "$triple" | tr 'a-z-' 'A-Z_')
    if [ "$1" != "$(uname -m)" ]; then
        export "CARGO_TARGET_${upper}_LINKER=$1-linux-gnu-gcc" "CC_${triple//-/_}=$1-linux-gnu-gcc"
    fi
    touch "$folder/stamp-$1.new"
    # With the target named, the flags are for it alone and not for build scripts; in a folder of its own,
    # as flags and profile are its own.
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet -p nimbus-gx10-worker --bin gx10-worker \
        --profile worker --target "$triple" --target-dir $folder
    built=$folder/$triple/worker/gx10-worker
    if [ "$(stat -c %s "$built")" -gt $limit ]; then
        echo "$0: $built has $(stat -c %s "$built") bytes, more than $limit" >&2
        exit 1
    fi
    # The same file again must not look newer: what packs it in would be built again.
    if ! cmp -s "$built" "$folder/gx10-worker-$1"; then
        cp "$built" "$folder/gx10-worker-$1.new"
        mv "$folder/gx10-worker-$1.new" "$folder/gx10-worker-$1"
        rm -f $folder/changed
    fi
    mv "$folder/stamp-$1.new" "$folder/stamp-$1"
    echo "$0: $folder/gx10-worker-$1 has $(stat -c %s "$folder/gx10-worker-$1") bytes" >&2
}

if [ "${1:-}" = --missing ]; then
    missing "$2"
    exit
fi

status=0
for processor in x86_64 aarch64; do
    lacks=$(missing $processor)
    if [ -n "$lacks" ]; then
        echo "$0: no worker for $processor; this machine lacks" >&2
        printf '%s\n' "$lacks" | sed 's/^/    /' >&2
        if [ "${1:-}" = --all ] || [ $processor = "$(uname -m)" ]; then status=1; fi
        continue
    fi
    fresh $processor || build $processor
done
# By this the build sees that there are other workers.
[ -e $folder/changed ] || touch $folder/changed
[ ! -e "$folder/gx10-worker-$(uname -m)" ] || ln -sfn "gx10-worker-$(uname -m)" $folder/gx10-worker
exit $status
