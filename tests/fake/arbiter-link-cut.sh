# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The link between two living hosts is cut: one of them wins the next
# generation at the witness and runs the VM, the other one gives way and says
# why. When the link is back the VM is protected again.
. "$(dirname "$0")/../lib/arbiter.sh"
three_protected
say "== protected =="
record_is 1 alder true || fail "the witness has $(witness list)"
[ "$(status_of alder web generation)" = 1 ] || fail "not generation 1"
us alder status web | grep -q '^Generation: *1, held by this host' || fail "status does not say who holds it"
us birch status web | grep -q '^Generation: *1, held by alder' || fail "status on birch does not say who holds it"
us alder status web | grep -q '^  arbiter: *answers' || fail "status does not show the arbiter"
say "== cut =="
cable_cut link
await 5 state_is alder web Degraded || fail "alder is $(status_of alder web state)"
await 5 guest_goes_on alder web || fail "the guest does not go on"
await 5 record_is 2 alder true || fail "the witness has $(witness list)"
await 5 lease_is birch web empty || fail "birch's lease is $(status_of birch web lease)"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
for _ in 1 2 3; do
    await 2 guest_goes_on alder web || fail "the guest stops"
done
say "== healed =="
cable_heal link
await 20 state_is alder web Protected || fail "protection did not return"
[ "$(status_of birch web generation)" = 2 ] || fail "birch is of another generation"
never_twice
say "== alder dies =="
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
await 5 record_is 3 birch true || fail "the witness has $(witness list)"
never_twice
