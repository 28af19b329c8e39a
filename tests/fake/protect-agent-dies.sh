# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The agent of a first `protect` dies three times when the copy has begun: the
# command fails, and the VM stays known. A replica may be there and output held
# for it, which is for the next agent to end.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
guest_make alder web
hit=$WORK/alder/run/understudy/faults.hit
fault_arm alder primary.sync stop
us alder protect web birch --arbiter none >"$WORK/out" 2>&1 &
protecting=$!
for death in 1 2 3; do
    await 10 test -e "$hit" || fail "no copy, after $((death - 1)) deaths: $(cat "$WORK/out")"
    await 2 stands_still alder || fail "it does not stand still"
    rm "$hit"
    [ $death = 3 ] || fault_arm alder primary.sync stop
    kill -9 "$STOPPED"
done
wait $protecting && fail "protect did not fail: $(cat "$WORK/out")"
say "$(cat "$WORK/out")"
grep -q 'died 3 times' "$WORK/out" || fail "does not say why"
grep -q 'understudy unprotect web. ends it' "$WORK/out" || fail "says nothing of what to do"
await 20 state_is alder web Protected || fail "alder is $(us alder status web)"
await 5 guest_goes_on alder web || fail "the guest does not go on"
us alder unprotect web || fail "unprotect"
await 5 host_is_clean alder || fail "something is left on alder"
await 5 host_is_clean birch || fail "something is left on birch"
