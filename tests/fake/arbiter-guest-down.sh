# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# With a witness: the guest reboots, crashes, powers off, is destroyed, or
# somebody else turns its log-dirty off (`xl save`). It is named, birch gives its
# replica up or gets a new one, and has nothing to win: not at the witness, and
# not by alder's death right after it. With birch away alder wins first.
. "$(dirname "$0")/../lib/arbiter.sh"
three_protected
times=1
replica_is_gone() { ! domains birch | grep -q replica; }
protected_times() { [ "$(state_count alder web Protected)" -ge "$1" ] && state_is alder web Protected; }
said() { [ "$(event_count alder "$1")" -gt 0 ]; }
down() { # 1, 3, 0: reboot, crash, poweroff (enum hv_shutdown); or destroy
    say "== $1 =="
    if [ "$1" = destroy ]; then
        guest alder destroy web
        guest_stop alder web
    else
        guest alder 'do' web shutdown "$1"
    fi
    await 20 state_is alder web Unprotected || fail "alder does not say so: $(us alder status web)"
    say "$(us alder status web | grep '^State:')"
}
for end in 1 3 0 destroy; do
    down $end
    await 5 replica_is_gone || fail "birch still has the replica"
    if [ $end != destroy ]; then
        guest alder destroy web
        guest_stop alder web
    fi
    times=$((times + 1))
    guest_make alder web
    await 15 protected_times $times || fail "the next start is not protected"
    [ "$(record holder)" = alder ] || fail "the witness has $(witness list)"
done
say "== somebody's xl save =="
guest alder 'do' web logoff 1
await 10 said 'event=void' || fail "the replica is not void"
await 20 state_is alder web Protected || fail "protection did not return"
say "== while birch is away: first alder wins, then it takes effect =="
generation=$(record generation)
host_die birch
down 0
[ "$(record generation)" -gt "$generation" ] || fail "alder has not asked: $(witness list)"
[ "$(record holder)" != birch ] || fail "the witness has $(witness list)"
daemon_start birch
await 5 replica_is_gone || fail "birch still has the replica"
host_die alder
holds 3 replica_is_gone || fail "birch has a replica"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
never_twice
