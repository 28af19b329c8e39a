# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# The primary reaches its backup in the middle of a takeover: nothing that it
# holds gets out, since the other one is about to run the VM; and when that does
# run, the primary gives way. A takeover that fails leaves the VM with the
# primary, after T.
# moments: succeeds fails
. "$(dirname "$0")/../lib/fake.sh"
T=4000
start_protected
steps=$(steps_committed alder web) || fail "no epochs"
hit=$WORK/birch/run/understudy/faults.hit
fault_arm birch takeover.begin hold
us birch takeover web --force >"$WORK/out" 2>&1 &
taker=$!
await 5 test -e "$hit" || fail "the takeover did not begin"
[ "$(status_of birch web generation)" = 2 ] || fail "birch did not win"
named() { [ "$(event_count alder 'birch names generation 2')" = 1 ]; }
await 5 named || fail "alder did not meet the newer generation"
[ "$(event_count alder 'has lost its replica')" = 0 ] ||
    fail "alder took the replica for lost"
[ "$(state_count alder web Degraded)" = 0 ] || fail "alder let its output go"
if [ "$MOMENT" = fails ]; then
    fault_arm birch takeover.marked fail
    rm "$hit"
    wait "$taker" && fail "the takeover did not fail"
    await 10 state_is alder web Degraded || fail "alder does not go on"
    await 5 guest_goes_on alder web || fail "web does not run on alder"
    domain_is_running birch web && fail "birch runs it too"
    exit 0
fi
rm "$hit"
wait "$taker" || fail "takeover: $(cat "$WORK/out")"
taken_over_well birch web "$steps"
await 5 state_is alder web Fenced || fail "alder is not fenced"
guest_stands alder web || fail "alder's copy runs"
