# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Any process of alder, birch, or the witness stands still for up to 0.8 of the
# timeout, again and again: nothing is taken over, the VM stays where it is. (A
# backup that is silent for half the timeout is done without for a while: that is
# alder's to win.) STALLS=N takes so many; SEED=N repeats the choice.
. "$(dirname "$0")/../lib/arbiter.sh"
three_protected
RANDOM=${SEED:=$$}
say "seed $SEED"
stall() {
    local pids pid
    case $((RANDOM % 5)) in
    0) pids=("$WITNESS_PID") ;;
    1 | 2) mapfile -t pids < <(pids_of alder) ;;
    *) mapfile -t pids < <(pids_of birch) ;;
    esac
    # One of them, or all.
    pid=${pids[$((RANDOM % ${#pids[@]}))]}
    [ $((RANDOM % 2)) = 0 ] || pids=("$pid")
    kill -STOP "${pids[@]}"
    sleep "0.$((RANDOM % 71 + 10))"
    kill -CONT "${pids[@]}"
    sleep "0.$((RANDOM % 5))"
}
for _ in $(seq "${STALLS:=25}"); do
    stall
    never_twice
done
await 20 state_is alder web Protected || fail "alder is $(us alder status web)"
[ "$(record holder)" = alder ] || fail "alder lost it: $(witness list)"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
say "generation $(record generation)"
guest_goes_on alder web || fail "the guest does not go on"
epochs_go_on alder web || fail "no epochs"
