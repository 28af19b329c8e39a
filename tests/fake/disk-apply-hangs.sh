# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# On birch a disk's medium hangs in the sync that ends the applying of an epoch,
# for longer than the timeout: epochs are acknowledged all the same. Then it goes
# on, or alder dies meanwhile: birch takes over when it has, with the last
# acknowledged epoch. compared: the disks are compared meanwhile, which waits.
# moments: goes-on dies compared
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=goes-on}"
T=2000
disk_hosts_make
disk_guest_make alder web 2000 50000 # 20 steps a second: it writes little
protect alder web birch
hit() { test -e "$WORK/birch/run/understudy/faults.hit"; }
go_on() { rm "$WORK/birch/run/understudy/faults.hit"; }
fault_arm birch journal.written hold
await 10 hit || fail "nothing is applied"
await 5 epoch_read alder web || fail "alder does not answer"
sleep 2.5
await 20 epoch_is_over alder web $((FROM + 15)) || fail "no 15 epochs while it hung"
hit || fail "it did not hang"
[ "$(event_count alder 'event=void')" = 0 ] || fail "the replica is void"
[ "$(state_count alder web Degraded)" = 0 ] || fail "Degraded in between"
case $MOMENT in
goes-on) go_on ;;
compared)
    us alder disk verify web >"$WORK/verify" 2>&1 &
    verify=$!
    sleep 0.5
    ! grep -q same "$WORK/verify" || fail "compared, and it is not applied"
    go_on
    wait $verify || fail "not compared: $(cat "$WORK/verify")"
    ;;
dies)
    steps=$(steps_committed alder web) || fail "no epochs"
    disk_host_die alder
    await 10 grep -q 'event=takeover' "$WORK/birch.log" || fail "no takeover"
    sleep 0.5
    ! domain_is_running birch web || fail "it runs before its disks are there"
    go_on
    disk_taken_over_well birch web "$steps"
    exit 0
    ;;
esac
epochs_go_on alder web || fail "no epochs"
us alder disk verify web || fail "the disks differ"
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
disk_taken_over_well birch web "$steps"
