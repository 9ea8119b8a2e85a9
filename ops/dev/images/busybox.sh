#!/usr/bin/env bash
# nimbus.test/busybox:1: a shell and its tools, 2 MB, nothing else. Needs Debian's busybox-static; no root.
set -euo pipefail
. "$(dirname "$0")/common.sh"

write() { # write FILE
    local busybox applet
    busybox=$(command -v busybox) || {
        echo "$0: busybox is not installed: install busybox-static" >&2
        exit 1
    }
    if ldd "$busybox" >/dev/null 2>&1; then
        echo "$0: $busybox is not static: install busybox-static" >&2
        exit 1
    fi
    work=$(mktemp -d) # of the whole script: the trap reads it
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work"/{bin,usr,etc,root,home/user,proc,sys,dev,run,tmp,var/tmp,var/log}
    ln -s ../bin "$work/usr/bin"
    ln -s ../bin "$work/usr/sbin"
    ln -s bin "$work/sbin"
    install -m 755 "$busybox" "$work/bin/busybox"
    "$busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$work/bin/$applet"
    done
    accounts "$work"
    chmod 1777 "$work/tmp" "$work/var/tmp"
    chmod 700 "$work/root"
    chmod 755 "$work"
    pack "$work" "$1"
}

case ${1:-} in
tar) [ $# -eq 2 ] || usage; write "$2" ;;
config)
    echo 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin'
    echo 'CMD ["sh"]'
    ;;
*) usage ;;
esac
