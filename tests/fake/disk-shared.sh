# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Both hosts' disks are one: that is refused before anything is written, by its
# lock where both see that, by the medium's name where they do not; and devices
# with names of their own are replicated.
. "$(dirname "$0")/../lib/disk.sh"
disk_images_make
loop=()
ended() {
    local rc=$? device
    for host in alder birch; do host_signal "$host" KILL; done
    for device in "${loop[@]}"; do
        for _ in $(seq 50); do losetup -d "$device" 2>/dev/null && break || sleep 0.1; done
    done
    (exit $rc)
    scenario_exit
}
trap ended EXIT
for host in alder birch; do
    device=$(losetup -f --show "$WORK/$host/web.img" 2>/dev/null) || {
        say "there are no loop devices here"
        exit 77
    }
    loop+=("$device")
done
wwid() { # HOST DEVICE TEXT
    local dir
    dir=$WORK/$1/sys/dev/block/$(printf '%d:%d' "0x$(stat -c %t "$2")" "0x$(stat -c %T "$2")")
    mkdir -p "$dir"
    echo "$3" >"$dir/wwid"
}
for i in 0 1; do
    host=(alder birch)
    ln -sfn "${loop[i]}" "$WORK/${host[i]}/disk"
    sed -i 's/web\.img/disk/' "$WORK/${host[i]}/hv/devices"
    wwid "${host[i]}" "${loop[i]}" naa.5000c500a1b2c3d4
done
hosts_make
disk_guest_make alder web
before=$(sha256sum <"$WORK/birch/web.img")
protect_refused "is the primary's own disk: both are on WWID naa.5000c500a1b2c3d4"
[ "$(sha256sum <"$WORK/birch/web.img")" = "$before" ] || fail "it was written to"
[ -z "$(ls "$WORK/birch/var/lib/understudy/disk" 2>/dev/null)" ] || fail "it is a replica's"

ln -sfn "${loop[0]}" "$WORK/birch/disk"
protect_refused 'is in use'

ln -sfn "${loop[1]}" "$WORK/birch/disk"
wwid birch "${loop[1]}" naa.5000c500a1b2c3d5
protect alder web birch
us alder disk verify web >"$WORK/out" || fail "a difference: $(cat "$WORK/out")"
us alder disk list web | grep -q "${loop[0]}" || fail "the list is $(us alder disk list)"
