# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# Somebody uses xl on a protected VM: named, never a takeover. A checkpoint (`xl
# save -c`) voids the replica, and the VM gets protected again; after save and
# destroy it is gone, and protection ends on both hosts. Images are whole.
# moments: checkpoint save destroy
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
image=/tmp/web.image
void() { alder 'understudy events' | grep -q 'void.*log-dirty'; }
again() { state_is alder web Protected && state_is birch web Protected; }
forgotten() { # HOST
    on "$1" '[ -z "$(ls /var/lib/understudy/vms)" ]'
}
case $MOMENT in
checkpoint)
    alder xl save -c web $image || fail "xl save -c"
    await 5 void || fail "the save went unseen"
    await 40 again || fail "not protected again"
    alder understudy unprotect web || fail "unprotect"
    alder xl destroy web || fail "xl destroy"
    ;;
save) alder xl save web $image || fail "xl save" ;;
destroy) alder xl destroy web || fail "xl destroy" ;;
esac
await 20 forgotten alder || fail "alder did not end protection"
await 20 forgotten birch || fail "birch did not end protection"
if [ "$MOMENT" != destroy ]; then
    alder xl restore $image || fail "the image can't be restored"
    await 10 guest_serves "$WEB" || fail "web does not answer"
fi
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
birch xl list | grep -q '^web ' && fail "birch runs web"
exit 0
