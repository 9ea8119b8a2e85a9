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

# The shell and its tools, as links to one static program.
busybox_root() { # busybox_root ROOT
    local busybox applet
    busybox=$(command -v busybox) || {
        echo "$0: busybox is not installed: install busybox-static" >&2
        exit 1
    }
    if ldd "$busybox" >/dev/null 2>&1; then
        echo "$0: $busybox is not static: install busybox-static" >&2
        exit 1
    fi
    mkdir -p "$1"/{bin,usr,etc,root,home/user,proc,sys,dev,run,tmp,var/tmp,var/log}
    ln -s ../bin "$1/usr/bin"
    ln -s ../bin "$1/usr/sbin"
    ln -s bin "$1/sbin"
    install -m 755 "$busybox" "$1/bin/busybox"
    "$busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
    done
    accounts "$1"
    chmod 1777 "$1/tmp" "$1/var/tmp"
    chmod 700 "$1/root"
    chmod 755 "$1"
}

# Copies the shared libraries that programs or modules of this machine need, at their own paths.
libraries() { # libraries ROOT FILE…
    local into=$1 library
    shift
    for library in $(ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// && $2 ~ /^\(/ { print $1 }' | sort -u); do
        [ -e "$into$library" ] || install -D -m 755 "$library" "$into$library"
    done
}

usage() {
    echo "usage: $0 tar FILE|config" >&2
    exit 2
}
