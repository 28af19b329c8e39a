# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# A VM with two disks: an epoch that is committed is in no image before it is synced
# in the journals of both, so that a power cut leaves both of one epoch. One server
# stands still at that: the epoch is acknowledged, and the other image is not of it.
# Then all loses its power there; --from-disk finds one epoch for both.
. "$(dirname "$0")/../lib/disk.sh"
T=8000
disk_start_protected
steps_committed alder web >/dev/null || fail "no epochs"
hit() { test -e "$WORK/birch/run/understudy/faults.hit"; }
is_committed() { [ "$(status_of alder web epoch)" -ge "$committed" ]; }
is_before() { [ "$("$GUEST" image "$WORK/birch/web.img")" = "$before" ]; }
# A server that is stopped while it still applies the one before says nothing.
for try in 1 2 3 4 5 6 7 8 9 10; do
    fault_arm birch duty.secure stop
    await 10 hit || fail "nothing is synced"
    committed=$(status_of birch web epoch)
    await 5 is_committed || fail "epoch $committed is not acknowledged"
    before=$(step_of_epoch $((committed - 1)))
    await 1 is_before && break
    [ $try -lt 10 ] || fail "the image is not of epoch $((committed - 1))"
    rm "$WORK/birch/run/understudy/faults.hit"
    kill -CONT "$(disk_server birch)"
    await 5 epochs_go_on alder web || fail "no epochs"
done
holds 1 is_before || fail "it does not stay that"
disk_host_die alder
host_die birch
guest birch destroy web--replica
rm -rf "$WORK/birch/run/understudy/disk" "$WORK/birch/nbd"/*
daemon_start birch
try() { us birch takeover web --from-disk >"$WORK/out" 2>&1; }
await 20 try || fail "not started: $(cat "$WORK/out")"
grep "at epoch $committed," "$WORK/out" || fail "it says $(cat "$WORK/out")"
[ "$("$GUEST" image "$WORK/birch/web.img")" = "$(step_of_epoch "$committed")" ] || fail "it is another one"
disk_rests_are_equal || fail "the rest of the images"
