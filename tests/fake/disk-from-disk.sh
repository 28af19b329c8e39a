# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# birch loses the memory of its replica, with its agent, with all its processes,
# or with its power in the middle of applying an epoch; then alder dies. A
# takeover is refused, and says what is left: --from-disk boots the VM from its
# disks, which are a whole epoch, the one that is said, as alder's log has it.
# Then alder is back, and what it wrote since is undone.
# moments: agent processes host journal.applying journal.written duty.prepared cold.booted cold.disks takeover.recorded
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=agent}"
disk_start_protected
await 15 bits_are_cleared || fail "nothing is ever cleared"
steps_committed alder web >/dev/null || fail "no epochs"
hit() { test -e "$WORK/birch/run/understudy/faults.hit"; }
reboot() { # HOST: after its power was cut
    guest "$1" destroy web--replica 2>/dev/null
    guest "$1" destroy web 2>/dev/null
    rm -rf "$WORK/$1/run/understudy"/disk "$WORK/$1/run/understudy"/*.takeover "$WORK/$1/nbd"/*
    daemon_start "$1"
}
await 10 test -s "$WORK/birch/var/lib/understudy/cold/"* || fail "nothing is kept for a start from disk"
case $MOMENT in
agent | processes | cold.* | takeover.*) # the disks' servers live on
    if [ "$MOMENT" = processes ]; then
        victims=$(for pid in $(pids_of birch); do
            [ "$(cat "/proc/$pid/comm")" = understudy-disk ] || echo "$pid"
        done)
    else
        victims=$(agent_pid birch web)
    fi
    host_signal alder STOP
    # shellcheck disable=SC2086 # words are wanted
    kill -KILL $victims
    disk_host_die alder
    [ "$MOMENT" != processes ] || daemon_start birch
    ;;
host)
    host_signal alder STOP # and birch before it would take over
    host_signal birch STOP
    disk_host_die alder && disk_host_die birch && reboot birch
    ;;
*) # one server stands still there, and nothing more reaches its image
    fault_arm birch "$MOMENT" stop $((RANDOM % 6))
    await 10 hit || fail "$MOMENT is not reached"
    host_signal alder STOP
    host_signal birch STOP
    disk_host_die alder
    host_die birch
    reboot birch
    ;;
esac
silent() { grep -q "nothing is started; .understudy takeover web --from-disk" "$WORK/birch.log"; }
await 15 silent || fail "birch does not say what can be done"
us birch takeover web 2>"$WORK/err" && fail "taken over without memory"
grep -q -- '--from-disk' "$WORK/err" || fail "it says $(cat "$WORK/err")"
case $MOMENT in
cold.* | takeover.*) # birch's agent dies in the middle of it
    fault_arm birch "$MOMENT" kill
    us birch takeover web --from-disk >"$WORK/out" 2>&1 && fail "its agent is dead"
    hit || fail "$MOMENT is not reached"
    [ "$MOMENT" = takeover.recorded ] || tries=3
    ;;
esac
if [ "$MOMENT" = takeover.recorded ]; then
    await 10 state_is birch web TakenOver || fail "the successor does not go on"
    said=$(sed -n 's/.*starting web from its disks, as they were at epoch \([0-9]*\),.*/\1/p' "$WORK/birch.log")
else
    try() { us birch takeover web --from-disk >"$WORK/out" 2>"$WORK/err"; }
    await 15 try || fail "not started: $(cat "$WORK/err")"
    cat "$WORK/out"
    said=$(sed -n 's/.*as they were at epoch \([0-9]*\), [0-9]* s ago.*/\1/p' "$WORK/out")
    grep -q 'memory, and what was written since, is lost' "$WORK/out" || fail "it does not say what is lost"
    state_is birch web TakenOver || fail "birch says $(status_of birch web state)"
    [ "$(status_of birch web from_disk_ms)" -gt 0 ] || fail "status does not say from what it was started"
    [ "$(status_of birch web epoch)" = "$said" ] || fail "status has another epoch"
fi
await 5 domain_is_running birch web || fail "it has another name"
[ "$(guest birch steps web)" = 0 ] || fail "it was not booted anew"
# Each try is one.
[ "$(status_of birch web generation)" = "${tries:-2}" ] || fail "the generation is $(status_of birch web generation)"
is=$("$GUEST" image "$WORK/birch/web.img") || fail "the image is of no epoch"
say "epoch $said, step $is"
[ "$is" = "$(step_of_epoch "$said")" ] || fail "the image is of step $is, epoch $said of $(step_of_epoch "$said")"
disk_rests_are_equal || fail "the rest of the images"
image_is_plain birch || fail "the image is still a replica's"
disk_guest_run birch web
await 5 disk_goes_on birch web || fail "it does not write"
# The other disk is not written.
[ "$(find "$WORK/birch/var/lib/understudy/disk" -name '*.epoch' | wc -l)" = 1 ] ||
    fail "an image that is written is still called an epoch"
us birch takeover web --from-disk 2>"$WORK/err" && fail "started twice"
grep -q 'runs here already' "$WORK/err" || fail "it says $(cat "$WORK/err")"

say "== alder is back =="
: >"$WORK/birch.log"
reboot alder
await 10 state_is alder web Unprotected || fail "alder does not say that it is not there"
peer_is_up() { us birch peer list --json | jq -e '.[0].up'; }
await 10 peer_is_up || fail "the hosts do not find each other"
protect birch web alder
looked=$(sed -n 's/.*51712 copied=.* compared=\([0-9]*\) KiB of=.*/\1/p' "$WORK/birch.log" | tail -n 1)
say "$looked KiB were looked at"
[ "$looked" -le 2048 ] || fail "$looked KiB were looked at"
await 5 disk_goes_on birch web || fail "the guest does not go on"
steps=$(steps_committed birch web) || fail "no epochs"
disk_host_die birch
disk_taken_over_well alder web "$steps"
