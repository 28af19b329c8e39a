# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016
# Birch loses the memory of its replica, with its plug or with its agent, and alder's
# plug is pulled as well: a takeover is refused on birch, and --from-disk boots the
# guest there from its disks. What it had written before, and was in an epoch, is on
# them, and it answers. applying, written: birch's plug is pulled in the middle of
# applying an epoch, and the disk is a whole one all the same: the guest writes to
# one sector after the other, and no write is there without all before it.
# moments: both alone agent applying written
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/guest-disk.sh"
: "${MOMENT:=both}"
start_from running
disk_images_make alder birch
disk_guest_make
protect alder disk birch
# In two pieces, so that the line that is typed is not what is looked for.
guest_type alder disk \
    'printf written-%s before | dd of=/dev/xvdb bs=512 conv=sync && sync && echo it-is-%s on-disk | sed s/%s.//'
await 20 console_says alder 'it-is-on-disk' || fail "the guest does not write"
steps_of() { # HOST: what is in the sectors, a line each
    on "$1" "for i in \$(seq 64); do
        dd if=$DATA bs=512 skip=\$i count=1 2>/dev/null | tr -d '\\0'; echo; done"
}
steps_last() { steps_of "$1" | sort | tail -n 1 | grep -o '[1-9][0-9]*$'; }
has_steps() { [ "$(steps_last alder || echo 0)" -ge "$1" ]; }
# The server of the disk that is written stands in the middle of applying, and not
# the other one.
writer_stands() {
    fault_arm birch "journal.$MOMENT" stop 1
    await 20 fault_was_hit birch || fail "nothing is applied"
    birch 'set -- $(understudy-disk list | sed -n "s/^vbd-[0-9]*-51728 *[^ ]* *\([0-9]*\).*/\1/p")
        grep -q "^State:.T" "/proc/$1/status" && exit
        kill -CONT $(pgrep -x understudy-disk)
        exit 1'
}
case $MOMENT in
applying | written)
    guest_type alder disk 'i=0; while :; do printf step-%08d $i | dd of=/dev/xvdb bs=512 seek=$((1 + i % 64)) conv=notrunc,sync,fsync 2>/dev/null; i=$((i + 1)); done &'
    await 30 has_steps 100 || fail "the guest does not write"
    ;;
esac
epochs_are() { [ "$(status_of alder disk epoch)" -ge "$1" ]; }
await 20 epochs_are $(($(status_of alder disk epoch) + 3)) || fail "no epochs"
birch 'ls -l /var/lib/understudy/cold /var/lib/understudy/disk'
case $MOMENT in
both)
    "$LAB" kill birch
    "$LAB" kill alder
    "$LAB" start birch
    ;;
applying | written)
    await 60 writer_stands || fail "it is always the other disk"
    "$LAB" kill birch
    say "step $(steps_last alder) was the last when birch's plug was pulled"
    "$LAB" kill alder
    "$LAB" start birch
    ;;
alone)
    "$LAB" kill birch
    await 20 state_is alder disk Degraded || fail "alder is not Degraded"
    "$LAB" kill alder
    "$LAB" start birch
    ;;
agent)
    birch 'kill -KILL $(pgrep -f "[u]nderstudyd agent backup")' || fail "no agent"
    "$LAB" kill alder
    ;;
esac
silent() { birch understudy events | grep -q 'silent.*--from-disk'; }
await 40 silent || fail "birch does not say what can be done"
out=$(birch understudy takeover disk 2>&1) && fail "taken over without memory"
say "$out"
grep -q -- '--from-disk' <<<"$out" || fail "it does not say what can be done"
# The shell, if there is one still, is being removed.
starts() {
    out=$(birch understudy takeover disk --from-disk 2>&1) ||
        ! grep -q 'cleared up' <<<"$out"
}
await 20 starts
say "$out"
grep -q 'as they were at epoch [0-9]*, [0-9]* s ago' <<<"$out" || fail "not started"
state_is birch disk TakenOver || fail "birch is $(status_of birch disk state)"
case $MOMENT in
applying | written)
    steps_of birch >"$WORK/steps"
    last=$(steps_last birch)
    awk -F- -v last="$last" '
        $2 + 0 != last - (last - (NR - 1)) % 64 { print "sector " NR ": step " $2 + 0; bad = 1 }
        END { exit bad }' "$WORK/steps" || fail "the disk is of no moment, with step $last"
    say "the disk is as it was at step $last, whole"
    ;;
esac
birch understudy status disk
birch xl list
await 20 guest_serves "$DISK" || fail "disk does not answer"
await 6 domain_there birch disk || fail "the domain is not named disk"
guest_type birch disk 'echo; dd if=/dev/xvdb bs=512 count=1; echo'
await 20 console_says birch 'written-before' || fail "what was written is not there"
console_says birch 'I/O error' && fail "the guest saw an error"
birch 'tail -n 5 /run/understudy/disk/*.log; ls /var/lib/understudy/disk /var/lib/understudy/cold'
