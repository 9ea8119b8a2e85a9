#!/usr/bin/env bash
# A host with a real systemd, as a container: for what installs units.
#
#   ops/dev/systemd.sh start NAME [OPTION…]   make the image if need be, start a container and wait until it has
#                                             booted; options are those of `docker run`
#   ops/dev/systemd.sh stop NAME              remove the container
#
# The container gets what systemd needs to confine services (mounts, namespaces, filters) and no more: it is
# for tests on a developer's machine, and not a boundary against what runs in it.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() {
    echo "$0: $*" >&2
}

start() { # start NAME [OPTION…]
    local name=$1 state
    shift
    mkdir -p target/images
    # Tests start at the same time, and one image is enough.
    flock target/images/systemd.lock ops/dev/engine.sh images systemd >&2
    docker run -d --name "$name" --hostname node --label io.nimbus.test=systemd \
        --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH \
        --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw \
        --tmpfs /run --tmpfs /run/lock --tmpfs /tmp:exec,mode=1777 --stop-signal RTMIN+3 \
        "$@" nimbus.test/systemd:1 >/dev/null
    # systemctl itself waits for the end of the boot, but not for the manager to be there.
    for _ in $(seq 120); do
        state=$(docker exec "$name" systemctl is-system-running --wait 2>/dev/null) || true
        case $state in running | degraded) return ;; esac
        sleep 0.5
    done
    say "$name has not booted: ${state:-no answer}"
    docker logs "$name" 2>&1 | tail -n 20 >&2
    return 1
}

case ${1:-} in
start)
    [ $# -ge 2 ] || { say "usage: $0 start NAME [OPTION…]"; exit 2; }
    shift
    start "$@"
    ;;
stop)
    [ $# -eq 2 ] || { say "usage: $0 stop NAME"; exit 2; }
    docker rm -f -v "$2" >/dev/null
    ;;
*)
    say "usage: $0 start NAME [OPTION…]|stop NAME"
    exit 2
    ;;
esac
