# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# The link is cut and heals, again and again, for less than the timeout: each time
# the epoch that was on its way is lost or acknowledged by the next session, its
# disk writes with it, and nothing is copied anew. Then it stays cut: alder goes on
# alone. Then the VM is protected again, alder dies, and birch has memory and disk
# of one moment.
. "$(dirname "$0")/../lib/arbiter.sh"
. "$(dirname "$0")/../lib/disk.sh"
T=4000
disk_images_make
three_make
disk_guest_make alder web
protect_with_arbiter alder web birch
watch_start
for round in 1 2 3 4 5 6; do
    cable_cut link
    sleep "0.$((RANDOM % 5 + 1))"
    cable_heal link
    await 5 epochs_go_on alder web || fail "no epochs after cut $round"
done
[ "$(event_count alder 'event=session the session to birch is back')" -ge 3 ] || fail "no session was ever back"
[ "$(event_count alder 'event=void')" = 0 ] || fail "the replica was void"
await 5 disk_goes_on alder web || fail "the guest does not write"
if [ $((RANDOM % 2)) = 0 ]; then
    say "== it stays cut =="
    cable_cut link
    await 15 state_is alder web Degraded || fail "alder is $(status_of alder web state)"
    for _ in 1 2 3; do
        await 2 disk_goes_on alder web || fail "the guest does not write"
    done
    cable_heal link
    again() { [ "$(state_count alder web Protected)" -ge 2 ]; }
    await 30 again || fail "protection did not return"
fi
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
await 20 state_is birch web TakenOver || fail "not taken over"
disk_taken_over_well birch web "$steps"
never_twice
