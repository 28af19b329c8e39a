# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
#
# For the scenarios tests/fake/disk-*: beside fake.sh, hosts whose domains have
# two disks, $WORK/HOST/web.img and other.img, served by understudy-disk without
# the kernel's client; and guests that write the first, each step on the disk
# before it is in the memory.
[ -n "${WORK:-}" ] || . "$(dirname "${BASH_SOURCE[0]}")/fake.sh"
DISK_MB=8

# What libxl and the block script do when a domain comes and goes.
disk_host() { # HOST
    local dir=$WORK/$1
    mkdir -p "$dir/nbd" "$dir/hv"
    truncate -s "${DISK_MB}M" "$dir/web.img"
    dd if=/dev/urandom of="$dir/other.img" bs=1536 count=100 status=none
    cat >"$dir/hv/devices" <<END
#!/bin/bash
export UNDERSTUDY_NBD=$dir/nbd UNDERSTUDY_ROOT=$dir
disk() { # VERB DOMID DEVICE IMAGE
    case \$1 in
    add)
        said=\$($BUILD/understudy-disk serve "vbd-\$2-\$3" $dir/\$4 2>&1) && return
        tr '\n' ' ' <<<"\$said" # as block-understudy does
        exit 1
        ;;
    remove) $BUILD/understudy-disk stop "vbd-\$2-\$3" || exit ;;
    esac
}
disk "\$@" 51712 web.img
disk "\$@" 51728 other.img
echo ok
END
    chmod 755 "$dir/hv/devices"
}
# The guest writes the first 2 MiB. Behind them alder has noise, with gaps; birch
# has other noise everywhere.
disk_hosts_make() {
    disk_images_make
    hosts_make
}
disk_images_make() {
    local at
    disk_host alder
    disk_host birch
    for at in 2 3 5; do
        dd if=/dev/urandom of="$WORK/alder/web.img" bs=1M seek=$at count=1 conv=notrunc status=none
    done
    dd if=/dev/urandom of="$WORK/birch/web.img" bs=1M count=$DISK_MB conv=notrunc status=none
}
disk_rests_are_equal() {
    cmp -s -i 2M "$WORK/alder/web.img" "$WORK/birch/web.img" &&
        cmp -s "$WORK/alder/other.img" "$WORK/birch/other.img"
}
device_of() { # HOST DOMID
    printf '%s/%s/nbd/understudy:vbd-%s-51712' "$WORK" "$1" "$2"
}
domid_of() { # HOST NAME
    guest "$1" list | awk -v n="$2" '$2 == n { print $1 }'
}
disk_guest_run() { # HOST NAME
    "$GUEST" run "$WORK/$1/hv" "$2" "$(device_of "$1" "$(domid_of "$1" "$2")")" \
        2>>"$WORK/guest.err" &
    GUEST_PID[$1:$2]=$!
}
disk_guest_make() { # HOST NAME [ARGUMENT...]
    local domid
    domid=$(guest "$1" create "${@:2}") || fail "no guest $2"
    on "$1" "$WORK/$1/hv/devices" add "$domid" >>"$WORK/devices.out" 2>&1 ||
        fail "no disk: $(cat "$WORK/devices.out")"
    disk_guest_run "$1" "$2"
    await 5 disk_goes_on "$1" "$2" || fail "$2 does not run"
}
disk_start_protected() {
    disk_hosts_make
    disk_guest_make alder web
    protect alder web birch
}
intent_of() { # HOST: the bitmaps
    ls "$WORK/$1/var/lib/understudy/disk/"*.intent
}
# What the first copy set is cleared, as far as the guest does not write it.
bits_are_cleared() {
    local file first rest
    for file in $(intent_of alder); do
        # The other disk has 3 regions, web.img 128, the guest writes 32.
        first=$(od -A n -t u1 -j 4096 -N 1 "$file" | tr -d ' ')
        rest=$(od -A n -t u1 -j 4101 -N 11 "$file" | tr -d ' 0\n')
        [ "$first" != 7 ] && [ -z "$rest" ] || return 1
    done
}
# The VM runs on HOST since a takeover, and has not taken a step yet: memory and
# disk are of one moment, not older than STEPS; and both go on.
disk_taken_over_well() { # HOST VM STEPS
    [ ! -s "$WORK/guest.err" ] || fail "the guest saw: $(cat "$WORK/guest.err")"
    await 10 state_is "$1" "$2" TakenOver || fail "$1 did not take $2 over"
    await 5 domain_is_running "$1" "$2" || fail "$2 has another name on $1"
    guest "$1" check "$2" || fail "$2 on $1 is not a consistent cut"
    guest "$1" disk "$2" "$WORK/$1/web.img" || fail "the disk on $1 is of another moment"
    disk_rests_are_equal || fail "the image was not copied as a whole"
    [ "$(guest "$1" steps "$2")" -ge "$3" ] || fail "$2 on $1 is too old"
    disk_guest_run "$1" "$2"
    await 5 disk_goes_on "$1" "$2" || fail "$2 does not go on"
}
disk_goes_on() { # HOST NAME: is being written
    local before
    before=$(guest "$1" first "$2") && sleep 0.2 &&
        [ "$(guest "$1" first "$2")" -gt "$before" ]
}
disk_stands() { ! disk_goes_on "$@"; }
image_is_plain() { # HOST: and no replica; bitmaps may be there
    [ -z "$(find "$WORK/$1/var/lib/understudy/disk" -type f ! -name '*.intent' ! -name '*.left' ! -name '*.epoch')" ]
}
# None of its processes sees another one die before it.
disk_host_die() { # HOST
    host_signal "$1" STOP
    host_die "$1"
}
# The step that alder's memory was at in that epoch, as it was sent last; the very
# last one may have got across without a line that says so.
step_of_epoch() { # EPOCH
    awk -v n="epoch=$1" '/: state of step/ { step = $NF; late = 1 } / epoch=[0-9]+ sent/ { late = 0 }
        index($0, n " sent") { of = step } END { print of != "" ? of : late ? step : "" }' "$WORK/alder.log"
}
disk_server() { # HOST: the process of the server of its newest domain
    sed -n 's/^server=//p' "$(ls -t "$WORK/$1/run/understudy/disk"/vbd-*-51712 | head -1)" |
        tail -n 1
}
# Protecting web is refused with that text, and nothing is left of the try.
protect_refused() { # TEXT
    us alder protect web birch --arbiter none >"$WORK/out" 2>&1 && fail "protected"
    grep -q "$1" "$WORK/out" || fail "it says $(cat "$WORK/out")"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    await 10 vm_is_unknown alder web || fail "alder still knows it"
    await 10 host_is_clean birch || fail "something is left on birch"
}

# --- Disk servers that are killed again and again, see disk-server-*.sh ----------

# At some time; if that is the moment, while the disks are compared.
kill_some_time() { # FUNCTION
    if [ "$MOMENT" = verify ]; then
        us alder disk verify web >>"$WORK/verify" 2>&1 &
        verify=$!
    fi
    sleep "0.$((RANDOM % 4))"
    "$1"
}
replica_goes_on() { # ROUND: the one that there was
    await 10 epochs_go_on alder web || fail "no epochs after $1"
    grep -q 'event=void' "$WORK/alder.log" "$WORK/birch.log" && fail "the replica is void"
    [ "$(state_count alder web Protected)" = 1 ] || fail "Protected again"
}
disks_are_equal() { # on HOST it is listed as in sync
    await 5 disk_goes_on alder web || fail "the guest does not go on"
    [ -z "${verify:-}" ] || wait "$verify"
    grep -q differ "$WORK/verify" 2>/dev/null && fail "differences: $(cat "$WORK/verify")"
    us alder disk verify web || fail "the disks differ"
    us "$1" disk list web | grep -q 'xvda .*in sync' || fail "the list says $(us "$1" disk list web)"
}
