# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# alder's agent dies, or hangs, at the moment when birch is lost and somebody has
# to claim: nobody does it in its place, its successor does, within the bound of
# docs/failure-model.md. With the link cut instead, birch runs it meanwhile.
# moments: dies hangs hangs-link
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=dies}"
three_protected
agent=$(agent_pid alder web)
start=$(now_ms)
case $MOMENT in
dies) kill -KILL "$agent" ;;
*) kill -STOP "$agent" ;;
esac
if [ "$MOMENT" = hangs-link ]; then
    cable_cut link
    await 5 runs_free birch || fail "birch does not take over"
    await 20 lease_is alder web fenced || fail "alder is $(us alder status web)"
    guest_stands alder web || fail "alder's copy runs"
    record_is 2 birch true || fail "record: $(witness list)"
else
    host_die birch
    await 25 runs_free alder || fail "alder is $(us alder status web)"
    took=$(($(now_ms) - start))
    say "output is out $took ms after the agent was lost"
    # Until it is ended, 0.2 s, T for the claim; and 2 s for a loaded machine.
    bound=$((200 + T + 2000))
    [ "$MOMENT" = dies ] || bound=$((bound + 10000))
    [ $took -lt $bound ] || fail "later than $bound ms"
    record_is 2 alder || fail "record: $(witness list)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
fi
never_twice
