#!/bin/sh
# A private PostgreSQL for development and tests, beside whatever the machine runs already.
#
#   ops/dev/postgres.sh start DIR PORT   make the cluster in DIR if there is none, start it, wait until it answers
#   ops/dev/postgres.sh stop  DIR PORT   stop it; DIR stays
#   ops/dev/postgres.sh url   DIR PORT   print its URL
#
# Every command may be repeated. The server listens on loopback only and trusts whoever reaches it,
# so it is for throw-away data. It never runs as root: started by root, it runs as user postgres.
set -eu

usage() {
    echo "usage: $0 start|stop|url DIR PORT" >&2
    exit 2
}

[ $# -eq 3 ] || usage
command=$1 dir=$2 port=$3
case $port in '' | *[!0-9]*) usage ;; esac
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac

# The newest installed version; Debian keeps the servers out of PATH.
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
if [ -z "$bin" ]; then
    initdb=$(command -v initdb) || {
        echo "$0: there is no PostgreSQL here: install the package postgresql" >&2
        exit 1
    }
    bin=$(dirname "$initdb")
fi

# From / because user postgres may not be allowed to read the caller's directory.
as_server() {
    if [ "$(id -u)" -eq 0 ]; then
        (cd / && exec setpriv --reuid postgres --regid postgres --init-groups env HOME="$dir" "$@")
    else
        (cd / && exec "$@")
    fi
}

answers() {
    "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"
}

running() {
    [ -f "$dir/PG_VERSION" ] && as_server "$bin/pg_ctl" status -D "$dir" >/dev/null 2>&1
}

start() {
    if running && answers; then
        return
    fi
    if ! running && answers; then
        echo "$0: another PostgreSQL listens on port $port" >&2
        exit 1
    fi
    if [ ! -f "$dir/PG_VERSION" ]; then
        mkdir -p "$dir"
        [ "$(id -u)" -ne 0 ] || chown postgres:postgres "$dir"
        chmod 700 "$dir"
        as_server "$bin/initdb" -D "$dir" -U postgres --auth=trust --encoding=UTF8 --locale=C >/dev/null
    fi
    # jit off: it costs more than it saves on statements this short.
    as_server "$bin/pg_ctl" start -D "$dir" -l "$dir/server.log" -w -t 60 -o "-p $port -h 127.0.0.1 -k $dir \
        -c max_connections=200 -c shared_buffers=64MB -c jit=off" >/dev/null || {
        echo "$0: PostgreSQL did not start; the end of its log:" >&2
        tail -n 20 "$dir/server.log" >&2
        exit 1
    }
}

stop() {
    if running; then
        as_server "$bin/pg_ctl" stop -D "$dir" -m fast -w -t 60 >/dev/null
    fi
}

case $command in
start) start ;;
stop) stop ;;
url) echo "postgres://postgres@127.0.0.1:$port/postgres" ;;
*) usage ;;
esac
