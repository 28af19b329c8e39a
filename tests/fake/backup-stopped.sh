# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The backup's agent stands still: after the timeout the VM runs on alone.
# When it goes on it takes nothing over, and becomes the backup again.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
agent=$(agent_pid birch web)
since=$(now_ms)
kill -STOP "$agent"
await 5 state_is alder web Degraded || fail "alder did not notice"
took=$(($(now_ms) - since))
say "Degraded after $took ms"
[ $took -ge $((T / 2)) ] || fail "too early"
await 5 guest_goes_on alder web || fail "the guest does not go on"
sleep 1
kill -CONT "$agent"
await 20 state_is alder web Protected || fail "protection did not return"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
