# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The guest reboots, crashes or powers off: birch gives its replica up and
# never starts it; the next start of the VM is protected again.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
times=1
replica_is_gone() { ! domains birch | grep -q replica; }
protected_times() { [ "$(state_count alder web Protected)" -ge "$1" ] && state_is alder web Protected; }
for end in 1 3 0; do # enum hv_shutdown: reboot, crash, poweroff
    say "== shutdown $end =="
    guest alder 'do' web shutdown $end
    await 5 state_is alder web Unprotected || fail "alder does not say so"
    await 5 replica_is_gone || fail "birch still has the replica"
    guest alder destroy web
    guest_stop alder web
    times=$((times + 1))
    guest_make alder web
    await 15 protected_times $times || fail "the next start is not protected"
done
say "== while birch is away =="
host_die birch
guest alder 'do' web shutdown 0
await 10 state_is alder web Unprotected || fail "alder waits for ever"
daemon_start birch
await 5 replica_is_gone || fail "birch still has the replica"
holds 2 replica_is_gone || fail "birch has a replica"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
