# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
# A guest with two disks checks one of them: it writes, and reads what it wrote,
# from four threads past its page cache. Alder's plug is pulled, birch takes over,
# and the guest goes on checking: what it finds on birch's image is what it has
# in its memory, to the last block.
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/guest-disk.sh"
start_from running
disk_images_make alder birch
birch 'dd if=/dev/urandom of=/srv/data.img bs=1M count=64 conv=notrunc status=none' ||
    fail "noise on birch"
disk_guest_make
protect alder disk birch
alder understudy status disk
birch understudy-disk list
diskcheck_start 600
await 20 disk_works alder 100 || fail "the guest does nothing with its disk"
before=$(status_of alder disk epoch)
epochs_are() { [ "$(status_of alder disk epoch)" -ge "$1" ]; }
await 20 epochs_are $((before + 5)) || fail "no epochs"
console_says alder 'diskcheck: ' && fail "diskcheck has ended on alder"
alder understudy status disk
"$LAB" kill alder
disk_is_taken_over birch
birch understudy events | grep -a 'took over'
await 20 disk_works birch 200 || fail "the guest does nothing with its disk on birch"
diskcheck_end birch
diskcheck_was_fine birch
birch 'tail -n 5 /run/understudy/disk/*.log; ls /var/lib/understudy/disk'
