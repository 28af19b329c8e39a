# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The witness is lost, and then a host or the link: nobody can know who may run
# the VM alone. The guest goes on running where it is, its output is held, and
# the state says so; nothing is taken over. When the witness is back one of
# them wins; when the link is back first, protection goes on with nothing won.
# A backup's agent that hangs meanwhile is not killed.
# moments: link-witness link-link alder birch
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=link-witness}"
three_protected
steps=$(steps_committed alder web) || fail "no epochs"
witness_kill
lost() { [ "$(us "$1" status web --json | jq '.[0].arbiter_up')" = false ]; }
await 5 lost alder || fail "alder does not notice"
await 5 lost birch || fail "birch does not notice"
held() {
    state_is alder web Degraded && lease_is alder web asking &&
        us alder status web | grep -q 'its output is held'
}
case $MOMENT in
link-*)
    cable_cut link
    await 5 held || fail "alder is $(us alder status web)"
    await 5 lease_is birch web claiming || fail "birch is $(status_of birch web lease)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    holds 2 held || fail "alder does not hold out"
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
    us birch takeover web --force >"$WORK/forced" 2>&1 && fail "birch takes over without the witness"
    grep -q 'can.t be taken over now' "$WORK/forced" || fail "it says $(cat "$WORK/forced")"
    ;;
alder)
    host_die alder
    await 5 lease_is birch web claiming || fail "birch is $(status_of birch web lease)"
    await 5 state_is birch web Degraded || fail "birch is $(us birch status web)"
    us birch status web | grep -q 'the arbiter does not answer' || fail "it does not say why"
    holds 2 lease_is birch web claiming || fail "birch does not wait"
    # The daemon does not end it for that: it holds the only copy.
    agent=$(agent_pid birch web)
    kill -STOP "$agent"
    await 30 event_count birch 'event=agent-hangs .*it is let be while alder is silent' || fail "nothing was said: $(us birch events)"
    kill -CONT "$agent"
    ;;
birch)
    host_die birch
    await 5 held || fail "alder is $(us alder status web)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    ;;
esac
case $MOMENT in
link-link)
    cable_heal link
    await 15 state_is alder web Protected || fail "protection did not return"
    epochs_go_on alder web || fail "no epochs"
    await 5 lease_is birch web standby || fail "birch is $(status_of birch web lease)"
    witness_start
    record_is 1 alder true || fail "something was won: $(witness list)"
    await 5 arbiter_is_up alder || fail "alder does not find it again"
    epochs_go_on alder web || fail "no epochs after the witness is back"
    record_is 1 alder true || fail "something was won: $(witness list)"
    ;;
*)
    witness_start
    await 10 runs_somewhere || fail "nobody runs it"
    case $MOMENT in
    alder) taken_over_well birch web "$steps" ;;
    birch) await 5 record_is 2 alder true || fail "the witness has $(witness list)" ;;
    esac
    ;;
esac
never_twice
