#!/usr/bin/env bash
# Takes what Nimbus installed off this GPU box: both services, the worker and the containers of its jobs.
#
#   gx10-uninstall            keeps models and datasets
#   gx10-uninstall --purge    removes the models, the worker's state and its user as well; datasets stay
set -euo pipefail

main() {
    local purge=no
    [ "${1:-}" != --purge ] || purge=yes
    [ "$(id -u)" -eq 0 ] || {
        echo "gx10: this needs root" >&2
        exit 1
    }
    local unit
    for unit in nimbus-gpu-worker nimbus-vllm; do
        systemctl disable --quiet --now "$unit.service" 2>/dev/null || true
        rm -f "/etc/systemd/system/$unit.service"
    done
    systemctl daemon-reload

    # Without the worker nobody would end them.
    docker ps -aq --filter label=io.nimbus.gpu.job 2>/dev/null | xargs -r docker rm -f -v >/dev/null || true
    docker rm -f nimbus-vllm >/dev/null 2>&1 || true

    rm -rf /etc/nimbus-gpu-worker /etc/nimbus-gpu-worker.env /etc/nimbus-vllm.env
    rm -f /opt/nimbus/gx10-worker /opt/nimbus/gx10-uninstall
    rmdir /opt/nimbus 2>/dev/null || true
    if [ $purge = yes ]; then
        rm -rf /var/lib/nimbus-gpu-worker /var/lib/vllm /etc/nimbus-gpu-worker.local.env
        ! id nimbus-worker >/dev/null 2>&1 || userdel nimbus-worker
    fi
    echo "gx10: this box is no longer a worker of Nimbus"
}

main "$@"
