# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the demo and the lab's scenarios are written in: hosts, waiting for
# conditions, protecting, the outside client, fault points.
set -u
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LAB=$TOP/lab/lab
SCALE=$("$LAB" scale)
WEB=10.0.5.11
WORK=$(mktemp -d)
export SCENARIO=$WORK # in the environment of all that we start
CLIENT_PID=

say() { printf '%s\n' "$*"; }
fail() {
    say "FAILED: $*"
    evidence
    exit 1
}

alder() { "$LAB" run alder "$@"; }
birch() { "$LAB" run birch "$@"; }
on() { "$LAB" run "$@"; }

# Wait until a command succeeds, at most SECONDS on hardware (scaled).
await() { # SECONDS COMMAND...
    local end=$((SECONDS + $1 * (SCALE < 4 ? 4 : SCALE)))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

status_json() { # HOST VM
    on "$1" understudy status "$2" --json 2>/dev/null
}
status_of() { # HOST VM KEY
    status_json "$1" "$2" | json "$3"
}
# One value out of JSON on standard input; an array's first element is meant.
json() { # KEY[.KEY]
    jq -r "(if type == \"array\" then .[0] else . end) | .$1 // empty" 2>/dev/null
}
state_is() { # HOST VM STATE
    [ "$(status_of "$1" "$2" state)" = "$3" ]
}
guest_answers() { # ADDRESS
    "$LAB" run outside ping -c 1 -W 1 "$1"
}
guest_serves() { # ADDRESS
    "$LAB" run outside timeout 5 bash -c "exec 3<>/dev/tcp/$1/7000"
}
domain_there() { # HOST NAME
    on "$1" xl domid "$2"
}

# Type a line at the guest's console.
guest_type() { # HOST NAME LINE
    on "$1" "printf '%s\n' '$3' >\
        \$(xenstore-read /local/domain/\$(xl domid $2)/console/tty)"
}
guest_start() { # HOST NAME ADDRESS
    on "$1" xl create -q "/srv/guest/$2.cfg" || fail "xl create $2"
    await 12 guest_serves "$3" || fail "$2 does not answer"
}

protect() { # HOST VM PEER
    on "$1" understudy protect "$2" "$3" --arbiter none ||
        fail "protect $2 on $1"
    await 6 state_is "$1" "$2" Protected || fail "$2 is not Protected"
}

# What a command on alder answers: exit status and text, and what to do next.
says() { # STATUS TEXT COMMAND...
    local want=$1 text=$2 out rc=0
    shift 2
    out=$(alder "$@" 2>&1) || rc=$?
    say "\$ $*" && say "$out"
    [ $rc = "$want" ] || fail "exit status $rc, not $want"
    grep -q -- "$text" <<<"$out" || fail "does not say '$text'"
    grep -q 'what to do:\|understudy .*--help' <<<"$out" ||
        fail "says nothing of what to do"
}
# A command on alder is refused, with an exit status and a text; nothing is left
# of it, and the VMs and who watches over them are as before. For where nothing is
# protected.
refused() { # STATUS TEXT COMMAND...
    local before host
    before=$(vms)
    says "$@"
    for host in alder birch; do
        ! host_runs "$host" || await 6 host_is_clean "$host" ||
            fail "something was left on $host"
    done
    [ "$(vms)" = "$before" ] || fail "the VMs were: $before, and are: $(vms)"
}
# Each VM of both hosts, running or not, and the number of watchers, xl's or ours in its place.
vms() {
    local host
    for host in alder birch; do
        ! host_runs "$host" || on "$host" "xl list; pgrep -fc '[x]l create|[u]nderstudy-xl watch'" |
            awk -v host="$host" '{ gsub(/[rb]/, "-", $5) }
                NR > 2 { print host, $1, $2, $5 }'
    done
}
host_runs() { # HOST
    "$LAB" status | grep -q "^$1 runs"
}
# A guest's configuration in alder's /srv/NAME.cfg: that of web with a name and
# addresses of its own, and what is on standard input behind it.
guest_config() { # NAME LAST-BYTE
    alder "sed 's/\"web\"/\"$1\"/; s/=web/=$1/; s/:11\>/:$2/g; s/5[.]11/5.$2/' \
        /srv/guest/web.cfg >/srv/$1.cfg && cat >>/srv/$1.cfg"
}

# --- The outside client ------------------------------------------------------

client_start() { # ADDRESS [OPTION...]
    local address=$1
    shift
    "$LAB" run outside "$("$LAB" tools)/ledger-client" --rate 20/s --timeout 300 \
        --verify "$address" --log "$WORK/answers" --status "$WORK/client" \
        "$@" "$address" >"$WORK/client.end" 2>"$WORK/client.err" &
    CLIENT_PID=$!
    await 5 client_answered 5 || fail "the client gets no answers"
}
client_answered() { # AT-LEAST
    [ -s "$WORK/client" ] && [ "$(json answered <"$WORK/client")" -ge "$1" ]
}
client_count() {
    json answered <"$WORK/client"
}
# The service answers N more requests from now on.
client_goes_on() { # N SECONDS
    local want=$(($(client_count) + $1))
    await "$2" client_answered "$want"
}
# End it; fails when an answer was lost or doubled, or the connection broke.
client_end() {
    local pid
    pid=$(json pid <"$WORK/client")
    kill -TERM "${pid:-$CLIENT_PID}"
    wait "$CLIENT_PID"
    local rc=$?
    CLIENT_PID=
    cat "$WORK/client.end" "$WORK/client.err"
    return $rc
}

# Of a capture, lines "TIME SEQ": the datagrams "SEQ MONOTONIC_NS" that a guest
# with tick= sends.
datagrams() { # FILE
    tcpdump -n -tt -x -r "$1" 2>/dev/null | awk '
        function tell(   seq) {
            for (hex = substr(hex, 57); substr(hex, 1, 1) == 3; hex = substr(hex, 3))
                seq = seq substr(hex, 2, 1)
            print time, seq
        }
        /^[0-9]/ { if (NR > 1) tell(); time = $1; hex = ""; next }
        { for (i = 2; i <= NF; i++) hex = hex $i }
        END { if (NR) tell() }'
}

# --- Fault points --------------------------------------------------------------

fault_arm() { # HOST POINT ACTION [SKIP]
    on "$1" "rm -f /run/understudy/faults.hit; printf '%s %s %s\n\0' '$2' '$3' '${4:-0}' |
        dd of=/run/understudy/faults conv=notrunc status=none"
}
fault_was_hit() { # HOST
    on "$1" test -e /run/understudy/faults.hit
}

# The agent of alder's VM stands still at a point, and goes on.
agent_stops() { # POINT
    fault_arm alder "$1" stop
    await 10 fault_was_hit alder || fail "the agent does not get to $1"
}
agent_goes_on() {
    alder 'kill -CONT $(pgrep -f "understudyd agent primary")' || fail "no agent"
}

# --- Ends ------------------------------------------------------------------------

evidence() {
    local host
    for host in alder birch; do
        say "--- $host"
        timeout 20 "$LAB" run "$host" 'xl list; understudy events 2>&1 | tail -n 25
            tail -n 15 /var/log/understudyd.log
            understudy status --json | jq -c ".[] | {name, state, reason, epoch}"
            ip -s -br link show public
            tail -n 15 /var/log/xen/console/guest-*.log' 2>&1 </dev/null
    done
    [ -s "$WORK/client.err" ] && cat "$WORK/client.err"
    return 0
}
# Programs that we started and that run still, outside as well; the hosts stay.
programs_end() {
    local pid comm
    for pid in $(grep -lszxF "SCENARIO=$WORK" /proc/[0-9]*/environ | cut -d/ -f3); do
        read -r comm 2>/dev/null <"/proc/$pid/comm" || continue
        [[ $comm == qemu-system* ]] || kill -KILL "$pid" 2>/dev/null
    done
}
scenario_exit() {
    programs_end
    rm -rf "$WORK"
}
trap scenario_exit EXIT

# --- Starting points ----------------------------------------------------------

# Both hosts as they were saved: web runs on alder, and with `protected` birch
# holds its replica. TCP connections between the hosts survive it.
start_from() { # running | protected, or one of these with more behind it
    "$LAB" load "$1" || fail "cannot load the snapshot $1"
    await 2 guest_answers "$WEB" || fail "web does not answer after the load"
    [[ $1 == running* ]] ||
        await 6 state_is alder web Protected ||
        fail "web is not Protected after the load"
}
events_of() { # HOST
    on "$1" understudy events --json
}
event_count() { # HOST TEXT
    events_of "$1" | grep -c -- "$2"
}
host_runs_web() { # HOST: runs it, unpaused
    on "$1" xl list web 2>/dev/null | awk 'NR == 2 { exit $5 !~ /^[rb-]+$/ }
        END { if (NR < 2) exit 1 }'
}
# Nothing of ours is on a host but the daemon: no interface, qdisc, redirect,
# socket, record, agent or shell.
host_is_clean() { # HOST
    # shellcheck disable=SC2016 # for the host's shell
    on "$1" '! ip link | grep -q " [uc][0-9]*-" && ! tc qdisc | grep -q plug &&
        ! tc actions ls action mirred 2>/dev/null | grep -q mirred &&
        [ -z "$(ls /run/understudy/vm)" ] &&
        [ -z "$(ls /var/lib/understudy/vms)" ] &&
        ! pgrep -f "[u]nderstudyd agent" && ! xl list | grep -q -- --replica'
}
alder_is_clean() {
    host_is_clean alder
}
