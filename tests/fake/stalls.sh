# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# alder's processes stand still for 0.8 of the timeout, a dozen times: no
# takeover, and the protection goes on as if nothing had been.
. "$(dirname "$0")/../lib/fake.sh"
T=3000
start_protected
mapfile -t pids < <(pids_of alder)
[ ${#pids[@]} = 2 ] || fail "alder's processes are ${pids[*]}"
for i in $(seq 12); do
    kill -STOP "${pids[@]}"
    sleep 2.4
    kill -CONT "${pids[@]}"
    sleep "0.$((i % 5 + 3))"
    [ "$(event_count birch 'event=takeover')" = 0 ] || fail "takeover at stall $i"
done
state_is alder web Protected || fail "not Protected any more"
epochs_go_on alder web || fail "no epochs"
[ "$(event_count alder 'event=sync')" = 1 ] || fail "copied again"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
