# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Agents, daemons and the witness are killed or stopped, cables are cut and
# healed, at random. Never do both hosts run the VM with its output released;
# when all is well again one of them runs it. SEED=N repeats the choice as far as
# timing lets it, CHAOS=N takes so many steps.
. "$(dirname "$0")/../lib/arbiter.sh"
three_protected
RANDOM=${SEED:=$$}
say "seed $SEED"
declare -A CUT
host_any() { [ $((RANDOM % 2)) = 0 ] && echo alder || echo birch; }
daemons_keep() {
    local host
    for host in alder birch; do
        pids_of $host | grep -qx "$(daemon_pid $host)" || daemon_start $host
    done
}
cable_any() {
    local cables=(link alder-witness birch-witness)
    echo "${cables[$((RANDOM % 3))]}"
}
step() {
    local host pid pids cable
    case $((RANDOM % 9)) in
    0 | 1)
        host=$(host_any)
        mapfile -t pids < <(pids_of "$host")
        [ ${#pids[@]} -gt 0 ] || return 0
        pid=${pids[$((RANDOM % ${#pids[@]}))]}
        say "$EPOCHREALTIME kill $pid of $host"
        kill -9 "$pid" 2>/dev/null
        ;;
    2)
        host=$(host_any)
        mapfile -t pids < <(pids_of "$host")
        say "$EPOCHREALTIME stop all of $host"
        kill -STOP "${pids[@]}" 2>/dev/null
        sleep "$((RANDOM % 3)).$((RANDOM % 10))"
        kill -CONT "${pids[@]}" 2>/dev/null
        ;;
    3)
        if witness_is_dead; then
            say "$EPOCHREALTIME the witness starts"
            witness_start
        else
            say "$EPOCHREALTIME the witness dies"
            witness_kill
        fi
        ;;
    4 | 5 | 6)
        cable=$(cable_any)
        if [ -n "${CUT[$cable]:-}" ]; then
            say "$EPOCHREALTIME heal $cable"
            cable_heal "$cable" && unset "CUT[$cable]"
        else
            say "$EPOCHREALTIME cut $cable"
            cable_cut "$cable" && CUT[$cable]=1
        fi
        ;;
    *) sleep "$((RANDOM % 2)).$((RANDOM % 10))" ;;
    esac
    return 0
}
for _ in $(seq "${CHAOS:=30}"); do
    step
    daemons_keep
    never_twice
done
say "== quiet =="
for cable in "${!CUT[@]}"; do cable_heal "$cable"; done
! witness_is_dead || witness_start
one_runs() {
    daemons_keep
    state_is alder web Protected || state_is birch web TakenOver
}
# A claim that was on its way is decided when the witness answers, and then a copy of
# the generation before is worth nothing and made anew.
lasts() { holds 2 one_runs; }
asked() { state_is "$1" web Fenced || us "$1" status web | grep -q '^ *arbiter: *answers'; }
await 60 asked alder || fail "alder does not ask the witness"
await 60 lasts || fail "alder: $(us alder status web) birch: $(us birch status web)"
never_twice
if state_is birch web TakenOver; then
    domain_is_running birch web || fail "birch has $(domains birch)"
    guest birch check web || fail "web on birch is not a consistent cut"
    await 20 state_is alder web Fenced || fail "alder is $(us alder status web)"
    guest_stands alder web || fail "alder's copy runs"
else
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    epochs_go_on alder web || fail "no epochs"
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch had taken it over"
fi
say "in the end: alder $(status_of alder web state), birch $(status_of birch web state)"
holds 2 one_runs || fail "it does not last"
never_twice
