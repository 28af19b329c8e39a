# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154
#
# A witness outside of the lab's hosts, on the public network, and what can be
# lost between it and them. For tests/scenario/arbiter-*.sh, lab-prepare and the
# demo, after tests/lib/scenario.sh. It goes with the scenario.
case ${BUILD:=build} in /*) ;; *) BUILD=$TOP/$BUILD ;; esac
WITNESS=$BUILD/understudy-witness
WITNESS_ADDRESS=10.0.5.100
WITNESS_DIR=$WORK/witness
trap 'witness_exit' EXIT

witness_exit() {
    local rc=$? host
    [ ! -s "$WITNESS_DIR/pid" ] || kill "$(cat "$WITNESS_DIR/pid")" 2>/dev/null
    for host in alder birch; do way_heal $host 2>/dev/null; done
    (exit $rc)
    scenario_exit
}
# The one that lab-prepare makes, which goes with the lab.
witness_of_the_lab() {
    WITNESS_DIR=${LAB_STATE:-$TOP/.lab}/outside/witness
    trap scenario_exit EXIT
}
witness() { "$WITNESS" -d "$WITNESS_DIR" "$@" </dev/null; }
witness_serves() { witness status --json | jq -en input.serves; }
witness_start() {
    # shellcheck disable=SC2016 # for the other shell
    "$LAB" keep sh -c 'echo $$ >"$1/pid"; exec "$0" -d "$1" run' \
        "$WITNESS" "$WITNESS_DIR"
    await 3 witness_serves || fail "the witness does not start"
}
witness_kill() {
    local pid
    pid=$(cat "$WITNESS_DIR/pid")
    kill -KILL "$pid"
    witness_is_dead() { ! kill -0 "$pid" 2>/dev/null; }
    await 2 witness_is_dead || fail "the witness lives"
}
arbiter_is_up() { on "$1" understudy arbiter show; }
witness_knows() { witness pin list | grep -q "^$1 "; }
# Both hosts know the witness, and it knows them.
witness_make() {
    local host
    mkdir -p "${WITNESS_DIR%/*}"
    [ -e "$WITNESS_DIR/state" ] || witness init >/dev/null || fail "no witness"
    witness_serves >/dev/null 2>&1 || witness_start
    for host in alder birch; do
        witness_knows $host ||
            witness pin add $host "$(on $host understudy key show)" ||
            fail "pin add $host"
        on $host understudy arbiter set \
            "witness:$WITNESS_ADDRESS pin=$(witness key)" || fail "arbiter set on $host"
    done
    for host in alder birch; do
        await 4 arbiter_is_up $host || fail "$host can't ask the witness"
    done
}
record_is() { # GENERATION HOLDER
    [ "$(witness list --json | json generation) $(witness list --json | json holder)" = "$1 $2" ]
}
# The way from one host to the witness, both directions: without a way back
# (and rp_filter) what comes is dropped, too. Guests are not touched.
way_cut() {
    "$LAB" run outside "sysctl -qw net.ipv4.conf.public.rp_filter=1 &&
        ip route add blackhole $(way_to "$1")" </dev/null
}
way_heal() { "$LAB" run outside ip route del blackhole "$(way_to "$1")" </dev/null; }
way_to() { case $1 in alder) echo 10.0.5.1 ;; birch) echo 10.0.5.2 ;; esac }
# The replication link, both ways.
link_cut() { "$LAB" cut alder replication; }
link_heal() { "$LAB" heal alder replication; }
protect_with_witness() { # HOST VM PEER
    on "$1" understudy protect "$2" "$3" || fail "protect $2 on $1"
    await 6 state_is "$1" "$2" Protected || fail "$2 is not Protected"
}
# Never on both, whatever else is so.
runs_once() { ! { host_runs_web alder && host_runs_web birch; }; }
