#!/usr/bin/env bash
# Makes what compose.yaml needs and no repository may hold: keys of the bus, certificates, passwords, the key
# that seals secrets in the database, and .env.
#
#   ops/compose/init.sh
#
# What exists is kept, so run it again after an upgrade: a new service gets its credentials then. Needs Docker
# and openssl; no root beyond what the engine gives. Settings are those of .env, or of the environment.
set -euo pipefail
cd "$(dirname "$0")/../.."
engine=${ENGINE:-docker}

say() {
    echo "$0: $*" >&2
}

command -v openssl >/dev/null 2>&1 || {
    say "openssl is missing: install it"
    exit 1
}

# The value of NAME: from the environment, else from .env, else the default.
setting() { # setting NAME DEFAULT
    local value=${!1:-}
    [ -n "$value" ] || value=$(sed -n "s/^$1=//p" "$env_file" 2>/dev/null | tail -n 1)
    echo "${value:-$2}"
}

env_file=${NIMBUS_ENV_FILE:-.env}
if [ ! -e "$env_file" ]; then
    socket=${ENGINE_SOCKET:-/var/run/docker.sock}
    [ -S "$socket" ] || {
        say "there is no engine at $socket: start Docker, or set ENGINE_SOCKET"
        exit 1
    }
    sed "s/^DOCKER_GID=.*/DOCKER_GID=$(stat -c %g "$socket")/" .env.example >"$env_file"
    chmod 600 "$env_file"
    say "made $env_file"
fi

nimbus_image=$(setting NIMBUS_IMAGE nimbus:0.1.0)
postgres_image=$(setting POSTGRES_IMAGE docker.io/library/postgres:17-alpine)
host=$(setting NIMBUS_SANDBOX_HOST host-1)
secrets=$(setting NIMBUS_SECRETS ./secrets)
mkdir -p "$secrets"
chmod 755 "$secrets"
secrets=$(cd "$secrets" && pwd)
umask 077

# A file of its own content, once.
once() { # once FILE COMMAND…
    local file=$secrets/$1
    shift
    [ -e "$file" ] || {
        "$@" >"$file.new"
        mv "$file.new" "$file"
        say "made $file"
    }
}

once encryption-key openssl rand -base64 32
once grafana-password openssl rand -hex 16
once proxmox-token-secret true
if [ ! -e "$secrets/database-url" ]; then
    password=$(openssl rand -hex 24)
    once postgres-password printf %s "$password"
    once database-url printf %s "postgres://nimbus:$password@postgres:5432/nimbus"
fi

# An authority of our own for the bus, and certificates that it signs.
mkdir -p "$secrets/tls"
chmod 755 "$secrets/tls"
if [ ! -e "$secrets/tls/ca.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days 3650 -subj "/CN=Nimbus bus" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
        -keyout "$secrets/tls/ca.key" -out "$secrets/tls/ca.pem" 2>/dev/null
    say "made $secrets/tls/ca.pem"
fi
certificate() { # certificate NAME SUBJECT-ALTERNATIVE-NAMES USAGE
    local at=$secrets/tls/$1
    if [ -e "$at.pem" ]; then
        # One that names this host as others do now stays, and so does one that this account cannot read.
        [ -n "$bus_name" ] && [ -r "$at.pem" ] && ! named "$at.pem" || return 0
    fi
    [ -r "$secrets/tls/ca.key" ] || {
        say "$secrets/tls/ca.key belongs to root, and $at.pem has to be signed with it: run this with sudo"
        exit 1
    }
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -subj "/CN=$1" \
        -keyout "$at.key" -out "$at.csr" 2>/dev/null
    openssl x509 -req -sha256 -days 825 -in "$at.csr" -CA "$secrets/tls/ca.pem" -CAkey "$secrets/tls/ca.key" \
        -CAcreateserial -CAserial "$secrets/tls/ca.srl" -out "$at.pem" 2>/dev/null \
        -extfile <(printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=%s\n' "$2" "$3")
    rm -f "$at.csr"
    say "made $at.pem"
}
# The servers of ops/compose/cluster.yaml show it to each other too. NIMBUS_BUS_NAME is what other hosts call this one.
names="DNS:nats,DNS:nats-2,DNS:nats-3,DNS:localhost,IP:127.0.0.1,DNS:$(uname -n)"
bus_name=$(setting NIMBUS_BUS_NAME "")
case $bus_name in
'') ;;
*[!0-9.:a-f]*)
    names+=",DNS:$bus_name"
    named() { openssl x509 -in "$1" -noout -checkhost "$bus_name" | grep -q 'does match'; }
    ;;
*)
    names+=",IP:$bus_name"
    named() { openssl x509 -in "$1" -noout -checkip "$bus_name" | grep -q 'does match'; }
    ;;
esac
certificate nats "$names" serverAuth,clientAuth
# HAProxy wants chain and key in one file. Put one of a public authority in its place for browsers.
if [ ! -e "$secrets/tls/portal.pem" ]; then
    certificate browser "DNS:localhost,IP:127.0.0.1,DNS:$(uname -n)" serverAuth
    cat "$secrets/tls/browser.pem" "$secrets/tls/browser.key" >"$secrets/tls/portal.pem"
    rm -f "$secrets/tls/browser.pem" "$secrets/tls/browser.key"
fi

# In a container as root, because the files of a first run belong to the services already.
mkdir -p "$secrets/bus"
"$engine" run --rm --network none --user 0:0 --label io.nimbus.compose=init -v "$secrets/bus:/bus" "$nimbus_image" \
    bus init /bus --listen 0.0.0.0:4222 --store-dir /data --sandbox-host "$host" \
    --tls-cert /run/secrets/nats.pem --tls-key /run/secrets/nats.key >/dev/null 2>"$secrets/bus/init.log" || {
    cat "$secrets/bus/init.log" >&2
    exit 1
}
# What it says to do next is for a bus without Compose.
rm -f "$secrets/bus/init.log"
# The agent of ops/compose/replicas.yaml: each may speak for its own host only.
second=$(setting NIMBUS_SANDBOX_HOST_2 "")
if [ -n "$second" ] && [ ! -e "$secrets/bus/creds/sandbox-agent-2.creds" ]; then
    "$engine" run --rm --network none --user 0:0 --label io.nimbus.compose=init -v "$secrets/bus:/bus" "$nimbus_image" \
        bus credentials mint sandbox-agent --dir /bus --out /bus/creds/sandbox-agent-2.creds --sandbox-host "$second" >/dev/null
    say "made $secrets/bus/creds/sandbox-agent-2.creds"
fi

# Compose mounts a secret as the file it is: it has to belong to the account that reads it. The key of the
# certificates is read by no service and stays with root; that of the bus by auth if other hosts may join.
"$engine" run --rm --network none --user 0:0 --label io.nimbus.compose=init -v "$secrets:/secrets" --entrypoint sh "$postgres_image" -ec '
    chown 10001:10001 /secrets/bus/creds/* /secrets/bus/nats-server.conf /secrets/tls/*
    chown 10001:10001 /secrets/encryption-key /secrets/database-url /secrets/proxmox-token-secret
    # The account of the images of Grafana.
    chown 472:0 /secrets/grafana-password
    chown "$(id -u postgres)" /secrets/postgres-password
    chown 10001:10001 /secrets/bus/authority.json
    chown 0:0 /secrets/tls/ca.key
    find /secrets -type f -exec chmod 600 {} +
    chmod 755 /secrets/tls /secrets/bus /secrets/bus/creds
    chmod 644 /secrets/tls/ca.pem /secrets/tls/nats.pem /secrets/bus/nats-server.conf'
say "ready: docker compose up -d"
