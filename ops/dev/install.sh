#!/usr/bin/env bash
# Installs what is missing on a Debian machine to build, run and test Nimbus.
#
#   ops/dev/install.sh build   what `make build` and `make demo` need
#   ops/dev/install.sh release that, and what `make release` needs
#   ops/dev/install.sh test    that, and what `make test` needs
#
# Says what it installs. Needs root or sudo only when something is missing. The Rust toolchain and
# Node.js are not Debian packages of the right version: they are looked for, and named when missing.
set -euo pipefail

packages=()
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || packages+=("$2")
}

build() {
    need cc gcc
    need make make
    need python3 python3
    need curl curl
    # pip of a virtual environment: Debian keeps it in a package of its own.
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || packages+=(python3-venv)
    engine
}

# A container engine for sandboxes: Docker, unless this machine has one already or is told of another.
engine() {
    if [ -z "${DOCKER_HOST:-}" ] && ! command -v dockerd >/dev/null 2>&1 && ! command -v podman >/dev/null 2>&1 &&
        ! [ -S /var/run/docker.sock ]; then
        packages+=(docker.io)
    fi
    # The image of the demo is made from it. Debian's other busybox package is not static.
    dpkg-query -W -f '${Status}' busybox-static 2>/dev/null | grep -q 'ok installed' || packages+=(busybox-static)
}

release() {
    build
    need minisign minisign
    need openssl openssl
}

test_tools() {
    release
    need chromium chromium
    need unzip unzip
    # Scripts that run in machines: judged, and run with what machines have.
    need shellcheck shellcheck
    need wget wget
    need docker-registry docker-registry
    # For the tests of the deployment: the proxy, what checks alerts, and what makes certificates.
    [ -x /usr/sbin/haproxy ] || need haproxy haproxy
    need promtool prometheus
    # Debian keeps these out of the PATH of a user who is not root.
    [ -x /usr/sbin/debootstrap ] || need debootstrap debootstrap
    [ -x /usr/sbin/ip ] || need ip iproute2
    # Lets the packets of a container vanish.
    [ -x /usr/sbin/iptables ] || need iptables iptables
    need nsenter util-linux
    ls -d /usr/lib/postgresql/*/bin >/dev/null 2>&1 || packages+=(postgresql)
}

case ${1:-} in
build) build ;;
release) release ;;
test) test_tools ;;
*)
    echo "usage: $0 build|release|test" >&2
    exit 2
    ;;
esac

if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" -eq 0 ]; then
        root=()
    elif command -v sudo >/dev/null 2>&1; then
        root=(sudo)
    else
        echo "$0: missing: ${packages[*]}; neither root nor sudo, so they cannot be installed" >&2
        exit 1
    fi
    echo "$0: installing ${packages[*]}" >&2
    "${root[@]}" apt-get update -qq
    # A server that the package would start is not wanted: tests start a private one.
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null >/dev/null || {
        echo "$0: could not install ${packages[*]}" >&2
        exit 1
    }
fi

# Judges licences, bans and sources of dependencies. Built here, because nobody packages it; without it that suite is skipped.
if [ "$1" = test ] && command -v cargo >/dev/null 2>&1 && ! cargo deny --version >/dev/null 2>&1; then
    echo "$0: installing cargo-deny, which takes some minutes" >&2
    cargo install --quiet --locked cargo-deny@0.20.2 || echo "$0: could not install cargo-deny" >&2
fi

missing=0
if ! command -v cargo >/dev/null 2>&1; then
    echo "$0: cargo is missing: install Rust with rustup (rust-toolchain.toml names the version)" >&2
    missing=1
fi
if ! command -v npm >/dev/null 2>&1 || ! node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)'; then
    echo "$0: Node.js 20 or newer with npm is missing" >&2
    missing=1
fi
exit $missing
