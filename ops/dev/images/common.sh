# What the recipes of the test images share; sourced by them.
#
# A recipe answers `NAME.sh tar FILE` (write the root file system) and `NAME.sh config` (one Dockerfile instruction a line).

# The names that every image has: root and one user without rights.
accounts() { # accounts ROOT
    mkdir -p "$1/etc"
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$1/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n' >"$1/etc/group"
    printf '127.0.0.1 localhost\n' >"$1/etc/hosts"
    printf 'hosts: files dns\n' >"$1/etc/nsswitch.conf"
}

# Packs ROOT with the same bytes on every machine; the home of `user` is theirs.
pack() { # pack ROOT FILE
    local options=(--sort=name --mtime=@0 --numeric-owner --format=posix --pax-option=delete=atime,delete=ctime)
    tar -C "$1" "${options[@]}" --owner=0 --group=0 --exclude=./home/user -cf "$2" .
    tar -C "$1" "${options[@]}" --owner=1000 --group=1000 -rf "$2" ./home/user
}

usage() {
    echo "usage: $0 tar FILE|config" >&2
    exit 2
}
