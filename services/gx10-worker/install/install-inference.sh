#!/usr/bin/env bash
# Installs vLLM as a systemd service with an OpenAI-compatible endpoint. Run again, it brings
# everything up to date.
#
#   GX10_INFERENCE_MODEL              default microsoft/Phi-3-mini-4k-instruct
#   GX10_INFERENCE_PORT               default 8000
#   GX10_INFERENCE_API_KEY            key that requests must carry; without one, anybody in the network may ask
#   GX10_INFERENCE_IMAGE              default vllm/vllm-openai:latest (about 15 GB)
#   GX10_INFERENCE_HF_HOME            where models are kept; default /var/lib/vllm/hf
#   GX10_INFERENCE_MAX_MODEL_LEN      default 4096
#   GX10_INFERENCE_GPU_MEMORY         part of the GPU's memory that vLLM takes; default 0.5, so that jobs
#                                     have the other half (vLLM itself would take 0.9)
#   GX10_INFERENCE_EXTRA_ARGS         appended to vLLM's arguments as they are
#   HF_TOKEN                          for models that ask for one
#
# In a container, because the wheels of vLLM lack kernels for the newest GPUs on arm64.
set -euo pipefail

say() { printf 'gx10: %s\n' "$*"; }
fail() {
    printf 'gx10: %s\n' "$*" >&2
    exit 1
}

main() {
    [ "$(id -u)" -eq 0 ] || fail "this needs root"
    command -v docker >/dev/null 2>&1 || fail "docker is missing"
    docker info 2>/dev/null | grep -qi 'Runtimes:.*nvidia' ||
        say "warning: the engine lists no runtime nvidia; without the NVIDIA container toolkit vLLM will not start"

    model=${GX10_INFERENCE_MODEL:-microsoft/Phi-3-mini-4k-instruct}
    port=${GX10_INFERENCE_PORT:-8000}
    image=${GX10_INFERENCE_IMAGE:-vllm/vllm-openai:latest}
    hf_home=${GX10_INFERENCE_HF_HOME:-/var/lib/vllm/hf}
    max_model_len=${GX10_INFERENCE_MAX_MODEL_LEN:-4096}
    gpu_memory=${GX10_INFERENCE_GPU_MEMORY:-0.5}
    # Of systemd's syntax, only these two mean something in the middle of a line.
    extra=${GX10_INFERENCE_EXTRA_ARGS:-}
    extra=${extra//%/%%}
    extra=${extra//\$/\$\$}
    case $extra in
    *$'\n'*) fail "GX10_INFERENCE_EXTRA_ARGS has a line break" ;;
    esac
    plain GX10_INFERENCE_MODEL "$model" '^[A-Za-z0-9._/:@+-]+$'
    plain GX10_INFERENCE_PORT "$port" '^[0-9]+$'
    plain GX10_INFERENCE_IMAGE "$image" '^[A-Za-z0-9._/:@-]+$'
    plain GX10_INFERENCE_HF_HOME "$hf_home" '^/[A-Za-z0-9._/-]+$'
    plain GX10_INFERENCE_MAX_MODEL_LEN "$max_model_len" '^[0-9]+$'
    plain GX10_INFERENCE_GPU_MEMORY "$gpu_memory" '^(0?\.[0-9]+|1|1\.0+)$'

    install -d -m 0755 "$hf_home"
    # Secrets are in a file of root's, not in arguments, which everybody on this machine can see.
    umask 077
    {
        [ -z "${GX10_INFERENCE_API_KEY:-}" ] || printf 'VLLM_API_KEY=%s\n' "$GX10_INFERENCE_API_KEY"
        [ -z "${HF_TOKEN:-}" ] || printf 'HF_TOKEN=%s\n' "$HF_TOKEN"
    } >/etc/nimbus-vllm.env.new
    # A token that was given once stays until another is given.
    if [ -z "${HF_TOKEN:-}" ] && [ -r /etc/nimbus-vllm.env ]; then
        grep '^HF_TOKEN=' /etc/nimbus-vllm.env >>/etc/nimbus-vllm.env.new || true
    fi
    mv -f /etc/nimbus-vllm.env.new /etc/nimbus-vllm.env
    [ -n "${GX10_INFERENCE_API_KEY:-}" ] ||
        say "warning: no GX10_INFERENCE_API_KEY: anybody who reaches port $port may use the model"

    umask 022
    unit "$(command -v docker)" >/etc/systemd/system/nimbus-vllm.service
    systemctl daemon-reload
    systemctl enable --quiet nimbus-vllm.service
    # Not waited for: the first start fetches the image and the model.
    systemctl restart --no-block nimbus-vllm.service
    say "nimbus-vllm.service is starting with $model on port $port; follow it with: journalctl -fu nimbus-vllm"
}

# plain NAME VALUE PATTERN
plain() {
    [[ $2 =~ $3 ]] || fail "$1: $2 is not a value for it"
}

unit() {
    cat <<UNIT
[Unit]
Description=vLLM: OpenAI-compatible inference for Nimbus
After=docker.service network-online.target
Requires=docker.service
Wants=network-online.target

[Service]
Type=simple
ExecStartPre=-$1 rm -f nimbus-vllm
# An image that is there is good enough when the registry cannot be reached.
ExecStartPre=-$1 pull $image
ExecStart=$1 run --rm --name nimbus-vllm --gpus all --network host --shm-size 8g --ipc=host \\
    --env-file /etc/nimbus-vllm.env -v $hf_home:/root/.cache/huggingface $image \\
    --model $model --host 0.0.0.0 --port $port --max-model-len $max_model_len \\
    --gpu-memory-utilization $gpu_memory --enable-force-include-usage $extra
ExecStop=$1 stop -t 30 nimbus-vllm
Restart=on-failure
RestartSec=10
TimeoutStartSec=20min
TimeoutStopSec=45

[Install]
WantedBy=multi-user.target
UNIT
}

main "$@"
