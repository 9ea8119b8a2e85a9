#!/usr/bin/env bash
# Makes the Python environment of the test suites in target/venv, from pinned versions.
set -euo pipefail
cd "$(dirname "$0")/../.."

stamp=target/venv/installed.txt
if [ -x target/venv/bin/python ] && cmp -s ops/dev/requirements.txt $stamp; then
    exit
fi
echo "$0: installing the Python packages of ops/dev/requirements.txt into target/venv" >&2
mkdir -p target
rm -rf target/venv
python3 -m venv target/venv
target/venv/bin/python -m pip install --quiet --disable-pip-version-check -r ops/dev/requirements.txt
cp ops/dev/requirements.txt $stamp
