# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# unprotect always ends, whatever the peer does; and a backup that was not
# told finds out, and keeps nothing that it could start later.
. "$(dirname "$0")/../lib/fake.sh"
T=3000
start_protected
say "== the backup's agent hangs =="
agent=$(agent_pid birch web)
kill -STOP "$agent"
us alder unprotect web || fail "unprotect"
await 5 host_is_clean alder || fail "something is left on alder"
await 5 guest_goes_on alder web || fail "the guest does not go on"
kill -CONT "$agent"
await 10 host_is_clean birch || fail "something is left on birch"
say "== the backup's host is dead =="
protect alder web birch
host_die birch
us alder unprotect web || fail "unprotect"
await 5 host_is_clean alder || fail "something is left on alder"
daemon_start birch
await 10 host_is_clean birch || fail "something is left on birch"
say "== it hangs before it holds anything =="
fault_arm birch replica.before_ack stop
us alder protect web birch --arbiter none >/dev/null 2>&1 &
await 5 test -e "$WORK/birch/run/understudy/faults.hit" || fail "no first epoch"
us alder unprotect web || fail "unprotect"
await 5 host_is_clean alder || fail "something is left on alder"
await 5 guest_goes_on alder web || fail "the guest does not go on"
host_signal birch CONT
await 15 host_is_clean birch || fail "something is left on birch"
say "== and its host hangs all the while that alder's agent dies in it =="
protect alder web birch
agent=$(agent_pid birch web)
kill -STOP "$agent"
fault_arm alder primary.stop kill
us alder unprotect web >/dev/null 2>&1
await 10 host_is_clean alder || fail "the next agent does not end it"
await 5 guest_goes_on alder web || fail "the guest does not go on"
kill -CONT "$agent"
await 15 host_is_clean birch || fail "something is left on birch"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
