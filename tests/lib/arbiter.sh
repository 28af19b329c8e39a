# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What tests/fake/arbiter-*.sh have besides tests/lib/fake.sh: a witness, and
# cables that can be cut between the three. `link` is the one between alder and
# birch, in both directions; alder-witness and birch-witness are the others.
# shellcheck source=tests/lib/fake.sh
. "$(dirname "${BASH_SOURCE[0]}")/fake.sh"
WITNESS=$BUILD/understudy-witness
declare -A PROXY CABLE
trap 'arbiter_exit' EXIT

arbiter_exit() {
    local rc=$? pid
    for pid in "${PROXY[@]}" "${WITNESS_PID:-}" "${WATCHER:-}"; do
        [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
    done
    (exit $rc)
    scenario_exit
}

# --- Cables ------------------------------------------------------------------------

cable_make() { # NAME TARGET-PORT: CABLE[NAME] is the port of its near end
    CABLE[$1]=$(port_take)
    "$BUILD/fake/proxy" "${CABLE[$1]}" "$2" >"$WORK/cable-$1" 2>&1 </dev/null &
    PROXY[$1]=$!
    disown
    await 5 grep -q ready "$WORK/cable-$1" || fail "no cable $1"
}
cable_signal() { # NAME SIGNAL WORD
    local before
    before=$(grep -c "$3" "$WORK/cable-$1")
    kill "-$2" "${PROXY[$1]}"
    cable_said() { [ "$(grep -c "$2" "$WORK/cable-$1")" -gt "$3" ]; }
    await 5 cable_said "$1" "$3" "$before" || fail "the cable $1 does not obey"
}
cables_of() { # NAME
    if [ "$1" = link ]; then echo alder-birch birch-alder; else echo "$1"; fi
}
cable_cut() { # link|alder-witness|birch-witness
    local c
    for c in $(cables_of "$1"); do cable_signal "$c" USR1 cut; done
}
cable_heal() { # NAME
    local c
    for c in $(cables_of "$1"); do cable_signal "$c" USR2 healed; done
}

# --- The witness ----------------------------------------------------------------------

witness() { "$WITNESS" -d "$WORK/witness" "$@" </dev/null; }
witness_start() {
    "$WITNESS" -v -d "$WORK/witness" -l 127.0.0.1 -p "$WITNESS_PORT" run \
        >>"$WORK/witness.log" 2>&1 </dev/null &
    WITNESS_PID=$!
    disown
    await 5 witness_serves || fail "the witness does not start"
}
witness_serves() { witness status --json | jq -en input.serves; }
witness_kill() {
    kill -KILL "$WITNESS_PID"
    await 5 witness_is_dead || fail "the witness lives"
}
witness_is_dead() { ! kill -0 "$WITNESS_PID" 2>/dev/null; }
witness_make() {
    witness init >/dev/null || fail "no witness"
    WITNESS_PORT=$(port_take)
    witness_start
    PIN=$(witness key)
}
# One value of the only record: generation, holder, running.
record() { # KEY
    witness list --json | json "$1"
}
record_is() { # GENERATION HOLDER [RUNNING]
    [ "$(record generation) $(record holder)" = "$1 $2" ] &&
        { [ $# -lt 3 ] || [ "$(witness list --json | jq -r '.[0].running')" = "$3" ]; }
}

# --- All of it ----------------------------------------------------------------------------

arbiter_line() { # HOST
    echo "witness:127.0.0.1:${CABLE[$1-witness]} pin=$PIN"
}
arbiter_is_up() { # HOST
    us "$1" arbiter show --json | jq -en input.up
}
# Two hosts that know each other and the witness, over cables.
three_make() {
    local host peer
    host_make alder
    host_make birch
    witness_make
    for host in alder birch; do
        [ $host = alder ] && peer=birch || peer=alder
        cable_make $host-$peer "${PORT[$peer]}"
        cable_make $host-witness "$WITNESS_PORT"
        us $host peer add $peer --address "127.0.0.1:${CABLE[$host-$peer]}" \
            --pin "$(us $peer key show)" >/dev/null || fail "peer add on $host"
        witness pin add $host "$(us $host key show)" || fail "pin add $host"
        us $host arbiter set "$(arbiter_line $host)" >/dev/null || fail "arbiter set"
    done
    for host in alder birch; do
        await 5 arbiter_is_up $host || fail "$host can't ask the witness"
    done
}
protect_with_arbiter() { # HOST VM PEER
    us "$1" protect "$2" "$3" >>"$WORK/protect.out" 2>&1 ||
        fail "protect $2 on $1: $(tail -n 3 "$WORK/protect.out")"
    state_is "$1" "$2" Protected || fail "$2 is not Protected"
}
# web runs on alder, birch holds its replica, the witness decides.
three_protected() {
    three_make
    guest_make alder web
    protect_with_arbiter alder web birch
    watch_start
}
lease_is() { # HOST VM STATE
    [ "$(status_of "$1" "$2" lease)" = "$3" ]
}

# --- Never twice ----------------------------------------------------------------------------

# Runs it with its output released: alone on alder, or taken over.
runs_free() { # HOST
    local s
    s=$(us "$1" status web --json 2>/dev/null | jq -r '.[0] | .lease + " " + .state')
    case $s in
    free\ * | won\ TakenOver) domain_is_running "$1" web ;;
    *) false ;;
    esac
}
# Looks all the time. One look at both is not one moment: alder's is asked
# before and after birch's.
watch_start() {
    (while :; do
        if runs_free alder && runs_free birch && runs_free alder; then
            echo "$EPOCHREALTIME" >>"$WORK/twice"
        fi
        sleep 0.1
    done) >/dev/null 2>&1 &
    WATCHER=$!
    disown
}
never_twice() {
    [ ! -s "$WORK/twice" ] || fail "both ran it with their output released"
}
runs_somewhere() { runs_free alder || runs_free birch; }
