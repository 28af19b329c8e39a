# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# A VM that was Protected is copied anew, still in its first generation; then
# the primary's agent dies, and birch: that is no first `protect` that failed.
# The VM stays protected by name, and is again when birch is back.
. "$(dirname "$0")/../lib/fake.sh"
# Its new agent says so: while there is none, the daemon says what it heard last.
tries() {
    us alder status web --json | jq -e '.[0].answers and .[0].state == "Degraded"'
}
T=3000
start_protected
fault_arm alder primary.shell stop
kill -9 "$(agent_pid birch web)"
await 10 test -e "$WORK/alder/run/understudy/faults.hit" || fail "no new copy"
[ "$(jq .generation "$WORK"/alder/var/lib/understudy/vms/*.json)" = 1 ] || fail "another generation"
host_die birch
kill -9 "$(pids_of alder | grep -vx "$(daemon_pid alder)")"
await 10 tries || fail "alder does not try"
holds 3 tries || fail "alder does not try any more"
await 5 guest_goes_on alder web || fail "the guest does not go on"
daemon_start birch
await 20 state_is alder web Protected || fail "protection did not return"
