#!/usr/bin/env bash
# Restarts services of compose.yaml one container after the other, so that no request fails; with the image and
# the settings that are current now, which makes it the way to upgrade.
#
#   ops/compose/rolling.sh              all services of Nimbus
#   ops/compose/rolling.sh SERVICE…     only these
#
# A service with replicas gets a new container beside each old one before that ends. A gateway is drained at the
# proxy first. Extra arguments of Compose, such as other files, come in COMPOSE (default: docker compose).
# nats, postgres and proxy are not among them: with one of each, requests wait until it is back.
set -euo pipefail
cd "$(dirname "$0")/../.."
read -ra compose <<<"${COMPOSE:-docker compose}"
engine=${ENGINE:-docker}
limit=${NIMBUS_ROLLING_LIMIT:-120}

say() {
    echo "$0: $*" >&2
}

containers() { # containers SERVICE
    "${compose[@]}" ps --quiet "$1"
}

state() { # state CONTAINER
    "$engine" inspect --format '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' "$1" 2>/dev/null || echo gone
}

# Until CONTAINER says that it is healthy.
healthy() { # healthy CONTAINER
    local until=$((SECONDS + limit)) now
    while now=$(state "$1"); [ "$now" != "running healthy" ]; do
        if [ $SECONDS -ge $until ]; then
            say "container $1 is not healthy after $limit s but: $now; see: $engine logs $1"
            return 1
        fi
        sleep 0.5
    done
}

# A service whose containers may stand beside each other.
replicated() { # replicated SERVICE
    local service=$1 old new container
    mapfile -t old < <(containers "$service")
    [ ${#old[@]} -gt 0 ] || {
        say "$service does not run: ${compose[*]} up -d"
        return 1
    }
    "${compose[@]}" up -d --quiet-pull --no-deps --no-recreate --scale "$service=$((2 * ${#old[@]}))" "$service" >/dev/null 2>&1
    mapfile -t new < <(containers "$service" | grep -vxFf <(printf '%s\n' "${old[@]}"))
    for container in "${new[@]}"; do
        healthy "$container" || {
            say "the old containers of $service go on; remove the new ones: $engine rm -f ${new[*]}"
            return 1
        }
    done
    for container in "${old[@]}"; do
        "$engine" stop "$container" >/dev/null
        "$engine" rm "$container" >/dev/null
    done
    say "$service: ${#old[@]} containers are new"
}

# A service that is there once.
single() { # single SERVICE
    "${compose[@]}" up -d --quiet-pull --no-deps --force-recreate "$1" >/dev/null 2>&1
    healthy "$(containers "$1")"
    say "$1 is new"
}

# Tells the proxy something; what it answers.
proxy() { # proxy COMMAND
    "${compose[@]}" exec -T proxy sh -c 'echo "$1" | nc -w 5 127.0.0.1 9999' sh "$1"
}

backends="ready alive grpc"
gateway() { # gateway SERVICE
    local backend until=$((SECONDS + 10))
    for backend in $backends; do
        proxy "set server $backend/$1 state drain" >/dev/null
    done
    # Requests end; what streams is cut after ten seconds, and its client comes back through the other gateway.
    while [ "$(open_requests "$1")" -gt 0 ] && [ $SECONDS -lt $until ]; do
        sleep 0.2
    done
    single "$1"
    until=$((SECONDS + limit))
    for backend in $backends; do
        proxy "set server $backend/$1 state ready" >/dev/null
    done
    until up "$1"; do
        [ $SECONDS -lt $until ] || {
            say "the proxy does not take $1 back: ${compose[*]} logs proxy $1"
            return 1
        }
        sleep 0.2
    done
}

# Field 5 of HAProxy's table is the number of current sessions, 18 the state.
open_requests() { # open_requests SERVER
    proxy "show stat" | awk -F, -v server="$1" '$2 == server { open += $5 } END { print open + 0 }'
}

up() { # up SERVER
    proxy "show stat" | awk -F, -v server="$1" '$2 == server && $18 !~ /^UP/ { down = 1 } END { exit down }'
}

services=("$@")
if [ ${#services[@]} -eq 0 ]; then
    mapfile -t all < <("${compose[@]}" config --services | sort)
    # What is called, before what calls it; the edge last.
    for service in auth ippool provisioner workloads gpu-scheduler 'sandbox-agent*' 'gateway-*'; do
        for one in "${all[@]}"; do
            # shellcheck disable=SC2053  # a pattern
            [[ $one != $service ]] || services+=("$one")
        done
    done
fi
for service in "${services[@]}"; do
    case $service in
    gateway-*) gateway "$service" ;;
    sandbox-agent* | proxy | nats* | postgres) single "$service" ;;
    *) replicated "$service" ;;
    esac
done
