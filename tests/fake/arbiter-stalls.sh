# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# Any process of alder, birch, or the witness stands still for up to 0.8 of the
# timeout, again and again: nothing is taken over, the VM stays where it is. (A
# backup that is silent for half the timeout is done without for a while: that is
# alder's to win.) 25 stalls a moment: `make test-all T=fake/arbiter-stalls` is
# 1,000 of them. STALLS=N takes so many; SEED=N repeats the choice.
# moments: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40
. "$(dirname "$0")/../lib/arbiter.sh"
T=2000
three_protected
RANDOM=$((${SEED:=$$} % 1000 + ${MOMENT:=0} * 1000))
say "seed $SEED, moment $MOMENT"
stall() {
    local pids pid ms
    case $((RANDOM % 5)) in
    0) pids=("$WITNESS_PID") ;;
    1 | 2) mapfile -t pids < <(pids_of alder) ;;
    *) mapfile -t pids < <(pids_of birch) ;;
    esac
    # One of them, or all.
    pid=${pids[$((RANDOM % ${#pids[@]}))]}
    [ $((RANDOM % 2)) = 0 ] || pids=("$pid")
    kill -STOP "${pids[@]}"
    ms=$((RANDOM % 1401 + 200))
    sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
    kill -CONT "${pids[@]}"
    sleep "0.$((RANDOM % 4 + 2))"
}
for _ in $(seq "${STALLS:=25}"); do
    stall
    never_twice
done
await 20 state_is alder web Protected || fail "alder is $(us alder status web)"
[ "$(record holder)" = alder ] || fail "alder lost it: $(witness list)"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
say "generation $(record generation)"
await 5 guest_goes_on alder web || fail "the guest does not go on"
epochs_go_on alder web || fail "no epochs"
