# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
# A guest with two disks, one of which is not as it should be on one host: its file
# system is full, its device returns EIO, it is shorter or not there. That is said,
# the guest goes on where it can, and when it is mended the VM is protected: what the
# guest finds on birch's image after a takeover is what it wrote, to the last block.
# moments: full eio local short missing
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/guest-disk.sh"
: "${MOMENT:=full}"
start_from running
disk_images_make alder birch

# The data's image has holes alone, and there is room for so much of it; on a loop
# device what has no room is EIO.
small_make() { # HOST [loop]
    on "$1" "mkdir /srv/small && mount -t tmpfs -o size=4m small /srv/small &&
        truncate -s 64M /srv/small/data.img && rm $DATA &&
        ln -s ${2:+\$(losetup -f --show }/srv/small/data.img${2:+)} $DATA" || fail "no small file system on $1"
}
mended() { # HOST
    on "$1" mount -o remount,size=100m /srv/small || fail "no more room on $1"
}
told() { # HOST TEXT
    on "$1" understudy events | grep -a "$2"
}
is_protected() { state_is alder disk Protected; }
is_protected_for_good() {
    local epoch
    epoch=$(status_of alder disk epoch)
    epochs_are() { [ "$(status_of alder disk epoch)" -ge $((epoch + 10)) ]; }
    is_protected && await 3 epochs_are && is_protected
}
diskcheck_goes_on() {
    console_says alder 'diskcheck: ' && fail "diskcheck has ended"
    console_says alder 'I/O error' && fail "the guest saw an error"
}
plug_is_pulled() {
    local before
    before=$(status_of alder disk epochs)
    epochs_go_on() { [ "$(status_of alder disk epochs)" -ge $((before + 5)) ]; }
    await 20 epochs_go_on || fail "no epochs"
    diskcheck_goes_on
    "$LAB" kill alder
    disk_is_taken_over birch
    diskcheck_end birch
    diskcheck_was_fine birch
}

case $MOMENT in
full | eio)
    if [ "$MOMENT" = full ]; then
        text='No space left on device'
        small_make birch
    else
        text='Input/output error'
        small_make birch loop
    fi
    disk_guest_make
    protect alder disk birch
    diskcheck_start 900 50
    await 20 told birch "void:.*$text" || fail "birch does not say it"
    await 6 told alder "refused: .*$text" || fail "alder does not say it"
    diskcheck_goes_on
    mended birch
    await 30 is_protected || fail "protection did not return"
    plug_is_pulled
    ;;
local)
    small_make alder loop
    disk_guest_make
    protect alder disk birch
    diskcheck_start 900 50
    await 20 console_says alder 'diskcheck: FAILED' || fail "the guest is told nothing"
    guest_serves $DISK || fail "the guest does not go on"
    [ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
    alder understudy status disk
    mended alder
    # The first sync of the mended image may still say what was lost before.
    await 40 is_protected_for_good || fail "protection did not return"
    alder understudy disk verify disk || fail "a difference"
    ;;
short | missing)
    if [ "$MOMENT" = short ]; then
        birch truncate -s 32M $DATA
        text='has 33554432 bytes here, and 67108864 there'
    else
        birch rm $DATA
        text="$DATA.*No such file"
    fi
    disk_guest_make
    refused 1 "$text" understudy protect disk birch --arbiter none
    birch truncate -s 64M $DATA
    protect alder disk birch
    diskcheck_start 900 50
    plug_is_pulled
    ;;
esac
