# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The backup's disk is full when it has to take over: it does, says so, and
# writes it down when it can; its successor knows all the same.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
disk=$WORK/birch/var/lib/understudy
kill "$(daemon_pid birch)"
await 5 host_is_dead birch || fail "birch does not end"
mount -t tmpfs -o size=64k understudy-test "$disk" || {
    say "no tmpfs can be mounted"
    exit 77
}
ended() {
    local rc=$?
    umount -l "$disk"
    (exit $rc)
    scenario_exit
}
trap ended EXIT
daemon_start birch
guest_make alder web
protect alder web birch
steps=$(steps_committed alder web) || fail "no epochs"
dd if=/dev/zero of="$disk/full" bs=4k >/dev/null 2>&1
host_die alder
taken_over_well birch web "$steps"
grep -q 'event=error.*No space left' "$WORK/birch.log" || fail "nothing was said"
say "== the agent dies before it could be written down =="
agent=$(agent_pid birch web)
kill -9 "$agent"
another_agent() { [ "$(agent_pid birch web)" -ne "$agent" ]; }
await 5 another_agent || fail "no new agent"
await 5 state_is birch web TakenOver || fail "the successor does not know"
[ "$(status_of birch web generation)" = 2 ] || fail "not the generation that was won"
await 5 guest_goes_on birch web || fail "the guest does not go on"
say "== there is room again =="
rm "$disk/full"
recorded() { grep -q TakenOver "$disk"/vms/*.json && ! ls "$WORK"/birch/run/understudy/*.takeover; }
await 5 recorded || fail "it is not written down"
kill -9 "$(agent_pid birch web)"
await 5 guest_goes_on birch web || fail "the guest does not go on"
await 5 state_is birch web TakenOver || fail "the record does not say so"
