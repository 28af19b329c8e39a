# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The backup's agent dies, then its whole host: the guest goes on, and is
# protected again when there is somebody to do it.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
say "== the agent =="
protected_times() { [ "$(state_count alder web Protected)" -ge "$1" ] && state_is alder web Protected; }
kill -9 "$(agent_pid birch web)"
await 15 protected_times 2 || fail "protection did not return"
[ "$(domains birch)" = 'web--replica paused' ] || fail "birch has $(domains birch)"
say "== the host =="
host_die birch
await 5 state_is alder web Degraded || fail "alder did not notice"
await 5 guest_goes_on alder web || fail "the guest does not go on"
[ "$(status_of alder web generation)" -gt 1 ] || fail "no generation was won"
sleep 1
daemon_start birch
await 20 protected_times 3 || fail "protection did not return"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
