#!/usr/bin/env bash
# nimbus.test/busybox:1: a shell and its tools, 2 MB, nothing else. Needs Debian's busybox-static; no root.
set -euo pipefail
. "$(dirname "$0")/common.sh"

write() { # write FILE
    work=$(mktemp -d) # of the whole script: the trap reads it
    trap 'rm -rf "$work"' EXIT
    busybox_root "$work"
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
