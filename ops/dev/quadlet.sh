#!/usr/bin/env bash
# Gets Podman's Quadlet generator, which hosts of tests turn into a generator of their systemd, and prints where it is.
#
#   ops/dev/quadlet.sh        put it below target/ unless it is there; print its path
#
# It is that of Debian 13, whatever runs here: Debian 12 has a Podman without one. Signatures are checked as apt does,
# nothing is installed, and root is not needed.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$PWD/target/quadlet
# Tests start at the same time, and one is enough.
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
if ! [ -x "$folder/quadlet" ]; then
    mirror=$(grep -hE '^(URIs:|deb )' /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
        grep -oE 'https?://[^ ]+' | grep -v security | head -n 1) || true # one of the files is never there
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work"/{lists,cache/archives}/partial "$work/package"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} trixie main" >"$work/sources.list"
    own=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
        -o "Dir::Cache=$work/cache" -o Acquire::Languages=none -o APT::Sandbox::User=)
    apt-get "${own[@]}" update >&2
    (cd "$work" && apt-get "${own[@]}" download podman >&2)
    dpkg-deb -x "$work"/podman_*.deb "$work/package"
    install -m 755 "$work/package/usr/libexec/podman/quadlet" "$folder/quadlet.new"
    mv "$folder/quadlet.new" "$folder/quadlet"
fi
echo "$folder/quadlet"
