#!/usr/bin/env bash
# Installs the Nimbus GPU worker as a systemd service. Run again, it brings everything up to date.
#
#   NIMBUS_URL                address of Nimbus                                    required
#   NIMBUS_WORKER_TOKEN       what the worker shows there                          required
#   GX10_WORKER_BINARY        the program to install                               required
#   GX10_WORKER_ID            the worker's name; default this machine's
#   GX10_WORKER_USER          user that it runs as; default nimbus-worker, made if it is not there
#   GX10_WORKER_BIN_DIR       where the program goes; default /opt/nimbus
#   GX10_BUS_URL, GX10_BUS_CREDENTIALS_B64, GX10_BUS_CA_B64
#                             the bus, where Nimbus has one that can be reached; else HTTP does all
#   GX10_CA_FILE              certificate authority of NIMBUS_URL, if it is a private one
#   GX10_UNINSTALL            uninstall.sh, put beside the program
# Any other setting of the worker (`gx10-worker run --help`) goes into /etc/nimbus-gpu-worker.local.env,
# which is read after what is written here and never changed by this script.
set -euo pipefail

say() { printf 'gx10: %s\n' "$*"; }
fail() {
    printf 'gx10: %s\n' "$*" >&2
    exit 1
}

main() {
    [ "$(id -u)" -eq 0 ] || fail "this needs root"
    : "${NIMBUS_URL:?}" "${NIMBUS_WORKER_TOKEN:?}" "${GX10_WORKER_BINARY:?}"
    local user=${GX10_WORKER_USER:-nimbus-worker} bin=${GX10_WORKER_BIN_DIR:-/opt/nimbus}
    local id=${GX10_WORKER_ID:-$(uname -n)} etc=/etc/nimbus-gpu-worker
    [[ $bin =~ ^/[A-Za-z0-9._/-]+$ ]] || fail "GX10_WORKER_BIN_DIR: $bin is not a plain absolute path"
    [[ $user =~ ^[a-z_][a-z0-9_-]*$ ]] || fail "GX10_WORKER_USER: $user is not the name of a user"
    getent group docker >/dev/null || fail "there is no group docker; is this Docker from its packages?"

    if ! id "$user" >/dev/null 2>&1; then
        useradd --system --user-group --home-dir /var/lib/nimbus-gpu-worker --no-create-home \
            --shell /usr/sbin/nologin "$user"
    fi
    usermod -aG docker "$user"

    install -d -m 0755 "$bin"
    # By rename: the running program keeps its file, and a half-written one is never started.
    install -m 0755 "$GX10_WORKER_BINARY" "$bin/.gx10-worker.new"
    "$bin/.gx10-worker.new" --version >/dev/null || fail "the worker does not start on this machine"
    mv -f "$bin/.gx10-worker.new" "$bin/gx10-worker"
    [ -z "${GX10_UNINSTALL:-}" ] || install -m 0755 "$GX10_UNINSTALL" "$bin/gx10-uninstall"

    umask 027
    install -d -m 0750 -o root -g "$user" "$etc"
    rm -f "$etc/bus.creds" "$etc/bus-ca.pem"
    {
        line NIMBUS_URL "$NIMBUS_URL"
        line NIMBUS_WORKER_TOKEN "$NIMBUS_WORKER_TOKEN"
        line GX10_WORKER_ID "$id"
        if [ -n "${GX10_CA_FILE:-}" ]; then
            install -m 0644 "$GX10_CA_FILE" "$etc/ca.pem"
            line GX10_CA_FILE "$etc/ca.pem"
        fi
        if [ -n "${GX10_BUS_URL:-}" ] && [ -n "${GX10_BUS_CREDENTIALS_B64:-}" ]; then
            printf '%s' "$GX10_BUS_CREDENTIALS_B64" | base64 -d >"$etc/bus.creds"
            chown "root:$user" "$etc/bus.creds"
            line GX10_BUS_URL "$GX10_BUS_URL"
            line GX10_BUS_CREDENTIALS "$etc/bus.creds"
            if [ -n "${GX10_BUS_CA_B64:-}" ]; then
                printf '%s' "$GX10_BUS_CA_B64" | base64 -d >"$etc/bus-ca.pem"
                chmod 0644 "$etc/bus-ca.pem"
                line GX10_BUS_CA "$etc/bus-ca.pem"
            fi
        fi
    } >/etc/nimbus-gpu-worker.env.new
    chown "root:$user" /etc/nimbus-gpu-worker.env.new
    chmod 0640 /etc/nimbus-gpu-worker.env.new
    mv -f /etc/nimbus-gpu-worker.env.new /etc/nimbus-gpu-worker.env

    umask 022
    unit "$user" "$bin" >/etc/systemd/system/nimbus-gpu-worker.service
    systemctl daemon-reload
    systemctl enable --quiet nimbus-gpu-worker.service
    systemctl restart nimbus-gpu-worker.service
    say "nimbus-gpu-worker.service runs as $user"
}

# line KEY VALUE: one line of an environment file as systemd reads it.
line() {
    case $2 in
    *$'\n'*) fail "$1 has a line break" ;;
    esac
    local value=${2//\\/\\\\}
    value=${value//\"/\\\"}
    printf '%s="%s"\n' "$1" "$value"
}

unit() {
    cat <<UNIT
[Unit]
Description=Nimbus GPU worker
After=docker.service network-online.target
Wants=docker.service network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
User=$1
Group=$1
SupplementaryGroups=docker
EnvironmentFile=/etc/nimbus-gpu-worker.env
EnvironmentFile=-/etc/nimbus-gpu-worker.local.env
ExecStart=$2/gx10-worker run
Restart=on-failure
RestartSec=5
# The containers of jobs belong to the engine: they live on while the worker restarts.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=30
StateDirectory=nimbus-gpu-worker
StateDirectoryMode=0700
UMask=0077

# Who may speak to Docker is as good as root; this narrows what else a fault could reach.
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# nvidia-smi reads the GPU through its device files.
DevicePolicy=closed
DeviceAllow=char-nvidia* rw

[Install]
WantedBy=multi-user.target
UNIT
}

main "$@"
