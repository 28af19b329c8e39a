# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The guest does not suspend any more: epochs are skipped, after the timeout
# the VM runs on alone, and is protected again when it does.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
guest alder 'do' web refuse 1
was_degraded() { [ "$(state_count alder web Degraded)" -ge 1 ]; }
await 10 was_degraded || fail "alder did not notice"
await 5 guest_goes_on alder web || fail "the guest does not go on"
grep -q 'event=skipped' "$WORK/alder.log" || fail "nothing was said"
grep -q 'state=Degraded.*did not suspend within' "$WORK/alder.log" ||
    fail "the cause was not said"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
guest alder 'do' web refuse 0
await 20 state_is alder web Protected || fail "protection did not return"
say "== somebody else turns log-dirty mode off =="
before=$(state_count alder web Protected)
guest alder 'do' web logoff 1
protected_anew() { [ "$(state_count alder web Protected)" -gt "$before" ] && state_is alder web Protected; }
await 20 protected_anew || fail "protection did not return"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
