# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# Birch's file system is full when a disk is copied to it, when its journal is
# made, or when an epoch is applied; or what is behind it, so that a sync fails
# and the page cache has what the medium does not hold: that is said, the guest
# goes on, and as soon as there is room the VM is protected.
# moments: copy thin journal apply
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=apply}"
disk_images_make
full=$WORK/birch/small size=6m loop=
case $MOMENT in copy) size=2m ;; thin) size=40m ;; esac
mkdir -p "$full"
mount -t tmpfs -o size=$size understudy-test "$full" || {
    say "no tmpfs can be mounted"
    exit 77
}
ended() {
    local rc=$?
    if [ -n "$loop" ]; then
        umount -l "$WORK/birch/thin"
        losetup -d "$loop"
    fi
    umount -l "$full"
    (exit $rc)
    scenario_exit
}
trap ended EXIT
if [ "$MOMENT" = journal ]; then
    mkdir -p "$WORK/birch/var/lib/understudy"
    ln -s "$full" "$WORK/birch/var/lib/understudy/disk"
else # all of it is a hole
    truncate -s "${DISK_MB}M" "$full/web.img"
    ln -sf "$full/web.img" "$WORK/birch/web.img"
fi
# An image that has its blocks, in a file system on a device that has not: they
# read as zeroes, and there is no room for another one.
thin_make() {
    truncate -s 24M "$full/device" && loop=$(losetup -f --show "$full/device") &&
        mkfs.ext4 -q -O ^has_journal "$loop" && mkdir "$WORK/birch/thin" &&
        mount "$loop" "$WORK/birch/thin" || {
        say "no file system can be made here"
        exit 77
    }
    dd if=/dev/urandom of="$WORK/birch/thin/web.img" bs=1M count=$DISK_MB conv=fsync status=none
    ln -sf "$WORK/birch/thin/web.img" "$WORK/birch/web.img"
    filefrag -v -b4096 "$WORK/birch/thin/web.img" | awk '$1 ~ /^[0-9]+:$/ { print $4 + 0, $6 + 0 }' |
        while read -r from blocks; do
            fallocate -p -o $((from * 4096)) -l $((blocks * 4096)) "$full/device"
        done
    blockdev --flushbufs "$loop"
    mount -o "remount,size=$(du -k "$full/device" | cut -f1)k" "$full" || fail "cannot be filled"
}
[ "$MOMENT" != thin ] || thin_make
hosts_make
disk_guest_make alder web 2000 10000 # a hundred steps a second
fill() { dd if=/dev/zero of="$full/filler" bs=4k >/dev/null 2>&1; }
if [ "$MOMENT" = apply ]; then
    protect alder web birch
    fill
    void() { grep -q 'event=void.*applying epoch.*No space' "$WORK/birch.log"; }
    await 15 void || fail "birch does not say it"
    rm "$full/filler"
    again() { [ "$(state_count alder web Protected)" -ge 2 ]; }
    await 20 again || fail "protection did not return"
else
    us alder protect web birch --arbiter none >"$WORK/out" 2>&1 && fail "protected"
    grep -q 'No space left' "$WORK/out" || fail "it says $(cat "$WORK/out")"
    await 10 vm_is_unknown alder web || fail "alder still knows it"
    mount -o remount,size=400m "$full"
    protect alder web birch
fi
await 5 disk_goes_on alder web || fail "the guest does not write"
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
if [ "$MOMENT" = thin ]; then # the medium alone counts
    sync -d "$WORK/birch/web.img" && dd if="$WORK/birch/web.img" iflag=nocache count=0 status=none ||
        fail "the page cache stays"
fi
disk_taken_over_well birch web "$steps"
