#!/usr/bin/env bash
# The five-minute quickstart from the first command to the last, in a folder of its own that is removed at the end.
#
#   NIMBUS_BIN      the program; default: nimbus in PATH, else target/{release,debug}/nimbus
#   NIMBUS_SDK      what npm installs as @nimbus/nimbus; default: the SDK of this checkout
#   NIMBUS_IMAGE    the image to run; default docker.io/library/node:22-alpine
#   NIMBUS_ENDPOINT, NIMBUS_TOKEN   a server that runs already, instead of one of our own
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
server=""
leave() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap leave EXIT

# 1 The program.
for candidate in "${NIMBUS_BIN:-}" "$(command -v nimbus || true)" "$root/target/release/nimbus" "$root/target/debug/nimbus"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
        nimbus=$candidate
        break
    fi
done

if [ -z "${NIMBUS_ENDPOINT:-}" ]; then
    # 2 A server, on a port that is free. Its token and data stay in our folder.
    export XDG_DATA_HOME=$work/share XDG_STATE_HOME=$work/state XDG_RUNTIME_DIR=$work/run
    mkdir -p "$XDG_RUNTIME_DIR"
    "${nimbus:?no nimbus: set NIMBUS_BIN}" start --port 0 --data-dir "$work/data" --ready-file "$work/ready.json" >"$work/server.log" 2>&1 &
    server=$!
    until [ -s "$work/ready.json" ]; do
        kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; exit 1; }
        sleep 0.1
    done
    NIMBUS_ENDPOINT=$(node -p 'JSON.parse(fs.readFileSync(process.argv[1])).url.replace(/\/$/, "")' "$work/ready.json")
    # 4 Who may do everything here.
    NIMBUS_TOKEN=$("$nimbus" auth token)
    export NIMBUS_ENDPOINT NIMBUS_TOKEN
fi
export NIMBUS_TENANT=${NIMBUS_TENANT:-demo}
# A tenant that is there already will do.
curl -sS -o "$work/tenant.json" -H "Authorization: Bearer $NIMBUS_TOKEN" -H 'Content-Type: application/json' \
    -d "{\"id\":\"$NIMBUS_TENANT\"}" "$NIMBUS_ENDPOINT/api/tenants"
grep -q -e '"id"' -e op.already_exists "$work/tenant.json" || { cat "$work/tenant.json" >&2; exit 1; }

# 5 A new project with the SDK.
mkdir "$work/project"
cd "$work/project"
if [ -z "${NIMBUS_SDK:-}" ]; then
    [ -d "$root/web/node_modules" ] || npm --prefix "$root/web" ci --loglevel=error
    NIMBUS_SDK=$work/$(npm pack "$root/web/sdk" --pack-destination "$work" --loglevel=error | tail -n 1)
fi
npm init -y >/dev/null
npm install --no-audit --no-fund --loglevel=error "$NIMBUS_SDK" >/dev/null
cp "$here/sandbox.mjs" .

# 6, 7 The script.
node sandbox.mjs
