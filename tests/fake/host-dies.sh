# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Everything of alder dies at a named moment of an epoch: birch takes over
# exactly once, with a whole epoch, after the timeout and not much later. When
# alder comes back with its old copy, that is paused: the VM runs once.
# moments: now capture.before capture.suspended capture.copied capture.marked capture.resumed engine.before_commit engine.acked replica.before_ack replica.after_ack replica.applying
. "$(dirname "$0")/../lib/fake.sh"
: "${MOMENT:=now}"
start_protected
steps=$(steps_committed alder web) || fail "no epochs"
at=alder
case $MOMENT in
now) at= ;;
replica.*) fault_arm birch "$MOMENT" mark 3 && at=birch ;;
*) fault_arm alder "$MOMENT" stop 3 ;;
esac
[ -z "$at" ] || await 5 test -e "$WORK/$at/run/understudy/faults.hit" ||
    fail "$MOMENT is not reached"
host_die alder
taken_over_well birch web "$steps"
detect=$(status_of birch web takeover.detect_ms)
total=$(status_of birch web takeover.total_ms)
say "silent for $detect ms, running after $total ms"
[ "$detect" -ge $T ] || fail "took over too early"
[ "$total" -lt $((T + 2000)) ] || fail "took over too late"
say "== alder is back =="
guest_run alder web
daemon_start alder
await 10 state_is alder web Fenced || fail "alder's copy is not fenced"
guest_stands alder web || fail "alder's copy runs"
await 5 guest_goes_on birch web || fail "birch's does not"
say "== and stays fenced =="
agent=$(agent_pid alder web)
kill -9 "$agent"
another_agent() { [ "$(agent_pid alder web)" -ne "$agent" ]; }
await 5 another_agent || fail "no new agent"
holds 2 state_is alder web Fenced || fail "it is not fenced any more"
us alder unprotect web || fail "unprotect the fenced copy"
await 5 host_is_clean alder || fail "something is left on alder"
state_is birch web TakenOver || fail "birch does not run it any more"
us birch unprotect web || fail "unprotect on birch"
await 5 host_is_clean birch || fail "something is left on birch"
await 5 guest_goes_on birch web || fail "web does not go on"
