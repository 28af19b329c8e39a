# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
# The disk of alder fills up while the first copy of web is made: `protect` says
# why it failed, what the guest's output was held for is given up, and it flows;
# nothing of ours is left on either host.
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
start_from running
client_start "$WEB"
fault_arm alder primary.shell stop
alder understudy protect web birch --arbiter none >"$WORK/out" 2>&1 &
protecting=$!
await 10 fault_was_hit alder || fail "no first copy"
# The record stays readable; no other can be written in its place.
alder 'cd /var/lib/understudy && cp -a vms /tmp/ && rm vms/* &&
    mount -t tmpfs -o size=16k,mode=0700 understudy-test vms && cp -a /tmp/vms/. vms/ &&
    ! dd if=/dev/zero of=vms/.full bs=4k 2>/dev/null' || fail "it is not full"
agent_goes_on
wait $protecting && fail "protect did not fail: $(cat "$WORK/out")"
say "$(cat "$WORK/out")"
grep -q "the record of web can't be written.*No space" "$WORK/out" || fail "does not say why"
client_goes_on 40 10 || fail "the guest's output does not flow"
client_end || fail "an answer was lost, or doubled"
alder rm /var/lib/understudy/vms/.full || fail "rm"
await 6 alder_is_clean || fail "something is left on alder"
alder umount /var/lib/understudy/vms || fail "umount"
await 6 host_is_clean birch || fail "something is left on birch"
