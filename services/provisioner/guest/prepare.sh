#!/bin/sh
# Prepares a machine for GPUs. The guest agent runs it as root, from its standard input, after lines that
# set $user, $api, $model and $token (empty: it keeps the one that it has) and before the text of gx10. It may
# run again.
set -eu
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
# Tests have everything put below a folder.
root=${NIMBUS_PREPARE_ROOT:-}
: "${user:?}" "${api:?}" "${token=}" "${model=}"

# put FILE MODE: what comes in, as a whole or not at all.
put() {
    mkdir -p "$root${1%/*}"
    cat >"$root$1.nimbus-new"
    chmod "$2" "$root$1.nimbus-new"
    mv -f "$root$1.nimbus-new" "$root$1"
}

# The agent is often there before cloud-init has made the login user.
tries=0
until home=$(getent passwd "$user" | cut -d: -f6) && [ -n "$home" ] && [ -d "$root$home" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 40 ]; then
        echo "there is no user $user with a home folder" >&2
        exit 3
    fi
    sleep 1
done

# as_user SCRIPT sh ARGUMENT: a shell's script, as the login user.
as_user() {
    if [ "$(id -un)" = "$user" ]; then
        sh -c "$@"
    elif command -v runuser >/dev/null 2>&1; then
        runuser -u "$user" -- sh -c "$@"
    else
        su -s /bin/sh "$user" -c "$@"
    fi
}

# The folders above the token are the user's: root writes nothing through links that they may have made.
# shellcheck disable=SC2016 # the shell that is started fills them in
keep='umask 077; mkdir -p "$1" && cat >"$1/gpu-token.new" && mv -f "$1/gpu-token.new" "$1/gpu-token"'
# shellcheck disable=SC2016
there='test -s "$1/gpu-token"'
folder=$root$home/.config/nimbus
if [ -n "$token" ]; then
    printf '%s\n' "$token" | as_user "$keep" sh "$folder"
elif ! as_user "$there" sh "$folder"; then
    echo "its token is gone" >&2
    exit 4
fi

named=''
[ -z "$model" ] || named="export GX10_DEFAULT_MODEL='$model'"
put /etc/profile.d/nimbus-gpu.sh 0644 <<END
# Written by Nimbus: where the GPUs are. The key is this machine's own, in a file of its login user.
export NIMBUS_GPU_API='$api'
export OPENAI_BASE_URL='$api/v1'
$named
if [ -z "\${OPENAI_API_KEY:-}" ] && [ -r "\${HOME:-}/.config/nimbus/gpu-token" ]; then
    OPENAI_API_KEY=\$(cat "\$HOME/.config/nimbus/gpu-token")
    export OPENAI_API_KEY
fi
END

# For what is no login shell: commands over ssh, and services that ask for it. Everybody reads it, so it
# has no key.
{
    if [ -f "$root/etc/environment" ]; then
        grep -v -E '^(NIMBUS_GPU_API|OPENAI_BASE_URL|GX10_DEFAULT_MODEL)=' "$root/etc/environment" || [ $? -eq 1 ]
    fi
    printf 'NIMBUS_GPU_API="%s"\nOPENAI_BASE_URL="%s/v1"\n' "$api" "$api"
    [ -z "$model" ] || printf 'GX10_DEFAULT_MODEL="%s"\n' "$model"
} | put /etc/environment 0644
