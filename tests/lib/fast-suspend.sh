# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2016 # text for others to expand
#
# For scenarios in which the guest has the module of guest/fast-suspend, and a
# load on it. The guest is spoken to on its console, and heard in what
# xenconsoled wrote down of that.

# All that a VM's console said on a host, whatever the VM was called there.
guest_log() { # HOST NAME
    on "$1" "cat /var/log/xen/console/guest-$2*.log" | tr -d '\r'
}
guest_said() { # HOST NAME REGEX
    guest_log "$1" "$2" | grep -qE -- "$3"
}
# What a command prints in the guest, without what the kernel prints meanwhile.
guest_ask() { # HOST NAME COMMAND
    local mark=$RANDOM$RANDOM
    guest_type "$1" "$2" "echo begin-\"\"$mark; $3; echo end-\"\"$mark"
    await 6 guest_said "$1" "$2" "^end-$mark" || fail "$2 does not answer on its console"
    guest_log "$1" "$2" | sed "1,/^begin-$mark/d; /^end-$mark/,\$d
        s/\[ *[0-9]*[.][0-9]*\].*//; /^$/d"
}

# From now on the console tells of whatever the kernel complains, and its shell
# answers also under load.
guest_listen() { # HOST NAME
    guest_ask "$1" "$2" 'renice -n -15 $$; dmesg -n 8; echo 20 >/proc/sys/kernel/hung_task_timeout_secs'
}
fast_suspend_load() { # HOST NAME
    [ "$(guest_ask "$1" "$2" 'insmod /fast_suspend.ko; echo $?')" = 0 ] ||
        fail "the module does not load in $2"
}
suspends_by() { # HOST NAME WAY: so many epochs were taken as it says
    [ "$(status_of "$1" "$2" suspend)" = "$3" ]
}
fast_suspend_is_used() { # HOST NAME
    await 5 suspends_by "$1" "$2" 'event channel' ||
        fail "$2 is not suspended by event channel"
    on "$1" understudy status "$2" | grep 'Suspend: *fast (event channel)' ||
        fail "status does not say so"
}
# A number that the module counts.
fast_suspend_count() { # HOST NAME FILE
    guest_ask "$1" "$2" "cat /sys/module/fast_suspend/stats/$3"
}

# All that the load has, on a disk where there is one; with fewer kinds where that
# would only cost time.
guest_load() { # HOST NAME [KIND...]
    local host=$1 name=$2
    shift 2
    [ $# -gt 0 ] || set -- cpu fork tmpfs xenstore clock '$(test ! -b /dev/xvda || echo disk)'
    guest_type "$host" "$name" "load $*"
    await 5 guest_said "$host" "$name" '^guest: load' || fail "no load in $name"
}
# Neither the kernel nor the load has found anything wrong.
guest_is_well() { # HOST NAME
    local bad
    bad=$(guest_log "$1" "$2" | grep -nE 'WARNING|BUG|Oops|[Pp]anic|Call Trace|blocked for more|I/O error|stall|lockup|segfault|[Oo]ut of memory|fast_suspend: .*(not resumed|resume failed|no event)|^load: ')
    [ -z "$bad" ] || fail "the console of $2 on $1 says: $bad"
}

epochs_are() { # HOST NAME AT-LEAST
    local n
    n=$(status_of "$1" "$2" epochs)
    [ "${n:-0}" -ge "$3" ]
}

# --- The guest's clocks against ours -----------------------------------------------

clocks_start() { # ADDRESS
    "$LAB" run outside sh -c "echo \$\$ >$WORK/clocks.pid; \
        exec $("$LAB" tools)/clock-client $1" >"$WORK/clocks" &
    CLOCKS_PID=$!
}
clocks_end() {
    kill -TERM "$(<"$WORK/clocks.pid")"
    wait "$CLOCKS_PID"
    [ -s "$WORK/clocks" ] || fail "the guest's clocks were not heard"
}
uptime_s() {
    local t
    read -r t _ </proc/uptime
    echo "${t%.*}"
}
# A busy guest looks at a datagram late: stop the load for a moment, and print from
# when to when the clocks were asked undisturbed.
clocks_moment() { # HOST NAME
    local from
    guest_ask "$1" "$2" 'kill -STOP $(cat /run/load)' >&2
    sleep 5
    from=$(uptime_s)
    sleep 20
    echo "$from $(uptime_s)"
    guest_ask "$1" "$2" 'kill -CONT $(cat /run/load)' >&2
}
# The drift in ppm of the guest's CLOCK_MONOTONIC and CLOCK_REALTIME from one such
# moment to another, and how far that may be wrong, by what the seconds of a moment
# differ in.
drift() { # FROM TO FROM TO
    awk -v from0="$1" -v to0="$2" -v from1="$3" -v to1="$4" '
        function at(m) {
            n[m]++
            if (n[m] == 1 || $2 < mono[m]) { mono[m] = $2; real[m] = $3; t[m] = $1 }
            if (n[m] == 1 || $2 > most[m]) most[m] = $2 }
        $1 > from0 && $1 < to0 && $4 >= 5 { at(0) }
        $1 > from1 && $1 < to1 && $4 >= 5 { at(1) }
        END {
            if (n[0] < 2 || n[1] < 2) exit 1
            s = t[1] - t[0]
            printf "%.1f %.1f %.1f\n", (mono[1] - mono[0]) / s, (real[1] - real[0]) / s,
                (most[0] - mono[0] + most[1] - mono[1]) / s }' "$WORK/clocks"
}

# --- Starting points -----------------------------------------------------------------

# In the place of web another one, with a disk, and the module from its boot on.
web_of_load() { # VCPUS
    local host
    for host in alder birch; do
        on "$host" truncate -s 16M /srv/load.img || fail "no image on $host"
    done
    alder "xl destroy web && { sed 's/^vcpus.*/vcpus = $1/; s/^extra = \"/&fast_suspend=1 /' \
        /srv/guest/web.cfg && cat; } >/tmp/load.cfg && xl create -q /tmp/load.cfg" <<'CFG' ||
disk = ["script=block-understudy,vdev=xvda,target=/srv/load.img"]
CFG
        fail "no web with $1 CPUs and a disk"
    await 20 guest_serves "$WEB" || fail "web does not answer"
}
# As start_from protected, with that guest. It boots for long: made once, then a
# snapshot like the others. Two busy CPUs of a guest on a host with one would leave
# domain 0 a third of it: as hosts are set up, domain 0 goes first.
start_from_load() { # VCPUS
    if "$LAB" status | grep -qw "protected-load-$1"; then
        start_from "protected-load-$1"
        return
    fi
    start_from running
    [ "$1" = 1 ] || { alder xl sched-credit2 -d Domain-0 -w 4096 &&
        birch xl sched-credit2 -d Domain-0 -w 4096; } || fail "no weight for domain 0"
    web_of_load "$1"
    protect alder web birch
    "$LAB" save "protected-load-$1" || fail "no snapshot of it"
}
