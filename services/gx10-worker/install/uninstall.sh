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
    local unit bin models
    # Where the installers were told to put things.
    bin=$(unit_says nimbus-gpu-worker 's|^ExecStart=\(/.*\)/gx10-worker run$|\1|p')
    models=$(unit_says nimbus-vllm 's|^.* -v \(/[^:]*\):/root/.cache/huggingface .*$|\1|p')
    for unit in nimbus-gpu-worker nimbus-vllm; do
        systemctl disable --quiet --now "$unit.service" 2>/dev/null || true
        rm -f "/etc/systemd/system/$unit.service"
    done
    systemctl daemon-reload

    # Without the worker nobody would end them.
    docker ps -aq --filter label=io.nimbus.gpu.job 2>/dev/null | xargs -r docker rm -f -v >/dev/null || true
    docker rm -f nimbus-vllm >/dev/null 2>&1 || true

    rm -rf /etc/nimbus-gpu-worker /etc/nimbus-gpu-worker.env /etc/nimbus-vllm.env
    bin=${bin:-/opt/nimbus}
    rm -f "$bin/gx10-worker" "$bin/gx10-uninstall"
    rmdir /opt/nimbus 2>/dev/null || true
    if [ $purge = yes ]; then
        rm -rf /var/lib/nimbus-gpu-worker /var/lib/vllm /etc/nimbus-gpu-worker.local.env
        ! id nimbus-worker >/dev/null 2>&1 || userdel nimbus-worker
    fi
    case "${models:-/var/lib/vllm/hf}" in
    /var/lib/vllm/*) ;;
    # A folder of the box' own may hold what others use.
    *) echo "gx10: the models in $models were left there" ;;
    esac
    echo "gx10: this box is no longer a worker of Nimbus"
}

# unit_says UNIT SED: what a unit that is installed says.
unit_says() {
    [ ! -r "/etc/systemd/system/$1.service" ] || sed -n "$2" "/etc/systemd/system/$1.service"
}

main "$@"
