#!/usr/bin/env bash
# nimbus.test/desktop:1: Debian with Chromium and fonts; about 700 MB. Needs root or sudo, debootstrap and Debian's mirror.
set -euo pipefail
. "$(dirname "$0")/common.sh"

sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
export PATH=$PATH:/usr/sbin

write() { # write FILE
    command -v debootstrap >/dev/null || {
        echo "$0: debootstrap is not installed" >&2
        exit 1
    }
    local suite mirror
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
    mirror=$(grep -hE '^(URIs:|deb )' /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
        grep -oE 'https?://[^ ]+' | grep -v security | head -n 1) || true # one of the files is never there
    work=$(mktemp -d) # of the whole script: the trap reads it
    trap '"${sudo[@]}" rm -rf "$work"' EXIT
    # It becomes the root directory, which others than its owner have to enter.
    chmod 755 "$work"
    "${sudo[@]}" debootstrap --variant=minbase "$suite" "$work" "${mirror:-http://deb.debian.org/debian}" >&2
    # The browser's fixes come from the security archive.
    echo "deb http://deb.debian.org/debian-security $suite-security main" |
        "${sudo[@]}" tee "$work/etc/apt/sources.list.d/security.list" >/dev/null
    "${sudo[@]}" cp -L /etc/resolv.conf "$work/etc/resolv.conf"
    "${sudo[@]}" chroot "$work" sh -c '
        set -e
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends chromium fonts-liberation fonts-noto-color-emoji ca-certificates
        useradd --create-home --uid 1000 --shell /bin/sh user
        apt-get clean
        rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/man /usr/share/info
    ' </dev/null >&2
    "${sudo[@]}" tar -C "$work" --numeric-owner --exclude='./dev/*' -c . >"$1"
}

case ${1:-} in
tar) [ $# -eq 2 ] || usage; write "$2" ;;
config)
    echo 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    echo 'LABEL io.nimbus.desktop=provided'
    echo 'USER 1000:1000'
    echo 'WORKDIR /home/user'
    echo 'CMD ["sleep", "infinity"]'
    ;;
*) usage ;;
esac
