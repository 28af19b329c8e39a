# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Nothing can be written on the backup, not even the mark of a takeover, and
# the agent dies when it has just let the VM run. Its successor knows nothing,
# and that is no reason to destroy what may be the only runner: it says so, and
# keeps its hands off until a person has looked.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
disk=$WORK/birch/var/lib/understudy run=$WORK/birch/run/understudy
kill "$(daemon_pid birch)"
await 5 host_is_dead birch || fail "birch does not end"
for dir in "$disk" "$run"; do
    mount -t tmpfs -o size=128k understudy-test "$dir" || {
        say "no tmpfs can be mounted"
        umount -l "$disk" 2>/dev/null
        exit 77
    }
done
ended() {
    local rc=$?
    umount -l "$disk" "$run"
    (exit $rc)
    scenario_exit
}
trap ended EXIT
daemon_start birch
guest_make alder web
protect alder web birch
steps=$(steps_committed alder web) || fail "no epochs"
fault_arm birch takeover.unpaused kill
agent=$(agent_pid birch web)
for dir in "$disk" "$run"; do
    dd if=/dev/zero of="$dir/full" bs=4k >/dev/null 2>&1
done
host_die alder
agent_is_dead() { ! kill -0 "$agent"; }
await 10 agent_is_dead || fail "no takeover"
ls "$run"/*.takeover 2>/dev/null && fail "it was written down: this tests nothing"
said() { grep -q 'web--replica runs here' "$WORK/birch.log"; }
await 10 said || fail "the successor does not say what it found"
holds 3 domains_are birch "web--replica running" || fail "birch has $(domains birch)"
rm "$disk/full" "$run/full"
await 10 state_is birch web Failed || fail "birch is $(status_of birch web state)"
us birch status web | grep -q 'web--replica runs here' || fail "status does not say why"
say "== the primary's host is back and wants to go on =="
daemon_start alder
refused() { grep -q 'session from alder ended: web--replica runs here' "$WORK/birch.log"; }
await 10 refused || fail "alder is not refused"
domains_are birch "web--replica running" || fail "birch has $(domains birch)"
guest birch check web--replica || fail "it is not a consistent cut"
[ "$(guest birch steps web--replica)" -ge "$steps" ] || fail "it is too old"
say "== somebody has looked, and destroyed it =="
guest birch destroy web--replica
guest_run alder web
await 20 state_is alder web Protected || fail "not Protected again"
