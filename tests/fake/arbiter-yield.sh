# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# birch has won the generation and is in the middle of its takeover when alder,
# which stood still, asks: alder's guest is paused, its output held, and it says
# so, also through the death of its agent. Then birch runs it: fenced. Or birch
# can't, and hands it back: alder's guest goes on where it was.
# moments: wins hands-back wins-agent-dies hands-back-agent-dies
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=wins}"
three_protected
steps=$(steps_committed alder web) || fail "no epochs"
fault_arm birch takeover.begin stop
mapfile -t stopped < <(pids_of alder)
kill -STOP "${stopped[@]}"
cable_cut link
await 10 test -e "$WORK/birch/run/understudy/faults.hit" || fail "birch does not take over"
await 2 stands_still birch || fail "birch's agent does not stand still"
taker=$STOPPED
record_is 2 birch false || fail "the witness has $(witness list)"
kill -CONT "${stopped[@]}"
yielded() { lease_is alder web yielded && state_is alder web Degraded; }
is_paused() { domains alder | grep -q '^web paused'; }
await 10 yielded || fail "alder is $(us alder status web)"
await 2 is_paused || fail "its guest runs: $(domains alder)"
us alder status web | grep -q 'birch has won generation 2' || fail "it does not say why"
case $MOMENT in
*agent-dies)
    kill -9 "$(agent_pid alder web)"
    holds 2 is_paused || fail "its guest runs with the next agent: $(domains alder)"
    await 5 lease_is alder web yielded || fail "the successor is $(us alder status web)"
    us alder unprotect web >/dev/null 2>&1 & # it has to wait, too
    holds 1 is_paused || fail "its guest runs after unprotect"
    kill $! 2>/dev/null
    ;;
*) holds 2 is_paused || fail "its guest runs: $(domains alder)" ;;
esac
case $MOMENT in
wins*)
    kill -CONT "$taker"
    taken_over_well birch web "$steps"
    await 5 record_is 2 birch true || fail "the witness has $(witness list)"
    fenced() { state_is alder web Fenced || vm_is_unknown alder web; }
    await 10 fenced || fail "alder is $(us alder status web)"
    is_paused || fail "alder's copy runs: $(domains alder)"
    ;;
hands-back)
    kill -9 "$taker"
    await 10 record_is 3 alder || fail "not handed back: $(witness list)"
    await 10 runs_free alder || fail "alder is $(us alder status web)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    cable_heal link
    await 20 state_is alder web Protected || fail "protection did not return: $(us alder status web)"
    ;;
hands-back-agent-dies)
    kill -9 "$taker"
    await 10 record_is 4 nobody || await 10 record_is 3 alder || fail "not handed back: $(witness list)"
    await 10 domain_is_running alder web || fail "it stays paused: $(us alder status web)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    ;;
esac
never_twice
