# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# What is copied when a disk's other side is there again: only regions that
# somebody wrote are looked at, and of them only blocks that differ are copied.
# fail-back: the old primary wrote on behind the last acknowledged epoch, which
# is undone. reconnect: the backup was away.
# replaced: the backup's image was made anew; unreadable: its bitmap is damaged:
# then all of it is looked at.
# left: the VM was stopped and started. written: and something else wrote to the
# image in between, to be looked at as a whole, too.
# moments: fail-back reconnect replaced unreadable left written
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=fail-back}"
GUEST_KIB=2048 ALL_KIB=$((DISK_MB << 10))
# The last copy of web.img from HOST, "COPIED COMPARED".
copy_of() { # HOST
    sed -n "s/.*51712 copied=\([0-9]*\) KiB compared=\([0-9]*\) KiB of=$ALL_KIB KiB.*/\1 \2/p" "$WORK/$1.log" | tail -n 1
}
blocks_that_differ() {
    cmp -l "$WORK/alder/web.img" "$WORK/birch/web.img" | awk '{ b = int(($1 - 1) / 4096) } b != last || NR == 1 { n++; last = b } END { print n + 0 }'
}
# No more than what the guest writes, and than what differed and was written
# meanwhile.
copied_little() { # HOST BLOCKS
    read -r copied compared < <(copy_of "$1")
    say "copied $copied KiB, compared $compared KiB, $2 blocks differed or were written"
    [ "$compared" -le $GUEST_KIB ] || fail "$compared KiB were looked at"
    nothing_of_the_other "$1"
    [ $((copied * 10)) -le $(($2 * 4 * 11)) ] || fail "$copied KiB were copied"
}
nothing_of_the_other() { # HOST: that nobody ever writes
    grep '51728 copied=' "$WORK/$1.log" | tail -n 1 | grep -q 'copied=0 KiB compared=0 KiB' ||
        fail "the other disk: $(grep '51728 copied=' "$WORK/$1.log" | tail -n 1)"
}
copied_all() { # HOST
    read -r copied compared < <(copy_of "$1")
    say "copied $copied KiB, compared $compared KiB"
    [ "$compared" = $ALL_KIB ] || fail "only $compared KiB were looked at"
}
again() { [ "$(state_count alder web Protected)" -ge 2 ]; }

disk_start_protected
copied_all alder
await 15 bits_are_cleared || fail "nothing is ever cleared"
case $MOMENT in
fail-back)
    steps=$(steps_committed alder web) || fail "no epochs"
    fault_arm alder engine.before_commit stop
    hit() { test -e "$WORK/alder/run/understudy/faults.hit"; }
    await 10 hit || fail "the point is not reached"
    at=$(guest alder first web)
    went_on() { [ "$(guest alder first web)" -ge $((at + 20)) ]; }
    await 10 went_on || fail "the guest does not write while its epoch is on the way"
    disk_host_die alder
    await 10 state_is birch web TakenOver || fail "birch did not take over"
    await 5 domain_is_running birch web || fail "web has another name on birch"
    guest birch disk web "$WORK/birch/web.img" || fail "the disk on birch is of another moment"
    guest birch disk web "$WORK/alder/web.img" 2>/dev/null && fail "alder wrote nothing that has to be undone"
    guest alder destroy web
    rm -rf "$WORK/alder/run/understudy/disk" "$WORK/alder/nbd"/*
    daemon_start alder
    await 5 state_is alder web Unprotected || fail "alder does not say that it is not there"
    peer_is_up() { us birch peer list --json | jq -e '.[0].up'; }
    await 10 peer_is_up || fail "the hosts do not find each other"
    # Nobody writes on birch yet: what differs is what alder wrote behind its last
    # acknowledged epoch, and it has a bit on alder alone.
    differ=$(blocks_that_differ)
    [ "$differ" -ge 20 ] || fail "only $differ blocks differ"
    protect birch web alder
    copied_little birch "$differ"
    cmp "$WORK/alder/web.img" "$WORK/birch/web.img" || fail "the images differ"
    disk_guest_run birch web
    await 5 disk_goes_on birch web || fail "the guest does not go on"
    steps=$(steps_committed birch web) || fail "no epochs"
    disk_host_die birch
    disk_taken_over_well alder web "$steps"
    exit
    ;;
reconnect)
    host_die birch
    await 15 state_is alder web Degraded || fail "alder is $(status_of alder web state)"
    guest birch destroy web--replica
    rm -rf "$WORK/birch/run/understudy/disk" "$WORK/birch/nbd"/*
    daemon_start birch
    ;;
replaced | unreadable)
    host_die birch
    await 15 state_is alder web Degraded || fail "alder is $(status_of alder web state)"
    guest birch destroy web--replica
    rm -rf "$WORK/birch/run/understudy/disk" "$WORK/birch/nbd"/*
    if [ "$MOMENT" = replaced ]; then
        rm "$WORK/birch/web.img"
        truncate -s "${DISK_MB}M" "$WORK/birch/web.img"
    else
        for file in $(intent_of birch); do
            printf x | dd of="$file" bs=1 seek=40 conv=notrunc status=none
        done
    fi
    daemon_start birch
    ;;
left | written)
    us alder unprotect web || fail "unprotect"
    kill "${GUEST_PID[alder:web]}"
    domid=$(domid_of alder web)
    guest alder destroy web
    on alder "$WORK/alder/hv/devices" remove "$domid" >>"$WORK/devices.out" 2>&1 || fail "the servers do not end"
    [ "$MOMENT" = left ] ||
        dd if=/dev/urandom of="$WORK/alder/web.img" bs=1M seek=6 count=1 conv=notrunc status=none
    disk_guest_make alder web
    all_written() { [ "$(guest alder first web)" -gt 600 ]; }
    await 20 all_written || fail "the guest does not write"
    protect alder web birch
    ;;
esac
await 30 again || fail "protection did not return"
case $MOMENT in
replaced | unreadable | written) copied_all alder ;;
*) copied_little alder $((GUEST_KIB / 4)) ;;
esac
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
disk_taken_over_well birch web "$steps"
