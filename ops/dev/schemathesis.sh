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

# Without limits: this is one address that asks a lot. The public address is one that a GPU box could reach.
"$binary" dev --ephemeral --port 0 --public-url http://nimbus.example.org --latency-scale 0 --rate-limit-address 0 --rate-limit-user 0 --login-burst 0 --ready-file "$work/ready.json" >"$output/api-server.log" 2>&1 &
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
token=$("$binary" token create schemathesis --scope machines:read --scope machines:write --scope account --scope admin --scope workloads:read --scope workloads:write --scope gpu 2>/dev/null)

# A box that never says anything: jobs are taken and wait.
api() { # api PATH BODY
    curl --fail --silent --show-error -X POST "$url$1" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -d "$2"
}
pairing=$(api /api/settings/gpu/pairing '{}' | target/venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["data"]["token"])')
api /api/gpu/register "{\"pairing_token\":\"$pairing\",\"hostname\":\"box\",\"ip\":\"192.0.2.9\"}" >/dev/null

# /api/events is a stream without end, and so is the log of a job that waits; the tool does not know how to write a tar
# archive. Without a box or with GPUs turned off, jobs are answered with 503, as models are where no model is.
target/venv/bin/schemathesis run "$url/api/openapi.json" --checks not_a_server_error \
    --header "Authorization: Bearer $token" --exclude-path /api/events --exclude-path-regex "/archive$" \
    --exclude-operation-id gpu_job_log --exclude-operation-id openai.get --exclude-operation-id openai.post --exclude-operation-id put_gpu_settings \
    --exclude-operation-id unpair_gpu --exclude-operation-id unpair_gpu_worker \
    --max-examples "${NIMBUS_API_EXAMPLES:-20}" --workers 1 --request-timeout 60 \
    --generation-deterministic --suppress-health-check all --no-color
