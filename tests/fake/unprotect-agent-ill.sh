# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# unprotect ends a protection whose own agent hangs, or dies again and again:
# that it is to end is written down, and done by the next agent that lives.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
say "== alder's agent hangs =="
kill -STOP "$(agent_pid alder web)"
since=$(now_ms)
us alder unprotect web || fail "unprotect"
say "took $(($(now_ms) - since)) ms"
await 5 host_is_clean alder || fail "something is left on alder"
await 5 guest_goes_on alder web || fail "the guest does not go on"
await 10 host_is_clean birch || fail "something is left on birch"
say "== alder's agents die, one after the other =="
protect alder web birch
touch "$WORK/arm"
keep_armed() {
    while [ -e "$WORK/arm" ]; do
        fault_arm alder primary.wait kill
        sleep 0.005
    done
}
keep_armed 2>/dev/null &
disown
kill -9 "$(agent_pid alder web)"
# What comes next is not there in time to live before it is armed again.
ill() {
    us alder status >"$WORK/table"
    [ $? = 3 ] && [ "$(status_of alder web agent_deaths)" -ge 2 ]
}
await 10 ill || fail "status: $(cat "$WORK/table")"
us alder unprotect web >"$WORK/out" 2>&1 && fail "no agent can have ended it"
say "$(cat "$WORK/out")"
grep -q 'written down' "$WORK/out" || fail "it does not say what comes"
rm "$WORK/arm"
await 30 host_is_clean alder || fail "something is left on alder"
await 5 guest_goes_on alder web || fail "the guest does not go on"
await 20 host_is_clean birch || fail "something is left on birch"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
