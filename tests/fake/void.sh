# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# Somebody else's log-dirty makes the replica void while the backup's agent hangs:
# from then on alder says Degraded and why, not first when birch has answered.
. "$(dirname "$0")/../lib/fake.sh"
T=8000
start_protected
agent=$(agent_pid birch web)
kill -STOP "$agent"
guest alder 'do' web logoff 1
voided() { [ "$(event_count alder 'event=void')" = 1 ]; }
await 4 voided || fail "the replica is not void"
state_is alder web Degraded || fail "alder is not Degraded"
status_of alder web reason | grep -q 'the replica is void: .*log-dirty' ||
    fail "it does not say why"
kill -CONT "$agent"
await 20 state_is alder web Protected || fail "protection did not return"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
