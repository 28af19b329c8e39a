# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The backup's disk server is killed under a protected VM: the guest sees no
# error, the replica is void and made again, and then it is worth as much as the
# first. Of the primary's: disk-server-again.sh.
# moments: backup duty.prepared journal.applying journal.written
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=backup}"
disk_start_protected
steps_committed alder web >/dev/null || fail "no epochs"
case $MOMENT in
backup) kill -KILL "$(disk_server birch)" ;;
*) fault_arm birch "$MOMENT" kill ;;
esac
voided() { grep -q 'event=void' "$WORK/alder.log"; }
await 10 voided || fail "the replica is not void"
protected_again() { [ "$(state_count alder web Protected)" -ge 2 ]; }
await 20 protected_again || fail "protection did not return"
disk_goes_on alder web || fail "the guest does not go on"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
disk_taken_over_well birch web "$steps"
