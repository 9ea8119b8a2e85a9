#!/usr/bin/env bash
# Downloads a release of Nimbus, checks that it is the one its makers signed, and puts the program in its place.
#
#   quickinstall.sh [--from URL|DIR] [--key KEY] [--version VERSION] [--to FILE] [--check-only]
#
# Nothing is installed unless all of this holds, and there is no way around it:
#   1. SHA256SUMS.minisig is a minisign signature of SHA256SUMS by KEY, its trusted comment included
#   2. with --version, the trusted comment names that version: an old release cannot be passed off as a new one
#   3. the program's SHA-256 is the one in SHA256SUMS
# The signature is checked by openssl, which is on every host that has curl; `minisign -V` says the same.
#
# No place of releases and no key are built into this copy: both have to be given, by flags or by NIMBUS_RELEASES and
# NIMBUS_RELEASE_KEY.
#
# Read it before you run it. Do not pipe it into a shell: what is checked here is the release, not this script.
set -euo pipefail

# Whoever publishes releases fills them in here.
RELEASES=${NIMBUS_RELEASES:-}
KEY=${NIMBUS_RELEASE_KEY:-}

# All of it in a function: a download that was cut off runs nothing.
main() {
    local from=$RELEASES key=$KEY version="" to=/usr/local/bin/nimbus check_only=""
    while [ $# -gt 0 ]; do
        case $1 in
        --from | --key | --version | --to)
            [ $# -ge 2 ] || usage "$1 needs a value"
            case $1 in
            --from) from=$2 ;;
            --key) key=$2 ;;
            --version) version=$2 ;;
            --to) to=$2 ;;
            esac
            shift 2
            ;;
        --check-only)
            check_only=yes
            shift
            ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
            return
            ;;
        *) usage "unknown argument: $1" ;;
        esac
    done
    [ -n "$from" ] || usage "this copy knows no place of releases: add --from URL, or a folder that holds one"
    [ -n "$key" ] || usage "this copy knows no key: add --key KEY, the second line of a minisign public key; get it from somewhere else than the release"
    [ "$(uname -s)" = Linux ] || die "only Linux has releases"
    local machine program
    machine=$(uname -m)
    case $machine in
    x86_64) program=nimbus-linux-amd64 ;;
    aarch64) program=nimbus-linux-arm64 ;;
    *) die "there is no release for $machine" ;;
    esac
    local tool
    for tool in openssl base64 sha256sum awk; do
        command -v "$tool" >/dev/null || die "$tool is needed to check the release"
    done
    case $(openssl version) in
    "OpenSSL 0."* | "OpenSSL 1."* | LibreSSL*) die "$(openssl version) cannot check Ed25519 signatures: OpenSSL 3 is needed" ;;
    esac

    work=$(mktemp -d) # of the whole script: the trap reads it
    trap 'rm -rf "$work"' EXIT
    local file
    for file in SHA256SUMS SHA256SUMS.minisig; do
        fetch "$from" "$file"
    done
    verify "$work/SHA256SUMS" "$work/SHA256SUMS.minisig" "$key"
    if [ -n "$version" ]; then
        case " $comment " in
        *" version:$version "*) ;;
        *) die "the signature is not for version $version; it says: $comment" ;;
        esac
    fi
    fetch "$from" "$program"
    local wanted found
    wanted=$(awk -v name="$program" '$2 == name || $2 == "*" name { print $1 }' "$work/SHA256SUMS")
    [ "${#wanted}" -eq 64 ] || die "SHA256SUMS names $program not once"
    found=$(sha256sum "$work/$program" | cut -d' ' -f1)
    [ "$found" = "$wanted" ] || die "$program has the SHA-256 $found, and $wanted was signed"
    say "$program is what was signed ($comment)"
    [ -z "$check_only" ] || return 0
    place "$work/$program" "$to"
    say "installed $to"
    say "next: sudo $to install    (runs it as a service; see '$to node install --help')"
}

say() {
    echo "quickinstall: $*" >&2
}

die() {
    say "$*"
    say "nothing was installed"
    exit 1
}

usage() {
    say "$*"
    exit 2
}

fetch() { # fetch FROM FILE
    case $1 in
    https://* | http://127.0.0.1[:/]* | http://localhost[:/]*)
        command -v curl >/dev/null || die "curl is needed to download"
        curl --fail --silent --show-error --location --proto '=https,http' --proto-redir '=https' --output "$work/$2" "$1/$2" ||
            die "could not download $1/$2"
        ;;
    http://*) die "$1 is not https" ;;
    *) cp "$1/$2" "$work/$2" 2>/dev/null || die "there is no $1/$2" ;;
    esac
}

# The format: https://jedisct1.github.io/minisign/#signature-format
verify() { # verify FILE SIGNATURE KEY: sets `comment`
    local lines
    mapfile -t lines <"$2"
    [ ${#lines[@]} -ge 4 ] || die "$(basename "$2") is no minisign signature"
    case ${lines[2]} in
    "trusted comment: "*) comment=${lines[2]#trusted comment: } ;;
    *) die "$(basename "$2") has no trusted comment" ;;
    esac
    decode "$3" 42 "$work/key"
    decode "${lines[1]}" 74 "$work/signature"
    decode "${lines[3]}" 64 "$work/global"
    [ "$(bytes key 1 2)" = 4564 ] || die "this is no Ed25519 key of minisign"
    [ "$(bytes key 3 8)" = "$(bytes signature 3 8)" ] || die "the release was signed with another key"
    # SubjectPublicKeyInfo of RFC 8410: a fixed head, then the key.
    { printf '\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00' && tail -c 32 "$work/key"; } >"$work/key.der"
    tail -c 64 "$work/signature" >"$work/signature.raw"
    case $(bytes signature 1 2) in
    4544) openssl dgst -blake2b512 -binary -out "$work/message" "$1" ;; # "ED": of the file's hash
    4564) cp "$1" "$work/message" ;;                                      # "Ed": of the file itself
    *) die "the signature has an unknown form" ;;
    esac
    check message signature.raw || die "the signature of $(basename "$1") is wrong"
    { cat "$work/signature.raw" && printf '%s' "$comment"; } >"$work/trusted"
    check trusted global || die "the signature of the trusted comment is wrong"
}

decode() { # decode BASE64 LENGTH FILE
    printf '%s' "$1" | base64 -d >"$3" 2>/dev/null || die "this is no base64: $1"
    [ "$(wc -c <"$3")" -eq "$2" ] || die "this has not $2 bytes: $1"
}

bytes() { # bytes FILE FIRST COUNT
    tail -c +"$2" "$work/$1" | head -c "$3" | od -An -v -tx1 | tr -d ' \n'
}

check() { # check MESSAGE SIGNATURE
    openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/key.der" -rawin -in "$work/$1" -sigfile "$work/$2" >/dev/null 2>&1
}

place() { # place FILE TO
    local as=() folder
    folder=$(dirname "$2")
    if ! [ -w "$folder" ] && [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "$folder cannot be written, and there is no sudo"
        as=(sudo)
    fi
    # By a rename: a program that runs is not disturbed, and nobody sees half of one.
    "${as[@]}" install -m 755 "$1" "$2.new"
    "${as[@]}" mv -f "$2.new" "$2"
}

main "$@"
