# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The backup's agent hangs while the first copy is made: protect fails in a
# sentence, in bounded time, and leaves nothing, before the replica's first
# epoch as well as after it.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
guest_make alder web
say "== before it =="
fault_arm alder primary.shell stop
us alder protect web birch --arbiter none >"$WORK/out" 2>&1 &
pid=$!
await 5 test -e "$WORK/alder/run/understudy/faults.hit" || fail "no shell"
agent=$(grep 'started backup agent' "$WORK/birch.log" | sed 's/.*pid=//')
kill -STOP "$agent"
host_signal alder CONT
since=$(now_ms)
wait $pid && fail "protected by a hung agent"
say "$(cat "$WORK/out")"
grep -q 'silent' "$WORK/out" || fail "it does not say why"
grep -q 'what to do: .*birch' "$WORK/out" || fail "it does not say what to do"
[ $(($(now_ms) - since)) -lt 15000 ] || fail "it took too long"
await 5 host_is_clean alder || fail "something is left on alder"
kill -CONT "$agent"
await 15 host_is_clean birch || fail "something is left on birch"
say "== after it =="
fault_arm birch replica.before_ack stop
us alder protect web birch --arbiter none >"$WORK/out" 2>&1 &&
    fail "protected by a hung agent"
say "$(cat "$WORK/out")"
grep -q 'birch did not answer in time' "$WORK/out" || fail "it does not say why"
grep -q 'what to do: .*birch' "$WORK/out" || fail "it does not say what to do"
await 5 host_is_clean alder || fail "something is left on alder"
host_signal birch CONT
await 15 host_is_clean birch || fail "something is left on birch"
await 5 guest_goes_on alder web || fail "the guest does not go on"
