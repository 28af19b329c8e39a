# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034 # settings are for the other files
#
# Settings, places and small helpers that every part of the lab uses.

readonly HOSTS="alder birch"
readonly LINKS="public replication mgmt"

STATE=${LAB_STATE:-$(dirname "$LAB_DIR")/.lab}
CACHE=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/understudy-lab}
# The namespace's name makes a lab the only one of its machine; a second one
# needs another name. Sockets are here, because their paths have to be short.
NS=${LAB_NS:-understudy-lab}
RUN=/run/$NS

say() {
    echo "lab: $*" >&2
}

die() {
    say "$*"
    exit 1
}

usage_error() {
    say "$*"
    exit 2
}

is_host() {
    case " $HOSTS " in *" $1 "*) return 0 ;; esac
    return 1
}

need_host() {
    is_host "${1:-}" || usage_error "'${1:-}' is no host; hosts: $HOSTS"
}

need_link() {
    case " $LINKS " in *" ${1:-} "*) return 0 ;; esac
    usage_error "'${1:-}' is no link; links: $LINKS"
}

need_name() {
    [[ ${1:-} =~ ^[A-Za-z][A-Za-z0-9._-]*$ ]] ||
        usage_error "a snapshot's name is letters, digits, dots and dashes"
}

# Without hardware behind it /dev/kvm may exist all the same.
has_kvm() {
    grep -qwE 'vmx|svm' /proc/cpuinfo && [ -w /dev/kvm ]
}

# How much slower than hardware the hosts are, about: bounds are multiplied by it.
time_scale() {
    if has_kvm; then echo 1; else echo 10; fi
}

now_ms() {
    local t=${EPOCHREALTIME/[.,]/}
    echo $((t / 1000))
}

# Waits until the command succeeds: SECONDS are as on hardware.
wait_until() { # SECONDS COMMAND...
    local end
    end=$(($(now_ms) + $1 * 1000 * $(time_scale)))
    shift
    until "$@"; do
        [ "$(now_ms)" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# Runs a command that leaves a process behind. Descriptors of ours must not live
# on in it: `flock FILE lab up` would otherwise never let go of the lock.
detached() {
    (
        for fd in "/proc/$BASHPID/fd/"*; do
            fd=${fd##*/}
            [ "$fd" -le 2 ] || eval "exec $fd>&-" 2>/dev/null
        done
        exec "$@" </dev/null
    )
}

in_ns() {
    ip netns exec "$NS" "$@"
}
