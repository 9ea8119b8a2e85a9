#!/usr/bin/env bash
# nimbus.test/python:1: the shell, and Debian's python3 with its library; about 60 MB. No root.
set -euo pipefail
. "$(dirname "$0")/common.sh"

write() { # write FILE
    local python=/usr/bin/python3 library
    [ -x $python ] || {
        echo "$0: $python is not installed: install python3" >&2
        exit 1
    }
    python=$(readlink -f $python)
    library=$($python -Ic 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    work=$(mktemp -d) # of the whole script: the trap reads it
    trap 'rm -rf "$work"' EXIT
    busybox_root "$work"
    install -m 755 "$python" "$work/bin/"
    ln -s "$(basename "$python")" "$work/bin/python3"
    ln -s python3 "$work/bin/python"
    mkdir -p "$work$library"
    tar -C "$library" --exclude=__pycache__ --exclude=./test --exclude='./config-*' -ch . | tar -C "$work$library" -x
    libraries "$work" "$python" "$library"/lib-dynload/*.so
    pack "$work" "$1"
}

case ${1:-} in
tar) [ $# -eq 2 ] || usage; write "$2" ;;
config)
    echo 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin'
    echo 'ENV PYTHONDONTWRITEBYTECODE=1'
    echo 'CMD ["python3"]'
    ;;
*) usage ;;
esac
