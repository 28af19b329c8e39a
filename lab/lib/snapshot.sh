# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Snapshots of the whole lab: both hosts, their guests and their disks, at one
# moment. A scenario that starts from one saves the boot and the first sync.

on_all_hosts() { # COMMAND...: COMMAND HOST for all of them at once
    local host pid pids=() rc=0
    for host in $HOSTS; do
        "$@" "$host" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || rc=1
    done
    return $rc
}

# HMP commands say what went wrong, and nothing when all is well.
monitor_quiet() { # COMMAND HOST
    local answer
    answer=$(monitor "$2" "$1") || answer="no answer from QEMU's monitor"
    [ -z "$answer" ] || {
        say "$2: $1: $answer"
        return 1
    }
}

# QEMU refuses to load a snapshot that was taken while a nested guest ran.
# A halted processor is Xen's own idle loop.
host_stop_idle() { # HOST
    local try
    for try in $(seq 200); do
        monitor_quiet stop "$1" || return
        monitor "$1" "info registers" | grep -q 'HLT=1' && return
        monitor_quiet cont "$1" || return
        sleep "0.0$((try % 9 + 1))"
    done
    say "$1 was never idle: its snapshot would not load"
    return 1
}

snapshot_save() { # NAME
    local host dir=$STATE/snapshots/$1 rc=0
    for host in $HOSTS; do need_running "$host"; done
    on_all_hosts host_stop_idle || rc=1
    [ $rc -ne 0 ] || on_all_hosts monitor_quiet "savevm $1" || rc=1
    if [ $rc -eq 0 ]; then
        mkdir -p "$dir"
        for host in $HOSTS; do
            cp "$STATE/$host/machine" "$dir/$host.machine" || rc=1
        done
        cp --sparse=always "$STATE/product.img" "$dir/product.img" || rc=1
    fi
    on_all_hosts monitor_quiet cont || rc=1
    return $rc
}

host_load() { # NAME HOST: stopped at the snapshot
    host_kill "$2"
    cp "$STATE/snapshots/$1/$2.machine" "$STATE/$2/machine" || return
    host_start "$2" -S -loadvm "$1"
}

# The hosts go on with the clock that they had; TLS certificates and log files
# want ours.
host_wake() { # HOST
    wait_until 10 ssh_open "$1" || die "$1 does not answer after the load"
    host_run "$1" "date -s @$EPOCHREALTIME >/dev/null" </dev/null
}

snapshot_load() { # NAME
    local host link dir=$STATE/snapshots/$1
    [ -d "$dir" ] || die "there is no snapshot $1"
    net_up
    for host in $HOSTS; do
        for link in $LINKS; do link_set "$host" "$link" up; done
    done
    cp --sparse=always "$dir/product.img" "$STATE/product.img.new" &&
        mv "$STATE/product.img.new" "$STATE/product.img" || return
    on_all_hosts host_load "$1" || die "cannot load $1"
    on_all_hosts monitor_quiet cont || die "cannot go on from $1"
    on_all_hosts host_wake
}

host_drop() { # NAME HOST
    if host_runs "$2"; then
        monitor_quiet "delvm $1" "$2"
    else
        qemu-img snapshot -d "$1" "$STATE/$2/persist.qcow2"
    fi
}

snapshot_drop() { # NAME
    [ -d "$STATE/snapshots/$1" ] || die "there is no snapshot $1"
    on_all_hosts host_drop "$1" || return
    rm -r "${STATE:?}/snapshots/$1"
}
