# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the scenarios in tests/fake/ are written in: two hosts, alder and birch,
# that are directories on this machine: each with a daemon and agents of its
# own over the fake hypervisor, connected over loopback. Every process of a host
# has UNDERSTUDY_ROOT=$WORK/HOST in its environment and is found and killed by
# that; guests are processes of tests/fake/guest.c.
set -u
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
case ${BUILD:=build} in /*) ;; *) BUILD=$TOP/$BUILD ;; esac
GUEST=$BUILD/fake/guest
WORK=$(mktemp -d "${FAKE_DIR:-/tmp}/understudy.XXXXXX")
T=1000 # ms, for hosts that are made from now on
declare -A GUEST_PID PORT

say() { printf '%s\n' "$*"; }
fail() {
    say "FAILED: $*"
    evidence
    exit 1
}
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

# Wait until a command succeeds, at most SECONDS.
await() { # SECONDS COMMAND...
    local end=$(($(now_ms) + $1 * 1000))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(now_ms)" -lt $end ] || return 1
        sleep 0.05
    done
}
# Fails as soon as a command fails, within SECONDS.
holds() { # SECONDS COMMAND...
    local end=$(($(now_ms) + $1 * 1000))
    shift
    while [ "$(now_ms)" -lt $end ]; do
        "$@" >/dev/null 2>&1 || return 1
        sleep 0.05
    done
}

# --- Hosts -----------------------------------------------------------------------

# Run a command in a host's environment. The host NO_XEN has no hypervisor.
on() { # HOST COMMAND...
    local host=$1 hv=(UNDERSTUDY_HV="fake:$WORK/$1/hv")
    shift
    [ "$host" != "${NO_XEN:-}" ] || hv=(-u UNDERSTUDY_HV)
    env "${hv[@]}" UNDERSTUDY_ROOT="$WORK/$host" UNDERSTUDY_NAME="$host" "$@"
}
us() { # HOST ARGUMENT...
    local host=$1
    shift
    on "$host" timeout 60 "$BUILD/understudy" "$@" </dev/null
}
daemon_start() { # HOST
    local lock=$WORK/$1/run/understudy/understudyd.lock
    # Its predecessor may still be dying.
    [ ! -e "$lock" ] || flock -w 5 "$lock" true || fail "$1 has a daemon"
    on "$1" "$BUILD/understudyd" -f >>"$WORK/$1.log" 2>&1 </dev/null &
    disown # its end is nobody's news
    await 10 us "$1" version || fail "the daemon of $1 does not start"
}
# A port that no other test has, nor the kernel gives to a connection.
port_take() {
    local port
    while :; do
        port=$((10000 + SRANDOM % 20000))
        mkdir "/tmp/understudy.port.$port" 2>/dev/null || continue
        echo "$port" >>"$WORK/ports"
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}
ports_give_back() {
    local port
    while read -r port; do
        rmdir "/tmp/understudy.port.$port"
    done <"$WORK/ports"
}
host_make() { # HOST
    mkdir -p "$WORK/$1/hv" "$WORK/$1/etc/understudy"
    PORT[$1]=$(port_take)
    printf 'port=%d\nlisten="127.0.0.1"\ntimeout_ms=%d\nsuspend_ms=%d\ninterval_ms=50\nlog="debug"\n' \
        "${PORT[$1]}" "$T" $((T / 2)) >"$WORK/$1/etc/understudy/understudyd.conf"
    daemon_start "$1"
}
peer_add() { # HOST PEER
    us "$1" peer add "$2" --address "127.0.0.1:${PORT[$2]}" \
        --pin "$(us "$2" key show)" || fail "peer add on $1"
}
peer_is_up() { # HOST PEER
    us "$1" peer list | grep -q "^$2 .* up "
}
hosts_make() {
    host_make alder
    host_make birch
    peer_add alder birch
    peer_add birch alder
}

# The processes of a host: daemon, agents, and nothing else.
pids_of() { # HOST
    grep -lzxF "UNDERSTUDY_ROOT=$WORK/$1" /proc/[0-9]*/environ 2>/dev/null |
        cut -d/ -f3
}
daemon_pid() { # HOST
    cat "$WORK/$1/run/understudy/understudyd.lock"
}
agent_pid() { # HOST VM
    status_of "$1" "$2" pid
}
host_signal() { # HOST SIGNAL
    local pid
    for pid in $(pids_of "$1"); do
        kill "-$2" "$pid" 2>/dev/null
    done
    return 0
}
# A fault point says that it was reached before its process stops.
stands_still() { # HOST: one of its processes, which is STOPPED
    for STOPPED in $(pids_of "$1"); do
        ! grep -q '^State:.*stopped' "/proc/$STOPPED/status" || return 0
    done
    return 1
}
host_is_dead() { [ -z "$(pids_of "$1")" ]; }
# A dying process has its locks for longer than an environment to be found by;
# its threads, for longer than their leader.
processes_ended() { # PID...
    local pid
    for pid in "$@"; do
        grep -qs '^State:[[:space:]]*[^XZ[:space:]]' /proc/"$pid"/task/*/status && return 1
    done
    return 0
}
none_is_left() { # HOST: of it and of KILLED; those that are found are killed
    local pids
    mapfile -t pids < <(pids_of "$1")
    KILLED+=("${pids[@]}")
    [ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" 2>/dev/null
    [ ${#pids[@]} = 0 ] && processes_ended "${KILLED[@]}"
}
host_kill() { # HOST: all of ours on it; its guests do not see it
    KILLED=()
    await 5 none_is_left "$1" || fail "processes of $1 are left"
}
# As a power cut for all of ours on the host; its guests stand still, but its
# files stay.
host_die() { # HOST
    local vm
    KILLED=()
    none_is_left "$1"
    for vm in "${!GUEST_PID[@]}"; do
        [ "${vm%:*}" != "$1" ] || guest_stop "$1" "${vm#*:}"
    done
    await 5 none_is_left "$1" || fail "processes of $1 are left"
}

# --- Guests ------------------------------------------------------------------------

guest() { # HOST VERB ARGUMENT...
    local host=$1 verb=$2
    shift 2
    "$GUEST" "$verb" "$WORK/$host/hv" "$@"
}
guest_run() { # HOST NAME
    "$GUEST" run "$WORK/$1/hv" "$2" &
    GUEST_PID[$1:$2]=$!
}
guest_stop() { # HOST NAME
    kill "${GUEST_PID[$1:$2]}" 2>/dev/null
    wait "${GUEST_PID[$1:$2]}" 2>/dev/null
    unset "GUEST_PID[$1:$2]"
}
guest_make() { # HOST NAME [ARGUMENT...]
    guest "$1" create "${@:2}" >/dev/null || fail "no guest $2"
    guest_run "$1" "$2"
    await 5 guest_goes_on "$1" "$2" || fail "$2 does not run"
}
guest_goes_on() { # HOST NAME: takes steps
    local before after
    before=$(guest "$1" steps "$2") && sleep 0.1 &&
        after=$(guest "$1" steps "$2") && [ "$after" -gt "$before" ]
}
guest_stands() { ! guest_goes_on "$@"; }
domains() { # HOST: "web running" a line
    guest "$1" list | cut -d' ' -f2-
}
domains_are() { # HOST TEXT
    [ "$(domains "$1" | paste -sd,)" = "$2" ]
}

# --- Looking -------------------------------------------------------------------------

# One value out of JSON on standard input; an array's first element is meant.
json() { # KEY[.KEY]
    jq -r "(if type == \"array\" then .[0] else . end) | .$1 // empty" 2>/dev/null
}
status_of() { # HOST VM KEY
    us "$1" status "$2" --json 2>/dev/null | json "$3"
}
state_is() { # HOST VM STATE
    [ "$(status_of "$1" "$2" state)" = "$3" ]
}
epoch_is_over() { # HOST VM NUMBER
    [ "$(status_of "$1" "$2" epoch)" -gt "$3" ]
}
epoch_read() { # HOST VM: into FROM; an agent that is asked too much says none
    FROM=$(status_of "$1" "$2" epoch)
    [ -n "$FROM" ]
}
epochs_go_on() { # HOST VM
    local FROM=
    await 5 epoch_read "$1" "$2" && await 5 epoch_is_over "$1" "$2" "$FROM"
}
event_count() { # HOST TEXT, out of what the daemon and its predecessors logged
    grep -c -- "$2" "$WORK/$1.log"
}
state_count() { # HOST VM STATE: how often it came to that
    event_count "$1" "dom=$2 state=$3 "
}
vm_is_unknown() { # HOST VM
    us "$1" status "$2" >/dev/null 2>&1
    [ $? = 1 ] # 3: it is not well
}
# Nothing of ours but the daemon; the guest is not touched.
host_is_clean() { # HOST
    [ "$(pids_of "$1")" = "$(daemon_pid "$1")" ] &&
        [ -z "$(ls "$WORK/$1/run/understudy/vm")" ] &&
        [ -z "$(ls "$WORK/$1/var/lib/understudy/vms")" ] &&
        ! domains "$1" | grep -q 'replica\|logdirty'
}
protect() { # HOST VM PEER
    us "$1" protect "$2" "$3" --arbiter none >>"$WORK/protect.out" 2>&1 ||
        fail "protect $2 on $1: $(tail -n 3 "$WORK/protect.out")"
    state_is "$1" "$2" Protected || fail "$2 is not Protected"
}
# web runs on alder, birch holds its replica.
start_protected() {
    hosts_make
    guest_make alder web
    protect alder web birch
}
# What is said of the epoch that was taken over is what the replica ran from; an
# agent that died in the middle says nothing.
takeover_epoch_is_right() { # HOST VM
    local said ran
    said=$(sed -n "s/.*dom=$2 state=TakenOver .* at epoch \([0-9]*\),.*/\1/p" "$WORK/$1.log")
    ran=$(sed -n "s/.*dom=$2 epoch=\([0-9]*\) is what the replica runs from/\1/p" "$WORK/$1.log")
    [ -z "$said" ] || [ "$said" = "$ran" ] || fail "says epoch $said, runs $ran"
    [ -z "$said" ] || [ "$(status_of "$1" "$2" epoch)" = "$ran" ] ||
        fail "status says epoch $(status_of "$1" "$2" epoch), it runs $ran"
}
# The VM runs on HOST, where it was taken over, and is one whole epoch that is
# not older than STEPS; and it goes on.
taken_over_well() { # HOST VM STEPS
    await 10 state_is "$1" "$2" TakenOver || fail "$1 did not take $2 over"
    await 5 domain_is_running "$1" "$2" || fail "$2 has another name on $1"
    guest "$1" check "$2" || fail "$2 on $1 is not a consistent cut"
    [ "$(guest "$1" steps "$2")" -ge "$3" ] || fail "$2 on $1 is too old"
    guest_run "$1" "$2"
    await 5 guest_goes_on "$1" "$2" || fail "$2 does not go on"
    guest "$1" check "$2" || fail "$2 is broken by going on"
    [ "$(state_count "$1" "$2" TakenOver)" = 1 ] ||
        fail "taken over $(state_count "$1" "$2" TakenOver) times"
    takeover_epoch_is_right "$1" "$2"
}
domain_is_running() { # HOST NAME
    domains "$1" | grep -q "^$2 running"
}
# Steps that are in a committed epoch when this returns.
steps_committed() { # HOST VM
    guest "$1" steps "$2"
    epochs_go_on "$1" "$2" && epochs_go_on "$1" "$2"
}
fault_arm() { # HOST POINT ACTION [SKIP]
    printf '%s %s %s\n\0' "$2" "$3" "${4:-0}" |
        dd of="$WORK/$1/run/understudy/faults" conv=notrunc status=none
}

# --- Ends ------------------------------------------------------------------------------

evidence() {
    local host
    for host in "${!PORT[@]}"; do
        say "--- $host"
        domains "$host" 2>&1
        tail -n 40 "$WORK/$host.log" 2>/dev/null
    done
    return 0
}
scenario_exit() {
    local rc=$? pid host
    for pid in "${GUEST_PID[@]}"; do
        kill "$pid" 2>/dev/null
    done
    for _ in 1 2 3; do # a daemon may start one while we look
        for host in "${!PORT[@]}"; do host_signal "$host" KILL; done
    done
    wait 2>/dev/null
    # A process that broke is started again: its end alone tells nobody.
    if grep -h -A 20 'ERROR: AddressSanitizer\|runtime error:\|signal 6\|signal 11' \
        "$WORK"/*.log; then
        say "FAILED: a process broke"
        rc=1
    fi
    ports_give_back 2>/dev/null
    if [ -n "${KEEP:-}" ]; then say "kept: $WORK"; else rm -rf "$WORK"; fi
    exit $rc
}
trap scenario_exit EXIT
