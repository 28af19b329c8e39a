# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# Somebody uses xl on a protected VM: named, never a takeover. A checkpoint (`xl
# save -c`) voids the replica, and the VM gets protected again, also where both
# want the guest to suspend at the same time; after save and destroy it is gone,
# and protection ends on both hosts. Images are whole.
# moments: checkpoint as-one theirs-first save destroy
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
image=/tmp/web.image
# An agent that stood still for too long says it in the log alone: it is Degraded
# already.
named() {
    alder 'cat /var/log/understudyd.log; understudy events' |
        grep -q 'void.*log-dirty\|skipped.*suspended by somebody else'
}
again() {
    [ "$(alder understudy events | grep -c ' Protected (was')" -ge 2 ] &&
        state_is alder web Protected && state_is birch web Protected
}
forgotten() { # HOST
    on "$1" '[ -z "$(ls /var/lib/understudy/vms)" ]'
}

asked() {
    alder '[ "$(xenstore-read /local/domain/$(xl domid web)/control/shutdown)" = suspend ]'
}
save_begin() {
    alder "xl -vvv save -c web $image >/tmp/save.log 2>&1; echo status \$? >>/tmp/save.log" &
    saver=$!
}
save_says() { # TEXT
    alder "grep -q '$1' /tmp/save.log"
}
save_end() {
    wait "$saver"
    alder 'grep -v "xc: detail\|: debug:.*watch" /tmp/save.log | tail -n 20'
    save_says '^status 0' || fail "xl save -c"
    alder "grep -q 'suspended by somebody else' /var/log/understudyd.log" ||
        fail "its suspend was taken for ours"
}

case $MOMENT in
checkpoint) alder xl save -c web $image || fail "xl save -c" ;;
as-one) # The guest takes our request and theirs as one.
    agent_stops suspend.asking
    alder xl pause web
    agent_goes_on
    await 10 asked || fail "the agent did not ask"
    save_begin
    await 20 save_says 'suspend request via XenBus' || fail "xl did not ask"
    alder xl unpause web
    save_end
    ;;
theirs-first) # We had looked, and were about to ask.
    agent_stops suspend.asking
    save_begin
    await 20 save_says 'guest has suspended' || fail "the guest did not suspend"
    agent_goes_on
    save_end
    ;;
save) alder xl save web $image || fail "xl save" ;;
destroy) alder xl destroy web || fail "xl destroy" ;;
esac
if [ "$MOMENT" != save ] && [ "$MOMENT" != destroy ]; then
    await 5 named || fail "the save went unseen"
    await 40 again || fail "not protected again"
    alder understudy unprotect web || fail "unprotect"
    alder xl destroy web || fail "xl destroy"
fi
await 20 forgotten alder || fail "alder did not end protection"
await 20 forgotten birch || fail "birch did not end protection"
if [ "$MOMENT" != destroy ]; then
    alder xl restore $image || fail "the image can't be restored"
    await 10 guest_serves "$WEB" || fail "web does not answer"
fi
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
birch xl list | grep -q '^web ' && fail "birch runs web"
exit 0
