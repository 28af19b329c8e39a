# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# Somebody else's log-dirty makes the replica void while the backup's agent hangs:
# from then on alder says Degraded and why, not first when birch has answered.
. "$(dirname "$0")/../lib/fake.sh"
T=8000
hosts_make
guest_make alder web
us alder protect web birch --arbiter none --interval 1s || fail "protect"
voids() { event_count alder 'event=void'; }
voided() { [ "$(voids)" -gt "$before" ]; }
# With an epoch on its way alder waits for birch first, and finds out when that
# goes on: then it is tried once more.
void_alone() {
    before=$(voids)
    agent=$(agent_pid birch web)
    kill -STOP "$agent"
    guest alder 'do' web logoff 1
    await 4 voided && return
    kill -CONT "$agent"
    await 5 voided || fail "the replica is not void"
    await 20 state_is alder web Protected || fail "protection did not return"
    return 1
}
for _ in 1 2 3 4 5; do void_alone && alone=1 && break; done
[ -n "${alone:-}" ] || fail "an epoch was on its way each time"
state_is alder web Degraded || fail "alder is not Degraded"
status_of alder web reason | grep -q 'the replica is void: .*log-dirty' ||
    fail "it does not say why"
kill -CONT "$agent"
await 20 state_is alder web Protected || fail "protection did not return"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
