# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# unprotect during the first copy, and the acknowledgement of its epoch is heard
# of after that: the answer to the STOP is waited for all the same.
. "$(dirname "$0")/../lib/fake.sh"
T=5000
hosts_make
guest_make alder web
hit=$WORK/alder/run/understudy/faults.hit
fault_arm alder engine.acked hold
us alder protect web birch --arbiter none >"$WORK/protect" 2>&1 &
protecting=$!
await 10 test -e "$hit" || fail "no first epoch"
agent=$(agent_pid birch web)
kill -STOP "$agent"
us alder unprotect web >"$WORK/unprotect" 2>&1 &
unprotecting=$!
await 5 grep -q 'phase=stop was=sync' "$WORK/alder.log" || fail "alder does not ask birch to stop"
rm "$hit"
await 2 grep -q 'dom=web protected: ' "$WORK/alder.log" || fail "the engine does not go on"
kill -CONT "$agent"
wait $unprotecting || fail "unprotect: $(cat "$WORK/unprotect")"
wait $protecting && fail "protect: $(cat "$WORK/protect")"
await 5 host_is_clean alder || fail "something is left on alder"
await 5 host_is_clean birch || fail "something is left on birch"
grep 'phase=[a-z]* was=stop' "$WORK/alder.log" | grep -v 'phase=ending' && fail "it did not wait"
[ "$(state_count alder web Protected)" = 0 ] || fail "it was Protected"
await 5 guest_goes_on alder web || fail "the guest does not go on"
