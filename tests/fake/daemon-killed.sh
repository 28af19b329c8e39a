# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# A daemon dies and comes back, on either host: its agents go on and are
# adopted, nothing is copied again.
. "$(dirname "$0")/../lib/fake.sh"
T=3000 # a daemon's start has to fit in
start_protected
for host in alder birch; do
    say "== $host =="
    agent=$(agent_pid $host web)
    kill -9 "$(daemon_pid $host)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    daemon_start $host
    await 5 state_is $host web Protected || fail "$host does not know web"
    [ "$(agent_pid $host web)" = "$agent" ] || fail "it is another agent"
    epochs_go_on alder web || fail "no epochs"
done
sleep 3.5 # a timer that was started by it would have run out
[ "$(event_count alder event=sync)" = 1 ] || fail "copied again"
[ "$(state_count alder web Degraded)" = 0 ] || fail "was Degraded"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
us alder unprotect web || fail "unprotect"
await 5 host_is_clean alder || fail "something is left on alder"
await 5 host_is_clean birch || fail "something is left on birch"
