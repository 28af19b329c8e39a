# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
# A guest with two disks there and back, one diskcheck all the time: alder's plug
# is pulled, birch takes over; alder boots, and birch protects the VM with it, by
# the bitmaps: the disk that nobody wrote is not looked at. Then birch's plug is
# pulled, and what the guest finds on alder's image is what it has in its memory.
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/guest-disk.sh"
start_from running
disk_images_make alder birch
disk_guest_make
protect alder disk birch
before=$(status_of alder disk epoch)
diskcheck_start 900 20
epochs_are() { [ "$(status_of "$1" disk epoch)" -ge "$2" ]; }
await 20 epochs_are alder $((before + 8)) || fail "no epochs"
console_says alder 'diskcheck: ' && fail "diskcheck has ended on alder"
"$LAB" kill alder
disk_is_taken_over birch
"$LAB" start alder
alder_is_up() { birch understudy peer list | grep -q 'alder.*up'; }
await 30 alder_is_up || fail "birch does not see alder"
protect birch disk alder
copies=$(birch 'grep copied= /var/log/understudyd.log')
say "$copies"
grep -q '51712 copied=0 KiB compared=0 KiB' <<<"$copies" || fail "the disk that nobody wrote was looked at"
before=$(status_of birch disk epoch)
await 20 epochs_are birch $((before + 5)) || fail "no epochs"
console_says birch 'diskcheck: ' && fail "diskcheck has ended on birch"
"$LAB" kill birch
disk_is_taken_over alder
diskcheck_end alder
diskcheck_was_fine alder
alder understudy events | grep -a 'took over'
