#!/usr/bin/env bash
# nimbus.test/postgres:1: the shell, and Debian's PostgreSQL with its libraries, started as the public image
# starts it (POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD_FILE, PGDATA); about 60 MB. No root.
set -euo pipefail
. "$(dirname "$0")/common.sh"

write() { # write FILE
    local bin share program
    bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
    [ -n "$bin" ] || {
        echo "$0: PostgreSQL is not installed: install postgresql" >&2
        exit 1
    }
    share=/usr/share/postgresql/$(basename "$(dirname "$bin")")
    work=$(mktemp -d) # of the whole script: the trap reads it
    trap 'rm -rf "$work"' EXIT
    busybox_root "$work"
    echo 'postgres:x:999:999:postgres:/var/lib/postgresql:/bin/sh' >>"$work/etc/passwd"
    echo 'postgres:x:999:' >>"$work/etc/group"
    mkdir -p "$work$bin" "$work$share" "$work$(dirname "$bin")/lib" "$work/usr/local/bin"
    for program in initdb pg_ctl pg_dump pg_isready pg_restore postgres psql; do
        install -m 755 "$bin/$program" "$work$bin/"
        ln -s "$bin/$program" "$work/usr/local/bin/$program"
    done
    # The modules that a database without extensions loads; the one for LLVM is a hundred megabytes.
    install -m 644 "$(dirname "$bin")/lib"/{dict_snowball,libpqwalreceiver,plpgsql}.so "$work$(dirname "$bin")/lib/"
    tar -C $share --exclude=./man -ch . | tar -C "$work$share" -x
    # Debian's time zones stand elsewhere than PostgreSQL's own.
    tar -C / -ch usr/share/zoneinfo/{UTC,Etc} | tar -C "$work" -x
    libraries "$work" "$bin"/{initdb,pg_ctl,pg_dump,pg_isready,pg_restore,postgres,psql} "$work$(dirname "$bin")/lib"/*.so
    entrypoint >"$work/usr/local/bin/docker-entrypoint.sh"
    chmod 755 "$work/usr/local/bin/docker-entrypoint.sh"
    pack "$work" "$1"
    # As in the public image: a tmpfs takes over the mode of the folder that it covers.
    mkdir -p "$work/owned/var/lib/postgresql/data" "$work/owned/var/run/postgresql"
    chmod 1777 "$work/owned/var/run/postgresql"
    chmod 700 "$work/owned/var/lib/postgresql/data"
    tar -C "$work/owned" --sort=name --mtime=@0 --numeric-owner --owner=999 --group=999 --format=posix \
        --pax-option=delete=atime,delete=ctime -rf "$1" ./var/lib/postgresql ./var/run/postgresql
}

entrypoint() {
    cat <<'SH'
#!/bin/sh
set -eu
PGDATA=${PGDATA:-/var/lib/postgresql/data}
user=${POSTGRES_USER:-postgres}
if [ "${1:-}" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb -D "$PGDATA" -U "$user" --pwfile="$POSTGRES_PASSWORD_FILE" --encoding=UTF8 --locale=C \
        --auth-local=trust --auth-host=scram-sha-256
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    if [ -n "${POSTGRES_DB:-}" ] && [ "$POSTGRES_DB" != postgres ]; then
        pg_ctl -D "$PGDATA" -w -o "-c listen_addresses= -c unix_socket_directories=/tmp" start
        psql -h /tmp -U "$user" -d postgres -c "CREATE DATABASE \"$POSTGRES_DB\""
        pg_ctl -D "$PGDATA" -w -m fast stop
    fi
fi
[ "${1:-}" != postgres ] || set -- "$@" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
exec "$@"
SH
}

case ${1:-} in
tar) [ $# -eq 2 ] || usage; write "$2" ;;
config)
    echo 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    echo 'ENV PGDATA=/var/lib/postgresql/data'
    echo 'ENTRYPOINT ["docker-entrypoint.sh"]'
    echo 'CMD ["postgres"]'
    ;;
*) usage ;;
esac
