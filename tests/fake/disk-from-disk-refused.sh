# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# When `takeover --from-disk` is refused, and what is said: with a replica that has
# its memory, and while alder lives; in the middle of a copy; without a disk of ours;
# with an image that something else wrote to; when the boot fails, which can be
# tried again. Nothing is started, and no generation is asked for before.
# moments: alive syncing no-disk written boot
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=alive}"
T=4000
refused() { # TEXT HINT
    us birch takeover web --from-disk >"$WORK/out" 2>&1 && fail "started"
    grep -q -- "$1" "$WORK/out" && grep -q -- "$2" "$WORK/out" || fail "it says $(cat "$WORK/out")"
    sed 's/^/    /' "$WORK/out"
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
}
silent() { grep -q 'event=silent' "$WORK/birch.log"; }
# What was asked for is refused, and not for being in the middle of something.
settled() { ! us birch takeover web --from-disk 2>&1 | grep -q 'being cleared up\|was not silent'; }
# When what birch was preparing is done.
both_die() {
    local agent
    agent=$(agent_pid birch web)
    host_signal alder STOP
    sleep 1
    kill -KILL "$agent"
    disk_host_die alder
    await 15 silent || fail "alder is heard"
}
image=$WORK/birch/web.img
case $MOMENT in
no-disk)
    start_protected
    both_die
    refused 'was never Protected with this host, or has no disk' ''
    us birch takeover web >"$WORK/out" 2>&1 && fail "taken over"
    grep -q -- '--from-disk' "$WORK/out" && fail "it offers what is not possible"
    domains_are birch '' || fail "birch has $(domains birch)"
    exit
    ;;
syncing)
    disk_images_make
    hosts_make
    echo 'disk_copy_mb_s=1' >>"$WORK/alder/etc/understudy/understudyd.conf"
    disk_guest_make alder web
    protect alder web birch
    kill -KILL "$(agent_pid birch web)"
    copies() { us birch disk list web | grep -q 'xvda .* backup  syncing'; }
    await 20 copies || fail "no copy: $(us birch disk list web)"
    disk_host_die alder
    await 15 settled
    refused "$image was not copied to the end" ''
    [ "$(status_of birch web generation)" = 1 ] || fail "it asked for a generation"
    exit
    ;;
esac
disk_start_protected
steps_committed alder web >/dev/null || fail "no epochs"
case $MOMENT in
alive)
    refused 'with its memory' 'understudy takeover web$'
    kill -KILL "$(agent_pid birch web)"
    answered() { us birch takeover web --from-disk --force 2>&1 | grep -q 'alder may be running web'; }
    await 5 answered || fail "it does not say that alder lives"
    await 20 state_is birch web Protected || fail "protection did not return"
    await 5 state_is alder web Protected || fail "alder is $(status_of alder web state)"
    await 5 disk_goes_on alder web || fail "the guest does not go on"
    ;;
written)
    both_die
    dd if=/dev/urandom of="$image" bs=4096 seek=9 count=1 conv=notrunc status=none
    refused "$image was written to since epoch" ''
    [ "$(status_of birch web generation)" = 1 ] || fail "it asked for a generation"
    domains_are birch '' || fail "birch has $(domains birch)"
    ;;
boot) # one of its disks can't be served
    both_die
    mv "$image" "$image.away"
    refused "nothing says of which epoch disk image $image" ''
    mv "$image.away" "$image"
    exec 9>>"$image" # something has it open
    refused 'could not be started from its disks: .*in use' ''
    exec 9>&-
    domains_are birch '' || fail "birch has $(domains birch)"
    state_is birch web Syncing || fail "birch is $(status_of birch web state)"
    try() { us birch takeover web --from-disk >"$WORK/out" 2>&1; }
    await 10 try || fail "not started: $(cat "$WORK/out")"
    state_is birch web TakenOver || fail "birch is $(status_of birch web state)"
    "$GUEST" image "$image" >/dev/null || fail "the image is of no epoch"
    ;;
esac
