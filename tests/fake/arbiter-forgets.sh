# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The witness has forgotten the VM, or remembers what is older than what the
# hosts know: that is found out while nothing else is wrong, and said; protection
# goes on, nobody can win anything, and a lost peer is a reason to keep still.
# moments: forgotten another old
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=forgotten}"
three_protected
says() { # HOST TEXT
    us "$1" status web | grep -q -- "$2"
}
case $MOMENT in
forgotten)
    witness forget 77656200-0000-0000-0000-000000000001 || fail "forget"
    await 15 says alder "can't be asked: the arbiter .* has no record of this VM" || fail "alder does not say so: $(us alder status web)"
    await 15 says birch 'has no record of this VM' || fail "birch does not say so"
    us alder events | grep -q 'has no record of this VM' || fail "no event says so"
    ;;
another)
    witness_kill
    rm "$WORK/witness/state"
    witness init >/dev/null || fail "init"
    witness_start
    await 15 says alder 'has no record of this VM' || fail "alder does not say so: $(us alder status web)"
    ;;
old)
    cp "$WORK/witness/state" "$WORK/old"
    cable_cut link
    await 5 record_is 2 alder true || fail "alder did not win"
    cable_heal link
    await 20 state_is alder web Protected || fail "protection did not return"
    witness_kill
    cp "$WORK/old" "$WORK/witness/state"
    witness_start
    await 5 says alder 'is sealed: the state is a copy' || fail "alder does not say so: $(us alder status web)"
    witness status | grep -q 'sealed, it grants nothing' || fail "the witness does not say so"
    witness unseal >/dev/null || fail "unseal"
    # What it remembers is older than what they know, whatever was said.
    await 15 says alder 'is sealed: a host knows generation 2' || fail "it is not sealed again: $(us alder status web)"
    ;;
esac
epochs_go_on alder web || fail "no epochs"
host_die birch
held() { state_is alder web Degraded && says alder 'its output is held'; }
await 5 held || fail "alder is $(us alder status web)"
await 5 guest_goes_on alder web || fail "the guest does not go on"
holds 2 held || fail "alder does not hold out"
never_twice
