#!/usr/bin/env bash
# nimbus.test/nats:1: the shell, and the pinned nats-server where the public image has it; 20 MB. No root.
set -euo pipefail
. "$(dirname "$0")/common.sh"

write() { # write FILE
    local server=target/nats/nats-server
    [ -x $server ] || ops/dev/nats.sh
    work=$(mktemp -d) # of the whole script: the trap reads it
    trap 'rm -rf "$work"' EXIT
    busybox_root "$work"
    install -D -m 755 $server "$work/usr/local/bin/nats-server"
    pack "$work" "$1"
}

case ${1:-} in
tar) [ $# -eq 2 ] || usage; write "$2" ;;
config)
    echo 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    echo 'ENTRYPOINT ["nats-server"]'
    ;;
*) usage ;;
esac
