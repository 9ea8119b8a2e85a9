#!/usr/bin/env bash
# Sends the server what its OpenAPI document allows, and what it does not; no answer may be a 5xx.
#
#   ops/dev/schemathesis.sh BINARY OUTPUT_DIR
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=$1 output=$2

work=$(mktemp -d)
server=""
finish() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

# Without limits: this is one address that asks a lot.
"$binary" dev --ephemeral --port 0 --latency-scale 0 --rate-limit-address 0 --rate-limit-user 0 --login-burst 0 --ready-file "$work/ready.json" >"$output/api-server.log" 2>&1 &
server=$!
for _ in $(seq 300); do
    [ -s "$work/ready.json" ] && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
if [ ! -s "$work/ready.json" ]; then
    echo "$0: the server did not start; its output:" >&2
    cat "$output/api-server.log" >&2
    exit 1
fi
url=$(target/venv/bin/python -c 'import json, sys; print(json.load(open(sys.argv[1]))["url"])' "$work/ready.json")

password=$(head -c 18 /dev/urandom | base64)
curl --fail --silent --show-error -X POST "$url/api/auth/register" -H 'Content-Type: application/json' \
    -d "{\"name\":\"Tester\",\"email\":\"tester@example.org\",\"password\":\"$password\"}" >/dev/null
export XDG_CONFIG_HOME=$work NIMBUS_URL=$url
printf '%s' "$password" | "$binary" login --email tester@example.org --password-stdin
token=$("$binary" token create schemathesis --scope machines:read --scope machines:write --scope account --scope admin --scope workloads:read --scope workloads:write 2>/dev/null)

# /api/events is a stream without end; the tool does not know how to write a tar archive.
target/venv/bin/schemathesis run "$url/api/openapi.json" --checks not_a_server_error \
    --header "Authorization: Bearer $token" --exclude-path /api/events --exclude-path-regex "/archive$" \
    --max-examples "${NIMBUS_API_EXAMPLES:-20}" --workers 1 --request-timeout 60 \
    --generation-deterministic --suppress-health-check all --no-color
