# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# One of the three dies, alone. A host: the other one wins the next generation
# and runs the VM. The witness: nothing happens, but for a warning. Then what
# died comes back.
# moments: alder birch witness
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=alder}"
three_protected
steps=$(steps_committed alder web) || fail "no epochs"
case $MOMENT in
alder)
    host_die alder
    taken_over_well birch web "$steps"
    await 5 record_is 2 birch true || fail "the witness has $(witness list)"
    [ "$(status_of birch web takeover.total_ms)" -lt $((T + 2000)) ] || fail "took over too late"
    say "== alder is back, with its old copy =="
    guest_run alder web
    daemon_start alder
    await 10 state_is alder web Fenced || fail "alder is $(status_of alder web state)"
    await 5 guest_stands alder web || fail "alder's copy runs"
    us alder status web | grep -q 'birch runs the VM now' || fail "it does not say why"
    kill -9 "$(agent_pid alder web)"
    holds 2 guest_stands alder web || fail "alder's copy runs again"
    await 5 guest_goes_on birch web || fail "birch's does not"
    say "== protected the other way, with what is configured =="
    guest alder destroy web
    us alder unprotect web >/dev/null || fail "unprotect the fenced copy"
    await 5 host_is_clean alder || fail "something is left on alder"
    protect_with_arbiter birch web alder
    : >"$WORK/alder.log"
    steps=$(steps_committed birch web) || fail "no epochs"
    host_die birch
    taken_over_well alder web "$steps"
    await 5 record_is 3 alder true || fail "the witness has $(witness list)"
    ;;
birch)
    host_die birch
    await 5 state_is alder web Degraded || fail "alder is $(status_of alder web state)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    await 5 record_is 2 alder true || fail "the witness has $(witness list)"
    daemon_start birch
    await 20 state_is alder web Protected || fail "protection did not return"
    record_is 2 alder true || fail "the witness has $(witness list)"
    ;;
witness)
    witness_kill
    lost() { [ "$(us alder status web --json | jq '.[0].arbiter_up')" = false ]; }
    await 5 lost || fail "alder does not notice"
    us alder status web | grep -q "^  arbiter: *can't be asked" || fail "status does not say so"
    us alder events | grep -q 'the arbiter is lost' || fail "no event says so"
    us alder arbiter show >"$WORK/show"
    [ $? = 3 ] || fail "arbiter show: $(cat "$WORK/show")"
    holds 3 state_is alder web Protected || fail "protection did not go on"
    epochs_go_on alder web || fail "no epochs any more"
    witness_start
    found() { [ "$(us alder status web --json | jq '.[0].arbiter_up')" = true ]; }
    await 5 found || fail "alder does not find it again"
    record_is 1 alder true || fail "the witness has $(witness list)"
    ;;
esac
never_twice
