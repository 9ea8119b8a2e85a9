#!/usr/bin/env bash
# nimbus.test/haproxy:1: the shell, and Debian's haproxy with its libraries; about 20 MB. No root.
set -euo pipefail
. "$(dirname "$0")/common.sh"

write() { # write FILE
    local haproxy=/usr/sbin/haproxy
    [ -x $haproxy ] || {
        echo "$0: $haproxy is not installed: install haproxy" >&2
        exit 1
    }
    work=$(mktemp -d) # of the whole script: the trap reads it
    trap 'rm -rf "$work"' EXIT
    busybox_root "$work"
    install -D -m 755 $haproxy "$work/usr/local/sbin/haproxy"
    libraries "$work" $haproxy
    pack "$work" "$1"
}

case ${1:-} in
tar) [ $# -eq 2 ] || usage; write "$2" ;;
config)
    # As in the public image.
    echo 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    echo 'ENTRYPOINT ["haproxy", "-W", "-db"]'
    echo 'CMD ["-f", "/usr/local/etc/haproxy/haproxy.cfg"]'
    ;;
*) usage ;;
esac
