#!/usr/bin/env bash
# nimbus.test/node:1: the shell, and this machine's node with the libraries it needs; about 100 MB. No root.
set -euo pipefail
. "$(dirname "$0")/common.sh"

write() { # write FILE
    local node
    node=$(command -v node) || {
        echo "$0: node is not installed" >&2
        exit 1
    }
    # A version manager may have put a script of its own into the PATH.
    node=$("$node" -p process.execPath)
    work=$(mktemp -d) # of the whole script: the trap reads it
    trap 'rm -rf "$work"' EXIT
    busybox_root "$work"
    install -m 755 "$node" "$work/bin/node"
    libraries "$work" "$node"
    pack "$work" "$1"
}

case ${1:-} in
tar) [ $# -eq 2 ] || usage; write "$2" ;;
config)
    echo 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin'
    echo 'CMD ["node"]'
    ;;
*) usage ;;
esac
