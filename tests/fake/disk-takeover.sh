# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# A VM with a disk: its host dies, also while an epoch is on its way, or birch's
# disk server or agent dies in the middle of the takeover. Birch has memory and
# disk of one moment, that of an acknowledged epoch.
# moments: plain engine.before_commit engine.acked replica.before_ack server takeover.marked takeover.state_set takeover.recorded
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=plain}"
disk_start_protected
hit() { test -e "$WORK/$1/run/understudy/faults.hit"; }
steps=$(steps_committed alder web) || fail "no epochs"
[ "$(status_of alder web disks.bytes)" = $(((DISK_MB << 20) + 153600)) ] || fail "status shows $(status_of alder web disks)"
case $MOMENT in
engine.*) # alder stands still there
    fault_arm alder "$MOMENT" stop
    await 10 hit alder || fail "$MOMENT is not reached"
    ;;
replica.*) # an epoch is in birch's journal, and not acknowledged
    fault_arm birch "$MOMENT" hold
    await 10 hit birch || fail "$MOMENT is not reached"
    ;;
takeover.*) fault_arm birch "$MOMENT" kill ;;
esac
disk_host_die alder
case $MOMENT in
replica.*)
    await 10 grep -q 'event=takeover' "$WORK/birch.log" || fail "no takeover"
    rm "$WORK/birch/run/understudy/faults.hit"
    ;;
server) # between the last epoch and the takeover
    kill -KILL "$(disk_server birch)" || fail "birch has no disk server"
    ;;
takeover.*) await 10 hit birch || fail "no takeover" ;;
esac
disk_taken_over_well birch web "$steps"
grep -q 'is what the image holds' "$WORK"/birch/run/understudy/disk/*.log || fail "no disk was promoted"
image_is_plain birch || fail "the image is still a replica's"
