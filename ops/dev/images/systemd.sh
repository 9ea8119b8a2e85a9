#!/usr/bin/env bash
# nimbus.test/systemd:1: Debian that boots with systemd, with a user manager; about 200 MB. Needs root or sudo,
# debootstrap and Debian's mirror. Start it with ops/dev/systemd.sh.
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
    # libpam-systemd starts the manager of an account that signs in or lingers.
    "${sudo[@]}" debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,curl,ca-certificates \
        "$suite" "$work" "${mirror:-http://deb.debian.org/debian}" >&2
    "${sudo[@]}" chroot "$work" sh -c '
        set -e
        useradd --create-home --uid 1000 --shell /bin/bash user
        # Consoles and file systems that a container does not have.
        systemctl mask getty.target console-getty.service systemd-logind-varlink.socket apt-daily.timer \
            apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer systemd-timesyncd.service >/dev/null
        apt-get clean
        rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale
    ' </dev/null >&2
    "${sudo[@]}" tar -C "$work" --numeric-owner --exclude='./dev/*' -c . >"$1"
}

case ${1:-} in
tar) [ $# -eq 2 ] || usage; write "$2" ;;
config)
    echo 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    echo 'CMD ["/sbin/init"]'
    ;;
*) usage ;;
esac
