# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# What is in somebody else's hands is not served, and the reason is said: an
# image that is served, a replica, a file that is open for writing, a device
# that is mounted; and what is not is served.
. "$(dirname "$0")/../lib/disk.sh"
disk_hosts_make
disk() { # HOST ARGUMENT...
    local host=$1
    shift
    on "$host" env UNDERSTUDY_NBD="$WORK/$host/nbd" "$BUILD/understudy-disk" "$@"
}
refused() { # TEXT COMMAND...
    local text=$1
    shift
    "$@" >"$WORK/out" 2>&1 && fail "$* is done"
    grep -q "$text" "$WORK/out" || fail "$* says $(cat "$WORK/out")"
}
served() { # HOST ID ARGUMENT...
    disk "$1" serve "${@:2}" >"$WORK/out" 2>&1 || fail "${*:2} is not served: $(cat "$WORK/out")"
    disk "$1" stop "$(grep -o 'test-[0-9]*' <<<"$*")" || fail "it is not stopped"
}
image=$WORK/birch/free.img
truncate -s 16M "$image"
served birch test-1 "$image"
served birch --guest test-1 "$image"

# Open for writing; reading is fine.
exec 9<>"$image"
refused 'has it open for writing' disk birch serve test-1 "$image"
exec 9<"$image"
served birch test-1 "$image"
exec 9<&-
if loop=$(losetup -f --show "$image" 2>/dev/null); then
    ended() {
        local rc=$?
        umount "$WORK/mnt" 2>/dev/null
        losetup -d "$loop"
        (exit $rc)
        scenario_exit
    }
    trap ended EXIT
    refused 'has it open for writing' disk birch serve test-1 "$image"
    served birch test-1 "$loop"
    mkdir "$WORK/mnt"
    if mkfs.ext4 -q "$loop" && mount "$loop" "$WORK/mnt"; then
        refused "is mounted on $WORK/mnt" disk birch serve test-1 "$loop"
        refused "umount" disk birch serve test-1 "$loop"
        umount "$WORK/mnt"
        served birch test-1 "$loop"
    else
        say "nothing can be mounted here"
    fi
else
    say "there are no loop devices here"
fi

# A VM's disk, and its replica.
disk_guest_make alder web
refused "is served already, as vbd-.*-51712" disk alder serve test-1 "$WORK/alder/web.img"
ln -s "$WORK/alder/web.img" "$WORK/alder/link.img"
refused "is served already" disk alder serve test-1 "$WORK/alder/link.img"
refused "is served already" disk alder serve --read-only test-1 "$WORK/alder/web.img"
protect alder web birch
refused "is served already, as vbd-.*-51712, for a replica" disk birch serve test-1 "$WORK/birch/web.img"

# Its host restarts: it is a replica still, and no guest starts from it.
await 10 epochs_go_on alder web || fail "no epochs"
cp -a "$WORK/birch/var/lib/understudy/disk" "$WORK/marks"
disk_host_die birch
refused "is a replica" disk birch serve --guest test-1 "$WORK/birch/web.img"
refused 'understudy-disk(8)' disk birch serve --guest test-1 "$WORK/birch/web.img"
served birch test-1 "$WORK/birch/web.img"
echo syncing >"$(ls "$WORK/birch/var/lib/understudy/disk/"*.replica | head -1)"
echo syncing >"$(ls "$WORK/birch/var/lib/understudy/disk/"*.replica | tail -1)"
refused "was not copied to the end" disk birch serve --guest test-1 "$WORK/birch/web.img"
await 5 guest_goes_on alder web || fail "the guest does not go on"
