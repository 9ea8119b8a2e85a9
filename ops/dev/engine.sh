#!/usr/bin/env bash
# The container engine of development and tests: Docker or Podman, whichever answers; dockerd is started when none does.
#
#   ops/dev/engine.sh start            make one answer; says which
#   ops/dev/engine.sh status           say which one answers and what it is; 1 when none does
#   ops/dev/engine.sh stop             stop the one that `start` has started; another one is left alone
#   ops/dev/engine.sh images [NAME…]   make the test images that are missing (busybox unless named: node python desktop)
#   ops/dev/engine.sh sweep            remove what tests that were killed have left: the next ones would find their networks taken
#   ops/dev/engine.sh registry PORT    run a registry on 127.0.0.1:PORT in the foreground, data in target/engine/registry
#   ops/dev/engine.sh url              print the URL of the engine's socket
#
# Every command may be repeated. Starting needs root or sudo; so does an engine whose socket is not yours.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
state=$root/target/engine
log=$state/dockerd.log
pidfile=$state/dockerd.pid

sudo=()
if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null 2>&1; then
    sudo=(sudo)
fi

say() {
    echo "$0: $*" >&2
}

# Where an engine may listen, in the order in which the product looks.
sockets() {
    case ${DOCKER_HOST:-} in unix://*) echo "${DOCKER_HOST#unix://}" ;; esac
    echo /var/run/docker.sock
    echo /run/podman/podman.sock
    [ -z "${XDG_RUNTIME_DIR:-}" ] || echo "$XDG_RUNTIME_DIR/podman/podman.sock"
}

# ping SOCKET, as this user or through sudo: sets `as` to what the socket needs.
as=()
ping() {
    as=()
    [ "$(curl -s --max-time 5 --unix-socket "$1" http://engine/_ping 2>/dev/null)" = OK ] && return
    [ ${#sudo[@]} -gt 0 ] && [ -e "$1" ] && [ ! -w "$1" ] || return 1
    as=("${sudo[@]}")
    [ "$("${as[@]}" curl -s --max-time 5 --unix-socket "$1" http://engine/_ping 2>/dev/null)" = OK ]
}

# Sets `socket` to the first one that answers.
socket=
find_engine() {
    local candidate
    while read -r candidate; do
        if ping "$candidate"; then
            socket=$candidate
            return
        fi
    done < <(sockets)
    return 1
}

# api PATH [CURL OPTION…]
api() {
    local path=$1
    shift
    "${as[@]}" curl -sS --unix-socket "$socket" "$@" "http://engine/v1.41$path"
}

describe() {
    api /version | python3 -c '
import json, sys
v = json.load(sys.stdin)
part = (v.get("Components") or [{"Name": "Engine"}])[0]["Name"]
name = "Podman" if "Podman" in part else "Docker"
print("{} {}, API {}, {}/{}".format(name, v["Version"], v["ApiVersion"], v["Os"], v["Arch"]))'
}

status() {
    if find_engine; then
        echo "$(describe) on unix://$socket"
        return
    fi
    say "no engine answers on: $(sockets | tr '\n' ' ')"
    return 1
}

start() {
    if find_engine; then
        status
        return
    fi
    if ! command -v dockerd >/dev/null 2>&1; then
        say "no engine answers and dockerd is not installed: run ops/dev/install.sh build, or install Podman and start its socket"
        return 1
    fi
    if [ "$(id -u)" -ne 0 ] && [ ${#sudo[@]} -eq 0 ]; then
        say "no engine answers; dockerd needs root to start, and there is neither root nor sudo"
        return 1
    fi
    if [ -d /run/systemd/system ] && systemctl cat docker.service >/dev/null 2>&1; then
        "${sudo[@]}" systemctl start docker || {
            say "systemctl start docker failed: see journalctl -u docker"
            return 1
        }
    else
        mkdir -p "$state"
        # A leftover of a machine that went down: dockerd refuses to start beside it.
        if [ -f "$pidfile" ] && ! ours; then
            "${sudo[@]}" rm -f "$pidfile"
        fi
        # In a session of its own, so that it outlives this terminal and its signals.
        "${sudo[@]}" setsid --fork dockerd --pidfile "$pidfile" >>"$log" 2>&1 </dev/null
    fi
    for _ in $(seq 120); do
        if find_engine; then
            status
            return
        fi
        sleep 0.5
    done
    say "dockerd did not answer within a minute; the end of $log:"
    tail -n 20 "$log" >&2 || true
    return 1
}

# Whether the process of the pidfile is a dockerd.
ours() {
    [ -s "$pidfile" ] && [ "$(cat "/proc/$(cat "$pidfile")/comm" 2>/dev/null)" = dockerd ]
}

stop() {
    if ! ours; then
        say "no dockerd of ours is running"
        return
    fi
    local pid
    pid=$(cat "$pidfile")
    "${sudo[@]}" kill "$pid"
    for _ in $(seq 60); do
        [ -d "/proc/$pid" ] || return 0
        sleep 0.5
    done
    say "dockerd ($pid) has not ended after 30 seconds"
    return 1
}

# What an image is made from; a change of it makes the image anew.
recipe() { # recipe NAME
    cat "ops/dev/images/$1.sh" ops/dev/images/common.sh | sha256sum | cut -c1-16
}

image() { # image NAME
    local name=$1 reference=nimbus.test/$1:1 wanted old kept tar query answer
    if [ ! -f "ops/dev/images/$name.sh" ]; then
        say "there is no image $name; there are: $(cd ops/dev/images && ls -- *.sh | sed 's/\.sh$//' | grep -v common | tr '\n' ' ')"
        return 2
    fi
    wanted=$(recipe "$name")
    read -r old kept < <(api "/images/$reference/json" | python3 -c '
import json, sys
image = json.load(sys.stdin)
labels = (image.get("Config") or {}).get("Labels") or {}
print(image.get("Id", "none"), labels.get("io.nimbus.recipe", "none"))')
    if [ "$kept" = "$wanted" ]; then
        say "$reference is there"
        return
    fi
    tar=target/images/$name-$wanted.tar
    if [ ! -s "$tar" ]; then
        say "making $tar"
        mkdir -p target/images
        "ops/dev/images/$name.sh" tar "$tar.new"
        mv "$tar.new" "$tar"
        # Those of earlier recipes are of no use any more.
        find target/images -name "$name-*.tar*" ! -path "$tar" -delete
    fi
    query=$( ("ops/dev/images/$name.sh" config && echo "LABEL io.nimbus.recipe=$wanted") | python3 -c '
import sys, urllib.parse
# The tag stands in the name because Podman does not look at a parameter of its own for it.
fields = [("fromSrc", "-"), ("repo", sys.argv[1])]
fields += [("changes", line.strip()) for line in sys.stdin]
print(urllib.parse.urlencode(fields))' "$reference")
    answer=$(api "/images/create?$query" -X POST -H 'Content-Type: application/x-tar' -T "$tar")
    case $answer in
    *'"error"'* | *'"message"'*)
        say "the engine did not take $reference: $answer"
        return 1
        ;;
    esac
    # The one before it has no name any more; it goes unless a container still has it.
    [ "$old" = none ] || api "/images/$old" -X DELETE -o /dev/null
    say "made $reference"
}

# Whether this is of a test whose process is gone: nimbus-test-PID-…, nimbus-walk-PID…, nimbus-test-WORDS-PID.
is_orphan() { # is_orphan NAME
    [[ $1 =~ ^nimbus-(test|walk)-([0-9]+)([-_]|$) || $1 =~ ^nimbus-(test)-[a-z_-]+-([0-9]+)$ ]] && [ ! -d "/proc/${BASH_REMATCH[2]}" ]
}

sweep() {
    local kind name host options
    find_engine || {
        say "no engine answers: run $0 start"
        return 1
    }
    if ! command -v docker >/dev/null 2>&1; then
        say "docker, the program, is not there: nothing is swept"
        return
    fi
    local docker=("${as[@]}" docker --host "unix://$socket")
    # Containers first: they hold the others. Sandboxes are told by their host, which is named like the project.
    while read -r name host; do
        if is_orphan "$name" || is_orphan "$host"; then
            say "left by a test that is gone: container $name"
            "${docker[@]}" rm --force --volumes "$name" >/dev/null || say "could not remove $name"
        fi
    done < <("${docker[@]}" ps --all --format '{{.Names}} {{.Label "io.nimbus.sandbox.host"}}')
    for kind in volume network; do
        options=()
        [ $kind = network ] || options=(--force)
        while read -r name; do
            if is_orphan "$name"; then
                say "left by a test that is gone: $kind $name"
                "${docker[@]}" $kind rm "${options[@]}" "$name" >/dev/null || say "could not remove $name"
            fi
        done < <("${docker[@]}" $kind ls --format '{{.Name}}')
    done
}

images() {
    find_engine || {
        say "no engine answers: run $0 start"
        return 1
    }
    [ $# -gt 0 ] || set -- busybox
    local name
    for name in "$@"; do
        image "$name"
    done
}

registry() { # registry PORT
    if ! command -v docker-registry >/dev/null 2>&1; then
        say "docker-registry is not installed: run ops/dev/install.sh test"
        return 1
    fi
    mkdir -p "$state/registry"
    cat >"$state/registry.yml" <<YML
version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: $state/registry}
  delete: {enabled: true}
http: {addr: "127.0.0.1:$1"}
YML
    exec docker-registry serve "$state/registry.yml"
}

case ${1:-} in
start) start ;;
status) status ;;
stop) stop ;;
url)
    find_engine || exit 1
    echo "unix://$socket"
    ;;
images)
    shift
    images "$@"
    ;;
sweep) sweep ;;
registry)
    case ${2:-} in '' | *[!0-9]*)
        say "usage: $0 registry PORT"
        exit 2
        ;;
    esac
    registry "$2"
    ;;
*)
    echo "usage: $0 start|status|stop|url|images [NAME…]|sweep|registry PORT" >&2
    exit 2
    ;;
esac
