# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# A host's disk is full when its agent has to ask the witness: what can't be
# written down is not sent, so nothing is won and nothing is taken over; it is
# said, and done as soon as there is room. One whose disk fills up between the
# claim and the takeover goes on, as without an arbiter. A VM is not Protected
# before that can be written, and an old copy is paused though it can't.
# moments: alder birch birch-later alder-first alder-returns
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=alder}"
host=${MOMENT%-*}
three_make
disk=$WORK/$host/var/lib/understudy
kill "$(daemon_pid "$host")"
await 5 host_is_dead "$host" || fail "$host does not end"
mount -t tmpfs -o size=64k understudy-test "$disk" || {
    say "no tmpfs can be mounted"
    exit 77
}
ended() {
    local rc=$?
    umount -l "$disk"
    (exit $rc)
    arbiter_exit
}
trap ended EXIT
daemon_start "$host"
await 5 arbiter_is_up "$host" || fail "$host can't ask the witness"
await 10 peer_is_up alder birch || fail "the hosts do not find each other"
await 10 peer_is_up birch alder || fail "the hosts do not find each other"
guest_make alder web
fill() { dd if=/dev/zero of="$disk/full" bs=4k >/dev/null 2>&1; }
if [ "$MOMENT" = alder-first ]; then
    fault_arm alder primary.shell stop
    us alder protect web birch >"$WORK/out" 2>&1 &
    protecting=$!
    await 10 test -e "$WORK/alder/run/understudy/faults.hit" || fail "no first copy"
    await 2 stands_still alder || fail "it does not stand still"
    fill
    kill -CONT "$STOPPED"
    wait $protecting && fail "Protected, and a successor would not know"
    say "$(cat "$WORK/out")"
    grep -q "the record of web can't be written.*No space" "$WORK/out" || fail "does not say why"
    [ "$(state_count alder web Protected)" = 0 ] || fail "it was Protected"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    await 5 host_is_clean alder || fail "something is left on alder"
    await 5 host_is_clean birch || fail "something is left on birch"
    [ "$(event_count alder 'agent-restart\|agent-died')" = 0 ] || fail "its agent gave up"
    rm "$disk/full"
    protect_with_arbiter alder web birch
    exit 0
fi
protect_with_arbiter alder web birch
watch_start
steps=$(steps_committed alder web) || fail "no epochs"
case $MOMENT in
alder)
    fill
    host_die birch
    await 5 lease_is alder web asking || fail "alder's lease is $(status_of alder web lease)"
    await 5 event_count alder 'nothing is asked for before it is written' || fail "nothing was said"
    holds 2 record_is 1 alder true || fail "it was asked: $(witness list)"
    us alder status web | grep -q "^Record: *its record can't be written.*No space" || fail "status says $(us alder status web)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    rm "$disk/full"
    await 5 record_is 2 alder true || fail "alder did not win: $(witness list)"
    await 5 state_is alder web Degraded || fail "alder is $(us alder status web)"
    is_written() { us alder status web --json | jq -e '.[0].answers and (.[0].unsaved == null)'; }
    await 5 is_written || fail "it is still not written: $(us alder status web)"
    await 5 runs_free alder || fail "alder does not run it"
    ;;
birch)
    fill
    host_die alder
    await 5 event_count birch 'nothing is asked for before it is written' || fail "nothing was said"
    holds 2 record_is 1 alder true || fail "it was asked: $(witness list)"
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
    rm "$disk/full"
    taken_over_well birch web "$steps"
    await 5 record_is 2 birch true || fail "the witness has $(witness list)"
    ;;
alder-returns)
    host_die alder
    taken_over_well birch web "$steps"
    guest alder destroy web
    rm -rf "$WORK/alder/run"
    fill
    guest alder create web >/dev/null || fail "create"
    guest_run alder web
    daemon_start alder
    is_paused() { domains alder | grep -q '^web paused'; }
    await 5 is_paused || fail "it runs: $(us alder status web)"
    holds 2 is_paused || fail "it runs again"
    await 5 event_count alder 'No space left on device' || fail "it could be written"
    rm "$disk/full"
    await 10 state_is alder web Fenced || fail "alder is $(us alder status web)"
    is_paused || fail "it runs: $(domains alder)"
    ;;
birch-later)
    fault_arm birch lease.answered stop
    host_die alder
    await 10 test -e "$WORK/birch/run/understudy/faults.hit" || fail "birch does not ask"
    fill
    await 2 stands_still birch || fail "it does not stand still"
    kill -CONT "$STOPPED"
    taken_over_well birch web "$steps"
    await 5 record_is 2 birch true || fail "the witness has $(witness list)"
    say "== its agent dies before it could be written down =="
    agent=$(agent_pid birch web)
    kill -9 "$agent"
    another_agent() { [ "$(agent_pid birch web)" -ne "$agent" ]; }
    await 5 another_agent || fail "no new agent"
    await 5 state_is birch web TakenOver || fail "the successor does not know"
    await 5 guest_goes_on birch web || fail "the guest does not go on"
    await 5 record_is 2 birch true || fail "the witness has $(witness list)"
    ;;
esac
case $MOMENT in
alder | birch) [ "$(event_count "$host" agent-restart)" = 0 ] || fail "its agent gave up" ;;
esac
never_twice
